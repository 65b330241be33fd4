//! What every node's store holds, by the answers that the store gave. Turns are read once, here, for all checkers.
//!
//! A node that died may have more than it was told: a queued turn can become durable without an answer. So whoever
//! starts again is read anew.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use fleetd_actors::log_spool::SpoolRecord;
use fleetd_actors::rollout::plan::Plan;
use fleetd_actors::rollout::status::{DeviceProgress, RolloutHeader};
use fleetd_actors::workload::WorkloadRecord;
use fleetd_agent::record as agent_record;
use fleetd_server::record as server_record;
use fleetd_sync_core::codec;
use fleetd_sync_core::commit::{Batch, Mutation, Space};
use fleetd_sync_core::envelope::{DocumentId, Envelope};
use fleetd_sync_core::id::{KeyId, LocalId, RolloutId};
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::replica::document_prefix;
use fleetd_sync_core::trust::RootRecord;
use fleetd_sync_store::state_store::{KeyRange, StateStore};

use super::device_number;
use crate::fleet::SERVER;

/// Records that are read at once when a node starts: more than a node has.
const RECORDS_MAX: usize = 1 << 20;

/// What stands in a node's space of envelopes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LaneRecord {
    /// An envelope.
    Envelope(Arc<Envelope>),
    /// What a lane remembers beyond its envelopes.
    Memory(Arc<[u8]>),
}

/// One change of a store, as far as some checker cares.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    /// An envelope or a lane's memory was put.
    Lane { key: Vec<u8>, record: LaneRecord },
    /// It was taken away.
    LaneGone { key: Vec<u8> },
    /// What a device remembers of a workload.
    Workload { workload: WorkloadName, record: Arc<WorkloadRecord> },
    /// A root record that a device holds.
    Root { record: Arc<RootRecord> },
    /// What a device remembers of a workload's lines.
    Spool { workload: WorkloadName, record: Arc<SpoolRecord> },
    /// An entry of a log.
    Appended { log: String, sequence: u64, entry: Arc<[u8]> },
    /// Entries of a log may go.
    Forgotten { log: String, through: u64 },
    /// A plan that a rollout carries out.
    Plan { plan: Arc<Plan> },
    /// Where a rollout stands.
    Rollout { header: Arc<RolloutHeader> },
    /// What stands over the whole fleet has changed.
    Ordered,
    /// How far a device has come in a rollout.
    Progress { rollout: RolloutId, device: LocalId, progress: Arc<DeviceProgress> },
}

/// What one node's store holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeLedger {
    lanes: BTreeMap<Vec<u8>, LaneRecord>,
    pub(crate) workloads: BTreeMap<WorkloadName, Arc<WorkloadRecord>>,
    pub(crate) roots: BTreeMap<u64, Arc<RootRecord>>,
    pub(crate) spools: BTreeMap<WorkloadName, Arc<SpoolRecord>>,
    pub(crate) plans: BTreeMap<fleetd_sync_core::id::PlanId, Arc<Plan>>,
    pub(crate) rollouts: BTreeMap<RolloutId, Arc<RolloutHeader>>,
    pub(crate) progress: BTreeMap<(RolloutId, LocalId), Arc<DeviceProgress>>,
    waiting: VecDeque<(Arc<Batch>, Arc<[Part]>)>,
}

/// What every node's store holds. Nodes are found by their number: checkers ask several times at each fact, and names
/// of ten thousand nodes are slow to search.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    nodes: Vec<Option<NodeLedger>>,
    /// The root records that any device holds: the first of each version.
    roots: BTreeMap<u64, Arc<RootRecord>>,
    /// What devices are called, by the hash of their key.
    names: BTreeMap<LocalId, Arc<str>>,
    /// The same the other way.
    locals: Vec<Option<LocalId>>,
}

/// Where a node's own is kept: the server's first, then the devices' in the order of their numbers. `None` for a
/// thief's copy, of which nothing is kept.
fn place_of(node: &str) -> Option<usize> {
    if node == SERVER { Some(0) } else { device_number(node).map(|number| number + 1) }
}

/// The element at a place, which begins to be there when it was not.
fn place_in<T>(all: &mut Vec<Option<T>>, place: usize) -> &mut Option<T> {
    if all.len() <= place {
        all.resize_with(place + 1, || None);
    }
    #[expect(clippy::indexing_slicing, reason = "it was made long enough")]
    &mut all[place]
}

impl Ledger {
    pub(crate) fn node(&self, node: &str) -> Option<&NodeLedger> {
        self.nodes.get(place_of(node)?)?.as_ref()
    }

    fn node_mut(&mut self, node: &str) -> Option<&mut NodeLedger> {
        Some(place_in(&mut self.nodes, place_of(node)?).get_or_insert_default())
    }

    pub(crate) fn set_name(&mut self, local: LocalId, name: &str) {
        self.names.insert(local, name.into());
        if let Some(place) = place_of(name) {
            *place_in(&mut self.locals, place) = Some(local);
        }
    }

    /// What a device is called.
    pub(crate) fn name(&self, local: LocalId) -> Option<&Arc<str>> {
        self.names.get(&local)
    }

    /// The key of a device by what it is called.
    pub(crate) fn local(&self, node: &str) -> Option<LocalId> {
        *self.locals.get(place_of(node)?)?
    }

    /// The node that writes a lane: a device its own, the server those of the authorities.
    pub(crate) fn writer(&self, lane: KeyId) -> &str {
        self.names.get(&LocalId::from(lane)).map_or(SERVER, |name| name)
    }

    /// The root records that a node goes by: its own, or for the server, which keeps them in a file, the fleet's.
    pub(crate) fn roots(&self, node: &str) -> &BTreeMap<u64, Arc<RootRecord>> {
        self.node(node).map(|node| &node.roots).filter(|roots| !roots.is_empty()).unwrap_or(&self.roots)
    }

    /// Takes a turn that was handed over, and says what is in it.
    pub(crate) fn submitted(&mut self, node: &Arc<str>, batch: &Arc<Batch>) -> Arc<[Part]> {
        let is_server = &**node == SERVER;
        let parts: Arc<[Part]> = batch.mutations.iter().filter_map(|mutation| part_of(mutation, is_server)).collect();
        if let Some(held) = self.node_mut(node) {
            held.waiting.push_back((Arc::clone(batch), Arc::clone(&parts)));
        }
        parts
    }

    /// Says what was in a turn that was answered. Stores answer in the order in which turns were handed over.
    pub(crate) fn answered(&mut self, node: &str, batch: &Arc<Batch>) -> Option<Arc<[Part]>> {
        let waiting = &mut self.node_mut(node)?.waiting;
        let at = waiting.iter().position(|(known, _)| Arc::ptr_eq(known, batch))?;
        waiting.remove(at).map(|(_, parts)| parts)
    }

    /// Forgets what a node that died was never answered.
    pub(crate) fn died(&mut self, node: &str) {
        if let Some(held) = self.node_mut(node) {
            held.waiting.clear();
        }
    }

    /// Notes a change that is durable.
    pub(crate) fn apply(&mut self, node: &Arc<str>, part: &Part) {
        if let Part::Root { record } = part {
            self.roots.entry(record.body().version).or_insert_with(|| Arc::clone(record));
        }
        if let Some(held) = self.node_mut(node) {
            held.apply(part);
        }
    }

    /// Takes what a store holds in place of what was known of it. Returns what is new.
    pub(crate) fn read(&mut self, node: &Arc<str>, store: &dyn StateStore) -> Vec<Part> {
        let before = self.node_mut(node).map(std::mem::take).unwrap_or_default();
        let is_server = &**node == SERVER;
        let mut fresh = Vec::new();
        for space in READ {
            for (key, found) in store.scan(space, KeyRange::all(), RECORDS_MAX).unwrap_or_default() {
                let value = found.value.to_vec();
                let Some(part) = part_of(&Mutation::Put { space, key, value }, is_server) else { continue };
                let is_new = match &part {
                    Part::Lane { key, record } => before.lanes.get(key) != Some(record),
                    _ => false,
                };
                self.apply(node, &part);
                if is_new {
                    fresh.push(part);
                }
            }
        }
        fresh
    }
}

/// The spaces of which checkers want to know.
const READ: [Space; 7] = [
    Space::Envelope,
    Space::RootRecord,
    Space::Workload,
    Space::LogPosition,
    Space::Plan,
    Space::Rollout,
    Space::Assignment,
];

impl NodeLedger {
    fn apply(&mut self, part: &Part) {
        match part {
            Part::Lane { key, record } => drop(self.lanes.insert(key.clone(), record.clone())),
            Part::LaneGone { key } => drop(self.lanes.remove(key)),
            Part::Workload { workload, record } => drop(self.workloads.insert(workload.clone(), Arc::clone(record))),
            Part::Root { record } => drop(self.roots.insert(record.body().version, Arc::clone(record))),
            Part::Spool { workload, record } => drop(self.spools.insert(workload.clone(), Arc::clone(record))),
            Part::Plan { plan } => drop(self.plans.insert(plan.id, Arc::clone(plan))),
            Part::Rollout { header } => drop(self.rollouts.insert(header.rollout, Arc::clone(header))),
            Part::Progress { rollout, device, progress } => {
                self.progress.insert((*rollout, *device), Arc::clone(progress));
            }
            Part::Appended { .. } | Part::Forgotten { .. } | Part::Ordered => {}
        }
    }

    /// What is stored of a document, in the order of its keys.
    pub(crate) fn document(&self, document: DocumentId) -> impl Iterator<Item = (&Vec<u8>, &LaneRecord)> {
        let prefix = document_prefix(document);
        self.lanes.range(prefix.clone()..).take_while(move |(key, _)| key.starts_with(&prefix))
    }

    /// The plan that a rollout carries out.
    pub(crate) fn plan_of(&self, rollout: RolloutId) -> Option<&Arc<Plan>> {
        self.plans.get(&self.rollouts.get(&rollout)?.plan)
    }

    /// The documents of which something is stored.
    pub(crate) fn documents(&self) -> BTreeSet<DocumentId> {
        let envelopes = self.lanes.values().filter_map(|record| match record {
            LaneRecord::Envelope(envelope) => Some(envelope.body.document),
            LaneRecord::Memory(_) => None,
        });
        envelopes.collect()
    }
}

fn part_of(mutation: &Mutation, is_server: bool) -> Option<Part> {
    match mutation {
        Mutation::Put { space: Space::Envelope, key, value } => {
            // A lane's memory is stored in the same space, and is no envelope.
            let record = match codec::decode(value) {
                Ok(envelope) => LaneRecord::Envelope(Arc::new(envelope)),
                Err(_) => LaneRecord::Memory(value.as_slice().into()),
            };
            Some(Part::Lane { key: key.clone(), record })
        }
        Mutation::Delete { space: Space::Envelope, key } => Some(Part::LaneGone { key: key.clone() }),
        Mutation::Append { log, sequence, entry } => {
            Some(Part::Appended { log: log.clone(), sequence: *sequence, entry: entry.as_slice().into() })
        }
        Mutation::Forget { log, through } => Some(Part::Forgotten { log: log.clone(), through: *through }),
        Mutation::Put { space: Space::Order, .. } | Mutation::Delete { space: Space::Order, .. } if is_server => {
            Some(Part::Ordered)
        }
        Mutation::Put { space, key, value } if is_server => server_part(*space, key, value),
        Mutation::Put { space, key, value } => device_part(*space, key, value),
        Mutation::Delete { .. } | Mutation::Expect { .. } => None,
    }
}

fn device_part(space: Space, key: &[u8], value: &[u8]) -> Option<Part> {
    let name = || std::str::from_utf8(key).ok()?.parse::<WorkloadName>().ok();
    match space {
        Space::Workload => {
            let record = Arc::new(agent_record::decode_workload(value).ok()?);
            Some(Part::Workload { workload: name()?, record })
        }
        Space::RootRecord => Some(Part::Root { record: Arc::new(RootRecord::decode(value).ok()?) }),
        Space::LogPosition => {
            let workload = name()?;
            let (record, _) = agent_record::decode_spool(&workload, value).ok()?;
            Some(Part::Spool { workload, record: Arc::new(record) })
        }
        _ => None,
    }
}

fn server_part(space: Space, key: &[u8], value: &[u8]) -> Option<Part> {
    match space {
        Space::Plan => Some(Part::Plan { plan: server_record::rollout::decode_plan(value).ok()?.0 }),
        Space::Rollout => Some(Part::Rollout { header: Arc::new(server_record::rollout::decode_header(value).ok()?) }),
        Space::Assignment => {
            let rollout = RolloutId::from_slice(key.get(..RolloutId::LENGTH)?)?;
            let (device, progress) = server_record::rollout::decode_progress(value).ok()?;
            Some(Part::Progress { rollout, device, progress: Arc::new(progress) })
        }
        _ => None,
    }
}
