//! Values of flags and arguments, as people write them.

use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use fleetd_proto::fleetd::common::v1::Targets;
use fleetd_sync_core::name::{LabelKey, LabelValue, Version, WorkloadName};

use crate::error::CommandError;
use crate::exit::Exit;
use crate::output::Moment;

/// Why a text is not what a flag takes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseValueError {
    /// A release is written otherwise.
    #[error("{0:?} is no WORKLOAD@VERSION")]
    Release(String),
    /// An empty selector comes of a variable that was not set, and must never mean every device.
    #[error("the selector is empty, which never means every device")]
    EmptySelector,
    /// An empty condition comes of a variable that was not set, and must never mean every device.
    #[error("the condition is empty, which never means every device")]
    EmptyCondition,
    /// A label is written otherwise.
    #[error("{0:?} is no KEY=VALUE")]
    Label(String),
    /// A point in time is written otherwise.
    #[error("{0:?} is neither a duration (`90s`, `1h`) nor a time (`2026-03-01T12:00:00Z`)")]
    Moment(String),
    /// A duration is written otherwise, or ends later than dates go.
    #[error("{0:?} is no duration (`90s`, `30d`), or too long a one")]
    Lifetime(String),
    /// A name has a wrong character or length.
    #[error(transparent)]
    Name(#[from] fleetd_sync_core::name::ParseNameError),
}

/// `coffee@1.8.0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseName {
    /// The workload.
    pub workload: WorkloadName,
    /// The version.
    pub version: Version,
}

impl FromStr for ReleaseName {
    type Err = ParseValueError;

    fn from_str(text: &str) -> Result<Self, ParseValueError> {
        let (workload, version) = text.split_once('@').ok_or_else(|| ParseValueError::Release(text.to_owned()))?;
        Ok(Self { workload: workload.parse()?, version: version.parse()? })
    }
}

/// `DEVICE` or `DEVICE/WORKLOAD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The device, by name or id.
    pub device: String,
    /// The workload; empty for all of the device.
    pub workload: String,
}

impl FromStr for Place {
    type Err = ParseValueError;

    fn from_str(text: &str) -> Result<Self, ParseValueError> {
        let Some((device, workload)) = text.split_once('/') else {
            return Ok(Self { device: text.to_owned(), workload: String::new() });
        };
        let workload: WorkloadName = workload.parse()?;
        Ok(Self { device: device.to_owned(), workload: workload.to_string() })
    }
}

/// `DEVICE/WORKLOAD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceWorkload {
    /// The device, by name or id.
    pub device: String,
    /// The workload.
    pub workload: String,
}

impl FromStr for DeviceWorkload {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let place: Place = text.parse().map_err(|error: ParseValueError| error.to_string())?;
        if place.workload.is_empty() || place.device.is_empty() {
            return Err(format!("{text:?} is no DEVICE/WORKLOAD"));
        }
        Ok(Self { device: place.device, workload: place.workload })
    }
}

/// Reads `KEY=VALUE` of a label.
///
/// # Errors
/// [`ParseValueError`] when it is none.
pub fn label(text: &str) -> Result<(String, String), ParseValueError> {
    let (key, value) = text.split_once('=').ok_or_else(|| ParseValueError::Label(text.to_owned()))?;
    let (key, value): (LabelKey, LabelValue) = (key.parse()?, value.parse()?);
    Ok((key.to_string(), value.to_string()))
}

/// Takes a selector as it is, unless it is blank; the server reads it.
///
/// # Errors
/// [`ParseValueError::EmptySelector`].
pub fn selector(text: &str) -> Result<String, ParseValueError> {
    if text.trim().is_empty() { Err(ParseValueError::EmptySelector) } else { Ok(text.to_owned()) }
}

/// Takes a condition as it is, unless it is blank; the server reads it.
///
/// # Errors
/// [`ParseValueError::EmptyCondition`].
pub fn condition(text: &str) -> Result<String, ParseValueError> {
    if text.trim().is_empty() { Err(ParseValueError::EmptyCondition) } else { Ok(text.to_owned()) }
}

/// Reads a duration (`30m`, `1h 20s`).
///
/// # Errors
/// When it is none.
pub fn duration(text: &str) -> Result<Duration, humantime::DurationError> {
    humantime::parse_duration(text)
}

/// Reads how long something is to be good from now on. What ends later than can be told would never end.
///
/// # Errors
/// [`ParseValueError::Lifetime`].
pub fn lifetime(text: &str) -> Result<Duration, ParseValueError> {
    let lifetime = duration(text).ok().filter(|lifetime| Moment::now().after(*lifetime).parts().is_some());
    lifetime.ok_or_else(|| ParseValueError::Lifetime(text.to_owned()))
}

/// Reads a point in the past: how long ago, or when.
///
/// # Errors
/// [`ParseValueError::Moment`] when it is neither, or longer ago than can be told: that would be no bound at all.
pub fn past(text: &str) -> Result<Moment, ParseValueError> {
    let moment = match duration(text) {
        Ok(ago) => Moment::now().before(ago),
        Err(_) => {
            Moment::from_parts(text.parse().ok().map(|at: jiff::Timestamp| (at.as_second(), at.subsec_nanosecond())))
        }
    };
    if moment.parts().is_some() { Ok(moment) } else { Err(ParseValueError::Moment(text.to_owned())) }
}

/// Which devices are meant. One of these is needed, so that nothing left out can mean the whole fleet.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = true)]
pub struct Meant {
    /// Devices by their labels: `shop=7,channel in (stable, beta),!lab`
    #[arg(long, short = 'l', value_name = "SELECTOR", value_parser = selector)]
    pub selector: Option<String>,
    /// Devices by what they say of themselves, in CEL: `facts.memory_bytes >= 536870912`; with a selector, both must hold
    #[arg(long = "where", value_name = "CONDITION", value_parser = condition)]
    pub condition: Option<String>,
    /// Also the devices of a group (repeat for more)
    #[arg(long, short = 'g', value_name = "GROUP")]
    pub group: Vec<String>,
    /// Also a device by name or id (repeat for more)
    #[arg(long, short = 'd', value_name = "DEVICE")]
    pub device: Vec<String>,
    /// Every device that is enrolled
    #[arg(long, conflicts_with_all = ["selector", "condition", "group", "device"])]
    pub all: bool,
}

impl Meant {
    /// Refuses a selector that was given and says nothing: a variable of a script that is not set, most likely.
    ///
    /// # Errors
    /// When it is empty; `command` is the one to repeat with a selector.
    pub fn require_some(&self, command: &str) -> Result<(), CommandError> {
        match &self.selector {
            Some(selector) if selector.trim().is_empty() => {
                Err(CommandError::new("selector.empty", "the selector is empty")
                    .cause("an empty selector never means the whole fleet; --all does")
                    .next_command(format!("{command} -l KEY=VALUE"))
                    .exit(Exit::Usage))
            }
            _ => Ok(()),
        }
    }
}

impl From<Meant> for Targets {
    fn from(meant: Meant) -> Self {
        Self {
            selector: meant.selector.unwrap_or_default(),
            devices: meant.device,
            all: meant.all,
            condition: meant.condition.unwrap_or_default(),
            groups: meant.group,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_releases_are_read_as_they_are_written() {
        let release: ReleaseName = "coffee@1.8.0".parse().unwrap();
        assert_eq!((release.workload.as_str(), release.version.as_str()), ("coffee", "1.8.0"));
        assert_eq!("coffee".parse::<ReleaseName>(), Err(ParseValueError::Release("coffee".to_owned())));
        let place: Place = "brisk-otter/coffee".parse().unwrap();
        assert_eq!((place.device.as_str(), place.workload.as_str()), ("brisk-otter", "coffee"));
        assert!("brisk-otter".parse::<DeviceWorkload>().is_err());
        assert!("brisk-otter/Coffee".parse::<Place>().is_err());
        assert_eq!(label("shop=7"), Ok(("shop".to_owned(), "7".to_owned())));
        assert!(label("shop").is_err());
        for (selector, is_refused) in [(None, false), (Some("shop=7"), false), (Some(""), true), (Some(" "), true)] {
            let (selector, condition) = (selector.map(str::to_owned), None);
            let meant = Meant { selector, condition, group: Vec::new(), device: Vec::new(), all: false };
            assert_eq!(meant.require_some("fleetd rollout plan coffee@1.8.0").is_err(), is_refused, "{meant:?}");
        }
        assert_eq!((selector(""), selector(" ").is_err()), (Err(ParseValueError::EmptySelector), true));
        assert_eq!(selector("shop=7").as_deref(), Ok("shop=7"));
        assert_eq!((condition("online").as_deref(), condition(" ").is_err()), (Ok("online"), true));
        assert!(past("1h").is_ok() && past("2026-03-01T12:00:00Z").is_ok() && past("yesterday").is_err());
    }
}
