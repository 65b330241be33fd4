//! Everything that a server reads of what others wrote. `cargo xtask fuzz` runs these for long.

/// Inputs that each target tries at random in every run of the tests, after its corpus.
const CASES: usize = 2000;
/// The same where each is a request to a server.
const CASES_SLOW: usize = 200;

mod backup;
mod connect;
mod record;
