//! What the authorities want of each node's devices, as the reference models read it from what the node holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fleetd_sync_core::envelope::{DocumentId, Envelope};
use fleetd_sync_core::id::{ArtifactDigest, KeyId, LocalId};
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::time::Monotonic;

use super::ledger::{LaneRecord, Ledger, NodeLedger};
use crate::reference::lane::{self, LaneWord};
use crate::reference::resolve::{self, Speaker, Wishes};
use crate::reference::trust::Trusted;

/// What a node goes by for one device.
#[derive(Clone, Debug, Default)]
pub(super) struct Word {
    /// What is wanted now.
    pub(super) wishes: Wishes,
    /// Whether something of it waits, or stays of a branch that lost: then this is not all that counts.
    pub(super) is_partial: bool,
    /// Since when each workload is held without a break.
    held_since: BTreeMap<WorkloadName, Monotonic>,
    /// Every release that was ever wanted of a workload.
    pub(super) wanted_ever: BTreeSet<(WorkloadName, ArtifactDigest)>,
    /// The workloads that somebody ever wanted to be taken off.
    pub(super) removed_ever: BTreeSet<WorkloadName>,
    /// The workloads that somebody ever wanted to be stopped or started anew.
    pub(super) stopped_ever: BTreeSet<WorkloadName>,
}

impl Word {
    /// Since when a workload is held.
    pub(super) fn held_since(&self, workload: &WorkloadName) -> Option<Monotonic> {
        self.held_since.get(workload).copied()
    }

    fn hear(&mut self, at: Monotonic, wishes: Wishes, is_partial: bool) {
        for (workload, wish) in &wishes.workloads {
            if let Some(release) = &wish.release {
                self.wanted_ever.insert((workload.clone(), release.whole()));
            }
            if wish.is_removed {
                self.removed_ever.insert(workload.clone());
            }
            if wish.runs == Some(false) || wish.restarts > 0 {
                self.stopped_ever.insert(workload.clone());
            }
            if wish.is_held {
                self.held_since.entry(workload.clone()).or_insert(at);
            } else {
                self.held_since.remove(workload);
            }
        }
        self.held_since.retain(|workload, _| wishes.of(workload).is_held);
        self.wishes = wishes;
        self.is_partial = is_partial;
    }
}

/// What every node goes by.
#[derive(Debug, Default)]
pub(super) struct Words {
    words: BTreeMap<(Arc<str>, LocalId), Word>,
    trusted: BTreeMap<Arc<str>, Trusted>,
}

impl Words {
    /// What a node goes by for a device.
    pub(super) fn of(&self, node: &Arc<str>, device: LocalId) -> Option<&Word> {
        self.words.get(&(Arc::clone(node), device))
    }

    /// Whom a node trusts.
    pub(super) fn trusted(&self, node: &str) -> Option<&Trusted> {
        self.trusted.get(node)
    }

    /// Reads anew what a node holds of documents that have changed. A change of trust is one of all documents.
    pub(super) fn hear(&mut self, at: Monotonic, ledger: &Ledger, node: &Arc<str>, documents: &BTreeSet<DocumentId>) {
        let Some(held) = ledger.node(node) else { return };
        let trust_changed = documents.contains(&DocumentId::Trust) || !self.trusted.contains_key(node);
        if trust_changed {
            let mut trusted = Trusted::of(ledger.roots(node));
            let lanes = read_lanes(held, DocumentId::Trust);
            let words = lanes.iter().filter_map(|(lane, word)| Some((*lane, word.as_ref().ok()?.entries.clone())));
            trusted.hear(&words.collect());
            self.trusted.insert(Arc::clone(node), trusted);
        }
        let Some(trusted) = self.trusted.get(node) else { return };
        let all = if trust_changed { held.documents() } else { BTreeSet::new() };
        for document in all.union(documents) {
            let DocumentId::Desired(device) = *document else { continue };
            let mut is_partial = has_residue(held, *document);
            let mut speakers = Vec::new();
            for (lane, word) in read_lanes(held, *document) {
                let Some(weight) = trusted.weight(lane) else { continue };
                // A lane that cannot be read is another checker's business; here it says nothing.
                let Ok(word) = word else { continue };
                is_partial |= word.waits;
                speakers.push(Speaker { weight, entries: word.entries });
            }
            let word = self.words.entry((Arc::clone(node), device)).or_default();
            word.hear(at, resolve::resolve(&speakers), is_partial);
        }
    }
}

/// Each lane of a document, as the reference model reads what a node holds of it.
pub(super) fn read_lanes(held: &NodeLedger, document: DocumentId) -> BTreeMap<KeyId, Result<LaneWord, String>> {
    let mut lanes: BTreeMap<KeyId, Vec<&Envelope>> = BTreeMap::new();
    for (_, record) in held.document(document) {
        if let LaneRecord::Envelope(envelope) = record {
            lanes.entry(envelope.body.lane).or_default().push(envelope);
        }
    }
    let mut read = BTreeMap::new();
    for (lane, mut envelopes) in lanes {
        envelopes.sort_by_key(|envelope| envelope.body.position);
        if let Some(word) = lane::read(&envelopes).transpose() {
            read.insert(lane, word);
        }
    }
    read
}

/// Says whether a lane of a document remembers what a losing branch had said.
fn has_residue(held: &NodeLedger, document: DocumentId) -> bool {
    held.document(document).any(|(_, record)| match record {
        LaneRecord::Memory(bytes) => super::fork::Memory::read(bytes).is_some_and(|memory| memory.residue > 0),
        LaneRecord::Envelope(_) => false,
    })
}
