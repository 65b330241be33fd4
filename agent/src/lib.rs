//! What runs on a device: one agent, its workloads, and a shim for each of them.
//!
//! This crate drives; it decides little. Decisions are machines of `fleetd-actors`, wired in `node`; what they ask
//! for is done here, each part of the operating system behind a seam that a simulated twin can take the place of.
//! Nothing here keeps a workload alive: a workload belongs to its shim, and the agent may come and go.
//!
//! Where to start reading: [`node`] (what a device's node consists of), then [`runner`] (how workloads run) and [`shim`] (what holds them), [`install`] and
//! [`artifact_files`] (what is on the disk, and in which order it gets there), both standing on [`disk`].

pub mod artifact_files;
pub mod command;
pub mod config;
pub mod disk;
pub mod facts;
pub mod fetch;
pub mod identity_files;
pub mod identity_store;
pub mod install;
pub mod local_api;
pub mod node;
pub mod probe;
pub mod record;
pub mod runner;
pub mod shim;
pub mod support_bundle;

mod cause;
mod driver;
#[cfg(test)]
mod fuzz;
