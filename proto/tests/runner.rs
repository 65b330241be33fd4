//! What the schemas promise each other, checked over their descriptors.

#![expect(clippy::expect_used, reason = "a test stops at the first thing that is not as it should be")]

mod rule;
mod schema;
