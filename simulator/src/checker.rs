//! Checkers: each holds one invariant of the design against everything that happens in a run.
//!
//! A checker is incremental: it sees every observation once, in order, and remembers what it needs. It reads from no
//! node what the node could not have told anybody: its word against the node's own. What was read from the stores is
//! in the [`Scene`], and what they are compared with in [`crate::reference`].

mod absence;
mod authority;
mod bounds;
mod capacity;
mod fence;
mod folder;
mod fork;
mod install;
mod lane;
mod ledger;
mod logs;
mod order;
mod position;
mod resolved;
mod reveal;
mod rollout;
mod running;
mod site;
mod storage;
mod succession;
mod turn;
mod veto;
mod wave;
mod window;
mod witness;
mod word;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use fleetd_actors::workload::{Install, Release, Step, Target, WorkloadRecord};
use fleetd_sync_core::envelope::DocumentId;
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::time::Monotonic;
use fleetd_sync_store::memory::MemoryStore;
use fleetd_sync_store::state_store::StateStore;

use self::ledger::{LaneRecord, Ledger, Part};
use self::word::Words;
use crate::fleet::{Fleet, SERVER};
use crate::mark::Marks;
use crate::observation::Observation;

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Violation {
    /// The invariant's number in ARCHITECTURE.md; 0 for a broken assertion or a fleet that does not converge.
    pub invariant: u8,
    /// Which checker found it.
    pub checker: String,
    /// On which node.
    pub node: String,
    /// What was seen.
    pub seen: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invariant {} ({}) does not hold on {}: {}", self.invariant, self.checker, self.node, self.seen)
    }
}

/// One invariant's checker.
pub trait Checker {
    /// Which invariant of ARCHITECTURE.md it holds.
    fn invariant(&self) -> u8;

    /// What it is called in reports.
    fn name(&self) -> &'static str;

    /// Takes one observation.
    ///
    /// # Errors
    /// The node on which the invariant does not hold, and what was seen.
    fn observe(&mut self, at: Monotonic, observation: &Observation, marks: &Marks) -> Result<(), Broken> {
        let _ = (at, observation, marks);
        Ok(())
    }

    /// Looks at the whole fleet once more when a run has ended and its core has converged.
    ///
    /// # Errors
    /// As [`observe`](Self::observe).
    fn conclude(&mut self, fleet: &Fleet, marks: &Marks) -> Result<(), Broken> {
        let _ = (fleet, marks);
        Ok(())
    }
}

/// A checker that goes by what is stored, as it was read for all of them.
trait Inspector {
    /// As [`Checker::invariant`].
    fn invariant(&self) -> u8;

    /// As [`Checker::name`].
    fn name(&self) -> &'static str;

    /// Takes one fact about a node.
    fn learn(&mut self, scene: &Scene<'_>, node: &Arc<str>, fact: Fact<'_>) -> Result<(), Broken>;

    /// As [`Checker::conclude`].
    fn conclude(&mut self, scene: &Scene<'_>) -> Result<(), Broken> {
        let _ = scene;
        Ok(())
    }
}

/// What inspectors see: the present, and what was learnt before the fact that they are told.
struct Scene<'a> {
    at: Monotonic,
    fleet: &'a Fleet,
    ledger: &'a Ledger,
    words: &'a Words,
    marks: &'a Marks,
    /// False while it is read what nodes have when the run begins.
    has_begun: bool,
}

impl Scene<'_> {
    /// What a device begins to switch a workload to with this record of it; nothing where it does not, or had begun before.
    fn begins_to_switch<'r>(
        &self,
        node: &str,
        workload: &WorkloadName,
        after: &'r WorkloadRecord,
    ) -> Option<(&'r Target, &'r Release)> {
        let switch = |record: &'r WorkloadRecord| match record.install.as_ref() {
            Some(Install { target, step: Step::Switch(release) }) => Some((target, release)),
            _ => None,
        };
        let (target, release) = switch(after)?;
        let before = self.ledger.node(node).and_then(|held| held.workloads.get(workload)?.install.as_ref());
        let had_begun =
            matches!(before.map(|before| &before.step), Some(Step::Switch(other)) if other.digest == release.digest);
        (!had_begun).then_some((target, release))
    }
}

/// One thing to learn about a node.
#[derive(Clone, Copy, Debug)]
enum Fact<'a> {
    /// It handed this to its store. It is not durable yet.
    Submitted(&'a Part),
    /// This is durable. The ledger does not have it yet.
    Stored(&'a Part),
    /// A turn did not become durable.
    Failed,
    /// All of a turn is durable, and it changed these documents.
    Settled(&'a BTreeSet<DocumentId>),
    /// It started again, and this is in its store although the store had not answered so.
    Found(&'a Part),
    /// It started again, with what the ledger says now.
    Opened,
    /// It died.
    Died,
    /// Something else happened at a seam.
    Seen(&'a Observation),
}

/// Where an invariant does not hold, and what was seen.
#[derive(Clone, Debug)]
pub struct Broken {
    /// On which node.
    pub node: Arc<str>,
    /// What was seen.
    pub seen: String,
}

impl Broken {
    fn on(node: &Arc<str>, seen: impl Into<String>) -> Result<(), Self> {
        Err(Self { node: Arc::clone(node), seen: seen.into() })
    }
}

/// All checkers of a run.
pub struct Checkers {
    inspectors: Vec<Box<dyn Inspector>>,
    checkers: Vec<Box<dyn Checker>>,
    ledger: Ledger,
    words: Words,
    marks: Marks,
    has_begun: bool,
}

impl fmt::Debug for Checkers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.inspectors.iter().map(|inspector| inspector.name());
        f.debug_list().entries(names.chain(self.checkers.iter().map(|checker| checker.name()))).finish()
    }
}

impl Checkers {
    /// Every checker that there is.
    #[must_use]
    pub fn all(marks: Marks) -> Self {
        let inspectors: Vec<Box<dyn Inspector>> = vec![
            Box::new(resolved::ResolvedChecker::default()),
            Box::new(authority::AuthorityChecker::default()),
            Box::new(position::PositionChecker::default()),
            Box::new(lane::LaneChecker),
            Box::new(reveal::RevealChecker::default()),
            Box::new(running::RunningChecker::default()),
            Box::new(install::InstallChecker),
            Box::new(rollout::RolloutChecker::default()),
            Box::new(wave::WaveChecker::default()),
            Box::new(capacity::CapacityChecker::default()),
            Box::new(window::WindowChecker),
            Box::new(veto::VetoChecker::default()),
            Box::new(turn::TurnChecker),
            Box::new(site::SiteChecker::default()),
            Box::new(order::OrderChecker::default()),
            Box::new(succession::SuccessionChecker::default()),
            Box::new(fence::FenceChecker),
            Box::new(logs::LogChecker::default()),
            Box::new(fork::ForkChecker::default()),
            Box::new(storage::StorageChecker),
            Box::new(absence::AbsenceChecker::default()),
            Box::new(folder::FolderChecker),
            Box::new(bounds::BoundsChecker::default()),
            Box::new(witness::Witness::default()),
        ];
        let (ledger, words) = (Ledger::default(), Words::default());
        Self { inspectors, checkers: Vec::new(), ledger, words, marks, has_begun: false }
    }

    /// These, and more besides.
    #[must_use]
    pub fn and(mut self, more: Vec<Box<dyn Checker>>) -> Self {
        self.checkers.extend(more);
        self
    }

    /// Reads what every node of a fleet has when a run begins.
    ///
    /// # Errors
    /// As [`observe`](Self::observe).
    pub fn begin(&mut self, fleet: &Fleet) -> Result<(), Violation> {
        for device in &fleet.devices {
            self.ledger.set_name(device.local(), &device.name);
        }
        let names = fleet.devices.iter().map(|device| device.name.as_str());
        for node in names.chain([SERVER]) {
            self.open(fleet, &node.into())?;
        }
        self.has_begun = true;
        Ok(())
    }

    /// Shows every checker what happened.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn observe(&mut self, fleet: &Fleet, observations: &[Observation]) -> Result<(), Violation> {
        let at = fleet.world.monotonic();
        for observation in observations {
            self.learn(fleet, observation)?;
            for checker in &mut self.checkers {
                let broken = checker.observe(at, observation, &self.marks);
                broken.map_err(|broken| violation(checker.invariant(), checker.name(), broken))?;
            }
        }
        Ok(())
    }

    /// Lets every checker look at the fleet when the run has ended.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn conclude(&mut self, fleet: &Fleet) -> Result<(), Violation> {
        let at = fleet.world.monotonic();
        let (ledger, words, marks) = (&self.ledger, &self.words, &self.marks);
        let scene = Scene { at, fleet, ledger, words, marks, has_begun: self.has_begun };
        for inspector in &mut self.inspectors {
            let broken = inspector.conclude(&scene);
            broken.map_err(|broken| violation(inspector.invariant(), inspector.name(), broken))?;
        }
        for checker in &mut self.checkers {
            let broken = checker.conclude(fleet, &self.marks);
            broken.map_err(|broken| violation(checker.invariant(), checker.name(), broken))?;
        }
        Ok(())
    }

    fn learn(&mut self, fleet: &Fleet, observation: &Observation) -> Result<(), Violation> {
        // A thief's copy of a device is held to nothing.
        let node = node_of(observation);
        if &**node != SERVER && device_number(node).is_none() {
            return Ok(());
        }
        match observation {
            Observation::Submitted { node, batch } => {
                let parts = self.ledger.submitted(node, batch);
                parts.iter().try_for_each(|part| self.tell(fleet, node, Fact::Submitted(part)))
            }
            Observation::Answered { node, batch, is_durable } => {
                let Some(parts) = self.ledger.answered(node, batch) else { return Ok(()) };
                if *is_durable { self.durable(fleet, node, &parts) } else { self.tell(fleet, node, Fact::Failed) }
            }
            Observation::Died { node } => {
                self.ledger.died(node);
                self.tell(fleet, node, Fact::Died)
            }
            Observation::Booted { node } => self.open(fleet, node),
            seen => self.tell(fleet, node, Fact::Seen(seen)),
        }
    }

    fn durable(&mut self, fleet: &Fleet, node: &Arc<str>, parts: &[Part]) -> Result<(), Violation> {
        let mut documents = BTreeSet::new();
        for part in parts {
            self.tell(fleet, node, Fact::Stored(part))?;
            if let Part::Lane { record: LaneRecord::Envelope(envelope), .. } = part {
                documents.insert(envelope.body.document);
            }
            if matches!(part, Part::Root { .. }) {
                documents.insert(DocumentId::Trust);
            }
            self.ledger.apply(node, part);
        }
        self.settled(fleet, node, &documents)
    }

    fn settled(&mut self, fleet: &Fleet, node: &Arc<str>, documents: &BTreeSet<DocumentId>) -> Result<(), Violation> {
        if !documents.is_empty() {
            self.words.hear(fleet.world.monotonic(), &self.ledger, node, documents);
        }
        self.tell(fleet, node, Fact::Settled(documents))
    }

    /// Reads what a node has that starts.
    fn open(&mut self, fleet: &Fleet, node: &Arc<str>) -> Result<(), Violation> {
        let Some(store) = store_of(fleet, node) else { return Ok(()) };
        let fresh = self.ledger.read(node, &*store);
        let documents = self.ledger.node(node).map(ledger::NodeLedger::documents).unwrap_or_default();
        self.words.hear(fleet.world.monotonic(), &self.ledger, node, &documents);
        fresh.iter().try_for_each(|part| self.tell(fleet, node, Fact::Found(part)))?;
        self.tell(fleet, node, Fact::Opened)
    }

    fn tell(&mut self, fleet: &Fleet, node: &Arc<str>, fact: Fact<'_>) -> Result<(), Violation> {
        let at = fleet.world.monotonic();
        let (ledger, words, marks) = (&self.ledger, &self.words, &self.marks);
        let scene = Scene { at, fleet, ledger, words, marks, has_begun: self.has_begun };
        for inspector in &mut self.inspectors {
            let broken = inspector.learn(&scene, node, fact);
            broken.map_err(|broken| violation(inspector.invariant(), inspector.name(), broken))?;
        }
        Ok(())
    }
}

/// On which node something happened.
const fn node_of(observation: &Observation) -> &Arc<str> {
    match observation {
        Observation::Submitted { node, .. }
        | Observation::Answered { node, .. }
        | Observation::Started { node, .. }
        | Observation::Stopped { node, .. }
        | Observation::Wrote { node, .. }
        | Observation::Released { node, .. }
        | Observation::Sent { node, .. }
        | Observation::Cloned { node }
        | Observation::Hostile { node }
        | Observation::Ended { node, .. }
        | Observation::Died { node }
        | Observation::Booted { node }
        | Observation::PlanJudged { node, .. }
        | Observation::PutOff { node, .. }
        | Observation::Locked { node, .. }
        | Observation::Approved { node, .. }
        | Observation::Restored { node } => node,
    }
}

/// The store of a node, while it runs.
fn store_of(fleet: &Fleet, node: &str) -> Option<Arc<dyn StateStore>> {
    if node == SERVER {
        return Some(Arc::<MemoryStore>::clone(&fleet.server.store));
    }
    fleet.devices.get(device_number(node)?)?.whole_store()
}

/// The number of a device by what traces call it.
fn device_number(node: &str) -> Option<usize> {
    node.strip_prefix("device-")?.parse().ok()
}

fn violation(invariant: u8, checker: &str, broken: Broken) -> Violation {
    Violation { invariant, checker: checker.to_owned(), node: broken.node.to_string(), seen: broken.seen }
}
