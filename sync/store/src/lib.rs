//! sync/store.
