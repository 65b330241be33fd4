//! What a device should run, by what the authorities say: [`fleetd_sync_core::resolve`] told once more.

use std::collections::{BTreeMap, BTreeSet};

use fleetd_sync_core::configuration::Configuration;
use fleetd_sync_core::envelope::Value;
use fleetd_sync_core::id::{ArtifactDigest, HoldId, RolloutId};
use fleetd_sync_core::name::{Version, WorkloadName};
use fleetd_sync_core::resolve as product;

/// What one authority says.
#[derive(Clone, Debug)]
pub struct Speaker {
    /// How much its word weighs.
    pub weight: u8,
    /// Each path with its value.
    pub entries: BTreeMap<String, Value>,
}

/// A release that should be installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Its version.
    pub version: String,
    /// The digest of its signed manifest.
    pub manifest: ArtifactDigest,
    /// The digest of the configuration that goes with it.
    pub configuration: Option<ArtifactDigest>,
    /// The rollout that brings it.
    pub rollout: Option<RolloutId>,
    /// The try.
    pub attempt: u64,
}

impl Release {
    /// What a device that has all of it reports.
    #[must_use]
    pub fn whole(&self) -> ArtifactDigest {
        whole(self.manifest, self.configuration)
    }
}

/// The digest of a signed manifest, or of it and a configuration.
#[must_use]
pub fn whole(manifest: ArtifactDigest, configuration: Option<ArtifactDigest>) -> ArtifactDigest {
    let Some(configuration) = configuration else { return manifest };
    let mut both = b"fleetd/pair/1\0".to_vec();
    both.extend(manifest.as_bytes());
    both.extend(configuration.as_bytes());
    ArtifactDigest::of(&both)
}

/// What is wanted of one workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// The release that it should have.
    pub release: Option<Release>,
    /// Whether it should be taken off.
    pub is_removed: bool,
    /// Whether it should run, when somebody says so.
    pub runs: Option<bool>,
    /// How often it was asked to be started anew.
    pub restarts: u64,
    /// Whether a hold keeps it as it is.
    pub is_held: bool,
    /// Whether authorities whose word weighs the same disagree.
    pub is_disputed: bool,
}

/// What is wanted of each workload that anybody names, and whether a hold stands for all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// By workload.
    pub workloads: BTreeMap<WorkloadName, Wish>,
    /// How many holds are in force.
    pub holds: usize,
    /// Whether one of them holds the whole device.
    pub holds_all: bool,
}

impl Wishes {
    /// What is wanted of a workload, also of one that nobody names.
    #[must_use]
    pub fn of(&self, workload: &WorkloadName) -> Wish {
        let unnamed = || Wish { is_held: self.holds_all, ..Wish::default() };
        self.workloads.get(workload).cloned().unwrap_or_else(unnamed)
    }
}

/// What a speaker says of one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said<T> {
    Nothing,
    Unreadable,
    This(T),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    Install(Release),
    Remove,
}

/// Decides what a device should run.
#[must_use]
pub fn resolve(speakers: &[Speaker]) -> Wishes {
    let holds = holds(speakers);
    let mut wishes = Wishes {
        workloads: BTreeMap::new(),
        holds: holds.len(),
        holds_all: holds.iter().any(|(_, workload)| workload.is_none()),
    };
    for workload in names(speakers) {
        let (change, one) = loudest(speakers, |speaker| change_of(speaker, &workload));
        let (runs, other) = loudest(speakers, |speaker| runs_of(speaker, &workload));
        let mut restarts = 0_u64;
        for speaker in speakers {
            if let Some(Value::Integer(count)) = entry(speaker, &workload, "restarts")
                && let Ok(count) = u64::try_from(*count)
            {
                restarts = restarts.saturating_add(count);
            }
        }
        let mut wish = Wish { runs, restarts, is_disputed: one || other, ..Wish::default() };
        match change {
            Some(Change::Install(release)) => wish.release = Some(release),
            Some(Change::Remove) => wish.is_removed = true,
            None => {}
        }
        wish.is_held = holds.iter().any(|(_, held)| held.as_ref().is_none_or(|held| *held == workload));
        wishes.workloads.insert(workload, wish);
    }
    wishes
}

fn names(speakers: &[Speaker]) -> BTreeSet<WorkloadName> {
    let mut names = BTreeSet::new();
    for speaker in speakers {
        for path in speaker.entries.keys() {
            let Some(rest) = path.strip_prefix("workload/") else { continue };
            let name = rest.split('/').next().unwrap_or_default();
            if let Ok(name) = name.parse() {
                names.insert(name);
            }
        }
    }
    names
}

fn entry<'a>(speaker: &'a Speaker, workload: &WorkloadName, field: &str) -> Option<&'a Value> {
    speaker.entries.get(&format!("workload/{workload}/{field}"))
}

/// Of those who say anything the loudest decide; when they say different things nobody does, and that is a dispute.
fn loudest<T: Clone + PartialEq>(speakers: &[Speaker], say: impl Fn(&Speaker) -> Said<T>) -> (Option<T>, bool) {
    for weight in (0..=u8::MAX).rev() {
        let mut words: Vec<Said<T>> = Vec::new();
        for speaker in speakers.iter().filter(|speaker| speaker.weight == weight) {
            match say(speaker) {
                Said::Nothing => {}
                word => words.push(word),
            }
        }
        let Some(first) = words.first().cloned() else { continue };
        if words.iter().any(|word| *word != first) {
            return (None, true);
        }
        return match first {
            Said::This(word) => (Some(word), false),
            Said::Unreadable | Said::Nothing => (None, false),
        };
    }
    (None, false)
}

fn runs_of(speaker: &Speaker, workload: &WorkloadName) -> Said<bool> {
    match entry(speaker, workload, "run") {
        None => Said::Nothing,
        Some(Value::Text(text)) if text == "running" => Said::This(true),
        Some(Value::Text(text)) if text == "stopped" => Said::This(false),
        Some(_) => Said::Unreadable,
    }
}

fn change_of(speaker: &Speaker, workload: &WorkloadName) -> Said<Change> {
    let get = |field| entry(speaker, workload, field);
    let fields = ["release", "manifest", "config", "rollout", "attempt", "terms", "remove"];
    if fields.iter().all(|field| get(field).is_none()) {
        return Said::Nothing;
    }
    match get("remove") {
        Some(Value::Boolean(true)) => return Said::This(Change::Remove),
        None | Some(Value::Boolean(false)) => {}
        Some(_) => return Said::Unreadable,
    }
    let (Some(Value::Text(version)), Some(Value::Bytes(manifest))) = (get("release"), get("manifest")) else {
        return Said::Unreadable;
    };
    let (Ok(_), Some(manifest)) = (version.parse::<Version>(), ArtifactDigest::from_slice(manifest)) else {
        return Said::Unreadable;
    };
    let configuration = match get("config") {
        None => None,
        Some(Value::Bytes(bytes)) => match Configuration::decode(bytes) {
            Ok(read) if read.workload() == workload => Some(ArtifactDigest::of(bytes)),
            _ => return Said::Unreadable,
        },
        Some(_) => return Said::Unreadable,
    };
    let rollout = match get("rollout") {
        None => None,
        Some(Value::Text(text)) => match text.parse() {
            Ok(rollout) => Some(rollout),
            Err(_) => return Said::Unreadable,
        },
        Some(_) => return Said::Unreadable,
    };
    let attempt = match get("attempt") {
        None => 0,
        Some(Value::Integer(number)) if *number >= 0 => number.unsigned_abs(),
        Some(_) => return Said::Unreadable,
    };
    Said::This(Change::Install(Release { version: version.clone(), manifest, configuration, rollout, attempt }))
}

/// The holds in force, each with the one workload that it holds, or with none for all.
fn holds(speakers: &[Speaker]) -> Vec<(HoldId, Option<WorkloadName>)> {
    let mut holds = Vec::new();
    for speaker in speakers {
        for path in speaker.entries.keys() {
            let Some(rest) = path.strip_prefix("hold/") else { continue };
            let mut segments = rest.split('/');
            let Some(Ok(hold)) = segments.next().map(str::parse::<HoldId>) else { continue };
            let lift = format!("lift/{hold}");
            let is_lifted = speakers
                .iter()
                .any(|other| other.weight >= speaker.weight && other.entries.keys().any(|path| lifts(path, &lift)));
            if !is_lifted {
                holds.push((hold, segments.next().and_then(|name| name.parse().ok())));
            }
        }
    }
    holds
}

fn lifts(path: &str, lift: &str) -> bool {
    path.strip_prefix(lift).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What the product says, in the same words.
#[must_use]
pub fn told(resolved: &product::Resolved) -> Wishes {
    let wish = |desired: &product::Desired| {
        let mut wish = Wish {
            runs: desired.run.map(|run| run == product::Run::Running),
            restarts: desired.restarts,
            is_held: desired.held,
            is_disputed: desired.conflict,
            ..Wish::default()
        };
        match &desired.assignment {
            Some(product::Assignment::Install { version, manifest, configuration, rollout, attempt, .. }) => {
                let version = version.to_string();
                let configuration = configuration.as_ref().map(|configuration| configuration.digest());
                let (manifest, rollout, attempt) = (*manifest, *rollout, *attempt);
                wish.release = Some(Release { version, manifest, configuration, rollout, attempt });
            }
            Some(product::Assignment::Remove) => wish.is_removed = true,
            None => {}
        }
        wish
    };
    Wishes {
        workloads: resolved.workloads.iter().map(|(name, desired)| (name.clone(), wish(desired))).collect(),
        holds: resolved.holds.len(),
        holds_all: resolved.holds.iter().any(|hold| hold.workload.is_none()),
    }
}

#[cfg(test)]
mod tests {
    use fleetd_sync_core::entropy::Entropy;

    use super::*;

    fn speaker(weight: u8, entries: &[(&str, Value)]) -> Speaker {
        let entries = entries.iter().map(|(path, value)| ((*path).to_owned(), value.clone())).collect();
        Speaker { weight, entries }
    }

    fn release(version: &str) -> [(&'static str, Value); 2] {
        let digest = ArtifactDigest::of(version.as_bytes());
        [
            ("workload/coffee/release", Value::Text(version.to_owned())),
            ("workload/coffee/manifest", Value::Bytes(digest.as_bytes().to_vec())),
        ]
    }

    fn coffee() -> WorkloadName {
        "coffee".parse().unwrap()
    }

    #[test]
    fn the_louder_decides_and_equals_dispute() {
        let (low, high) = (speaker(50, &release("1.0.0")), speaker(100, &release("2.0.0")));
        let wishes = resolve(&[low.clone(), high.clone()]);
        assert_eq!(wishes.of(&coffee()).release.unwrap().version, "2.0.0");
        let wish = resolve(&[Speaker { weight: 50, ..high }, low]).of(&coffee());
        assert!(wish.is_disputed && wish.release.is_none());
    }

    #[test]
    fn a_hold_ends_by_a_lift_that_weighs_as_much() {
        let hold = HoldId::random(&mut Entropy::from_seed([3; 32]));
        let (held, lifted) = (format!("hold/{hold}"), format!("lift/{hold}"));
        let holder = speaker(100, &[(&held, Value::Text(String::new()))]);
        let lift = speaker(50, &[(&lifted, Value::Text(String::new()))]);
        assert!(resolve(&[holder.clone(), lift.clone()]).of(&coffee()).is_held);
        assert!(!resolve(&[holder, Speaker { weight: 100, ..lift }]).of(&coffee()).is_held);
    }
}
