//! Whether two processes ran the same: where their traces part, and which event differs first.

use std::ops::RangeInclusive;

use crate::run::Outcome;
use crate::trace::CHECKPOINT_EVENTS;
use crate::watch::Brief;

/// The first event that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its number.
    pub number: u64,
    /// What it was in the one run; nothing when that had ended.
    pub one: Option<Brief>,
    /// What it was in the other.
    pub other: Option<Brief>,
}

/// The numbers between which the first event lies that differs. Nothing when the runs are the same.
#[must_use]
pub fn parted_within(one: &Outcome, other: &Outcome) -> Option<RangeInclusive<u64>> {
    if (&one.trace, one.events) == (&other.trace, other.events) {
        return None;
    }
    let same = one.checkpoints.iter().zip(&other.checkpoints).take_while(|(one, other)| one == other).count();
    let first = u64::try_from(same).unwrap_or(u64::MAX).saturating_mul(CHECKPOINT_EVENTS) + 1;
    Some(first..=first + CHECKPOINT_EVENTS - 1)
}

/// The first event that differs, of those that were watched in two runs.
#[must_use]
pub fn first_difference(one: &[Brief], other: &[Brief]) -> Option<Difference> {
    let count = one.len().max(other.len());
    let pairs = (0..count).map(|index| (one.get(index), other.get(index)));
    let (one, other) = pairs.into_iter().find(|(one, other)| one != other)?;
    let number = one.or(other).map_or(0, |event| event.number);
    Some(Difference { number, one: one.cloned(), other: other.cloned() })
}
