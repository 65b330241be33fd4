//! What a replica was sent, by what became of it.

use std::collections::BTreeMap;

use crate::lane::{Outcome, RefusalKind};

/// How many envelopes had which outcome since the replica began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Had their effect.
    pub applied: u64,
    /// Wait.
    pub parked: u64,
    /// Were held already.
    pub duplicate: u64,
    /// Were below their lane's head.
    pub stale: u64,
    /// Did not follow what is held.
    pub gaps: u64,
    /// Proved a fork.
    pub forked: u64,
    /// Need a newer agent.
    pub needs_agent: u64,
    /// Were refused, by kind.
    pub refused: BTreeMap<RefusalKind, u64>,
}

impl Counters {
    /// How many were refused for any reason.
    #[must_use]
    pub fn refusals(&self) -> u64 {
        self.refused.values().sum()
    }

    pub(super) fn count(&mut self, outcome: &Outcome) {
        let counter = match outcome {
            Outcome::Applied => &mut self.applied,
            Outcome::Parked => &mut self.parked,
            Outcome::Duplicate => &mut self.duplicate,
            Outcome::Stale => &mut self.stale,
            Outcome::Gap { .. } => &mut self.gaps,
            Outcome::Forked(_) => &mut self.forked,
            Outcome::NeedsAgent => &mut self.needs_agent,
            Outcome::Refused(refusal) => self.refused.entry(refusal.kind()).or_default(),
        };
        *counter = counter.saturating_add(1);
    }
}
