//! What a device says of itself in `actual/{device}`, and the paths in which it says it.
//!
//! | path | value | meaning |
//! |---|---|---|
//! | `workload/NAME/release` | text | the version that is installed and current |
//! | `workload/NAME/config` | text | the configuration that is current with it: its name, and the digest of its bytes |
//! | `workload/NAME/digest` | 32 bytes | what the phase is about: the digest of the signed manifest, or of it and its configuration (see [`pair_digest`](fleetd_sync_core::configuration::pair_digest)) |
//! | `workload/NAME/phase` | text | a [`Phase`]'s word |
//! | `workload/NAME/rollout` | 10 bytes | the rollout that the phase belongs to |
//! | `workload/NAME/attempt` | integer | the try that the phase belongs to |
//! | `workload/NAME/desired` | 16 bytes | the hash of the desired lane's head that the device acted on |
//! | `workload/NAME/run` | text | a [`RunState`]'s word |
//! | `workload/NAME/error` | text | a [`Fault`]'s word, or that word, `": "` and details for people |
//! | `workload/NAME/restarts` | integer | how often it was started again by itself since it was installed |
//! | `workload/NAME/previous` | text | the version that would be restored |
//! | `workload/NAME/exit` | text | how the program last ended by itself: `code 1`, `signal 9`, `lost` |
//! | `workload/NAME/waits` | text | what a release that is laid out waits for, as a [`Waits`] writes it |
//! | `workload/NAME/local` | text | `stopped`, when somebody at the device stopped it |
//! | `fact/NAME` | text | a fact about the device |
//!
//! A path that is not there means "none" or 0. Words that a version does not know are read as if their path were
//! not there, but a fault's word is kept.

mod waits;

use std::collections::BTreeMap;
use std::fmt;

use fleetd_sync_core::configuration::ConfigurationId;
use fleetd_sync_core::envelope::{Op, Path, Value};
use fleetd_sync_core::id::{ArtifactDigest, EnvelopeHash, RolloutId};
use fleetd_sync_core::limit;
use fleetd_sync_core::name::{Version, WorkloadName};

pub use waits::Waits;

const WORKLOAD: &str = "workload";
const FACT: &str = "fact";
const STOPPED: &str = "stopped";

macro_rules! define_words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// Every one, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word that stands in the document.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// Reads the word, if this version knows it.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|known| known.as_str() == word)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

define_words!(
    /// How far a device has come with a release.
    Phase {
        /// It is assigned, and its manifest is not here yet.
        Pending = "pending",
        /// Its artifact is being fetched.
        Download = "download",
        /// Its signature is being judged.
        Verify = "verify",
        /// It is laid out beside the release that runs.
        Stage = "stage",
        /// It is laid out, and waits for a time at which it may be made the current one.
        Wait = "wait",
        /// It is made the current one.
        Switch = "switch",
        /// It is started, and has yet to prove itself.
        Watch = "watch",
        /// It has proven itself.
        Healthy = "healthy",
        /// It failed, and the one before it is what runs.
        Restored = "restored",
        /// It failed, and there is none to restore.
        Failed = "failed",
        /// The workload was taken off the device.
        Removed = "removed",
    }
);

impl Phase {
    /// Says whether the device has come to an end with the release.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Healthy | Self::Restored | Self::Failed | Self::Removed)
    }
}

define_words!(
    /// What a workload's program does.
    RunState {
        /// It is not known yet whether it runs.
        Unknown = "unknown",
        /// It is being started.
        Starting = "starting",
        /// It runs.
        Running = "running",
        /// It ended and waits for its next start.
        Backoff = "backoff",
        /// It ended so often that its starts are far apart.
        CrashLoop = "crash-loop",
        /// It does not run, and should not.
        Stopped = "stopped",
    }
);

/// Why a workload is not what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// A hold is in force.
    Held,
    /// Authorities of equal rank disagree.
    Conflict,
    /// It does not fit the device's storage.
    NoSpace,
    /// The manifest is not the one that was assigned, or is none.
    Manifest,
    /// The configuration fills names that the manifest does not leave open.
    Config,
    /// The signature does not count.
    Signature,
    /// The key that signed it admits no new release any more.
    Retired,
    /// The key that signed it is compromised.
    Compromised,
    /// An authority denied the release.
    Denied,
    /// The release has no artifact for this device's platform.
    Platform,
    /// The artifact could not be fetched.
    Fetch,
    /// The release could not be laid out.
    Stage,
    /// The release could not be made the current one.
    Switch,
    /// The program could not be executed.
    Start,
    /// The program ended though it should run.
    Crashed,
    /// The program's probe did not succeed in time.
    Probe,
    /// One that this version does not know, by its word.
    Other(String),
}

impl FaultKind {
    /// Says whether the release was turned away before anything of what runs was changed.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        !matches!(
            self,
            Self::Fetch | Self::Stage | Self::Switch | Self::Start | Self::Crashed | Self::Probe | Self::Other(_)
        )
    }

    const KNOWN: [Self; 16] = [
        Self::Held,
        Self::Conflict,
        Self::NoSpace,
        Self::Manifest,
        Self::Config,
        Self::Signature,
        Self::Retired,
        Self::Compromised,
        Self::Denied,
        Self::Platform,
        Self::Fetch,
        Self::Stage,
        Self::Switch,
        Self::Start,
        Self::Crashed,
        Self::Probe,
    ];

    /// The word that stands in the document.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Held => "held",
            Self::Conflict => "conflict",
            Self::NoSpace => "no_space",
            Self::Manifest => "manifest",
            Self::Config => "config",
            Self::Signature => "signature",
            Self::Retired => "retired",
            Self::Compromised => "compromised",
            Self::Denied => "denied",
            Self::Platform => "platform",
            Self::Fetch => "fetch",
            Self::Stage => "stage",
            Self::Switch => "switch",
            Self::Start => "start",
            Self::Crashed => "crashed",
            Self::Probe => "probe",
            Self::Other(word) => word,
        }
    }

    /// Reads the word.
    #[must_use]
    pub fn from_word(word: &str) -> Self {
        let known = Self::KNOWN.iter().find(|known| known.as_str() == word);
        known.cloned().unwrap_or_else(|| Self::Other(word.to_owned()))
    }
}

/// Why a workload is not what was asked for, with details for people.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// What programs compare.
    pub kind: FaultKind,
    /// What people read; may be empty.
    pub detail: String,
}

/// Bytes of a fault's details that travel: they are for people, and a document has little room.
const FAULT_DETAIL_BYTES_MAX: usize = 256;

impl Fault {
    /// Makes a fault. Details that are too long are cut.
    #[must_use]
    pub fn new(kind: FaultKind, detail: impl fmt::Display) -> Self {
        let mut detail = detail.to_string();
        detail.truncate(detail.floor_char_boundary(FAULT_DETAIL_BYTES_MAX));
        Self { kind, detail }
    }

    /// Reads what [`fmt::Display`] writes.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        let (word, detail) = text.split_once(": ").unwrap_or((text, ""));
        Self { kind: FaultKind::from_word(word), detail: detail.to_owned() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.as_str())?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, ": {}", self.detail) }
    }
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Its shim was killed, and it is not known how it would have ended.
    Lost,
}

impl Exit {
    fn from_text(text: &str) -> Option<Self> {
        match text.split_once(' ') {
            Some(("code", code)) => code.parse().ok().map(Self::Code),
            Some(("signal", signal)) => signal.parse().ok().map(Self::Signal),
            None if text == "lost" => Some(Self::Lost),
            _ => None,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Lost => f.write_str("lost"),
        }
    }
}

/// What a device says of one workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadReport {
    /// The version that is installed and current.
    pub release: Option<Version>,
    /// The configuration that is current with it, if one is.
    pub configuration: Option<ConfigurationId>,
    /// How far the device has come with what `digest` names; `None` when nothing was ever assigned.
    pub phase: Option<Phase>,
    /// The rollout that the phase belongs to.
    pub rollout: Option<RolloutId>,
    /// The try that the phase belongs to.
    pub attempt: u32,
    /// What the phase is about: the digest of a signed manifest, or of it and its configuration (see [`pair_digest`](fleetd_sync_core::configuration::pair_digest)).
    pub digest: Option<ArtifactDigest>,
    /// The head of the desired lane that the device acted on.
    pub desired: Option<EnvelopeHash>,
    /// What the program does; `None` when nothing is installed.
    pub run: Option<RunState>,
    /// Why it is not what was asked for.
    pub error: Option<Fault>,
    /// How often the program was started again by itself since its release was installed.
    pub restarts: u32,
    /// The version that would be restored.
    pub previous: Option<Version>,
    /// How the program last ended by itself.
    pub exit: Option<Exit>,
    /// Whether somebody at the device stopped it.
    pub stopped_locally: bool,
    /// What keeps a release that is laid out from being made the current one.
    pub waits: Option<Waits>,
}

impl WorkloadReport {
    /// Says whether the phase belongs to this try of this rollout of this release, and not to an older one.
    #[must_use]
    pub fn is_about(&self, rollout: RolloutId, attempt: u32, digest: ArtifactDigest) -> bool {
        self.rollout == Some(rollout) && self.attempt == attempt && self.digest == Some(digest)
    }

    /// Says whether this tells of a step on the way, and of nothing else than that after `before`: not of another try,
    /// a fault or an end.
    #[must_use]
    pub fn is_passing_after(&self, before: &Self) -> bool {
        let is_step = self.phase.is_some_and(|phase| {
            matches!(phase, Phase::Download | Phase::Verify | Phase::Stage | Phase::Wait | Phase::Switch | Phase::Watch)
        });
        let subject = |report: &Self| (report.rollout, report.attempt, report.digest, report.stopped_locally);
        is_step && subject(self) == subject(before) && self.error == before.error && self.exit == before.exit
    }

    /// What is installed and current, for people: `1.8.0`, `1.8.0 with roast-2`, or `nothing`.
    #[must_use]
    pub fn installed(&self) -> String {
        match (&self.release, &self.configuration) {
            (None, _) => "nothing".to_owned(),
            (Some(release), None) => release.to_string(),
            (Some(release), Some(configuration)) => format!("{release} with {}", configuration.name),
        }
    }

    /// What it says, each field under its name in the document; `None` for a field that says nothing.
    #[must_use]
    pub fn fields(&self) -> [(&'static str, Option<Value>); 14] {
        let text = |text: &dyn fmt::Display| Value::Text(text.to_string());
        let count = |count: u32| (count > 0).then_some(Value::Integer(i64::from(count)));
        [
            ("release", self.release.as_ref().map(|release| text(release))),
            ("digest", self.digest.map(|digest| Value::Bytes(digest.as_bytes().to_vec()))),
            ("phase", self.phase.map(|phase| text(&phase))),
            ("rollout", self.rollout.map(|rollout| Value::Bytes(rollout.as_bytes().to_vec()))),
            ("attempt", count(self.attempt)),
            ("desired", self.desired.map(|desired| Value::Bytes(desired.as_bytes().to_vec()))),
            ("run", self.run.map(|run| text(&run))),
            ("error", self.error.as_ref().map(|error| text(error))),
            ("restarts", count(self.restarts)),
            ("previous", self.previous.as_ref().map(|previous| text(previous))),
            ("exit", self.exit.map(|exit| text(&exit))),
            ("local", self.stopped_locally.then(|| Value::Text(STOPPED.to_owned()))),
            ("waits", self.waits.as_ref().map(|waits| text(waits))),
            ("config", self.configuration.as_ref().map(|configuration| text(configuration))),
        ]
    }

    /// Takes what the document says in a field. One that this version does not know changes nothing.
    pub fn read_field(&mut self, field: &str, value: &Value) {
        match (field, value) {
            ("release", Value::Text(text)) => self.release = text.parse().ok(),
            ("digest", Value::Bytes(bytes)) => self.digest = ArtifactDigest::from_slice(bytes),
            ("phase", Value::Text(word)) => self.phase = Phase::from_word(word),
            ("rollout", Value::Bytes(bytes)) => self.rollout = RolloutId::from_slice(bytes),
            ("attempt", Value::Integer(number)) => self.attempt = u32::try_from(*number).unwrap_or(0),
            ("desired", Value::Bytes(bytes)) => self.desired = EnvelopeHash::from_slice(bytes),
            ("run", Value::Text(word)) => self.run = RunState::from_word(word),
            ("error", Value::Text(text)) => self.error = Some(Fault::from_text(text)),
            ("restarts", Value::Integer(number)) => self.restarts = u32::try_from(*number).unwrap_or(0),
            ("previous", Value::Text(text)) => self.previous = text.parse().ok(),
            ("exit", Value::Text(text)) => self.exit = Exit::from_text(text),
            ("local", Value::Text(word)) => self.stopped_locally = word == STOPPED,
            ("config", Value::Text(text)) => self.configuration = ConfigurationId::from_text(text),
            ("waits", Value::Text(text)) => self.waits = Waits::from_text(text),
            _ => {}
        }
    }
}

/// Gives the operations that turn what the document says of `workload` from `old` into `new`: those that change
/// something, and no others. `None` stands for a workload that the document does not know.
#[must_use]
pub fn workload_ops(workload: &WorkloadName, old: Option<&WorkloadReport>, new: Option<&WorkloadReport>) -> Vec<Op> {
    let nothing = WorkloadReport::default();
    let (old, new) = (old.unwrap_or(&nothing).fields(), new.unwrap_or(&nothing).fields());
    let changed = old.into_iter().zip(new).filter(|((_, old), (_, new))| old != new);
    changed.filter_map(|(_, (field, new))| op(&format!("{WORKLOAD}/{workload}/{field}"), new)).collect()
}

/// Gives the operations that turn the document's facts from `old` into `new`. A fact whose name is no segment of a
/// path is left out.
#[must_use]
pub fn fact_ops(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Vec<Op> {
    let gone = old.keys().filter(|name| !new.contains_key(*name)).map(|name| (name, None));
    let changed = new.iter().filter(|(name, fact)| old.get(*name) != Some(fact));
    let changed = changed.map(|(name, fact)| (name, Some(Value::Text(cut(fact)))));
    gone.chain(changed).filter_map(|(name, value)| op(&format!("{FACT}/{name}"), value)).collect()
}

/// Reads what a lane's state says of each workload.
#[must_use]
pub fn read_workloads(state: &BTreeMap<Path, Value>) -> BTreeMap<WorkloadName, WorkloadReport> {
    let mut reports = BTreeMap::<WorkloadName, WorkloadReport>::new();
    for (path, value) in state {
        let mut segments = path.segments();
        if let (Some(WORKLOAD), Some(name), Some(field), None) =
            (segments.next(), segments.next(), segments.next(), segments.next())
            && let Ok(name) = name.parse()
        {
            reports.entry(name).or_default().read_field(field, value);
        }
    }
    reports
}

/// Reads the facts that a lane's state holds.
#[must_use]
pub fn read_facts(state: &BTreeMap<Path, Value>) -> BTreeMap<String, String> {
    let fact = |(path, value): (&Path, &Value)| {
        let (segment, name) = path.as_str().split_once('/')?;
        match value {
            Value::Text(fact) if segment == FACT && !name.contains('/') => Some((name.to_owned(), fact.clone())),
            _ => None,
        }
    };
    state.iter().filter_map(fact).collect()
}

fn op(path: &str, value: Option<Value>) -> Option<Op> {
    let path = path.parse().ok()?;
    Some(match value {
        Some(value) => Op::Set { path, value },
        None => Op::Delete { path },
    })
}

fn cut(text: &str) -> String {
    let end = text.floor_char_boundary(limit::VALUE_BYTES_MAX);
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;

    fn coffee() -> WorkloadName {
        "coffee".parse().unwrap()
    }

    fn apply(state: &mut BTreeMap<Path, Value>, ops: Vec<Op>) {
        for op in ops {
            match op {
                Op::Set { path, value } => drop(state.insert(path, value)),
                Op::Delete { path } => assert!(state.remove(&path).is_some(), "{path} was not there"),
                Op::Unknown { .. } => unreachable!("reports have no unknown operations"),
            }
        }
    }

    fn any_report() -> impl Strategy<Value = WorkloadReport> {
        let version = || proptest::option::of("[0-9]\\.[0-9]{1,2}".prop_map(|text| text.parse().unwrap()));
        let phase = proptest::option::of(proptest::sample::select(Phase::ALL));
        let run = proptest::option::of(proptest::sample::select(RunState::ALL));
        let rollout = proptest::option::of(any::<[u8; 10]>().prop_map(RolloutId::from_bytes));
        let digest = proptest::option::of(any::<[u8; 32]>().prop_map(ArtifactDigest::from_bytes));
        let desired = proptest::option::of(any::<[u8; 16]>().prop_map(EnvelopeHash::from_bytes));
        let error = proptest::option::of(("[a-z_]{1,9}", ".{0,300}"));
        let error = error.prop_map(|error| error.map(|(word, text)| Fault::new(FaultKind::from_word(&word), text)));
        let exit = proptest::option::of(prop_oneof![
            any::<i32>().prop_map(Exit::Code),
            any::<i32>().prop_map(Exit::Signal),
            Just(Exit::Lost)
        ]);
        let first = (version(), phase, rollout, 0..3_u32, digest, desired);
        let waits = proptest::option::of(waits::any_waits());
        let configuration = ("[a-z]{1,4}-[0-9]", any::<[u8; 32]>()).prop_map(|(name, digest)| ConfigurationId {
            name: name.parse().unwrap(),
            digest: ArtifactDigest::from_bytes(digest),
        });
        let last = (waits, proptest::option::of(configuration));
        (first, (run, error, 0..3_u32, version(), exit, any::<bool>()), last).prop_map(|(first, second, last)| {
            let (release, phase, rollout, attempt, digest, desired) = first;
            let (run, error, restarts, previous, exit, stopped_locally) = second;
            let (waits, configuration) = last;
            let error = error.filter(|error: &Fault| !error.detail.is_empty() || !error.kind.as_str().is_empty());
            WorkloadReport {
                release,
                configuration,
                phase,
                rollout,
                attempt,
                digest,
                desired,
                run,
                error,
                restarts,
                previous,
                exit,
                stopped_locally,
                waits,
            }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn reports_are_read_as_they_were_written_and_unchanged_fields_cost_nothing(
            reports in proptest::collection::vec(any_report(), 1..6)
        ) {
            let mut state = BTreeMap::new();
            let mut last: Option<WorkloadReport> = None;
            for report in reports {
                let ops = workload_ops(&coffee(), last.as_ref(), Some(&report));
                apply(&mut state, ops);
                let expected = (report != WorkloadReport::default()).then(|| report.clone());
                prop_assert_eq!(read_workloads(&state).remove(&coffee()), expected);
                prop_assert_eq!(workload_ops(&coffee(), Some(&report), Some(&report)), vec![]);
                last = Some(report);
            }
            apply(&mut state, workload_ops(&coffee(), last.as_ref(), None));
            prop_assert!(state.is_empty());
        }
    }

    #[test]
    fn a_change_of_phase_is_one_operation() {
        let watch = WorkloadReport { phase: Some(Phase::Watch), attempt: 1, ..WorkloadReport::default() };
        let healthy = WorkloadReport { phase: Some(Phase::Healthy), ..watch.clone() };
        expect![[r#"
            [
                Set {
                    path: workload/coffee/phase,
                    value: Text(
                        "healthy",
                    ),
                },
            ]
        "#]]
        .assert_debug_eq(&workload_ops(&coffee(), Some(&watch), Some(&healthy)));
    }

    #[test]
    fn an_old_healthy_does_not_count_for_a_new_try() {
        let (rollout, digest) = (RolloutId::from_bytes([1; 10]), ArtifactDigest::of(b"manifest"));
        let report =
            WorkloadReport { rollout: Some(rollout), attempt: 1, digest: Some(digest), ..WorkloadReport::default() };
        assert!(report.is_about(rollout, 1, digest));
        assert!(!report.is_about(rollout, 2, digest));
        assert!(!report.is_about(RolloutId::from_bytes([2; 10]), 1, digest));
        assert!(!report.is_about(rollout, 1, ArtifactDigest::of(b"other")));
    }

    #[test]
    fn facts_change_one_by_one() {
        let facts = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(name, fact)| ((*name).to_owned(), (*fact).to_owned())).collect()
        };
        let (old, new) = (facts(&[("arch", "arm64"), ("os", "a")]), facts(&[("arch", "arm64"), ("kernel", "6")]));
        let mut state = BTreeMap::new();
        apply(&mut state, fact_ops(&BTreeMap::new(), &old));
        let ops = fact_ops(&old, &new);
        assert_eq!(ops.len(), 2);
        apply(&mut state, ops);
        assert_eq!(read_facts(&state), new);
        assert_eq!(fact_ops(&BTreeMap::new(), &facts(&[("no name", "x")])), vec![]);
    }
}
