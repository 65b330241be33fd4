//! What operators see of the command line: its words, its errors, its exit codes, and whom it believes.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

mod audit;
mod context;
mod error;
mod explain;
mod help;
mod login;
mod platform;
mod rehearse;
mod serve;
mod server;
mod sim;
mod trust;
mod view;
