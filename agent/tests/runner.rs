//! Shims, runs and probes with real processes.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

#[path = "runner/device.rs"]
mod device;
#[path = "runner/node.rs"]
mod node;
#[path = "runner/probe.rs"]
mod probe;
#[path = "runner/run.rs"]
mod run;
#[path = "runner/survival.rs"]
mod survival;
