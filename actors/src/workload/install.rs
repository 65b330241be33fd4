//! The way in: from an assignment to a release that proved itself, or back to the one before it.

use std::sync::Arc;
use std::time::Duration;

use fleetd_sync_core::id::{ArtifactDigest, OperationId};
use fleetd_sync_core::planted::{Bug, is_planted};
use fleetd_sync_core::time::{Monotonic, Now};

use super::judge;
use super::record::{
    Failed, FetchError, Fetched, Install, Release, Removal, StageError, Step, SwitchError, Target, Verdict, Wanted,
};
use super::{Effect, Workload, WorkloadTurn};
use crate::report::{Fault, FaultKind};

/// First ceiling of the pause before something that could not be had is asked for again.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Last ceiling of that pause: five minutes of load by a whole fleet is what a server bears.
const RETRY_LAST: Duration = Duration::from_mins(5);

/// What an install waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// The operation that is under way.
    pub operation: Option<OperationId>,
    /// When it is tried again.
    pub retry_at: Option<Monotonic>,
    /// How often it failed in a row.
    pub failures: u32,
    /// Why it failed last.
    pub fault: Option<Fault>,
    /// How many parts of the release have been fetched.
    pub fetched: u32,
    /// Whether all of it is fetched, since what was believed to lie on the disk does not.
    pub again: bool,
}

impl Work {
    /// Takes the answer of `operation`, if that is the one waited for.
    fn answered(&mut self, operation: OperationId) -> bool {
        let is_mine = self.operation == Some(operation);
        if is_mine {
            self.operation = None;
        }
        is_mine
    }

    fn is_waiting(&mut self, now: Now) -> bool {
        if self.retry_at.is_some_and(|at| at <= now.monotonic) {
            self.retry_at = None;
        }
        self.operation.is_some() || self.retry_at.is_some()
    }
}

impl Workload {
    pub(super) fn on_fetched(
        &mut self,
        now: Now,
        operation: OperationId,
        result: Result<Fetched, FetchError>,
        turn: &mut WorkloadTurn,
    ) {
        if !self.work.answered(operation) {
            return;
        }
        let Some(install) = self.record.install.take() else { return };
        let Install { target, step } = install;
        let (step, fault) = match (step, result) {
            (Step::Pending, Ok(Fetched::Manifest(signed))) => match &self.roster {
                None => (Step::Pending, None),
                Some(roster) => match judge::judge_manifest(&signed, &target, &self.name, &self.platform, roster) {
                    Ok(release) => (Step::Download(release), None),
                    Err(fault) => (Step::Pending, Some(fault)),
                },
            },
            (Step::Download(release), Ok(Fetched::Artifact)) => {
                self.work = Work { fetched: self.work.fetched + 1, again: self.work.again, ..Work::default() };
                // Whether that was the last part says its next step.
                self.record.install = Some(Install { target, step: Step::Download(release) });
                return;
            }
            (step, Err(error @ FetchError::NoSpace { .. })) => (step, Some(Fault::new(FaultKind::NoSpace, error))),
            (step, result) => {
                let cause = result.err().map_or_else(|| "the answer is of another kind".to_owned(), |e| e.to_string());
                self.record.install = Some(Install { target, step });
                return self.retry_later(now, Fault::new(FaultKind::Fetch, cause));
            }
        };
        self.work = Work::default();
        self.record.install = Some(Install { target, step });
        if let Some(fault) = fault {
            self.fail(fault, turn);
        }
    }

    pub(super) fn on_staged(
        &mut self,
        now: Now,
        operation: OperationId,
        result: Result<(), StageError>,
        turn: &mut WorkloadTurn,
    ) {
        if !self.work.answered(operation) {
            return;
        }
        let Some(Install { target, step: Step::Stage(release) }) = self.record.install.clone() else { return };
        match result {
            Ok(()) => self.enter(target, Step::Wait(release)),
            Err(error @ StageError::NoArtifact) => {
                // Asked for at once it would be an endless loop when the disk loses what it is given.
                self.record.install = Some(Install { target, step: Step::Download(release) });
                self.work = Work { fetched: 0, again: true, ..self.work.clone() };
                self.retry_later(now, Fault::new(FaultKind::Stage, error));
            }
            Err(error @ StageError::NoSpace { .. }) => self.fail(Fault::new(FaultKind::NoSpace, error), turn),
            Err(error @ StageError::Disk { .. }) => self.fail(Fault::new(FaultKind::Stage, error), turn),
        }
    }

    pub(super) fn on_switched(
        &mut self,
        now: Now,
        operation: OperationId,
        result: Result<(), SwitchError>,
        turn: &mut WorkloadTurn,
    ) {
        if !self.work.answered(operation) {
            return;
        }
        let Some(Install { target, step }) = self.record.install.clone() else { return };
        match (step, result) {
            (Step::Switch(release), Ok(())) => {
                if let Some(current) = self.record.current.take()
                    && current.healthy
                {
                    self.record.previous = Some(current);
                }
                // One that was gone back to is not its own way back.
                self.record.previous.take_if(|previous| previous.digest == release.digest);
                self.record.current = Some(Release { rollout: target.rollout, attempt: target.attempt, ..release });
                self.record.restarts = 0;
                self.record.crashes = 0;
                self.enter(target, Step::Watch { reboots: 0 });
                self.restart_asked = false;
            }
            (Step::Switch(release), Err(SwitchError::NotStaged { .. })) if self.is_previous(&release) => {
                // It is not on the disk any more: it comes in like any other.
                self.record.previous = None;
                self.enter(target, Step::Pending);
            }
            (Step::Switch(_), Err(error)) => self.fail(Fault::new(FaultKind::Switch, error), turn),
            (Step::Restore { fault, .. }, Ok(())) => {
                let failed = std::mem::replace(&mut self.record.current, self.record.previous.take());
                if let (Some(restored), Some(failed), true) =
                    (&mut self.record.current, failed, is_planted(Bug::ConfigurationKept))
                {
                    restored.configuration = failed.configuration;
                }
                self.record.crashes = 0;
                self.enter(target, Step::Restore { fault, switched: true });
            }
            (Step::Restore { .. }, Err(error @ SwitchError::NotStaged { .. })) => {
                self.fail(Fault::new(FaultKind::Switch, error), turn);
            }
            (Step::Restore { .. }, Err(error @ SwitchError::Disk { .. })) => {
                self.retry_later(now, Fault::new(FaultKind::Switch, error));
            }
            _ => {}
        }
    }

    pub(super) fn on_removed(&mut self, now: Now, operation: OperationId, result: Result<(), String>) {
        if !self.work.answered(operation) || self.record.removal != Removal::Removing {
            return;
        }
        match result {
            Ok(()) => {
                self.record.current = None;
                self.record.previous = None;
                self.record.failed = None;
                self.record.removal = Removal::Removed;
                self.work = Work::default();
            }
            Err(cause) => self.retry_later(now, Fault::new(FaultKind::Stage, cause)),
        }
    }

    /// Compares what the documents say with what goes on. Returns whether something changed.
    pub(super) fn consider(&mut self, turn: &mut WorkloadTurn) -> bool {
        let Some(assignment) = self.assignment.clone() else { return false };
        let reversible = self.record.install.as_ref().is_some_and(|install| install.step.is_reversible());
        if assignment.is_blocked() {
            return reversible && self.undo(turn);
        }
        if assignment.remove {
            return self.consider_removal(turn);
        }
        match (&mut self.record.install, assignment.target) {
            (None, None) => false,
            (None, Some(target)) => self.begin(target),
            (Some(_), None) => reversible && self.undo(turn),
            (Some(install), Some(target)) if install.target == target => false,
            (Some(install), Some(target))
                if install.target.digest() == target.digest()
                    && install.target.version == target.version
                    && !matches!(install.step, Step::Restore { .. }) =>
            {
                // Another try, or another rollout, of what is on its way: it goes on under the new name.
                install.target = target.clone();
                self.record.veto_of = Some((target.digest(), target.rollout));
                if let Step::Watch { reboots } = &mut install.step {
                    // A new try is not blamed for the restarts that the one before it went through.
                    *reboots = 0;
                    if let Some(current) = &mut self.record.current {
                        (current.rollout, current.attempt) = (target.rollout, target.attempt);
                    }
                }
                true
            }
            (Some(install), Some(target)) => {
                // A stopped program proves nothing: what waits for it would wait for ever.
                let watching = matches!(install.step, Step::Watch { .. });
                if watching && self.wanted().is_none() && self.failure_of(&target).is_none() {
                    self.end_vigil(turn);
                    self.record.install = None;
                    return true;
                }
                reversible && self.undo(turn)
            }
        }
    }

    fn begin(&mut self, target: Target) -> bool {
        if self.record.removal == Removal::Removing || self.failure_of(&target).is_some() {
            return false;
        }
        let is_well = self.is_well();
        match &mut self.record.current {
            Some(current) if current.manifest.version == target.version && current.digest == target.digest() => {
                if (current.rollout, current.attempt) == (target.rollout, target.attempt) {
                    return false;
                }
                (current.rollout, current.attempt) = (target.rollout, target.attempt);
                // What proved itself and runs has nothing to prove; what keeps crashing has.
                if !(current.healthy && is_well) {
                    self.enter(target, Step::Watch { reboots: 0 });
                }
            }
            _ => {
                self.record.removal = Removal::None;
                self.count_veto_of(&target);
                // What ran before lies on the disk, verified: there is nothing to fetch.
                let previous = self.record.previous.as_ref().filter(|previous| {
                    previous.digest == target.digest()
                        && previous.manifest.version == target.version
                        && previous.verdict == Verdict::Good
                });
                let step = previous.map_or(Step::Pending, |previous| Step::Wait(previous.clone()));
                self.enter(target, step);
            }
        }
        true
    }

    fn is_previous(&self, release: &Release) -> bool {
        self.record.previous.as_ref().is_some_and(|previous| previous.digest == release.digest)
    }

    fn consider_removal(&mut self, turn: &mut WorkloadTurn) -> bool {
        if self.record.removal != Removal::None {
            return false;
        }
        let is_switching = matches!(
            self.record.install.as_ref().map(|install| &install.step),
            Some(Step::Switch(_) | Step::Restore { switched: false, .. })
        );
        if is_switching {
            // The folder is being changed: it is removed when that has ended.
            return false;
        }
        self.cancel_work(turn);
        self.end_vigil(turn);
        self.record.install = None;
        self.record.removal = Removal::Removing;
        true
    }

    /// Takes an install back that has not been switched to.
    fn undo(&mut self, turn: &mut WorkloadTurn) -> bool {
        self.cancel_work(turn);
        self.record.install = None;
        self.resume_watch();
        self.collect(turn);
        true
    }

    /// Goes on watching what runs, if its watch was put off for an install that has come to nothing.
    fn resume_watch(&mut self) {
        if let Some(current) = &self.record.current
            && !current.healthy
        {
            let target = current.target();
            self.enter(target, Step::Watch { reboots: 0 });
        }
    }

    /// Starts what the present step needs. Returns whether it came to another step at once.
    pub(super) fn step_install(&mut self, now: Now, turn: &mut WorkloadTurn) -> bool {
        if self.record.install.is_none() || self.work.is_waiting(now) {
            return false;
        }
        let Some(Install { target, step }) = self.record.install.clone() else { return false };
        // After a load a step that can be taken back waits for the documents: they may hold it by now.
        if step.is_reversible() && (self.assignment.is_none() || self.roster.is_none()) {
            return false;
        }
        match step {
            Step::Pending => return self.step_pending(target, turn),
            Step::Download(release) => match self.next_part(&release) {
                Some((digest, size_bytes)) => self.fetch(digest, Wanted::Artifact { size_bytes }, turn),
                None => {
                    self.enter(target, Step::Verify(release));
                    return true;
                }
            },
            Step::Verify(release) => {
                let Some(roster) = self.roster.clone() else { return false };
                match judge::judge_manifest(&release.signed, &target, &self.name, &self.platform, &roster) {
                    Ok(release) => self.enter(target, Step::Stage(release)),
                    Err(fault) => self.fail(fault, turn),
                }
                return true;
            }
            Step::Stage(release) => {
                let operation = self.begin_work();
                turn.effect(Effect::Stage { operation, release });
            }
            Step::Wait(release) => {
                if !self.may_switch(now, turn) {
                    return false;
                }
                let Some(judged) = self.judge_again(release, &target) else { return false };
                match judged {
                    Ok(release) => self.enter(target, Step::Switch(release)),
                    Err(fault) => self.fail(fault, turn),
                }
                return true;
            }
            Step::Switch(release) => {
                let operation = self.begin_work();
                turn.effect(Effect::Switch { operation, to: release.slot() });
            }
            Step::Watch { .. } => {}
            Step::Restore { switched: false, fault } => match &self.record.previous {
                Some(previous) if previous.verdict == Verdict::Good => {
                    let to = previous.slot();
                    let operation = self.begin_work();
                    turn.effect(Effect::Switch { operation, to });
                }
                _ => {
                    self.fail(fault, turn);
                    return true;
                }
            },
            Step::Restore { switched: true, .. } => {
                // With nothing to start there is nothing to wait for.
                if self.wanted().is_none() {
                    self.finish_restore(turn);
                    return true;
                }
            }
        }
        false
    }

    /// Takes the manifest from where it lies already, or asks for it.
    fn step_pending(&mut self, target: Target, turn: &mut WorkloadTurn) -> bool {
        let Some(signed) = self.manifest_at_hand(target.manifest) else {
            self.fetch(target.manifest, Wanted::Manifest, turn);
            return false;
        };
        let Some(roster) = self.roster.clone() else { return false };
        match judge::judge_manifest(&signed, &target, &self.name, &self.platform, &roster) {
            Ok(release) => self.enter(target, Step::Download(release)),
            Err(fault) => self.fail(fault, turn),
        }
        true
    }

    /// The signed manifest of a release that is on the device already, with another configuration.
    fn manifest_at_hand(&self, manifest: ArtifactDigest) -> Option<Arc<[u8]>> {
        let installed = self.record.current.iter().chain(&self.record.previous);
        let mut installed = installed.filter(|release| ArtifactDigest::of(&release.signed) == manifest);
        installed.next().map(|release| Arc::clone(&release.signed))
    }

    /// What has to be fetched next; `None` when all of it is here. What lies with a release that is on the device is
    /// taken from there, unless that was found out to be damaged.
    fn next_part(&self, release: &Release) -> Option<(ArtifactDigest, u64)> {
        let installed = || self.record.current.iter().chain(&self.record.previous).flat_map(Release::contents);
        let is_here = |part: &ArtifactDigest| !self.work.again && installed().any(|(digest, _)| digest == *part);
        let mut parts = release.contents().into_iter().filter(|(digest, _)| !is_here(digest));
        parts.nth(usize::try_from(self.work.fetched).unwrap_or(usize::MAX))
    }

    /// Judges a release that has waited, perhaps for weeks; `None` until it was heard whose word counts.
    fn judge_again(&self, release: Release, target: &Target) -> Option<Result<Release, Fault>> {
        // What ran before is judged by what it may be restored by, each time that trust changes.
        let is_previous = |previous: &Release| previous.digest == release.digest && previous.verdict == Verdict::Good;
        if self.record.previous.as_ref().is_some_and(is_previous) {
            return Some(Ok(release));
        }
        let roster = self.roster.clone()?;
        Some(judge::judge_manifest(&release.signed, target, &self.name, &self.platform, &roster))
    }

    pub(super) fn step_removal(&mut self, now: Now, turn: &mut WorkloadTurn) {
        if self.record.removal == Removal::Removing && self.record.run.is_none() && self.child.is_known() {
            if self.work.is_waiting(now) {
                return;
            }
            let operation = self.begin_work();
            turn.effect(Effect::Remove { operation });
        }
    }

    /// Ends the present install as failed. What ran before goes on, or is brought back.
    pub(super) fn fail(&mut self, fault: Fault, turn: &mut WorkloadTurn) {
        self.cancel_work(turn);
        self.end_vigil(turn);
        let Some(Install { target, step }) = self.record.install.take() else { return };
        let failed = Failed {
            manifest: target.digest(),
            attempt: target.attempt,
            rollout: target.rollout,
            fault: fault.clone(),
        };
        match step {
            Step::Watch { .. } => {
                self.record.failed = Some(failed);
                let previous = self.record.previous.as_ref();
                let is_skipped = is_planted(Bug::RestoreSkipped);
                if previous.is_some_and(|previous| previous.verdict == Verdict::Good) && !is_skipped {
                    return self.enter(target, Step::Restore { fault, switched: false });
                }
                self.record.current = None;
            }
            // The first failure is the one to tell of; that nothing could be restored shows in the phase.
            Step::Restore { switched: false, .. } => self.record.current = None,
            _ => {
                self.record.failed = Some(failed);
                self.resume_watch();
            }
        }
        self.collect(turn);
    }

    pub(super) fn finish_watch(&mut self, turn: &mut WorkloadTurn) {
        self.record.install = None;
        self.work = Work::default();
        if let Some(current) = &mut self.record.current {
            current.healthy = true;
            if self.record.failed.as_ref().is_some_and(|failed| failed.manifest == current.digest) {
                self.record.failed = None;
            }
        }
        if let Some(failed) = &mut self.record.failed {
            failed.rollout = None;
        }
        self.collect(turn);
    }

    pub(super) fn finish_restore(&mut self, turn: &mut WorkloadTurn) {
        if matches!(self.record.install, Some(Install { step: Step::Restore { switched: true, .. }, .. })) {
            self.record.install = None;
            self.work = Work::default();
            self.collect(turn);
        }
    }

    fn enter(&mut self, target: Target, step: Step) {
        self.work = Work::default();
        self.record.install = Some(Install { target, step });
    }

    fn fetch(&mut self, digest: ArtifactDigest, wanted: Wanted, turn: &mut WorkloadTurn) {
        let operation = self.begin_work();
        turn.effect(Effect::Fetch { operation, digest, wanted });
    }

    pub(super) fn begin_work(&mut self) -> OperationId {
        let operation = self.operation();
        self.work.operation = Some(operation);
        operation
    }

    fn cancel_work(&mut self, turn: &mut WorkloadTurn) {
        if let Some(operation) = self.work.operation.take() {
            turn.effect(Effect::Cancel { operation });
        }
        self.work = Work::default();
    }

    fn retry_later(&mut self, now: Now, fault: Fault) {
        let ceiling = RETRY_FIRST.saturating_mul(1 << self.work.failures.min(16)).min(RETRY_LAST);
        self.work.failures = self.work.failures.saturating_add(1);
        self.work.retry_at = Some(now.monotonic + self.entropy.jitter(ceiling));
        self.work.fault = Some(fault);
    }

    fn collect(&self, turn: &mut WorkloadTurn) {
        let install = self.record.install.as_ref().and_then(|install| install.step.release());
        let kept = [self.record.current.as_ref(), self.record.previous.as_ref(), install];
        turn.effect(Effect::Collect { keep: kept.into_iter().flatten().map(Release::slot).collect() });
    }
}
