//! Tests of the engine in which machines run.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

mod fuzz {
    //! Everything that this crate reads of what others wrote. `cargo xtask fuzz` runs these for long.

    /// Inputs that each target tries at random in every run of the tests, after its corpus.
    const CASES: usize = 2000;

    mod plan;
    mod report;
}
mod shell;
