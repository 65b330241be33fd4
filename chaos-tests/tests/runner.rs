//! One binary for all tests with real processes; they take turns.
#![expect(clippy::indexing_slicing, reason = "a test fails by panicking")]

mod agent;
mod audit;
mod backup;
mod bad_input;
mod clone;
mod config;
mod demo;
mod device;
mod doctor;
mod github_action;
mod keys;
mod link;
mod material;
mod readme;
mod refused;
mod rehearsal;
mod rollback;
mod secret;
mod server;
mod site;
mod store;
mod support;
mod trust;
mod waiting;
mod waves;
