//! What a rollout asks of its devices before they switch, and the text that stands in a device's signed document.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use fleetd_sync_core::limit;
use fleetd_sync_core::time::Wall;

use crate::rollout::strategy::Priority;

use super::cron::{Blackout, ParseBlackoutError, ParseWindowError, Window};
use super::zone::{UnknownZoneError, Zone};
use super::{BLACKOUTS_MAX, Calendar, OPENS_WITHIN, WINDOWS_MAX};

/// How long a device may put a switch off, unless the rollout says otherwise.
pub const VETO_LIMIT_DEFAULT: Duration = Duration::from_hours(24);
/// The longest that a rollout may allow: a month.
pub const VETO_LIMIT_MAX: Duration = Duration::from_hours(31 * 24);

/// By which clock a rollout's windows open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ZoneChoice {
    /// By each device's own.
    #[default]
    Device,
    /// By the same everywhere.
    Fixed(Zone),
}

impl fmt::Display for ZoneChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device => f.write_str("device"),
            Self::Fixed(zone) => zone.fmt(f),
        }
    }
}

impl FromStr for ZoneChoice {
    type Err = UnknownZoneError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "device" { Ok(Self::Device) } else { text.parse().map(Self::Fixed) }
    }
}

/// When a rollout's devices may switch, and how long each may put it off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// By which clock the windows open.
    pub zone: ZoneChoice,
    /// The windows; without one it is always.
    pub windows: Vec<Window>,
    /// The days on which nobody switches.
    pub blackouts: Vec<Blackout>,
    /// How long a device may put its switch off in all, once it could switch. 0 for not at all.
    pub veto_limit: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        let (windows, blackouts) = (Vec::new(), Vec::new());
        Self { zone: ZoneChoice::Device, windows, blackouts, veto_limit: VETO_LIMIT_DEFAULT }
    }
}

/// Why terms make no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TermsError {
    /// There are too many windows.
    #[error("{windows} windows are more than {WINDOWS_MAX}")]
    Windows {
        /// How many.
        windows: usize,
    },
    /// There are too many blackouts.
    #[error("{blackouts} blackouts are more than {BLACKOUTS_MAX}")]
    Blackouts {
        /// How many.
        blackouts: usize,
    },
    /// A device may put its switch off for longer than anybody waits.
    #[error("a veto limit is at most {} days", VETO_LIMIT_MAX.as_secs() / 86_400)]
    VetoLimit,
    /// They do not fit a device's document.
    #[error("windows and blackouts are {length} bytes together; they may be {length_max}")]
    TooLong {
        /// What they are.
        length: usize,
        /// What they may be.
        length_max: usize,
    },
    /// Nobody could ever begin.
    #[error("no window opens in {zone} within the next {} days", OPENS_WITHIN.as_secs() / 86_400)]
    NeverOpen {
        /// The zone.
        zone: String,
    },
}

impl Terms {
    /// Says whether there are times at which no device may switch.
    #[must_use]
    pub const fn is_bounded(&self) -> bool {
        !(self.windows.is_empty() && self.blackouts.is_empty())
    }

    /// Checks what can be told without a device.
    ///
    /// # Errors
    /// [`TermsError`], each case apart, but [`TermsError::NeverOpen`].
    pub fn check(&self) -> Result<(), TermsError> {
        let length = self.of(&Zone::default()).to_string().len();
        // Room for the longest name of a zone.
        let length_max = limit::VALUE_BYTES_MAX - 64;
        match (self.windows.len(), self.blackouts.len()) {
            (windows, _) if windows > WINDOWS_MAX => Err(TermsError::Windows { windows }),
            (_, blackouts) if blackouts > BLACKOUTS_MAX => Err(TermsError::Blackouts { blackouts }),
            _ if self.veto_limit > VETO_LIMIT_MAX => Err(TermsError::VetoLimit),
            _ if length > length_max => Err(TermsError::TooLong { length, length_max }),
            _ => Ok(()),
        }
    }

    /// What they are for a device whose own zone is `zone`.
    #[must_use]
    pub fn of(&self, zone: &Zone) -> DeviceTerms {
        let zone = match &self.zone {
            _ if !self.is_bounded() => Zone::default(),
            ZoneChoice::Device => zone.clone(),
            ZoneChoice::Fixed(zone) => zone.clone(),
        };
        let (windows, blackouts) = (self.windows.clone(), self.blackouts.clone());
        let calendar = Calendar { zone, windows, blackouts };
        DeviceTerms { calendar, veto_limit: self.veto_limit, ..DeviceTerms::default() }
    }

    /// When the first device of a zone may switch.
    ///
    /// # Errors
    /// [`TermsError::NeverOpen`] when none could within a year.
    pub fn opens(&self, zone: &Zone, now: Wall) -> Result<Wall, TermsError> {
        let calendar = self.of(zone).calendar;
        calendar.opens(now).ok_or_else(|| TermsError::NeverOpen { zone: calendar.zone.to_string() })
    }
}

/// The terms of one device, as its signed document has them: with the zone by which its windows open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceTerms {
    /// When it may switch.
    pub calendar: Calendar,
    /// How long it may put that off.
    pub veto_limit: Duration,
    /// How urgent it is among the workloads of the device.
    pub priority: Priority,
    /// It waits for the word that its site switches.
    pub is_together: bool,
}

impl Default for DeviceTerms {
    fn default() -> Self {
        let (calendar, priority) = (Calendar::default(), Priority::default());
        Self { calendar, veto_limit: VETO_LIMIT_DEFAULT, priority, is_together: false }
    }
}

impl fmt::Display for DeviceTerms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "veto {}s", self.veto_limit.as_secs())?;
        if self.priority != Priority::default() {
            write!(f, "; priority {}", self.priority)?;
        }
        if self.is_together {
            f.write_str("; site together")?;
        }
        let Calendar { zone, windows, blackouts } = &self.calendar;
        if !(windows.is_empty() && blackouts.is_empty()) {
            write!(f, "; zone {zone}")?;
        }
        windows.iter().try_for_each(|window| write!(f, "; window {window}"))?;
        blackouts.iter().try_for_each(|blackout| write!(f, "; blackout {blackout}"))
    }
}

/// Why a text has no terms.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseTermsError {
    /// A window cannot be read.
    #[error(transparent)]
    Window(#[from] ParseWindowError),
    /// A blackout cannot be read.
    #[error(transparent)]
    Blackout(#[from] ParseBlackoutError),
    /// The zone is not known.
    #[error(transparent)]
    Zone(#[from] UnknownZoneError),
    /// They are more than there may be.
    #[error(transparent)]
    Terms(#[from] TermsError),
    /// A part is none that there is.
    #[error("{part:?} is no part of terms")]
    Unknown {
        /// The part.
        part: String,
    },
}

impl FromStr for DeviceTerms {
    type Err = ParseTermsError;

    /// Reads what [`fmt::Display`] writes. A part that is not known is refused: it may be what forbids a switch.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut terms = Self::default();
        for part in text.split("; ") {
            let unknown = || ParseTermsError::Unknown { part: part.chars().take(64).collect() };
            let (word, rest) = part.split_once(' ').ok_or_else(unknown)?;
            match word {
                "veto" => {
                    let seconds = rest.strip_suffix('s').and_then(|seconds| seconds.parse().ok());
                    terms.veto_limit = seconds.map(Duration::from_secs).ok_or_else(unknown)?;
                }
                "priority" => terms.priority = rest.parse().map_err(|_| unknown())?,
                "site" if rest == "together" => terms.is_together = true,
                "zone" => terms.calendar.zone = rest.parse()?,
                "window" => terms.calendar.windows.push(rest.parse()?),
                "blackout" => terms.calendar.blackouts.push(rest.parse()?),
                _ => return Err(unknown()),
            }
        }
        let (windows, blackouts) = (terms.calendar.windows.clone(), terms.calendar.blackouts.clone());
        let zone = ZoneChoice::Fixed(terms.calendar.zone.clone());
        Terms { zone, windows, blackouts, veto_limit: terms.veto_limit }.check()?;
        Ok(terms)
    }
}
