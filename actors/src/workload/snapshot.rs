//! A workload's whole state between two turns, for the flight recorder: what it remembers, and what it only knows.

use std::sync::Arc;

use fleetd_sync_core::entropy::{Entropy, EntropyPosition};
use fleetd_sync_core::name::{Platform, WorkloadName};
use fleetd_sync_core::trust::Roster;

use crate::flight::Recorded;

use super::{Assignment, Child, Gate, Vigil, Work, Workload, WorkloadRecord};

/// A workload's whole state between two turns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name.
    pub name: WorkloadName,
    /// The device's platform.
    pub platform: Platform,
    /// What it remembers.
    pub record: WorkloadRecord,
    /// What the documents say, once they were heard.
    pub assignment: Option<Assignment>,
    /// Whose word counts, once that was heard.
    pub roster: Option<Arc<Roster>>,
    /// What an install waits for.
    pub work: Work,
    /// What a release that is laid out waits for.
    pub gate: Gate,
    /// What its program does.
    pub child: Child,
    /// How that is watched.
    pub vigil: Vigil,
    /// Somebody asked for a restart.
    pub restart_asked: bool,
    /// What it says has been reported, since it was loaded.
    pub is_reported: bool,
    /// What it is has been shown, since it was loaded.
    pub is_shown: bool,
    /// Where its randomness stands.
    pub entropy: EntropyPosition,
}

impl Recorded for Workload {
    type State = Snapshot;

    /// There is none in the rare moments when what was last reported is not what it would say now, since a run has to
    /// be looked for anew.
    fn snapshot(&self) -> Option<Snapshot> {
        let (report, status) = (self.report(), self.status());
        let is_current = self.reported.as_ref().is_none_or(|reported| *reported == report)
            && self.shown.as_ref().is_none_or(|shown| *shown == status)
            && self.record == self.persisted;
        is_current.then(|| Snapshot {
            name: self.name.clone(),
            platform: self.platform.clone(),
            record: self.record.clone(),
            assignment: self.assignment.clone(),
            roster: self.roster.clone(),
            work: self.work.clone(),
            gate: self.gate.clone(),
            child: self.child.clone(),
            vigil: self.vigil.clone(),
            restart_asked: self.restart_asked,
            is_reported: self.reported.is_some(),
            is_shown: self.shown.is_some(),
            entropy: self.entropy.position(),
        })
    }

    fn restore(snapshot: Snapshot) -> Self {
        let entropy = Entropy::at(snapshot.entropy);
        let mut machine = Self::new(snapshot.name, snapshot.platform, snapshot.record, entropy);
        machine.assignment = snapshot.assignment;
        machine.roster = snapshot.roster;
        machine.work = snapshot.work;
        machine.gate = snapshot.gate;
        machine.child = snapshot.child;
        machine.vigil = snapshot.vigil;
        machine.restart_asked = snapshot.restart_asked;
        machine.reported = snapshot.is_reported.then(|| machine.report());
        machine.shown = snapshot.is_shown.then(|| machine.status());
        machine
    }
}
