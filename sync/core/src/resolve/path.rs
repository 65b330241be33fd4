//! The paths of a desired document, and the operations that write them.

use super::{Assignment, Run};
use crate::envelope::{Op, Path, Value};
use crate::id::HoldId;
use crate::lane;
use crate::name::WorkloadName;

pub(super) const WORKLOAD: &str = "workload";
pub(super) const HOLD: &str = lane::HOLD;
pub(super) const LIFT: &str = "lift";

pub(super) const RELEASE: &str = "release";
pub(super) const MANIFEST: &str = "manifest";
pub(super) const ROLLOUT: &str = "rollout";
pub(super) const ATTEMPT: &str = "attempt";
pub(super) const TERMS: &str = "terms";
pub(super) const CONFIG: &str = "config";
pub(super) const REMOVE: &str = "remove";
pub(super) const RESTARTS: &str = "restarts";
pub(super) const RUN: &str = "run";

pub(super) const RUNNING: &str = "running";
pub(super) const STOPPED: &str = "stopped";

/// The path of one field of a workload.
#[must_use]
pub fn workload_path(name: &WorkloadName, field: &'static str) -> Path {
    Path::of_segments(&[WORKLOAD, name.as_str(), field])
}

/// The workload that a path is about; `None` for a path of holds and lifts.
#[must_use]
pub fn read_workload_path(path: &Path) -> Option<&str> {
    let mut segments = path.segments();
    segments.next().filter(|first| *first == WORKLOAD)?;
    segments.next()
}

/// The path that says whether a workload should run.
#[must_use]
pub fn run_path(name: &WorkloadName) -> Path {
    workload_path(name, RUN)
}

/// The path that counts the wishes to start a workload anew.
#[must_use]
pub fn restarts_path(name: &WorkloadName) -> Path {
    workload_path(name, RESTARTS)
}

/// The path of a hold of one workload, or of the whole device.
#[must_use]
pub fn hold_path(id: HoldId, workload: Option<&WorkloadName>) -> Path {
    let id = id.to_string();
    match workload {
        Some(name) => Path::of_segments(&[HOLD, &id, name.as_str()]),
        None => Path::of_segments(&[HOLD, &id]),
    }
}

/// Reads the path of a hold; `None` for any other path.
#[must_use]
pub fn read_hold_path(path: &Path) -> Option<(HoldId, Option<WorkloadName>)> {
    let mut segments = path.segments();
    let (HOLD, id) = (segments.next()?, segments.next()?.parse().ok()?) else { return None };
    match segments.next() {
        Some(name) => Some((id, Some(name.parse().ok()?))),
        None => Some((id, None)),
    }
}

/// The path of what ends a hold.
#[must_use]
pub fn lift_path(id: HoldId) -> Path {
    Path::of_segments(&[LIFT, &id.to_string()])
}

/// The operations that assign something to a workload, in place of what the same lane assigned before.
#[must_use]
pub fn assign(name: &WorkloadName, assignment: &Assignment) -> Vec<Op> {
    let values = match assignment {
        Assignment::Install { version, manifest, configuration, rollout, attempt, terms } => [
            (RELEASE, Some(Value::Text(version.to_string()))),
            (MANIFEST, Some(Value::Bytes(manifest.as_bytes().to_vec()))),
            (ROLLOUT, rollout.map(|rollout| Value::Text(rollout.to_string()))),
            (ATTEMPT, Some(Value::Integer(i64::try_from(*attempt).unwrap_or(i64::MAX)))),
            (TERMS, terms.clone().map(Value::Text)),
            (CONFIG, configuration.as_ref().map(|configuration| Value::Bytes(configuration.encode()))),
            (REMOVE, None),
        ],
        Assignment::Remove => [
            (RELEASE, None),
            (MANIFEST, None),
            (ROLLOUT, None),
            (ATTEMPT, None),
            (TERMS, None),
            (CONFIG, None),
            (REMOVE, Some(Value::Boolean(true))),
        ],
    };
    let op = |(field, value)| match (workload_path(name, field), value) {
        (path, Some(value)) => Op::Set { path, value },
        (path, None) => Op::Delete { path },
    };
    values.into_iter().map(op).collect()
}

impl Run {
    /// The value that says it.
    #[must_use]
    pub fn value(self) -> Value {
        Value::Text(match self {
            Self::Running => RUNNING.to_owned(),
            Self::Stopped => STOPPED.to_owned(),
        })
    }
}
