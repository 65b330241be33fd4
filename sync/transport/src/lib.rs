//! sync/transport.
