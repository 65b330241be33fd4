//! The state that a server wants its lane of `desired/{device}` to have, as rows that need no signature.
//!
//! Operators and rollouts change rows. When the device is there, and its lanes have reached this server, the
//! difference between the rows and the lane becomes one signed change. A rollout over a hundred thousand absent
//! devices therefore signs nothing in advance.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fleetd_sync_core::configuration::{Configuration, pair_digest};
use fleetd_sync_core::envelope::{Op, Path, Value};
use fleetd_sync_core::id::{ArtifactDigest, HoldId, RolloutId};
use fleetd_sync_core::name::{Version, WorkloadName};
use fleetd_sync_core::resolve::{self, Assignment, Run};

use crate::window::DeviceTerms;

/// What a rollout assigns to one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolloutAssignment {
    /// The rollout.
    pub rollout: RolloutId,
    /// Which try of the release this is for the device.
    pub attempt: u32,
    /// The workload.
    pub workload: WorkloadName,
    /// The version, for people.
    pub version: Version,
    /// The digest of the signed manifest.
    pub manifest: ArtifactDigest,
    /// What goes with the release, if something does.
    pub configuration: Option<Arc<Configuration>>,
    /// When the device may switch to it.
    pub terms: DeviceTerms,
}

/// The rows of an assignment.
pub(super) const ASSIGNMENT_FIELDS: [&str; 6] = ["release", "manifest", "config", "rollout", "attempt", "terms"];

/// The rows of one device.
pub type Wanted = BTreeMap<Path, Value>;

fn apply(wanted: &mut Wanted, op: Op) {
    match op {
        Op::Set { path, value } => drop(wanted.insert(path, value)),
        Op::Delete { path } => drop(wanted.remove(&path)),
        Op::Unknown { .. } => {} // Rows are written by this version alone.
    }
}

/// Writes an assignment into the rows.
pub fn assign(wanted: &mut Wanted, assignment: &RolloutAssignment) {
    let install = Assignment::Install {
        version: assignment.version.clone(),
        manifest: assignment.manifest,
        configuration: assignment.configuration.clone(),
        rollout: Some(assignment.rollout),
        attempt: u64::from(assignment.attempt),
        // What every device asks for anyhow needs no room in its document.
        terms: (assignment.terms != DeviceTerms::default()).then(|| assignment.terms.to_string()),
    };
    resolve::assign(&assignment.workload, &install).into_iter().for_each(|op| apply(wanted, op));
}

/// Takes the rows of a rollout's assignment back; false when another has replaced it.
pub fn withdraw(wanted: &mut Wanted, rollout: RolloutId, workload: &WorkloadName) -> bool {
    if assigned_rollout(wanted, workload) != Some(rollout) {
        return false;
    }
    for field in ASSIGNMENT_FIELDS {
        wanted.remove(&resolve::workload_path(workload, field));
    }
    true
}

/// The rollout whose assignment of a workload stands in the rows.
#[must_use]
pub fn assigned_rollout(wanted: &Wanted, workload: &WorkloadName) -> Option<RolloutId> {
    text(wanted, workload, "rollout")?.parse().ok()
}

/// The rollouts whose assignments stand in the rows.
#[must_use]
pub fn assigned_rollouts(wanted: &Wanted) -> BTreeSet<RolloutId> {
    let rollout = |(path, value): (&Path, &Value)| match value {
        Value::Text(text) if path.as_str().ends_with("/rollout") => text.parse().ok(),
        _ => None,
    };
    wanted.iter().filter_map(rollout).collect()
}

/// The version and the attempt of a workload that stand in the rows.
#[must_use]
pub fn assigned_release(wanted: &Wanted, workload: &WorkloadName) -> Option<(Version, u32)> {
    let version = text(wanted, workload, "release")?.parse().ok()?;
    let attempt =
        integer(wanted, &resolve::workload_path(workload, "attempt")).and_then(|attempt| u32::try_from(attempt).ok());
    Some((version, attempt.unwrap_or(0)))
}

/// The configuration of a workload that stands in the rows.
#[must_use]
pub fn assigned_configuration(wanted: &Wanted, workload: &WorkloadName) -> Option<Configuration> {
    match wanted.get(&resolve::workload_path(workload, "config"))? {
        Value::Bytes(bytes) => Configuration::decode(bytes).ok(),
        Value::Boolean(_) | Value::Integer(_) | Value::Text(_) => None,
    }
}

/// What stands in the rows for a workload, by the digest of the release or of it and its configuration.
#[must_use]
pub fn assigned_digest(wanted: &Wanted, workload: &WorkloadName) -> Option<ArtifactDigest> {
    let manifest = wanted.get(&resolve::workload_path(workload, "manifest"))?;
    digest_of(manifest, wanted.get(&resolve::workload_path(workload, "config")))
}

fn digest_of(manifest: &Value, configuration: Option<&Value>) -> Option<ArtifactDigest> {
    let Value::Bytes(manifest) = manifest else { return None };
    let configuration = match configuration {
        Some(Value::Bytes(bytes)) => Some(ArtifactDigest::of(bytes)),
        _ => None,
    };
    Some(pair_digest(ArtifactDigest::from_slice(manifest)?, configuration))
}

/// What stands in the rows for each workload, by the digest of the release or of it and its configuration, with its
/// attempt.
pub fn assigned_attempts(wanted: &Wanted) -> impl Iterator<Item = (ArtifactDigest, u32)> {
    wanted.iter().filter_map(|(path, value)| {
        let of_workload = path.as_str().strip_suffix("/manifest")?;
        let attempt = integer(wanted, &format!("{of_workload}/attempt").parse().ok()?)?;
        let configuration = wanted.get(&format!("{of_workload}/config").parse().ok()?);
        Some((digest_of(value, configuration)?, u32::try_from(attempt).ok()?))
    })
}

/// When the device may switch to the release that stands in the rows; `None` when they do not say.
#[must_use]
pub fn assigned_terms(wanted: &Wanted, workload: &WorkloadName) -> Option<DeviceTerms> {
    text(wanted, workload, "terms")?.parse().ok()
}

/// Says whether the rows want a workload stopped.
#[must_use]
pub fn is_stopped(wanted: &Wanted, workload: &WorkloadName) -> bool {
    wanted.get(&resolve::run_path(workload)) == Some(&Run::Stopped.value())
}

/// Writes whether a workload should run.
pub fn set_run(wanted: &mut Wanted, workload: &WorkloadName, run: Run) {
    wanted.insert(resolve::run_path(workload), run.value());
}

/// Counts one more restart that was asked for.
pub fn count_restart(wanted: &mut Wanted, workload: &WorkloadName) {
    let path = resolve::restarts_path(workload);
    let before = integer(wanted, &path).unwrap_or(0);
    wanted.insert(path, Value::Integer(before.saturating_add(1)));
}

/// Writes a hold.
pub fn hold(wanted: &mut Wanted, hold: HoldId, workload: Option<&WorkloadName>, reason: &str) {
    wanted.insert(resolve::hold_path(hold, workload), Value::Text(reason.to_owned()));
}

/// Takes a hold of this server's own lane back.
pub fn lift(wanted: &mut Wanted, hold: HoldId, workload: Option<&WorkloadName>) {
    wanted.remove(&resolve::hold_path(hold, workload));
}

fn text<'a>(wanted: &'a Wanted, workload: &WorkloadName, field: &'static str) -> Option<&'a str> {
    match wanted.get(&resolve::workload_path(workload, field))? {
        Value::Text(text) => Some(text),
        Value::Boolean(_) | Value::Integer(_) | Value::Bytes(_) => None,
    }
}

fn integer(wanted: &Wanted, path: &Path) -> Option<i64> {
    match wanted.get(path)? {
        Value::Integer(integer) => Some(*integer),
        Value::Boolean(_) | Value::Text(_) | Value::Bytes(_) => None,
    }
}

/// The holds in the rows: their ids, the one workload that each stops, and why.
pub fn holds(wanted: &Wanted) -> impl Iterator<Item = (HoldId, Option<WorkloadName>, String)> {
    wanted.iter().filter_map(|(path, value)| {
        let Value::Text(reason) = value else { return None };
        let (hold, workload) = resolve::read_hold_path(path)?;
        Some((hold, workload, reason.clone()))
    })
}

/// Says whether a change places a hold, or ends one.
#[must_use]
pub fn is_about_hold(op: &Op) -> bool {
    op.path().is_some_and(|path| resolve::read_hold_path(path).is_some())
}

/// The rows after some changes.
#[must_use]
pub fn changed(mut wanted: Wanted, changes: Vec<Op>) -> Wanted {
    changes.into_iter().for_each(|op| apply(&mut wanted, op));
    wanted
}

/// The changes that make a lane's `state` what the rows say.
#[must_use]
pub fn difference(wanted: &Wanted, state: &BTreeMap<Path, Value>) -> Vec<Op> {
    let gone = state.keys().filter(|path| !wanted.contains_key(*path));
    let deletes = gone.map(|path| Op::Delete { path: path.clone() });
    let changed = wanted.iter().filter(|(path, value)| state.get(*path) != Some(value));
    let sets = changed.map(|(path, value)| Op::Set { path: path.clone(), value: value.clone() });
    deletes.chain(sets).collect()
}

#[cfg(test)]
mod tests {
    use fleetd_sync_core::entropy::Entropy;

    use super::*;

    fn configuration() -> Configuration {
        let values = [("ROAST".to_owned(), "dark".to_owned())].into();
        Configuration::new("coffee".parse().unwrap(), "roast-2".parse().unwrap(), values, [].into()).unwrap()
    }

    fn assignment(entropy: &mut Entropy, version: &str) -> RolloutAssignment {
        RolloutAssignment {
            rollout: RolloutId::random(entropy),
            attempt: 1,
            workload: "coffee".parse().unwrap(),
            version: version.parse().unwrap(),
            manifest: ArtifactDigest::of(version.as_bytes()),
            configuration: (version != "1.0").then(|| Arc::new(configuration())),
            terms: "veto 60s; zone Asia/Tokyo; window 0 2 * * * 3h".parse().unwrap(),
        }
    }

    #[test]
    fn the_difference_makes_the_lane_equal_to_the_rows_and_then_is_empty() {
        let mut entropy = Entropy::from_seed([2; 32]);
        let (mut wanted, mut state) = (Wanted::new(), BTreeMap::new());
        let held = HoldId::random(&mut entropy);
        assign(&mut wanted, &assignment(&mut entropy, "1.0"));
        hold(&mut wanted, held, Some(&"coffee".parse().unwrap()), "machine is open");
        difference(&wanted, &state.clone()).into_iter().for_each(|op| apply(&mut state, op));
        assert_eq!(state, wanted);
        lift(&mut wanted, held, Some(&"coffee".parse().unwrap()));
        count_restart(&mut wanted, &"coffee".parse().unwrap());
        difference(&wanted, &state.clone()).into_iter().for_each(|op| apply(&mut state, op));
        assert_eq!(state, wanted);
        assert!(difference(&wanted, &state).is_empty());
    }

    #[test]
    fn a_rollout_takes_back_its_own_assignment_only() {
        let mut entropy = Entropy::from_seed([2; 32]);
        let mut wanted = Wanted::new();
        let (first, second) = (assignment(&mut entropy, "1.0"), assignment(&mut entropy, "2.0"));
        assign(&mut wanted, &first);
        assign(&mut wanted, &second);
        let pair = pair_digest(second.manifest, Some(configuration().digest()));
        assert_eq!(assigned_attempts(&wanted).collect::<Vec<_>>(), [(pair, 1)]);
        assert!(!withdraw(&mut wanted, first.rollout, &first.workload));
        assert_eq!(assigned_release(&wanted, &second.workload), Some(("2.0".parse().unwrap(), 1)));
        assert!(withdraw(&mut wanted, second.rollout, &second.workload));
        assert!(wanted.is_empty());
    }
}
