//! The integration tests of this crate, in one binary.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot set itself up should stop")]

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
