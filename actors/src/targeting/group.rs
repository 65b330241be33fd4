//! Groups: devices that are meant by one name.

use std::collections::BTreeSet;
use std::fmt;

use fleetd_sync_core::commit::Revision;
use fleetd_sync_core::id::LocalId;

use super::condition::Condition;
use super::{Answer, Described};
use crate::selector::Selector;

/// Which devices a group is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Members {
    /// These, whatever becomes of their labels.
    Fixed(BTreeSet<LocalId>),
    /// Those of which, at the time, the selector and the condition hold; one of the two is there.
    Dynamic {
        /// The selector.
        selector: Option<Selector>,
        /// The condition.
        condition: Option<Condition>,
    },
}

impl Members {
    pub(super) fn answer(&self, device: &dyn Described) -> Answer {
        match self {
            Self::Fixed(locals) if locals.contains(&device.local()) => Answer::Holds,
            Self::Fixed(_) => Answer::Fails,
            Self::Dynamic { selector, condition } => super::answer_both(device, selector.as_ref(), condition.as_ref()),
        }
    }
}

impl fmt::Display for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(locals) => write!(f, "{} named devices", locals.len()),
            Self::Dynamic { selector, condition } => f.write_str(&super::both(selector.as_ref(), condition.as_ref())),
        }
    }
}

/// A group as it was when targets were resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The revision of its record.
    pub revision: Revision,
    /// Which devices it is.
    pub members: Members,
}
