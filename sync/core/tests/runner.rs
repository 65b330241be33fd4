//! The integration tests of this crate, in one binary.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot set itself up should stop")]

mod fuzz {
    //! Everything that this crate reads of what others wrote. `cargo xtask fuzz` runs these for long.

    /// Inputs that each target tries at random in every run of the tests, after its corpus.
    const CASES: usize = 2000;
    /// The same where each is a run of its own.
    const CASES_SLOW: usize = 200;

    mod audit;
    mod configuration;
    mod envelope;
    mod release;
    mod replica;
    mod text;
    mod trust;
}
mod lanes {
    mod clone;
    mod crash;
    mod layout;
    mod order;
    mod receive;
    mod resolving;
    mod viewing;
    mod world;
}
mod trust {
    mod artifact;
    mod chain;
    mod enrolment;
    mod golden;
    mod release;
    mod roster;
    mod world;
}
