//! Tests of the engine in which machines run.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

mod shell;
