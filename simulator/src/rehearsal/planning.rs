//! Whether a plan still fits its fleet, and the same plan in a copy of it.
//!
//! Both are asked of the product's own planner: the rows here say what the server's rows say, and the copy's rows come
//! from the copy's own records.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use fleetd_actors::rollout::plan::{
    Blocked, Plan, PlanError, PlannedDevice, PlannedRelease, ReadPlanError, StaleReason, Verdict, check_fence, plan,
};
use fleetd_actors::rollout::strategy::{Priority, Strategy};
use fleetd_actors::targeting::{AtWork, Chosen, DeviceRow, PresentRelease, Targets};
use fleetd_actors::window::Zone;
use fleetd_sync_core::commit::Revision;
use fleetd_sync_core::configuration::ConfigurationId;
use fleetd_sync_core::id::{ArtifactDigest, PlanId};
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::time::Wall;

use super::{Barred, CopiedDevice, CopiedRefusal, Rehearsal};

/// The fact by which a device says in which time zone it is.
pub(super) const ZONE_FACT: &str = "timezone";
/// Differences that one message names.
const NAMED_MAX: usize = 5;

/// Why a plan cannot be rehearsed.
#[derive(Debug, thiserror::Error)]
pub enum RehearsalError {
    /// It is no plan.
    #[error(transparent)]
    Plan(#[from] ReadPlanError),
    /// The release's manifest cannot be read.
    #[error("the release's manifest cannot be read: {cause}")]
    Manifest {
        /// Why.
        cause: String,
    },
    /// A device cannot be copied.
    #[error("{device} cannot be copied: {cause}")]
    Device {
        /// Its name.
        device: String,
        /// Why.
        cause: String,
    },
    /// The fleet is not the one any more that the plan was made for.
    #[error("the plan does not fit the fleet any more")]
    Stale {
        /// Every difference, in words.
        reasons: Vec<String>,
    },
    /// Nobody would get the release.
    #[error("no device would get the release, and each that lacks it is blocked")]
    Blocked {
        /// Who is blocked, and why.
        blocked: Vec<(String, String)>,
    },
    /// The copy cannot be planned for.
    #[error("the copy cannot be planned for")]
    Copy(#[from] PlanError),
    /// The plan in the copy says something else than the plan itself.
    #[error("the copy is not the fleet that the plan was made for: {}", named(differences))]
    Differs {
        /// Every difference, in words.
        differences: Vec<String>,
    },
    /// The scenario that it would be is none.
    #[error("`{key}` {problem}")]
    Scenario {
        /// Which value.
        key: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

fn named(all: &[String]) -> String {
    let mut text = all.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join("; ");
    if all.len() > NAMED_MAX {
        text.push_str(&format!("; and {} more", all.len() - NAMED_MAX));
    }
    text
}

impl Rehearsal {
    /// Checks that the plan could be started on the fleet as it was when it was copied, by the code that would refuse
    /// it.
    ///
    /// # Errors
    /// [`RehearsalError::Stale`], or [`RehearsalError::Blocked`].
    pub fn check_plan(&self) -> Result<(), RehearsalError> {
        let mut plan = self.read_plan()?;
        plan.targets = answered(&plan);
        let rows = self.rows(&plan.targets, &plan.release.workload)?;
        check_fence(&plan, &rows).map_err(|reasons| RehearsalError::Stale {
            reasons: reasons.iter().map(StaleReason::to_string).collect(),
        })?;
        if plan.is_blocked() {
            let blocked = plan.devices.iter().filter_map(|device| match &device.verdict {
                Verdict::Blocked { reason, .. } => Some((device.name.to_string(), reason.clone())),
                Verdict::Update { .. } | Verdict::Install | Verdict::Unchanged => None,
            });
            return Err(RehearsalError::Blocked { blocked: blocked.collect() });
        }
        Ok(())
    }

    /// The fleet as its server shows it to a planner who asks for these targets.
    ///
    /// # Errors
    /// [`RehearsalError::Device`] names what of which device cannot be read.
    pub fn rows(&self, targets: &Targets, workload: &WorkloadName) -> Result<Vec<DeviceRow>, RehearsalError> {
        let zones = self.zones();
        let shown = self.devices.iter().filter(|device| is_shown(targets, device));
        shown.map(|device| row(device, workload, zones.get(&device.local))).collect()
    }

    /// The time zones in which the plan has devices, by their local ids. Nobody shows them but the plan.
    pub(super) fn zones(&self) -> BTreeMap<String, String> {
        let Ok(plan) = self.read_plan() else { return BTreeMap::new() };
        let zone = |device: PlannedDevice| Some((device.local.to_string(), device.zone?.to_string()));
        plan.devices.into_iter().filter_map(zone).collect()
    }
}

/// Says whether a device is one that a planner looks at: one whose key is revoked only where it is named.
pub(super) fn is_shown(targets: &Targets, device: &CopiedDevice) -> bool {
    let is_named = || match targets {
        Targets::All => false,
        Targets::Some(Chosen { devices, .. }) => {
            [&device.name, &device.id, &device.local].iter().any(|name| devices.contains(*name))
        }
    };
    device.barred != Some(Barred::Revoked) || is_named()
}

/// A device as its server's planner sees it.
fn row(device: &CopiedDevice, workload: &WorkloadName, zone: Option<&String>) -> Result<DeviceRow, RehearsalError> {
    let holds = device.holds.iter().map(|hold| {
        let held = hold.workload.as_ref().map(|held| parsed(device, held)).transpose()?;
        Ok((held, hold.reason.clone()))
    });
    let labels = device.labels.iter().map(|(key, value)| Ok((parsed(device, key)?, parsed(device, value)?)));
    let present = device.present.as_ref().map(|present| {
        // A release that the server does not have is none that it could plan.
        let unknown = || ArtifactDigest::of(format!("unknown {workload} {}", present.version).as_bytes());
        let manifest = present.manifest.as_ref().map(|digest| parsed(device, digest)).transpose()?;
        let manifest = manifest.unwrap_or_else(unknown);
        Ok::<_, RehearsalError>(PresentRelease {
            version: parsed(device, &present.version)?,
            manifest,
            configuration: present.configuration.as_deref().and_then(ConfigurationId::from_text),
            healthy: present.healthy,
        })
    });
    let present = present.transpose()?;
    Ok(DeviceRow {
        local: parsed(device, &device.local)?,
        device: parsed(device, &device.id)?,
        name: parsed(device, &device.name)?,
        site: device.site.clone(),
        labels: labels.collect::<Result<_, RehearsalError>>()?,
        facts: zone.map(|zone| (ZONE_FACT.to_owned(), zone.clone())).into_iter().collect(),
        // The server reads it as leniently: what is no platform is none that is known.
        platform: device.platform.as_ref().and_then(|platform| platform.parse().ok()),
        free_bytes: device.disk_free_bytes,
        releases: present.map(|present| (workload.clone(), present)).into_iter().collect(),
        barred: device.barred.map(Barred::reason),
        refused: device.refused.as_ref().map(refusal),
        holds: holds.collect::<Result<_, RehearsalError>>()?,
        conflicts: if device.conflict { BTreeSet::from([workload.clone()]) } else { BTreeSet::new() },
        rollouts: at_work(device)?.map(|at_work| (workload.clone(), at_work)).into_iter().collect(),
        offline_since: device.offline_since_ms.map(Wall),
        revision: Revision::default(),
    })
}

/// Why a device is refused the release, as its server's planner has it.
pub(super) fn refusal(refused: &CopiedRefusal) -> (Blocked, String) {
    (refused.by.into(), refused.reason.clone())
}

/// The rollout that has the device, as a plan sees it.
pub(super) fn at_work(device: &CopiedDevice) -> Result<Option<AtWork>, RehearsalError> {
    let Some(rollout) = &device.busy else { return Ok(None) };
    let priority = device.busy_priority.and_then(Priority::new).unwrap_or(Priority::MAX);
    Ok(Some(AtWork { rollout: parsed(device, rollout)?, priority }))
}

impl Barred {
    fn reason(self) -> String {
        match self {
            Self::Recovered => "it came back after its record was lost",
            Self::Quarantined => "two hold its key",
            Self::Revoked => "its key is revoked",
        }
        .to_owned()
    }
}

/// Reads a value of a device's copy.
pub(super) fn parsed<T: FromStr<Err: std::fmt::Display>>(
    device: &CopiedDevice,
    text: &str,
) -> Result<T, RehearsalError> {
    let unreadable =
        |error: T::Err| RehearsalError::Device { device: device.name.clone(), cause: format!("`{text}`: {error}") };
    text.parse().map_err(unreadable)
}

/// Plans again in the copy: `rows` are the copy's own, with the ids of the fleet that it is a copy of. The release is
/// the copy's.
pub(super) fn plan_again(
    rehearsal: &Rehearsal,
    id: PlanId,
    release: PlannedRelease,
    rows: &[DeviceRow],
) -> Result<Plan, RehearsalError> {
    let original = rehearsal.read_plan()?;
    let targets = by_name(answered(&original), rehearsal);
    // Waves are those of the original; by which clocks windows open is found out again.
    let terms = original.strategy.terms.clone();
    let strategy = Strategy { terms, ..Strategy::default() };
    let mut again = plan(id, release, targets, original.attempt, strategy, rows)?;
    let differences = differences(&original, &again);
    // Whose turn comes when was drawn with the ids of the fleet itself.
    let places: BTreeMap<_, _> = original.devices.iter().map(|device| (&device.name, device.place)).collect();
    for device in &mut again.devices {
        device.place = places.get(&device.name).copied().flatten();
    }
    again.strategy = original.strategy.clone();
    if differences.is_empty() { Ok(again) } else { Err(RehearsalError::Differs { differences }) }
}

/// A plan's targets, with its own devices in place of what nobody can ask in a copy: a copied device says nothing of
/// itself, and is in no group.
fn answered(plan: &Plan) -> Targets {
    match &plan.targets {
        Targets::Some(chosen) if chosen.condition.is_some() || !chosen.groups.is_empty() => {
            let devices = plan.devices.iter().map(|device| device.local.to_string()).collect();
            Targets::Some(Chosen { devices, ..Chosen::default() })
        }
        targets => targets.clone(),
    }
}

/// Targets that name devices by their names alone: a copied device has another key.
fn by_name(targets: Targets, rehearsal: &Rehearsal) -> Targets {
    let Targets::Some(chosen) = targets else { return targets };
    let name = |named: String| {
        let found = rehearsal.devices.iter().find(|device| named == device.local || named == device.id);
        found.map_or(named, |device| device.name.clone())
    };
    Targets::Some(Chosen { devices: chosen.devices.into_iter().map(name).collect(), ..chosen })
}

/// What a plan means for a device, and by which clock, where that matters.
type Said<'a> = (Verdict, Option<&'a Zone>);

/// What a plan in the copy says otherwise than the plan itself, device by device.
fn differences(original: &Plan, again: &Plan) -> Vec<String> {
    let (planned, copied) = (said(original), said(again));
    let names: BTreeSet<&str> = planned.keys().chain(copied.keys()).copied().collect();
    let differs = |name: &&str| match (planned.get(*name), copied.get(*name)) {
        // Why it is left out may be said in other words.
        (Some((Verdict::Blocked { by, .. }, _)), Some((Verdict::Blocked { by: other, .. }, _))) => by != other,
        (planned, copied) => planned != copied,
    };
    let words = |said: Option<&Said<'_>>| match said {
        None => "not meant".to_owned(),
        Some((verdict, None)) => verdict.to_string(),
        Some((verdict, Some(zone))) => format!("{verdict} by the clocks of {zone}"),
    };
    let told = |name: &str| {
        format!("{name}: planned was {}, in the copy it is {}", words(planned.get(name)), words(copied.get(name)))
    };
    names.into_iter().filter(differs).map(told).collect()
}

fn said(plan: &Plan) -> BTreeMap<&str, Said<'_>> {
    // What stands in for a release in the copy comes without a configuration, and is another release for another pair.
    let verdict = |device: &PlannedDevice| match &device.verdict {
        Verdict::Update { from, .. } => Verdict::Update { from: from.clone(), configuration: None },
        verdict => verdict.clone(),
    };
    plan.devices.iter().map(|device| (device.name.as_str(), (verdict(device), device.zone.as_ref()))).collect()
}

/// The planned devices that get the release, by name.
pub(super) fn assigned(plan: &Plan) -> BTreeMap<&str, &PlannedDevice> {
    plan.assigned().map(|device| (device.name.as_str(), device)).collect()
}
