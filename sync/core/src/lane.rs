//! Lanes: one writer's signed, hash-linked changes to one document.
