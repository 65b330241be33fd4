//! What a device should run: a pure function of the lanes of its desired document.
//!
//! Each authority has a lane of its own, and what several say stands side by side. Only this function decides
//! between them, and it reads all of them:
//!
//! - Any hold that is not lifted stops the workloads that it names.
//! - The assignment of a workload (`release`, `manifest`, `config`, `rollout`, `attempt`, `terms`, `remove`) is one
//!   authority's as a whole, that of the highest rank that says anything of it: parts of two never mix. `run` is decided likewise.
//! - Two authorities of one rank that say different things are a [`Conflict`]: what runs, goes on.
//! - What is absent, or cannot be read, removes nothing. Only `remove` does.
//!
//! | path | value |
//! |---|---|
//! | `workload/NAME/release` | text: the version |
//! | `workload/NAME/manifest` | bytes: the digest of the signed release |
//! | `workload/NAME/config` | bytes: the configuration that goes with the release; may be absent |
//! | `workload/NAME/rollout` | text: the rollout's id; may be absent |
//! | `workload/NAME/attempt` | integer: rises to try again what has failed; absent is 0 |
//! | `workload/NAME/terms` | text: when the device may switch, and how long it may put that off; may be absent |
//! | `workload/NAME/remove` | true |
//! | `workload/NAME/run` | text: `running` or `stopped`; absent leaves that as it is |
//! | `workload/NAME/restarts` | integer: rises with each wish to start it anew |
//! | `hold/ID` | text: why; holds all workloads of the device |
//! | `hold/ID/NAME` | text: why; holds one workload |
//! | `lift/ID` | text: why; ends the hold in lanes of its own or a lower rank |

mod path;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use path::{
    assign, hold_path, lift_path, read_hold_path, read_workload_path, restarts_path, run_path, workload_path,
};

use crate::configuration::Configuration;
use crate::envelope::{Head, Path, Value};
use crate::id::{ArtifactDigest, HoldId, KeyId, RolloutId};
use crate::name::{Version, WorkloadName};
use crate::planted::{Bug, is_planted};
use crate::trust::Rank;
use path::{
    ATTEMPT, CONFIG, HOLD, LIFT, MANIFEST, RELEASE, REMOVE, RESTARTS, ROLLOUT, RUN, RUNNING, STOPPED, TERMS, WORKLOAD,
};

/// One lane of a desired document: one that counts.
#[derive(Clone, Debug)]
pub struct DesiredLane<'a> {
    /// Whose it is.
    pub lane: KeyId,
    /// How much its word weighs: the higher wins.
    pub rank: Rank,
    /// The last envelope that has its effect.
    pub head: Option<Head>,
    /// What it says.
    pub entries: BTreeMap<&'a Path, &'a Value>,
}

/// What one authority wants of one workload.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Assignment {
    /// It should run this release.
    Install {
        /// The release's version.
        version: Version,
        /// The digest of the signed release.
        manifest: ArtifactDigest,
        /// What fills the names that the release's manifest leaves open, if something does.
        configuration: Option<Arc<Configuration>>,
        /// The rollout that brings it, if one does.
        rollout: Option<RolloutId>,
        /// Rises to try again what has failed.
        attempt: u64,
        /// When the device may switch to it; without it whenever it can. What it says is read by who acts on it.
        terms: Option<String>,
    },
    /// It should not be on the device at all.
    Remove,
}

/// Whether an operator wants a workload to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Run {
    /// It runs.
    #[default]
    Running,
    /// It stays installed and does not run.
    Stopped,
}

/// What is wanted of one workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// What should be installed. Without one, what is there stays.
    pub assignment: Option<Assignment>,
    /// Whether it should run; `None` when nobody says so, which leaves that as it is.
    pub run: Option<Run>,
    /// How often an operator asked to start it anew: the sum over the lanes, so that each wish makes it rise.
    pub restarts: u64,
    /// Whether a hold stops it from changing.
    pub held: bool,
    /// Whether authorities of one rank disagree, so that what runs goes on.
    pub conflict: bool,
    /// The head of the lane that the assignment is from.
    pub head: Option<Head>,
}

/// A hold that is in force.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hold {
    /// Its id, by which it is lifted.
    pub id: HoldId,
    /// Whose lane it stands in.
    pub lane: KeyId,
    /// The workload that it holds, or all of them.
    pub workload: Option<WorkloadName>,
    /// Why, for people.
    pub reason: String,
}

/// Authorities of one rank that say different things of one workload.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    /// The workload.
    pub workload: WorkloadName,
    /// The authorities.
    pub lanes: Vec<KeyId>,
}

/// What a device should run, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// What is wanted of each workload that any lane names.
    pub workloads: BTreeMap<WorkloadName, Desired>,
    /// The holds that are in force.
    pub holds: Vec<Hold>,
    /// The disagreements.
    pub conflicts: Vec<Conflict>,
    /// Paths whose values could not be read, with the lane that they stand in.
    pub unreadable: Vec<(KeyId, Path)>,
    /// The heads of the lanes that this was read from.
    pub heads: Vec<(KeyId, Head)>,
}

impl Resolved {
    /// Says whether a hold in force stops `workload`, also one that no lane names.
    #[must_use]
    pub fn holds(&self, workload: &WorkloadName) -> bool {
        self.holds.iter().any(|hold| hold.workload.as_ref().is_none_or(|held| held == workload))
    }
}

/// What one lane says of one thing: a value, or something that cannot be read.
type Said<T> = Result<T, ()>;

/// Decides what a device should run.
#[must_use]
pub fn resolve(lanes: &[DesiredLane<'_>]) -> Resolved {
    let mut resolved = Resolved {
        holds: holds_in_force(lanes),
        heads: lanes.iter().filter_map(|lane| lane.head.map(|head| (lane.lane, head))).collect(),
        ..Resolved::default()
    };
    resolved.heads.sort();
    for name in workload_names(lanes, &mut resolved.unreadable) {
        let desired = resolve_workload(lanes, &name, &mut resolved);
        resolved.workloads.insert(name, desired);
    }
    resolved.unreadable.sort();
    resolved.unreadable.dedup();
    resolved
}

fn workload_names(lanes: &[DesiredLane<'_>], unreadable: &mut Vec<(KeyId, Path)>) -> BTreeSet<WorkloadName> {
    let mut names = BTreeSet::new();
    for lane in lanes {
        for path in lane.entries.keys() {
            let mut segments = path.segments();
            if segments.next() != Some(WORKLOAD) {
                continue;
            }
            match segments.next().map(str::parse) {
                Some(Ok(name)) => {
                    names.insert(name);
                }
                Some(Err(_)) | None => unreadable.push((lane.lane, Path::clone(path))),
            }
        }
    }
    names
}

fn resolve_workload(lanes: &[DesiredLane<'_>], name: &WorkloadName, resolved: &mut Resolved) -> Desired {
    let mut disagree = BTreeSet::new();
    let unreadable = &mut resolved.unreadable;
    let assignment = highest(lanes, &mut disagree, |lane| assignment_of(lane, name, unreadable));
    let unreadable = &mut resolved.unreadable;
    let run = highest(lanes, &mut disagree, |lane| run_of(lane, name, unreadable));
    let conflict = !disagree.is_empty();
    if conflict {
        resolved.conflicts.push(Conflict { workload: name.clone(), lanes: disagree.into_iter().collect() });
    }
    let (assignment, head) = match assignment {
        Some((assignment, head)) => (Some(assignment), head),
        None => (None, None),
    };
    let run = run.map(|(run, _)| run);
    let restarts = restarts_of(lanes, name, &mut resolved.unreadable);
    Desired { assignment, run, restarts, held: resolved.holds(name), conflict, head }
}

/// What the lanes of the highest rank that say anything say, if they say the same and it can be read.
fn highest<T: PartialEq>(
    lanes: &[DesiredLane<'_>],
    disagree: &mut BTreeSet<KeyId>,
    mut say: impl FnMut(&DesiredLane<'_>) -> Option<Said<T>>,
) -> Option<(T, Option<Head>)> {
    let said: Vec<_> = lanes.iter().filter_map(|lane| say(lane).map(|said| (lane, said))).collect();
    let rank = said.iter().map(|(lane, _)| lane.rank).max()?;
    let said: Vec<_> = said.into_iter().filter(|(lane, _)| lane.rank == rank).collect();
    let same = said.windows(2).all(|pair| matches!(pair, [(_, one), (_, other)] if one == other));
    if !same {
        disagree.extend(said.iter().map(|(lane, _)| lane.lane));
        return None;
    }
    // Of several that agree the newest head is named, so that the order of the lanes does not show.
    let head = said.iter().filter_map(|(lane, _)| lane.head).max();
    said.into_iter().next().and_then(|(_, said)| said.ok()).map(|said| (said, head))
}

fn run_of(lane: &DesiredLane<'_>, name: &WorkloadName, unreadable: &mut Vec<(KeyId, Path)>) -> Option<Said<Run>> {
    let path = workload_path(name, RUN);
    match lane.entries.get(&path)? {
        Value::Text(text) if text == RUNNING => Some(Ok(Run::Running)),
        Value::Text(text) if text == STOPPED => Some(Ok(Run::Stopped)),
        _ => {
            unreadable.push((lane.lane, path));
            Some(Err(()))
        }
    }
}

fn restarts_of(lanes: &[DesiredLane<'_>], name: &WorkloadName, unreadable: &mut Vec<(KeyId, Path)>) -> u64 {
    let path = workload_path(name, RESTARTS);
    let mut restarts = 0_u64;
    for lane in lanes {
        match lane.entries.get(&path) {
            None => {}
            Some(Value::Integer(count)) if *count >= 0 => restarts = restarts.saturating_add(count.unsigned_abs()),
            Some(_) => unreadable.push((lane.lane, path.clone())),
        }
    }
    restarts
}

fn assignment_of(
    lane: &DesiredLane<'_>,
    name: &WorkloadName,
    unreadable: &mut Vec<(KeyId, Path)>,
) -> Option<Said<Assignment>> {
    let entry = |field| lane.entries.get(&workload_path(name, field)).copied();
    let fields = [RELEASE, MANIFEST, CONFIG, ROLLOUT, ATTEMPT, TERMS, REMOVE];
    if fields.iter().all(|field| entry(field).is_none()) {
        return None;
    }
    let mut bad = |field| {
        unreadable.push((lane.lane, workload_path(name, field)));
        Some(Err(()))
    };
    match entry(REMOVE) {
        Some(Value::Boolean(true)) => return Some(Ok(Assignment::Remove)),
        Some(Value::Boolean(false)) | None => {}
        Some(_) => return bad(REMOVE),
    }
    let Some(version) = text(entry(RELEASE)).and_then(|text| text.parse().ok()) else { return bad(RELEASE) };
    let Some(Value::Bytes(digest)) = entry(MANIFEST) else { return bad(MANIFEST) };
    let Some(manifest) = ArtifactDigest::from_slice(digest) else { return bad(MANIFEST) };
    let configuration = match entry(CONFIG).map(|value| configuration_of(value, name)) {
        None => None,
        Some(Some(configuration)) => Some(Arc::new(configuration)),
        Some(None) => return bad(CONFIG),
    };
    let rollout = match entry(ROLLOUT).map(|value| text(Some(value)).and_then(|text| text.parse().ok())) {
        None => None,
        Some(Some(rollout)) => Some(rollout),
        Some(None) => return bad(ROLLOUT),
    };
    let attempt = match entry(ATTEMPT) {
        None => 0,
        Some(Value::Integer(number)) if *number >= 0 => number.unsigned_abs(),
        Some(_) => return bad(ATTEMPT),
    };
    let terms = match entry(TERMS) {
        None => None,
        Some(Value::Text(terms)) => Some(terms.clone()),
        Some(_) => return bad(TERMS),
    };
    Some(Ok(Assignment::Install { version, manifest, configuration, rollout, attempt, terms }))
}

/// A configuration of this workload; one of another is none.
fn configuration_of(value: &Value, workload: &WorkloadName) -> Option<Configuration> {
    let Value::Bytes(bytes) = value else { return None };
    Configuration::decode(bytes).ok().filter(|configuration| configuration.workload() == workload)
}

fn text(value: Option<&Value>) -> Option<&str> {
    match value {
        Some(Value::Text(text)) => Some(text),
        _ => None,
    }
}

/// A hold ends by deletion in its own lane, or by a lift in a lane of its own rank or a higher one. A hold that
/// cannot be read in full holds all the same, and the whole device: a stop is never lost to a misunderstanding.
fn holds_in_force(lanes: &[DesiredLane<'_>]) -> Vec<Hold> {
    let mut lifts: BTreeMap<&str, Rank> = BTreeMap::new();
    for lane in lanes {
        for id in lane.entries.keys().filter_map(|path| second_segment(path, LIFT)) {
            let rank = lifts.entry(id).or_insert(lane.rank);
            *rank = lane.rank.max(*rank);
        }
    }
    let mut holds = Vec::new();
    for lane in lanes.iter().filter(|_| !is_planted(Bug::HoldLost)) {
        for (path, value) in &lane.entries {
            let Some(id) = second_segment(path, HOLD) else { continue };
            let Ok(parsed) = id.parse::<HoldId>() else { continue };
            if lifts.get(id).is_some_and(|rank| *rank >= lane.rank) {
                continue;
            }
            let workload = path.segments().nth(2).and_then(|name| name.parse().ok());
            let reason = text(Some(value)).unwrap_or_default().to_owned();
            holds.push(Hold { id: parsed, lane: lane.lane, workload, reason });
        }
    }
    holds.sort();
    holds
}

fn second_segment<'a>(path: &'a Path, first: &str) -> Option<&'a str> {
    let mut segments = path.segments();
    segments.next().filter(|segment| *segment == first)?;
    segments.next()
}
