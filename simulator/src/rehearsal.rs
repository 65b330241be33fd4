//! Rehearsing a rollout: a saved plan, carried out on a copy of the fleet that it was made for.
//!
//! A [`Rehearsal`] is what was copied: the plan's own text, and of each device what a plan looks at. It rides in a
//! scenario, so one seed of it is a run like any other: drawn, checked, replayed. [`build`] makes the fleet, by the
//! product's own protocol; [`draw`] says what a seed does to it; [`course`] writes down how it went, and [`summary`]
//! what many seeds come to, [`gates`] wave by wave.
//!
//! Where to start reading: [`Rehearsal`], then [`build::build`].

pub mod build;
pub mod course;
pub mod draw;
pub mod gates;
pub mod generated;
pub mod page;
pub mod planning;
pub mod share;
pub mod summary;

use std::collections::BTreeMap;
use std::time::Duration;

use fleetd_actors::rollout::plan::{Blocked, Plan, Verdict};
use fleetd_sync_core::release::{Manifest, Probe, ProbeCheck};
use fleetd_sync_core::time::Wall;
use serde::{Deserialize, Serialize};

pub use self::planning::RehearsalError;
pub use self::share::Share;
use crate::clock::new_year_2026;
use crate::fault::{NUMBER_MAX, TOO_LARGE};
use crate::scenario::{DURATION_MAX, Scenario};

/// Time that every device has to follow once all is reachable again: the longest pause between two dials, and an
/// update, with room.
const FOLLOW_WITHIN: Duration = Duration::from_secs(20 * 60);
/// Time that a wave is looked at, once its windows have opened: whoever is slow, or comes back, has it.
const WAVE_TAKES: Duration = Duration::from_secs(3600);

/// A plan, and a copy of the fleet that it is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rehearsal {
    /// The plan, as `fleetd rollout plan --out` writes it.
    pub plan: String,
    /// When the fleet was looked at, in milliseconds since 1970.
    pub copied_at_ms: i64,
    /// How long it takes until somebody approves a wave, where the plan asks for that.
    #[serde(with = "crate::span", default, skip_serializing_if = "Duration::is_zero")]
    pub approve_after: Duration,
    /// When an operator stops the whole fleet, after the start, if somebody does.
    #[serde(with = "crate::span::maybe", default, skip_serializing_if = "Option::is_none")]
    pub stop_after: Option<Duration>,
    /// Which of the devices that can be reached go away at a drawn time.
    #[serde(default)]
    pub offline: Share,
    /// On which devices the new release crashes.
    #[serde(default)]
    pub fail: Share,
    /// How many frames are lost and sent again, from and to; each device draws its own.
    #[serde(default = "loss_default")]
    pub loss: [Share; 2],
    /// What a device's link carries; without a limit when left out.
    ///
    /// # Units
    /// Bytes a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<u64>,
    /// How a device tells that the release is well.
    pub probe: CopiedProbe,
    /// The devices.
    #[serde(default, rename = "device")]
    pub devices: Vec<CopiedDevice>,
}

const fn loss_default() -> [Share; 2] {
    [Share::NONE, Share::from_millionths(20_000)]
}

/// How a release shows that it is well, as its manifest says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopiedProbe {
    /// Who says so.
    pub check: CopiedCheck,
    /// Time in which it has to be well.
    #[serde(with = "crate::span")]
    pub grace: Duration,
    /// Time between two questions.
    #[serde(with = "crate::span")]
    pub interval: Duration,
    /// Time for one answer.
    #[serde(with = "crate::span")]
    pub timeout: Duration,
    /// Good answers in a row that make it well.
    pub successes_min: u8,
    /// Bad ones in a row that make it unwell.
    pub failures_max: u8,
}

/// Who says that a release is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CopiedCheck {
    /// Nobody: it stays alive.
    Alive,
    /// The program itself.
    Notify,
    /// Whoever asks it. In the world any question is answered alike.
    Asked,
}

/// A device as its server knows it, as far as the plan looks at it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopiedDevice {
    /// Its name.
    pub name: String,
    /// The id that the server gave.
    pub id: String,
    /// The hash of its key.
    pub local: String,
    /// Its site; empty for none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub site: String,
    /// What its artifacts must be for, if it has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// What is free of its storage, if it has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_free_bytes: Option<u64>,
    /// Why it is no member, if it is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub barred: Option<Barred>,
    /// Why it is refused the release, if that is for another reason than what else stands here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<CopiedRefusal>,
    /// Authorities disagree on the workload.
    #[serde(default, skip_serializing_if = "is_false")]
    pub conflict: bool,
    /// The rollout of the workload that is at work on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy: Option<String>,
    /// How urgent that is; more than anything else when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy_priority: Option<u32>,
    /// An operator stopped the workload.
    #[serde(default, skip_serializing_if = "is_false")]
    pub stopped: bool,
    /// When it was heard last, in milliseconds since 1970, if it cannot be reached now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offline_since_ms: Option<i64>,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What it runs of the workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub present: Option<CopiedRelease>,
    /// The holds on it.
    #[serde(default, rename = "hold", skip_serializing_if = "Vec::is_empty")]
    pub holds: Vec<CopiedHold>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// Why a device is no member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Barred {
    /// It came back after its record was lost, and waits for an operator's word.
    Recovered,
    /// Two hold its key.
    Quarantined,
    /// Its key is revoked.
    Revoked,
}

/// Why a device does not get a release that others get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopiedRefusal {
    /// In a word.
    pub by: Refused,
    /// For people.
    pub reason: String,
}

/// Why, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refused {
    /// The release is denied.
    Denied,
    /// The workload is pinned at another version there.
    Pinned,
    /// Its document has no room.
    Room,
}

impl From<Refused> for Blocked {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Denied => Self::Denied,
            Refused::Pinned => Self::Pinned,
            Refused::Room => Self::Room,
        }
    }
}

/// A release on a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopiedRelease {
    /// Its version.
    pub version: String,
    /// The digest of its signed manifest, or of it and its configuration, if the server has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
    /// The name and the digest of its configuration, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<String>,
    /// Whether it has proven itself there.
    pub healthy: bool,
}

/// A hold on a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopiedHold {
    /// The one workload that it stops; all of them without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// Why.
    pub reason: String,
}

impl From<Probe> for CopiedProbe {
    fn from(Probe { check, grace, interval, timeout, successes_min, failures_max }: Probe) -> Self {
        let check = match check {
            ProbeCheck::Alive => CopiedCheck::Alive,
            ProbeCheck::Notify => CopiedCheck::Notify,
            ProbeCheck::Exec { .. } | ProbeCheck::Tcp { .. } | ProbeCheck::Http { .. } => CopiedCheck::Asked,
        };
        Self { check, grace, interval, timeout, successes_min, failures_max }
    }
}

impl CopiedProbe {
    /// Takes what a copy needs of a release's manifest.
    ///
    /// # Errors
    /// [`RehearsalError`] when it is none.
    pub fn of_manifest(bytes: &[u8]) -> Result<Self, RehearsalError> {
        let manifest =
            Manifest::decode(bytes).map_err(|error| RehearsalError::Manifest { cause: error.to_string() })?;
        Ok(Self::from(manifest.probe))
    }
}

impl From<&CopiedProbe> for Probe {
    fn from(copied: &CopiedProbe) -> Self {
        let check = match copied.check {
            CopiedCheck::Alive => ProbeCheck::Alive,
            CopiedCheck::Notify => ProbeCheck::Notify,
            CopiedCheck::Asked => ProbeCheck::Exec { argv: vec!["/bin/true".to_owned()] },
        };
        let (successes_min, failures_max) = (copied.successes_min, copied.failures_max);
        let (grace, interval, timeout) = (copied.grace, copied.interval, copied.timeout);
        Self { check, grace, interval, timeout, successes_min, failures_max }
    }
}

/// What a plan's text says of the plan itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanHead {
    /// Its id.
    pub plan: String,
    /// The workload that it brings.
    pub workload: String,
    /// The version.
    pub version: String,
    /// Devices whose document has no room for the release, by their local ids, and why. A copy does not say what else is
    /// asked of them.
    pub crowded: BTreeMap<String, String>,
}

impl PlanHead {
    /// Reads a plan's text.
    ///
    /// # Errors
    /// [`RehearsalError::Plan`]; an edit by hand is named as one.
    pub fn read(text: &str) -> Result<Self, RehearsalError> {
        let Plan { id, release, devices, .. } = Plan::from_text(text)?;
        let crowded = devices.into_iter().filter_map(|device| match device.verdict {
            Verdict::Blocked { by: Blocked::Room, reason } => Some((device.local.to_string(), reason)),
            _ => None,
        });
        let (workload, version) = (release.workload.to_string(), release.version.to_string());
        Ok(Self { plan: id.to_string(), workload, version, crowded: crowded.collect() })
    }
}

impl Rehearsal {
    /// A rehearsal of a plan on a copy of a fleet, in a world that is as it is: nobody goes away, nothing crashes.
    #[must_use]
    pub fn new(plan: String, copied_at_ms: i64, probe: CopiedProbe, devices: Vec<CopiedDevice>) -> Self {
        let (offline, fail, approve_after) = (Share::NONE, Share::NONE, Duration::ZERO);
        Self {
            plan,
            copied_at_ms,
            approve_after,
            stop_after: None,
            offline,
            fail,
            loss: loss_default(),
            bandwidth: None,
            probe,
            devices,
        }
    }

    /// The plan that its text says.
    ///
    /// # Errors
    /// [`RehearsalError::Plan`].
    pub fn read_plan(&self) -> Result<Plan, RehearsalError> {
        Ok(Plan::from_text(&self.plan)?)
    }

    /// How long its rollout is worth looking at: an hour for each wave, from when the last of its devices' windows has
    /// opened, and the bakes and approvals between them. It starts at a date, or when the fleet was looked at.
    ///
    /// # Errors
    /// [`RehearsalError::Plan`].
    pub fn usual_duration(&self, starts: Option<Wall>) -> Result<Duration, RehearsalError> {
        let plan = self.read_plan()?;
        let begins = starts.unwrap_or_else(|| self.looked_at());
        let (mut at, waves) = (begins, plan.wave_count());
        for wave in 0..waves {
            // A window that never opens is none that was planned with.
            let openings = plan.openings(Some(wave), at).unwrap_or_default();
            at = openings.last().map_or(at, |last| last.opens) + WAVE_TAKES;
            if wave + 1 < waves {
                at = at + plan.strategy.bake;
            }
            if wave + 1 < waves && plan.strategy.approve_waves {
                at = at + self.approve_after;
            }
        }
        Ok((at - begins).min(DURATION_MAX))
    }

    /// The date at which the fleet was looked at. No program is older than 2026, and no scenario begins before it.
    fn looked_at(&self) -> Wall {
        Wall(self.copied_at_ms).max(new_year_2026())
    }

    /// The sites of its devices, each once, in order; the empty one stands for none.
    #[must_use]
    pub fn sites(&self) -> Vec<&str> {
        let mut sites: Vec<&str> = self.devices.iter().map(|device| device.site.as_str()).collect();
        sites.sort_unstable();
        sites.dedup();
        sites
    }

    /// Says which value does not fit the scenario that it is part of.
    pub(crate) fn check(&self, scenario: &Scenario) -> Result<(), (&'static str, String)> {
        if usize::try_from(scenario.devices).ok() != Some(self.devices.len()) {
            return Err((
                "devices",
                format!("has to be {}: a rehearsal has the devices that were copied", self.devices.len()),
            ));
        }
        if self.loss[0] > self.loss[1] {
            return Err(("loss", "runs backwards: the first share is the lower one".to_owned()));
        }
        if self.bandwidth.is_some_and(|bandwidth| bandwidth > NUMBER_MAX) {
            return Err(("bandwidth", TOO_LARGE.to_owned()));
        }
        if self.devices.iter().any(|device| device.disk_free_bytes.is_some_and(|free| free > NUMBER_MAX)) {
            return Err(("disk_free_bytes", TOO_LARGE.to_owned()));
        }
        if !scenario.acts.is_empty() {
            return Err(("act", "stands beside a rehearsal, whose only act is its plan".to_owned()));
        }
        let mut names: Vec<&str> = self.devices.iter().map(|device| device.name.as_str()).collect();
        names.sort_unstable();
        if let Some(name) = names.windows(2).find_map(|pair| pair.first().filter(|name| pair.last() == Some(*name))) {
            return Err(("device", format!("is there twice: two are called {name}")));
        }
        self.read_plan().map(drop).map_err(|error| ("plan", format!("cannot be read: {error}")))
    }

    /// The scenario that carries it out, for at most `duration`, from a date on, or from when the fleet was looked at.
    ///
    /// # Errors
    /// [`RehearsalError`] when the copy is none that a run can begin with.
    pub fn into_scenario(self, starts: Option<Wall>, duration: Duration) -> Result<Scenario, RehearsalError> {
        let plan = self.read_plan()?;
        let begins = starts.unwrap_or_else(|| self.looked_at());
        let release = &plan.release;
        let devices = u32::try_from(self.devices.len()).unwrap_or(u32::MAX);
        let sites = u32::try_from(self.sites().len()).unwrap_or(u32::MAX);
        let scenario = Scenario {
            name: format!("{} {}", release.workload, release.version),
            about: format!("A rehearsal of {} on a copy of its fleet.", plan.id),
            devices,
            sites: sites.max(1),
            duration,
            deadline: FOLLOW_WITHIN,
            latency_ms: [5, 45],
            lines_per_hour: 0,
            arm64_percent: 0,
            no_rtc_percent: 0,
            late_devices: 0,
            begins: jiff::Timestamp::from_millisecond(begins.0).ok().map(|begins| begins.to_string()),
            timezones: Vec::new(),
            acts: Vec::new(),
            swarm: BTreeMap::new(),
            faults: Vec::new(),
            rehearsal: Some(self),
        };
        scenario.check().map_err(|(key, problem)| RehearsalError::Scenario { key, problem })?;
        Ok(scenario)
    }
}
