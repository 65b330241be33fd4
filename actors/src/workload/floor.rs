//! What must not be forgotten of a workload when the rest of its record is lost.

use std::collections::BTreeMap;

use fleetd_sync_core::id::ArtifactDigest;

use super::record::{Failed, Install, Release, Step, Target, Verdict, WorkloadRecord};

/// What must not be forgotten of a workload when its record is lost. Its folder says what is installed; this says
/// what the folder cannot: what was tried in vain, what has yet to prove itself, and what somebody forbade.
///
/// It is kept apart from the record, and changes seldom: a few times with each install.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadFloor {
    /// The release that failed here last.
    pub failed: Option<Failed>,
    /// The current release, while it has yet to prove itself.
    pub unproven: Option<Target>,
    /// Installed releases whose signatures are not good any more, by what they are compared by.
    pub barred: BTreeMap<ArtifactDigest, Verdict>,
    /// Somebody at the device stopped it.
    pub stopped_locally: bool,
    /// An operator stopped it from a server.
    pub stopped_remotely: bool,
    /// The last wish to start it anew that was carried out.
    pub restarts_done: u64,
}

impl WorkloadRecord {
    /// What of it must outlive it.
    #[must_use]
    pub fn floor(&self) -> WorkloadFloor {
        let installed = self.current.iter().chain(&self.previous);
        let barred = installed.filter(|release| release.verdict != Verdict::Good);
        WorkloadFloor {
            failed: self.failed.clone(),
            unproven: self.current.as_ref().filter(|current| !current.healthy).map(Release::target),
            barred: barred.map(|release| (release.digest, release.verdict)).collect(),
            stopped_locally: self.stopped_locally,
            stopped_remotely: self.stopped_remotely,
            restarts_done: self.restarts_done,
        }
    }

    /// Makes the record of a workload of which its folder and its floor are left: it runs on as what it was, or goes
    /// on proving itself.
    #[must_use]
    pub fn recovered(current: Option<Release>, previous: Option<Release>, floor: WorkloadFloor) -> Self {
        let WorkloadFloor { failed, unproven, barred, stopped_locally, stopped_remotely, restarts_done } = floor;
        let judged = |release: Option<Release>| {
            release.map(|release| {
                let verdict = barred.get(&release.digest).copied().unwrap_or(release.verdict);
                Release { verdict, ..release }
            })
        };
        // After a restore the folder's previous release is the one that failed, and is no way back.
        let is_failed = |release: &Release| failed.as_ref().is_some_and(|failed| failed.manifest == release.digest);
        let previous = judged(previous).filter(|previous| !is_failed(previous));
        let mut current = judged(current);
        let target = unproven.filter(|target| current.as_ref().is_some_and(|found| found.digest == target.digest()));
        let mut install = None;
        if let (Some(current), Some(target)) = (&mut current, target) {
            (current.healthy, current.rollout, current.attempt) = (false, target.rollout, target.attempt);
            let failed = failed.as_ref().filter(|failed| failed.manifest == target.digest());
            let step = match failed.filter(|failed| target.attempt <= failed.attempt) {
                Some(failed) => Step::Restore { fault: failed.fault.clone(), switched: false },
                None => Step::Watch { reboots: 0 },
            };
            install = Some(Install { target, step });
        }
        let has_no_way = match &install {
            Some(install) => matches!(install.step, Step::Restore { .. }) && previous.is_none(),
            None => current.as_ref().is_some_and(is_failed),
        };
        if has_no_way {
            // It failed with nothing before it: its folder is all that is left of it.
            (current, install) = (None, None);
        }
        Self { install, current, previous, failed, stopped_locally, stopped_remotely, restarts_done, ..Self::default() }
    }

    /// Takes a failure from the floor that the record does not know of: power may have gone between the two.
    #[must_use]
    pub fn raised_to(mut self, floor: WorkloadFloor) -> Self {
        let proven = self.current.as_ref().filter(|current| current.healthy).map(|current| current.digest);
        let Some(failed) = floor.failed.filter(|failed| proven != Some(failed.manifest)) else { return self };
        let is_known = match &self.failed {
            Some(known) => known.manifest != failed.manifest || known.attempt >= failed.attempt,
            None => false,
        };
        if !is_known {
            self.failed = Some(failed);
        }
        self
    }
}
