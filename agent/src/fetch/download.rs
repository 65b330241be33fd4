//! One download: how far it is, what is on its way, and what is to be asked for next.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fleetd_actors::workload::{FetchError, Fetched, Wanted};
use fleetd_sync_core::artifact::{GroupTree, group_bytes, group_values_bytes};
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::id::OperationId;
use fleetd_sync_core::limit;
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::session::message::{ArtifactGroups, ArtifactTree, ArtifactWant, WantedGroups};
use fleetd_sync_core::time::{Monotonic, Now};

use super::Job;
use crate::artifact_files::GroupSet;

/// Bytes of a signed manifest: its own, the signer, the signature, and a few of framing.
const SIGNED_MANIFEST_BYTES_MAX: u64 = limit::MANIFEST_BYTES_MAX as u64 + 256;
/// Time without an answer after which what was asked for is asked for again: a window on a link of 32 KiB/s.
const STALLED_AFTER: Duration = Duration::from_secs(16);
/// First ceiling of the pause before a server that has nothing, or sends nonsense, is asked again.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Last ceiling of that pause: a server that gets the artifact later is noticed within a minute.
const RETRY_LAST: Duration = Duration::from_secs(60);
/// Bytes of one group's value.
const VALUE_BYTES: u64 = 32;

/// What follows from something that happened to a download.
#[derive(Debug)]
pub(super) enum Step {
    /// It goes on.
    Wait,
    /// These groups are to be written.
    Write(Job, Vec<(u64, Vec<u8>)>),
    /// It is to be made whole.
    Finish(Job),
    /// It is over.
    End(Result<Fetched, FetchError>),
}

/// How far a download is.
#[derive(Debug)]
enum Phase {
    /// The disk is looked at.
    Opening,
    /// The groups' values are fetched. A manifest's size is told with them.
    Values { size_bytes: Option<u64>, values: Vec<u8>, held: GroupSet },
    /// The groups are fetched.
    Groups { tree: GroupTree, held: GroupSet, content: BTreeMap<u64, Vec<u8>> },
    /// All is written and is made whole.
    Finishing,
}

/// One download.
#[derive(Debug)]
pub(super) struct Download {
    job: Job,
    wanted: Wanted,
    /// Who waits for it.
    pub(super) waiters: BTreeMap<OperationId, WorkloadName>,
    phase: Phase,
    /// Whether values were asked for and have not come.
    awaits_values: bool,
    /// Groups that were asked for and have not come.
    asked: BTreeSet<u64>,
    /// Groups that are being written.
    writing: BTreeSet<u64>,
    /// All groups below are there.
    lowest: u64,
    failures: u32,
    retry_at: Option<Monotonic>,
    stalled_at: Option<Monotonic>,
}

impl Download {
    pub(super) fn new(job: Job, wanted: Wanted, operation: OperationId, workload: WorkloadName) -> Self {
        let phase = match wanted {
            Wanted::Artifact { .. } => Phase::Opening,
            Wanted::Manifest => Phase::Values { size_bytes: None, values: Vec::new(), held: GroupSet::of_size(0) },
        };
        Self {
            job,
            wanted,
            waiters: BTreeMap::from([(operation, workload)]),
            phase,
            awaits_values: false,
            asked: BTreeSet::new(),
            writing: BTreeSet::new(),
            lowest: 0,
            failures: 0,
            retry_at: None,
            stalled_at: None,
        }
    }

    pub(super) const fn job(&self) -> Job {
        self.job
    }

    pub(super) const fn wanted(&self) -> Wanted {
        self.wanted
    }

    /// Whether some of it may be on the disk and not be durable.
    pub(super) const fn is_on_disk(&self) -> bool {
        matches!((&self.phase, self.wanted), (Phase::Groups { .. }, Wanted::Artifact { .. }))
    }

    pub(super) fn progress_bytes(&self) -> Option<(u64, u64)> {
        match &self.phase {
            Phase::Groups { tree, held, .. } => {
                let size_bytes = tree.size_bytes();
                Some((held.present().saturating_mul(limit::ARTIFACT_GROUP_BYTES).min(size_bytes), size_bytes))
            }
            Phase::Opening | Phase::Values { .. } | Phase::Finishing => None,
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Monotonic> {
        self.retry_at.into_iter().chain(self.stalled_at).min()
    }

    pub(super) fn on_timeout(&mut self, now: Monotonic) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
        }
        if self.stalled_at.is_some_and(|at| at <= now) {
            self.forget_asked();
        }
    }

    pub(super) fn on_linked(&mut self) {
        self.forget_asked();
        self.retry_at = None;
        self.failures = 0;
    }

    pub(super) fn on_unlinked(&mut self) {
        self.forget_asked();
        self.retry_at = None;
    }

    /// Takes what the disk has.
    pub(super) fn on_begun(&mut self, held: GroupSet) -> Step {
        let Wanted::Artifact { size_bytes } = self.wanted else { return Step::Wait };
        if held.is_complete() {
            self.phase = Phase::Finishing;
            return Step::Finish(self.job);
        }
        self.phase = match only_group(self.job, size_bytes) {
            Some(tree) => Phase::Groups { tree, held, content: BTreeMap::new() },
            None => Phase::Values { size_bytes: Some(size_bytes), values: Vec::new(), held },
        };
        Step::Wait
    }

    pub(super) fn on_written(&mut self, groups: &[u64]) -> Step {
        let Phase::Groups { held, .. } = &mut self.phase else { return Step::Wait };
        for index in groups {
            self.writing.remove(index);
            held.insert(*index);
        }
        if !held.is_complete() {
            return Step::Wait;
        }
        self.phase = Phase::Finishing;
        Step::Finish(self.job)
    }

    pub(super) fn on_tree(&mut self, now: Now, tree: &ArtifactTree, entropy: &mut Entropy) -> Step {
        let Phase::Values { size_bytes, values, held } = &mut self.phase else { return Step::Wait };
        let size = tree.size_bytes;
        let problem = match (*size_bytes, self.wanted) {
            (Some(expected), _) if expected != size => Some(format!("the server says {size} bytes, not {expected}")),
            (None, _) if size == 0 || size > SIGNED_MANIFEST_BYTES_MAX => {
                Some(format!("it has {size} bytes, and a manifest has at most {SIGNED_MANIFEST_BYTES_MAX}"))
            }
            _ => None,
        };
        if let Some(problem) = problem {
            let cause = format!("{} cannot be fetched: {problem}", self.job.digest);
            return Step::End(Err(FetchError::Unavailable { cause }));
        }
        if *size_bytes != Some(size) {
            (*size_bytes, *held) = (Some(size), GroupSet::of_size(size));
        }
        let is_next = tree.group_first.checked_mul(VALUE_BYTES) == Some(length(values));
        if is_next {
            values.extend_from_slice(&tree.values);
        }
        let known = match only_group(self.job, size) {
            Some(known) => Some(known),
            None if length(values) < group_values_bytes(size) => None,
            None => match GroupTree::of(self.job.digest, size, values) {
                Ok(known) => Some(known),
                Err(_) => {
                    values.clear();
                    self.back_off(now, entropy);
                    return Step::Wait;
                }
            },
        };
        if let Some(tree) = known {
            let held = held.clone();
            self.phase = Phase::Groups { tree, held, content: BTreeMap::new() };
        }
        self.awaits_values &= !is_next;
        self.note_progress(now);
        Step::Wait
    }

    pub(super) fn on_groups(&mut self, now: Now, groups: &ArtifactGroups, entropy: &mut Entropy) -> Step {
        let Phase::Groups { tree, held, content } = &mut self.phase else {
            // It came before its values, and is asked for again behind them.
            self.asked.clear();
            return Step::Wait;
        };
        let (mut index, mut rest) = (groups.group_first, groups.content.as_slice());
        let mut good = Vec::new();
        let mut is_bad = false;
        while !rest.is_empty() && index < tree.group_count() {
            let wanted = usize::try_from(group_bytes(tree.size_bytes(), index)).unwrap_or(usize::MAX);
            let (group, behind) = rest.split_at_checked(wanted).unwrap_or((rest, &[]));
            if tree.verify(index, group).is_err() {
                is_bad = true;
                break;
            }
            // What nobody asked for, or no longer, is not taken: it would have no bound.
            if self.asked.remove(&index) {
                good.push((index, group.to_vec()));
            }
            (index, rest) = (index.saturating_add(1), behind);
        }
        let is_manifest = self.wanted == Wanted::Manifest;
        if is_manifest {
            for (index, group) in std::mem::take(&mut good) {
                held.insert(index);
                content.insert(index, group);
            }
            if held.is_complete() {
                let bytes = std::mem::take(content).into_values().flatten().collect();
                return Step::End(Ok(Fetched::Manifest(bytes)));
            }
        }
        self.writing.extend(good.iter().map(|(index, _)| *index));
        if is_bad {
            self.back_off(now, entropy);
        } else {
            self.note_progress(now);
        }
        if good.is_empty() { Step::Wait } else { Step::Write(self.job, good) }
    }

    /// Lets some time pass before anything more is asked for.
    pub(super) fn back_off(&mut self, now: Now, entropy: &mut Entropy) {
        self.forget_asked();
        let ceiling = RETRY_FIRST.saturating_mul(1 << self.failures.min(16)).min(RETRY_LAST);
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Some(now.monotonic + entropy.jitter(ceiling));
    }

    /// What to ask for now; it then counts as asked for.
    pub(super) fn ask(&mut self, now: Monotonic) -> Option<ArtifactWant> {
        if self.retry_at.is_some() || self.awaits_values {
            return None;
        }
        let digest = self.job.digest;
        match &self.phase {
            Phase::Opening | Phase::Finishing => None,
            Phase::Values { values, size_bytes, .. } => {
                self.awaits_values = true;
                self.stalled_at = Some(now + STALLED_AFTER);
                let group_first = length(values) / VALUE_BYTES;
                // Most manifests have one group: it comes with its size.
                let group_count = u64::from(size_bytes.is_none());
                if group_count == 1 {
                    self.asked.insert(0);
                }
                Some(ArtifactWant { digest, groups: WantedGroups::Run { group_first, group_count }, tree: true })
            }
            Phase::Groups { held, .. } => {
                while held.contains(self.lowest) {
                    self.lowest += 1;
                }
                let on_the_way = self.asked.len() + self.writing.len();
                let on_the_way = u64::try_from(on_the_way).unwrap_or(u64::MAX);
                if on_the_way > limit::ARTIFACT_WINDOW_GROUPS / 2 {
                    return None;
                }
                let room = usize::try_from(limit::ARTIFACT_WINDOW_GROUPS - on_the_way).unwrap_or(usize::MAX);
                let is_missing = |index: &u64| {
                    !(held.contains(*index) || self.asked.contains(index) || self.writing.contains(index))
                };
                let missing: Vec<u64> = (self.lowest..held.count()).filter(is_missing).take(room).collect();
                let groups = run_or_list(&missing)?;
                self.asked.extend(missing);
                self.stalled_at = Some(now + STALLED_AFTER);
                Some(ArtifactWant { digest, groups, tree: false })
            }
        }
    }

    fn note_progress(&mut self, now: Now) {
        self.failures = 0;
        let is_waiting = self.awaits_values || !self.asked.is_empty();
        self.stalled_at = is_waiting.then(|| now.monotonic + STALLED_AFTER);
    }

    fn forget_asked(&mut self) {
        self.asked.clear();
        self.awaits_values = false;
        self.stalled_at = None;
    }
}

/// The tree of an artifact of one group, whose only value is the digest itself.
fn only_group(job: Job, size_bytes: u64) -> Option<GroupTree> {
    let is_one = size_bytes <= limit::ARTIFACT_GROUP_BYTES;
    if is_one { GroupTree::of(job.digest, size_bytes, job.digest.as_bytes()).ok() } else { None }
}

fn run_or_list(groups: &[u64]) -> Option<WantedGroups> {
    let (first, last) = (*groups.first()?, *groups.last()?);
    let group_count = u64::try_from(groups.len()).unwrap_or(u64::MAX);
    Some(if last - first + 1 == group_count {
        WantedGroups::Run { group_first: first, group_count }
    } else {
        WantedGroups::List(groups.to_vec())
    })
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
