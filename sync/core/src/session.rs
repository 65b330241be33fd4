//! One peer's half of a sync session.
