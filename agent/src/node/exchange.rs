//! Where the actors of one node find each other, and what each was last told.
//!
//! An actor that fails loses its queue, and is loaded from the store. What others had told it is not in the store, so
//! it is told again here, in the same breath in which it is loaded: under the lock under which news are sent, so that
//! nothing old can overtake something new.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use fleetd_actors::address::Address;
use fleetd_actors::directory::Directory;
use fleetd_actors::report::WorkloadReport;
use fleetd_actors::workload::{Assignment, FetchError, Fetched, Wanted};
use fleetd_actors::{agent, log_spool, workload};
use fleetd_sync_core::id::{ArtifactDigest, ConnectionId, OperationId};
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::session::{Grade, LogPosition, LogStream, Message};
use fleetd_sync_core::trust::Roster;

use crate::fetch;

/// Where the actors of one node find each other.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    addresses: OnceLock<Addresses>,
    told: Mutex<Told>,
}

/// Every actor of a node.
#[derive(Debug)]
pub(crate) struct Addresses {
    pub(crate) agent: Address<agent::Input>,
    pub(crate) workloads: Directory<WorkloadName, workload::Input>,
    pub(crate) fetcher: Address<fetch::Input>,
    pub(crate) spools: Directory<WorkloadName, log_spool::Input>,
}

#[derive(Debug, Default)]
struct Told {
    workloads: BTreeSet<WorkloadName>,
    roster: Option<Arc<Roster>>,
    assignments: BTreeMap<WorkloadName, Assignment>,
    reports: BTreeMap<WorkloadName, WorkloadReport>,
    dialled: Option<ConnectionId>,
    linked: Option<(ConnectionId, Grade)>,
    fetches: BTreeMap<OperationId, OpenFetch>,
    artifacts: BTreeMap<WorkloadName, BTreeSet<ArtifactDigest>>,
    /// Workloads with a spool.
    spools: BTreeSet<WorkloadName>,
    /// How far each stream came here.
    logged: BTreeMap<LogStream, u64>,
    /// How far the server of this link has each stream.
    server_positions: Vec<LogPosition>,
}

#[derive(Clone, Debug)]
struct OpenFetch {
    workload: WorkloadName,
    digest: ArtifactDigest,
    wanted: Wanted,
}

impl OpenFetch {
    fn want(&self, operation: OperationId) -> fetch::Input {
        let Self { workload, digest, wanted } = self.clone();
        fetch::Input::Want { operation, workload, digest, wanted }
    }
}

impl Exchange {
    /// Tells where everybody is. Until then nobody is loaded, since nobody has an address to send to.
    pub(crate) fn open(&self, addresses: Addresses, workloads: BTreeSet<WorkloadName>) {
        self.told().workloads = workloads;
        let opened = self.addresses.set(addresses);
        assert!(opened.is_ok(), "a node is wired once");
    }

    /// The actors; none of them sends before the node is wired.
    pub(crate) fn addresses(&self) -> &Addresses {
        #[expect(clippy::expect_used, reason = "actors are loaded by their first input, which comes after the wiring")]
        self.addresses.get().expect("the node is wired before its first input")
    }

    /// Every workload that was ever heard of.
    pub(crate) fn workloads(&self) -> BTreeSet<WorkloadName> {
        self.told().workloads.clone()
    }

    /// Begins the agent's life anew: returns the connection that its last one left open.
    pub(crate) fn agent_loaded(
        &self,
        address: &Address<agent::Input>,
        first: Vec<agent::Input>,
    ) -> Option<ConnectionId> {
        let mut told = self.told();
        first.into_iter().for_each(|input| address.send(input));
        for (workload, report) in &told.reports {
            address.send(agent::Input::Report { workload: workload.clone(), report: Box::new(report.clone()) });
        }
        for (stream, sequence) in &told.logged {
            address.send(agent::Input::Logged(LogPosition { stream: stream.clone(), sequence: *sequence }));
        }
        self.set_linked(&mut told, None);
        told.dialled.take()
    }

    /// Notes which connection the agent has dialled.
    pub(crate) fn dialled(&self, connection: ConnectionId) {
        self.told().dialled = Some(connection);
    }

    /// Begins a workload's life anew; `artifacts` are those that it has not installed yet.
    pub(crate) fn workload_loaded(
        &self,
        name: &WorkloadName,
        address: &Address<workload::Input>,
        artifacts: BTreeSet<ArtifactDigest>,
    ) {
        let mut told = self.told();
        told.workloads.insert(name.clone());
        told.artifacts.insert(name.clone(), artifacts);
        let open = told.fetches.len();
        told.fetches.retain(|_, fetch| fetch.workload != *name);
        if told.fetches.len() < open {
            self.addresses().fetcher.send(fetch::Input::Abandon { workload: name.clone() });
        }
        if let Some(roster) = &told.roster {
            address.send(workload::Input::Trust(Arc::clone(roster)));
        }
        if let Some(assignment) = told.assignments.get(name) {
            address.send(workload::Input::Assigned(assignment.clone()));
        }
    }

    /// Begins the fetcher's life anew.
    pub(crate) fn fetcher_loaded(&self, address: &Address<fetch::Input>) {
        let told = self.told();
        for (operation, fetch) in &told.fetches {
            address.send(fetch.want(*operation));
        }
        if let Some(connection) = told.artifact_source() {
            address.send(fetch::Input::Linked(connection));
        }
    }

    /// Tells every workload whose word counts.
    pub(crate) fn trust(&self, roster: Arc<Roster>) {
        let mut told = self.told();
        for workload in &told.workloads {
            self.addresses().workloads.send(workload, workload::Input::Trust(Arc::clone(&roster)));
        }
        told.roster = Some(roster);
    }

    /// Tells a workload what the documents say of it.
    pub(crate) fn assign(&self, workload: &WorkloadName, assignment: Assignment) {
        let mut told = self.told();
        told.assignments.insert(workload.clone(), assignment.clone());
        self.addresses().workloads.send(workload, workload::Input::Assigned(assignment));
    }

    /// Tells the agent how a workload is.
    pub(crate) fn report(&self, workload: &WorkloadName, report: WorkloadReport) {
        let mut told = self.told();
        told.reports.insert(workload.clone(), report.clone());
        self.addresses().agent.send(agent::Input::Report { workload: workload.clone(), report: Box::new(report) });
    }

    /// Tells who needs a server whether there is one.
    pub(crate) fn linked(&self, linked: Option<(ConnectionId, Grade)>) {
        self.set_linked(&mut self.told(), linked);
    }

    fn set_linked(&self, told: &mut Told, linked: Option<(ConnectionId, Grade)>) {
        if told.linked == linked {
            return;
        }
        told.linked = linked;
        let input = told.artifact_source().map_or(fetch::Input::Unlinked, fetch::Input::Linked);
        self.addresses().fetcher.send(input);
        for workload in &told.spools {
            let input = if linked.is_some() { log_spool::Input::Linked } else { log_spool::Input::Unlinked };
            self.addresses().spools.send(workload, input);
        }
    }

    /// Hands on a message that is not the agent's own business.
    pub(crate) fn deliver(&self, message: Message) {
        let input = match message {
            Message::ArtifactTree(tree) => fetch::Input::Tree(tree),
            Message::ArtifactGroups(groups) => fetch::Input::Groups(groups),
            Message::ArtifactRefused(refused) => fetch::Input::Refused(refused),
            Message::LogAck(position) => {
                let workload = position.stream.workload.clone();
                if self.told().spools.contains(&workload) {
                    self.addresses().spools.send(&workload, log_spool::Input::Acknowledged(position));
                }
                return;
            }
            other => {
                tracing::debug!(?other, "the server said what no part of this device wants to hear");
                return;
            }
        };
        self.addresses().fetcher.send(input);
    }

    /// Begins a spool's life anew.
    pub(crate) fn spool_loaded(&self, workload: &WorkloadName, address: &Address<log_spool::Input>) {
        let mut told = self.told();
        told.spools.insert(workload.clone());
        if told.linked.is_some() {
            address.send(log_spool::Input::ServerPositions(positions_of(workload, &told.server_positions)));
            address.send(log_spool::Input::Linked);
        }
    }

    /// Tells every spool how far the server has its streams.
    pub(crate) fn server_positions(&self, positions: Vec<LogPosition>) {
        let mut told = self.told();
        for workload in &told.spools {
            let input = log_spool::Input::ServerPositions(positions_of(workload, &positions));
            self.addresses().spools.send(workload, input);
        }
        told.server_positions = positions;
    }

    /// Tells a spool that its workload has written lines.
    pub(crate) fn lines_written(&self, workload: &WorkloadName) {
        self.addresses().spools.send(workload, log_spool::Input::LinesWritten);
    }

    /// Tells the agent how far a stream has come.
    pub(crate) fn logged(&self, position: LogPosition) {
        let mut told = self.told();
        told.logged.insert(position.stream.clone(), position.sequence);
        self.addresses().agent.send(agent::Input::Logged(position));
    }

    /// The connection on which logs may be sent.
    pub(crate) fn log_connection(&self) -> Option<ConnectionId> {
        self.told().linked.map(|(connection, _)| connection)
    }

    /// Asks the fetcher for something.
    pub(crate) fn fetch(
        &self,
        operation: OperationId,
        workload: &WorkloadName,
        digest: ArtifactDigest,
        wanted: Wanted,
    ) {
        let mut told = self.told();
        if let Wanted::Artifact { .. } = wanted {
            told.artifacts.entry(workload.clone()).or_default().insert(digest);
        }
        let fetch = OpenFetch { workload: workload.clone(), digest, wanted };
        self.addresses().fetcher.send(fetch.want(operation));
        told.fetches.insert(operation, fetch);
    }

    /// Gives a fetch up.
    pub(crate) fn cancel_fetch(&self, operation: OperationId) {
        if self.told().fetches.remove(&operation).is_some() {
            self.addresses().fetcher.send(fetch::Input::Cancel { operation });
        }
    }

    /// Answers who wanted something.
    pub(crate) fn fetched(&self, operation: OperationId, workload: &WorkloadName, result: Result<Fetched, FetchError>) {
        if self.told().fetches.remove(&operation).is_some() {
            self.addresses().workloads.send(workload, workload::Input::Fetched { operation, result });
        }
    }

    /// Notes which artifacts a workload still has to install.
    pub(crate) fn needs_artifacts(&self, workload: &WorkloadName, artifacts: BTreeSet<ArtifactDigest>) {
        self.told().artifacts.insert(workload.clone(), artifacts);
    }

    /// Whether any workload still has to install an artifact.
    pub(crate) fn is_needed(&self, artifact: &ArtifactDigest) -> bool {
        self.told().artifacts.values().any(|needed| needed.contains(artifact))
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        // Each change is one step, so a panic elsewhere leaves it whole.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn positions_of(workload: &WorkloadName, positions: &[LogPosition]) -> Vec<LogPosition> {
    positions.iter().filter(|position| position.stream.workload == *workload).cloned().collect()
}

impl Told {
    /// The connection on which artifacts may be asked for.
    fn artifact_source(&self) -> Option<ConnectionId> {
        self.linked.filter(|(_, grade)| *grade == Grade::Full).map(|(connection, _)| connection)
    }
}
