//! Whose word counts: the root chain, its delegations, and revocations.
