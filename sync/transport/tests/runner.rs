//! The integration tests of this crate, in one binary.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

mod identity {
    mod certificate;
    mod handshake;
    mod world;
}
