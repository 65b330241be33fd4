//! chaos-tests.
