//! The integration tests of this crate, in one binary.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

mod fuzz {
    //! Everything that this crate reads of what others wrote. `cargo xtask fuzz` runs these for long.

    /// Inputs that each target tries at random in every run of the tests, after its corpus.
    const CASES: usize = 2000;
    /// The same where each is a run of its own.
    const CASES_SLOW: usize = 200;

    mod certificate;
    mod frame;
    mod session;
}
mod identity {
    mod certificate;
    mod handshake;
    pub(crate) mod world;
}
