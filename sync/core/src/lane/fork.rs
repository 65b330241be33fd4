//! Proof that two hold one key.
//!
//! An honest writer draws a stamp when it takes the right to write, and never again writes under an older one. So
//! whoever writes under stamp *b* above a head of stamp *a* has begun after *a* had ended, and two things cannot
//! happen unless the key was cloned: two bodies at one position, and a circle of stamps of which each was written
//! above the next. Power cuts, restored disks and delay only ever add newer stamps above older ones.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::envelope::{Envelope, Head, Previous};
use crate::id::Stamp;
use crate::limit;

/// Signed envelopes of one lane that no single honest writer can have written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForkProof {
    /// Two bodies at one position.
    Rivals([Arc<[u8]>; 2]),
    /// Openers whose stamps stand above each other in a circle.
    Circle(Vec<Arc<[u8]>>),
}

impl ForkProof {
    /// The envelopes that prove it.
    #[must_use]
    pub fn envelopes(&self) -> &[Arc<[u8]>] {
        match self {
            Self::Rivals(rivals) => rivals,
            Self::Circle(openers) => openers,
        }
    }
}

/// An opener by which a stamp took the lane over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Takeover {
    pub(super) head: Head,
    pub(super) parent: Option<Head>,
    pub(super) bytes: Arc<[u8]>,
}

impl Takeover {
    /// Takes an opener, if it is written above another stamp or above nothing.
    pub(super) fn of(envelope: &Envelope) -> Option<Self> {
        let parent = match envelope.body.previous {
            Previous::Start => None,
            Previous::Parent(parent) if parent.position.stamp != envelope.body.position.stamp => Some(parent),
            Previous::Parent(_) | Previous::Link(_) => return None,
        };
        Some(Self { head: envelope.head(), parent, bytes: Arc::clone(&envelope.bytes) })
    }

    const fn stamp(&self) -> Stamp {
        self.head.position.stamp
    }

    fn below(&self) -> Option<Stamp> {
        self.parent.map(|parent| parent.position.stamp)
    }
}

/// The last takeovers of a lane, in the order of their positions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Takeovers(Vec<Takeover>);

impl Takeovers {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Takeover> {
        self.0.iter()
    }

    /// Says whether the opener was kept already.
    pub(super) fn contains(&self, head: Head) -> bool {
        self.0.iter().any(|takeover| takeover.head == head)
    }

    /// Says whether one more would be kept.
    pub(super) fn would_keep(&self, takeover: &Takeover) -> bool {
        let full = self.0.len() >= limit::LANE_OPENERS_KEPT;
        let below = self.0.first().is_some_and(|first| takeover.head < first.head);
        !(self.contains(takeover.head) || full && below)
    }

    /// Says whether `head` is on a branch that one of those that are kept was written above.
    pub(super) fn lead_from(&self, head: Head) -> bool {
        let parents = self.0.iter().filter_map(|takeover| takeover.parent.map(|parent| parent.position));
        parents.into_iter().any(|parent| parent.stamp == head.position.stamp && parent >= head.position)
    }

    /// Keeps one more, and of all the last few.
    pub(super) fn keep(&mut self, takeover: Takeover) {
        if self.contains(takeover.head) {
            return;
        }
        // Most lanes have one, and there are as many lanes as devices.
        self.0.reserve_exact(1);
        self.0.push(takeover);
        self.0.sort_by_key(|kept| kept.head);
        let surplus = self.0.len().saturating_sub(limit::LANE_OPENERS_KEPT);
        self.0.drain(..surplus);
    }

    /// The circle that `candidate` closes with those that are kept, if it does.
    pub(super) fn circle(&self, candidate: &Takeover) -> Option<Vec<Arc<[u8]>>> {
        let mut circle = vec![Arc::clone(&candidate.bytes)];
        self.path(candidate.below()?, candidate.stamp(), &mut BTreeSet::new(), &mut circle).then_some(circle)
    }

    /// Looks for takeovers that lead from stamp `from` down to stamp `to`.
    fn path(&self, from: Stamp, to: Stamp, seen: &mut BTreeSet<Stamp>, found: &mut Vec<Arc<[u8]>>) -> bool {
        if from == to {
            return true;
        }
        if !seen.insert(from) {
            return false;
        }
        for takeover in self.0.iter().filter(|takeover| takeover.stamp() == from) {
            let Some(below) = takeover.below() else { continue };
            found.push(Arc::clone(&takeover.bytes));
            if self.path(below, to, seen, found) {
                return true;
            }
            found.pop();
        }
        false
    }

    /// Says whether an opener was written by somebody who knew the state at `head`: by its own stamp, or by one
    /// above it. A chain has one branch in each epoch, so the epoch of `head` decides. Where the takeovers between
    /// are not kept, the writer is taken at its word: an honest one has only gone on.
    pub(super) fn descends(&self, opener: &Envelope, head: Head) -> bool {
        let mut stamp = opener.body.position.stamp;
        let mut parent = match opener.body.previous {
            Previous::Parent(parent) => Some(parent),
            Previous::Start | Previous::Link(_) => None,
        };
        for _ in 0..=limit::LANE_OPENERS_KEPT {
            if stamp == head.position.stamp {
                return true;
            }
            let Some(known) = parent else { return false };
            if known.position.epoch <= head.position.epoch {
                return known.position.stamp == head.position.stamp && known.position >= head.position;
            }
            stamp = known.position.stamp;
            let Some(below) = self.0.iter().find(|takeover| takeover.stamp() == stamp) else { return true };
            parent = below.parent;
        }
        true
    }
}
