//! Everything that an agent reads of what others wrote. `cargo xtask fuzz` runs these for long: they are
//! unit tests, because a program beside them could not be linked with counters and without a fuzzer.

/// Inputs that each target tries at random in every run of the tests, after its corpus.
const CASES: usize = 1000;

mod device;
mod workload;
