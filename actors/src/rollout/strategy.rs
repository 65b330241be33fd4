//! How a rollout goes about its devices: in which waves, what it waits for between two of them, and when it stops
//! itself.
//!
//! A plan carries its strategy, and the wave and the place of every device that it assigns: whoever looks at a plan
//! sees who goes first. Within its wave a device's place is drawn from the ids of plan and device. That is a random
//! sample of the fleet, and the same one for everybody who computes it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use fleetd_sync_core::counted::Counted;
use fleetd_sync_core::id::{ArtifactDigest, LocalId, PlanId};

use super::plan::PlannedDevice;
use crate::selector::Selector;
use crate::window::{Terms, TermsError};

/// Waves of one plan: a person approves, or at least watches, each of them.
pub const WAVES_MAX: usize = 100;
/// Time that a wave has, unless the plan names another.
pub const DEADLINE_DEFAULT: Duration = Duration::from_hours(24);
/// The longest bake or deadline: ten years.
pub const SPAN_MAX: Duration = Duration::from_hours(24 * 3653);
/// Devices that an error names.
const DEVICES_NAMED: usize = 5;

/// How many devices a wave takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WaveSize {
    /// So many, or as many as are left.
    Count(u32),
    /// So many of a hundred of all devices that the plan assigns, rounded up: a wave has one device at least.
    Percent(u32),
    /// All that are left.
    Rest,
}

impl WaveSize {
    /// How many of `left` devices it takes, where the plan assigns `all`.
    #[must_use]
    pub fn of(self, all: usize, left: usize) -> usize {
        match self {
            Self::Count(count) => usize::try_from(count).unwrap_or(usize::MAX).min(left),
            Self::Percent(percent) => percent_of(percent, all).min(left),
            Self::Rest => left,
        }
    }
}

impl fmt::Display for WaveSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Rest => f.write_str("rest"),
        }
    }
}

/// A text is no size of a wave.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no wave: it is a number of devices (12), a share (10%), or rest")]
pub struct ParseWaveError {
    text: String,
}

impl FromStr for WaveSize {
    type Err = ParseWaveError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || ParseWaveError { text: text.to_owned() };
        match (text, text.strip_suffix('%')) {
            ("rest", _) => Ok(Self::Rest),
            (_, Some(percent)) => percent.parse().map(Self::Percent).map_err(|_| unknown()),
            (count, None) => count.parse().map(Self::Count).map_err(|_| unknown()),
        }
    }
}

/// How many devices may fail before the rollout stops itself. With both bounds the stricter one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureBudget {
    /// So many.
    pub count: Option<u32>,
    /// So many of a hundred of the devices that were *reached* in the waves begun so far: those that are assigned, and
    /// neither left be nor offline before they acknowledged. Rounded up to whole devices: 2 % of 12 are 1, so that a
    /// small wave has the slack that was asked for. 0 % are none.
    pub percent: Option<u32>,
}

impl FailureBudget {
    /// No device may fail.
    pub const NONE: Self = Self { count: Some(0), percent: None };

    /// How many may fail when so many were reached.
    #[must_use]
    pub fn allowed(&self, reached: usize) -> usize {
        let count = self.count.map(|count| usize::try_from(count).unwrap_or(usize::MAX));
        let percent = self.percent.map(|percent| percent_of(percent, reached));
        count.into_iter().chain(percent).min().unwrap_or(0)
    }
}

impl fmt::Display for FailureBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.count, self.percent) {
            (Some(count), Some(percent)) => write!(f, "{count} and {percent}%"),
            (None, Some(percent)) => write!(f, "{percent}%"),
            (count, None) => write!(f, "{}", count.unwrap_or(0)),
        }
    }
}

/// So many of a hundred, rounded up to whole devices.
pub(super) fn percent_of(percent: u32, all: usize) -> usize {
    let percent = usize::try_from(percent).unwrap_or(usize::MAX);
    all.saturating_mul(percent).div_ceil(100)
}

/// How a rollout goes about its devices. The default takes all of them at once, and lets none fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strategy {
    /// The devices of a wave before all others, by their labels.
    pub canary: Option<Selector>,
    /// The waves after that.
    pub waves: Vec<WaveSize>,
    /// Time that must pass after a wave has ended before the next one begins.
    pub bake: Duration,
    /// Time that a wave has. Whoever acknowledged and has not ended then has failed.
    pub deadline: Duration,
    /// Whether somebody has to approve each wave but the first.
    pub approve_waves: bool,
    /// How many devices may fail.
    pub budget: FailureBudget,
    /// How many devices may be at work at the same time; without one, all of a wave.
    pub unavailable_max: Option<u32>,
    /// How many of one site may be; devices without a site are one.
    pub unavailable_per_site_max: Option<u32>,
    /// When its devices may switch, and how long each may put that off.
    pub terms: Terms,
    /// How urgent it is.
    pub priority: Priority,
    /// The devices of each site switch together, once so many of a hundred of them are ready; without it, each by itself.
    pub site_quorum: Option<u32>,
}

impl Default for Strategy {
    fn default() -> Self {
        Self {
            canary: None,
            waves: vec![WaveSize::Rest],
            bake: Duration::ZERO,
            deadline: DEADLINE_DEFAULT,
            approve_waves: false,
            budget: FailureBudget::NONE,
            unavailable_max: None,
            unavailable_per_site_max: None,
            terms: Terms::default(),
            priority: Priority::default(),
            site_quorum: None,
        }
    }
}

/// How urgent a rollout is, from 0 to 9. A rollout takes devices over from unfinished ones of the same workload that are no
/// more urgent than it is, and waits for the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Priority(u8);

impl Priority {
    /// The most urgent.
    pub const MAX: Self = Self(9);

    /// A priority; `None` when there is none of this number.
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        u8::try_from(number).ok().map(Self).filter(|priority| *priority <= Self::MAX)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(5)
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Priority {
    type Err = UnknownPriorityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().ok().and_then(Self::new).ok_or_else(|| UnknownPriorityError { text: text.to_owned() })
    }
}

/// A text is no priority.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no priority: they are 0 to {}", Priority::MAX)]
pub struct UnknownPriorityError {
    text: String,
}

/// A device's turn in a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Its wave, from 0.
    pub wave: u32,
    /// Its place in the wave, from 0.
    pub order: u32,
}

/// Why a strategy does not fit a plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StrategyError {
    /// It has no wave.
    #[error("no wave is given; --wave rest takes all devices")]
    NoWave,
    /// It has too many.
    #[error("{waves} waves are more than {}", WAVES_MAX - 1)]
    Waves {
        /// How many.
        waves: usize,
    },
    /// A wave takes nobody.
    #[error("wave {number} ({size}) is empty")]
    EmptyWave {
        /// Which, from 1.
        number: usize,
        /// How it is written.
        size: WaveSize,
    },
    /// A share is more than all.
    #[error("{percent}% is more than all of them")]
    Percent {
        /// The share.
        percent: u32,
    },
    /// The waves' shares are more than all together.
    #[error("the waves' shares are {percent}% together")]
    PercentSum {
        /// All shares.
        percent: u64,
    },
    /// A wave comes after the one that takes all that are left.
    #[error("wave {number} ({size}) comes after a wave that takes the rest")]
    AfterRest {
        /// Which, from 1.
        number: usize,
        /// How it is written.
        size: WaveSize,
    },
    /// Nobody could ever begin.
    #[error("0 devices may be at work at the same time: none could ever begin")]
    NoneAtOnce,
    /// A site would switch with nobody ready, or never.
    #[error("{percent}% of a site cannot be ready; it is 1% to 100%")]
    SiteQuorum {
        /// The share.
        percent: u32,
    },
    /// What keeps the devices of a site apart.
    #[error("devices of a site that switch together cannot be bounded in how many are at work at the same time")]
    SiteCapped,
    /// No device could ever end in time.
    #[error("a wave has no time at all: its deadline is 0")]
    NoTime,
    /// A time is longer than anybody waits.
    #[error("a bake or a deadline is longer than ten years")]
    Span,
    /// When devices may switch makes no sense.
    #[error(transparent)]
    Terms(#[from] TermsError),
    /// No device of the plan is a canary.
    #[error("the canary {selector} matches none of the {} that the plan assigns", Counted(*devices, "device"))]
    NoCanary {
        /// The selector.
        selector: Box<Selector>,
        /// How many devices the plan assigns.
        devices: usize,
    },
    /// Some devices are in no wave.
    #[error("{} in no wave ({}); add --wave rest", remain(*remaining), named.join(", "))]
    Uncovered {
        /// How many.
        remaining: usize,
        /// The first of them.
        named: Vec<String>,
    },
}

fn remain(devices: usize) -> String {
    format!("{} {}", Counted(devices, "device"), if devices == 1 { "is" } else { "are" })
}

impl Strategy {
    /// Checks what can be told without a device.
    ///
    /// # Errors
    /// [`StrategyError`], each case apart, but for those that need the plan's devices.
    pub fn check(&self) -> Result<(), StrategyError> {
        if self.waves.is_empty() {
            return Err(StrategyError::NoWave);
        }
        if self.waves.len() >= WAVES_MAX {
            return Err(StrategyError::Waves { waves: self.waves.len() });
        }
        let (mut is_rest, mut sum) = (false, 0_u64);
        for (number, size) in (1..).zip(self.waves.iter().copied()) {
            if is_rest {
                return Err(StrategyError::AfterRest { number, size });
            }
            match size {
                WaveSize::Count(0) | WaveSize::Percent(0) => return Err(StrategyError::EmptyWave { number, size }),
                WaveSize::Percent(percent) if percent > 100 => return Err(StrategyError::Percent { percent }),
                WaveSize::Percent(percent) => sum += u64::from(percent),
                WaveSize::Count(_) => {}
                WaveSize::Rest => is_rest = true,
            }
        }
        match (self.budget.percent, self.unavailable_max, self.unavailable_per_site_max) {
            _ if sum > 100 => Err(StrategyError::PercentSum { percent: sum }),
            (Some(percent), ..) if percent > 100 => Err(StrategyError::Percent { percent }),
            (_, Some(0), _) | (.., Some(0)) => Err(StrategyError::NoneAtOnce),
            _ if self.site_quorum.is_some() && self.is_capped() => Err(StrategyError::SiteCapped),
            _ if self.site_quorum.is_some_and(|percent| !(1..=100).contains(&percent)) => {
                Err(StrategyError::SiteQuorum { percent: self.site_quorum.unwrap_or_default() })
            }
            _ if self.deadline.is_zero() => Err(StrategyError::NoTime),
            _ if self.deadline > SPAN_MAX || self.bake > SPAN_MAX => Err(StrategyError::Span),
            _ => Ok(self.terms.check()?),
        }
    }

    /// Says whether it bounds how many devices are at work at the same time.
    #[must_use]
    pub const fn is_capped(&self) -> bool {
        self.unavailable_max.is_some() || self.unavailable_per_site_max.is_some()
    }

    /// What of a plan's devices goes into one wave: a site whose devices switch together, or one device.
    fn units<'a>(&self, plan: PlanId, devices: &'a mut [PlannedDevice]) -> Vec<Vec<&'a mut PlannedDevice>> {
        let mut assigned: Vec<_> = devices.iter_mut().filter(|device| device.verdict.is_assigned()).collect();
        if self.site_quorum.is_none() {
            return assigned.into_iter().map(|device| vec![device]).collect();
        }
        assigned.sort_by_cached_key(|device| draw(plan, device.local));
        let (mut units, mut of_sites) = (Vec::new(), BTreeMap::<String, Vec<_>>::new());
        for device in assigned {
            match device.site.is_empty() {
                true => units.push(vec![device]),
                false => of_sites.entry(device.site.clone()).or_default().push(device),
            }
        }
        units.extend(of_sites.into_values());
        units
    }

    /// Gives each device that a plan assigns its wave, and its place there: those that can be reached first, then as
    /// drawn. A site whose devices switch together is in one wave. A wave for which nobody is left is no wave.
    pub(super) fn place(
        &self,
        plan: PlanId,
        devices: &mut [PlannedDevice],
        is_canary: impl Fn(LocalId) -> bool,
    ) -> Result<(), StrategyError> {
        self.check()?;
        let mut units = self.units(plan, devices);
        let all = units.iter().map(Vec::len).sum();
        if all == 0 {
            return Ok(());
        }
        units.sort_by_cached_key(|unit| {
            let first = unit.iter().map(|device| draw(plan, device.local)).min();
            (unit.iter().all(|device| device.offline_since.is_some()), first)
        });
        let is_canary = |unit: &Vec<&mut PlannedDevice>| unit.iter().any(|device| is_canary(device.local));
        let (canaries, mut rest): (Vec<_>, Vec<_>) =
            units.into_iter().partition(|unit| self.canary.is_some() && is_canary(unit));
        if let (Some(selector), true) = (&self.canary, canaries.is_empty()) {
            return Err(StrategyError::NoCanary { selector: Box::new(selector.clone()), devices: all });
        }
        let mut waves = vec![canaries];
        for size in &self.waves {
            let left = rest.split_off(units_of(size.of(all, rest.iter().map(Vec::len).sum()), &rest));
            waves.push(std::mem::replace(&mut rest, left));
        }
        let rest: Vec<_> = rest.into_iter().flatten().collect();
        if !rest.is_empty() {
            let named = rest.iter().take(DEVICES_NAMED).map(|device| device.name.to_string()).collect();
            return Err(StrategyError::Uncovered { remaining: rest.len(), named });
        }
        waves.retain(|wave| !wave.is_empty());
        for (wave, devices) in (0..).zip(waves) {
            for (order, device) in (0..).zip(devices.into_iter().flatten()) {
                device.place = Some(Place { wave, order });
            }
        }
        Ok(())
    }
}

/// How many of these units make up so many devices: a unit that is begun is taken whole.
fn units_of(devices: usize, units: &[Vec<&mut PlannedDevice>]) -> usize {
    let mut taken = 0;
    let is_taken = |unit: &&Vec<&mut PlannedDevice>| {
        let is_short = taken < devices;
        taken += unit.len();
        is_short
    };
    units.iter().take_while(is_taken).count()
}

/// What a device draws in a plan.
fn draw(plan: PlanId, device: LocalId) -> ArtifactDigest {
    ArtifactDigest::of(&[plan.as_bytes().as_slice(), device.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_wave_has_the_slack_that_was_asked_for() {
        let percent = |percent| FailureBudget { count: None, percent: Some(percent) };
        assert_eq!([0, 1, 12, 50, 51].map(|reached| percent(2).allowed(reached)), [0, 1, 1, 1, 2]);
        assert_eq!([0, 1, 12, 1000].map(|reached| percent(0).allowed(reached)), [0, 0, 0, 0], "0% are none");
        let both = FailureBudget { count: Some(1), percent: Some(10) };
        assert_eq!([5, 10, 100].map(|reached| both.allowed(reached)), [1, 1, 1], "the stricter one counts");
        assert_eq!(FailureBudget { count: None, percent: None }.allowed(100), 0);
    }

    #[test]
    fn a_wave_is_read_as_it_is_written() {
        for (text, size) in [("12", WaveSize::Count(12)), ("10%", WaveSize::Percent(10)), ("rest", WaveSize::Rest)] {
            assert_eq!(text.parse(), Ok(size));
            assert_eq!(size.to_string(), text);
        }
        for text in ["", "%", "-1", "ten", "1.5%", "Rest"] {
            assert!(text.parse::<WaveSize>().is_err(), "{text}");
        }
        assert_eq!([1, 10, 11, 100].map(|all| WaveSize::Percent(10).of(all, all)), [1, 1, 2, 10]);
    }

    #[test]
    fn a_strategy_that_makes_no_sense_is_refused_with_the_reason() {
        let waves = |waves: &[WaveSize]| Strategy { waves: waves.to_vec(), ..Strategy::default() };
        let (count, percent, rest) = (WaveSize::Count, WaveSize::Percent, WaveSize::Rest);
        for (strategy, reason) in [
            (waves(&[]), "no wave is given; --wave rest takes all devices"),
            (waves(&[count(0), rest]), "wave 1 (0) is empty"),
            (waves(&[count(3), percent(0), rest]), "wave 2 (0%) is empty"),
            (waves(&[percent(101)]), "101% is more than all of them"),
            (waves(&[percent(60), percent(60)]), "the waves' shares are 120% together"),
            (waves(&[rest, count(3)]), "wave 2 (3) comes after a wave that takes the rest"),
            (waves(&[count(1); 100]), "100 waves are more than 99"),
            (
                Strategy { unavailable_max: Some(0), ..Strategy::default() },
                "0 devices may be at work at the same time: none could ever begin",
            ),
            (
                Strategy { deadline: Duration::ZERO, ..Strategy::default() },
                "a wave has no time at all: its deadline is 0",
            ),
        ] {
            assert_eq!(strategy.check().unwrap_err().to_string(), reason);
        }
        assert_eq!(Strategy::default().check(), Ok(()));
    }
}
