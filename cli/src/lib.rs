//! `fleetd`, the one program: operator commands, and thin doors to the server and the agent.
//!
//! A command turns flags into requests of the public API, and answers into text for people or JSON for programs. It
//! decides nothing that the API does not say, with one exception: whatever is signed is signed here, on the operator's
//! machine, because the server has no right to.
//!
//! Where to start reading: [`command`] (what there is), [`client`] (how the API is reached and whom it believes),
//! [`output`] (what goes where), [`error`] (what people see when something fails).

pub mod client;
pub mod command;
pub mod confirm;
pub mod context;
pub mod demo;
pub mod error;
pub mod exit;
#[cfg(test)]
mod fuzz;
pub mod interrupt;
pub mod key_file;
pub mod output;
pub mod platform;
