//! The server from outside.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as it should be"
)]

mod api;
mod edge;
mod fuzz;
mod oracle;
