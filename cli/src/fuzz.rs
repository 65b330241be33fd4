//! What an operator types and keeps in files, which may come from anybody. `cargo xtask fuzz` runs these for long: they are
//! unit tests, because a program beside them could not be linked with counters and without a fuzzer.

/// Inputs that each target tries at random in every run of the tests, after its corpus.
const CASES: usize = 1000;

mod argument;
mod operator_file;
mod scenario;
