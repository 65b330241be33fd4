//! The actors of fleetd: machines that decide, and the one shell that joins them to drivers that act.
//!
//! Each device, rollout, log stream, registration and workload is a machine in a file of its own. Machines are pure:
//! no IO, no async, no clock. A [`cell::Cell`] runs one machine with its driver and releases a turn's effects once
//! its records are durable; it is the same piece of code under every engine. With the feature `shell`, the ractor
//! actor of [`shell`] gives each cell a mailbox, a timer and supervision; the simulator steps cells bare.
//!
//! Where to start reading: [`cell`], then one machine.

pub mod address;
pub mod agent;
pub mod audit;
pub mod authority;
pub mod cell;
pub mod device;
pub mod directory;
pub mod driver;
pub mod engine;
pub mod flight;
pub mod lobby;
mod log_layout;
pub mod log_record;
pub mod log_spool;
pub mod log_stream;
pub mod orders;
pub mod registration;
pub mod release_queue;
pub mod report;
pub mod rollout;
pub mod selector;
pub mod spawn;
pub mod targeting;
pub mod window;
pub mod workload;

#[cfg(feature = "shell")]
pub mod shell;
