//! Tests of the engine in which machines run.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]
#![expect(missing_docs, reason = "test code")]

mod shell;
