//! What a release that is laid out waits for, before it is made the current one.

use std::fmt;
use std::time::Duration;

use fleetd_sync_core::limit;
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::time::Wall;

use crate::window::{Zone, spell};

/// What keeps a release that is laid out from being made the current one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Waits {
    /// No window is open; the next one opens then, by the device's clock.
    Window {
        /// When; `None` when none opens within a year.
        opens: Option<Wall>,
    },
    /// The device does not know the date, and so not whether a window is open.
    Clock,
    /// Somebody at the device, or the workload, put it off until then.
    Deferred {
        /// Until when, by the device's clock.
        until: Wall,
        /// How long the rollout lets it be put off in all.
        limit: Duration,
        /// Why.
        reason: String,
    },
    /// The workload's lock is there.
    Locked {
        /// How long the rollout lets it be put off in all.
        limit: Duration,
    },
    /// Other workloads of the device have their turn before it.
    Queue {
        /// How many.
        before: u32,
        /// The one that has its turn, or is next.
        first: WorkloadName,
    },
    /// It is ready, and the other devices of its site are not yet.
    Site,
    /// The agent does not understand when it may.
    Terms {
        /// What it does not understand.
        cause: String,
    },
}

impl Waits {
    /// Says whether the device itself asks for it, which a limit ends.
    #[must_use]
    pub const fn is_veto(&self) -> bool {
        matches!(self, Self::Deferred { .. } | Self::Locked { .. })
    }

    /// Says it to people, with dates as clocks of a zone show them.
    #[must_use]
    pub fn sentence(&self, zone: &Zone) -> String {
        let limit = |limit: &Duration| format!("its rollout lets it wait {} in all", spell(*limit));
        let why = |reason: &str| if reason.is_empty() { String::new() } else { format!(": {reason}") };
        match self {
            Self::Window { opens: Some(opens) } => {
                format!("it waits for its window, which opens {}", zone.show(*opens))
            }
            Self::Window { opens: None } => "it waits for its window, and none opens within a year".to_owned(),
            Self::Clock => "it does not know the date, and so not whether its window is open".to_owned(),
            Self::Deferred { until, limit: most, reason } => {
                format!("it was asked to wait until {}{} ({})", zone.show(*until), why(reason), limit(most))
            }
            Self::Locked { limit: most } => format!("the workload asks it to wait, by its lock ({})", limit(most)),
            Self::Queue { before, first } => {
                let place = before.saturating_add(1);
                format!("it is number {place} in the queue of its device, and {first} goes first")
            }
            Self::Site => "it is ready, and waits for the other devices of its site".to_owned(),
            Self::Terms { cause } => format!("its agent does not understand when it may switch: {cause}"),
        }
    }

    /// Reads what [`fmt::Display`] writes, if this version knows it.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let seconds = |text: &str| text.parse().ok().map(Duration::from_secs);
        Some(match word {
            "window" if rest.is_empty() => Self::Window { opens: None },
            "window" => Self::Window { opens: Some(Wall(rest.parse().ok()?)) },
            "clock" => Self::Clock,
            "deferred" => {
                let mut words = rest.splitn(3, ' ');
                let (until, limit) = (words.next()?.parse().ok().map(Wall)?, seconds(words.next()?)?);
                Self::Deferred { until, limit, reason: words.next()?.to_owned() }
            }
            "locked" => Self::Locked { limit: seconds(rest)? },
            "queue" => {
                let (before, first) = rest.split_once(' ')?;
                Self::Queue { before: before.parse().ok()?, first: first.parse().ok()? }
            }
            "site" => Self::Site,
            "terms" => Self::Terms { cause: rest.to_owned() },
            _ => return None,
        })
    }
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Window { opens: None } => f.write_str("window"),
            Self::Window { opens: Some(opens) } => write!(f, "window {}", opens.0),
            Self::Clock => f.write_str("clock"),
            Self::Deferred { until, limit, reason } => {
                write!(f, "deferred {} {} {}", until.0, limit.as_secs(), cut(reason))
            }
            Self::Locked { limit } => write!(f, "locked {}", limit.as_secs()),
            Self::Queue { before, first } => write!(f, "queue {before} {first}"),
            Self::Site => f.write_str("site"),
            Self::Terms { cause } => write!(f, "terms {}", cut(cause)),
        }
    }
}

/// A document has little room, and the other words need some of it.
fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(limit::VALUE_BYTES_MAX / 8)).unwrap_or_default()
}

#[cfg(test)]
pub(super) fn any_waits() -> impl proptest::strategy::Strategy<Value = Waits> {
    use proptest::prelude::*;
    let seconds = || any::<u32>().prop_map(|seconds| Duration::from_secs(seconds.into()));
    prop_oneof![
        proptest::option::of(any::<i64>().prop_map(Wall)).prop_map(|opens| Waits::Window { opens }),
        Just(Waits::Clock),
        (any::<i64>(), seconds(), ".{0,60}").prop_map(|(until, limit, reason)| Waits::Deferred {
            until: Wall(until),
            limit,
            reason
        }),
        seconds().prop_map(|limit| Waits::Locked { limit }),
        ".{0,60}".prop_map(|cause| Waits::Terms { cause }),
        Just(Waits::Site),
        any::<u32>().prop_map(|before| Waits::Queue { before, first: "coffee".parse().unwrap() }),
    ]
}
