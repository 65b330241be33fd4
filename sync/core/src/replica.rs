//! A node's documents, and what a peer's Hello says of them.
