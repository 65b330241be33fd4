//! Everything that an agent reads of what others wrote. `cargo xtask fuzz` runs these for long.

/// Inputs that each target tries at random in every run of the tests, after its corpus.
const CASES: usize = 1000;

#[path = "fuzz/device.rs"]
mod device;
