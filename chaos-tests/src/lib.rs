//! Real processes under real faults: the binary that ships, killed, cut off and brought back.
//!
//! A [`cluster::Cluster`] is one `fleetd serve` and its agents, each a process with its own directories, talking
//! over loopback. Tests speak to it only as an operator does, through the command line with `--json`. What is found
//! here belongs, where it can, into a scenario of the simulator, which finds it again in milliseconds.

#![expect(clippy::indexing_slicing, reason = "JSON that lacks a field gives null, and never panics")]

pub mod binary;
pub mod cluster;
pub mod process;
pub mod secret;
pub mod udp_proxy;
