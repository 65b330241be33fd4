//! Invariant 1: equal lane heads and equal trust mean equal resolved state; and that is what the reference model says.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::envelope::{DocumentId, Head};
use fleetd_sync_core::id::{KeyId, LocalId};
use fleetd_sync_core::replica::Replica;
use fleetd_sync_core::trust::{RootChain, Roster};

use super::ledger::{LaneRecord, NodeLedger};
use super::word::{Word, read_lanes};
use super::{Broken, Fact, Inspector, Scene};
use crate::reference::resolve::{Wishes, told};
use crate::reference::trust::Trusted;

/// What a resolved state may depend on: the device, the heads of the lanes that count, whose they are, who is revoked.
type Basis = (LocalId, Vec<(KeyId, u8, Head)>);

/// Reads each change with the reference model and with the product, and compares nodes with each other.
#[derive(Default)]
pub(super) struct ResolvedChecker {
    known: BTreeMap<Basis, (Arc<str>, Wishes)>,
    chains: BTreeMap<u64, RootChain>,
}

impl fmt::Debug for ResolvedChecker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ResolvedChecker({} states)", self.known.len())
    }
}

impl ResolvedChecker {
    fn compare(&mut self, scene: &Scene<'_>, node: &Arc<str>, device: LocalId) -> Result<(), Broken> {
        let (Some(held), Some(word)) = (scene.ledger.node(node), scene.words.of(node, device)) else { return Ok(()) };
        let Some(trusted) = scene.words.trusted(node) else { return Ok(()) };
        // What waits, or stays of a branch that lost, is no matter of heads alone.
        if word.is_partial {
            return Ok(());
        }
        if let Some(resolved) = self.product(scene, node, held, device)
            && resolved != word.wishes
        {
            let seen = format!("it resolves to {resolved:?}, and its lanes say {:?}", word.wishes);
            return Broken::on(node, seen);
        }
        self.agree(scene, node, held, trusted, word, device)
    }

    /// What the product makes of what the node holds.
    fn product(&mut self, scene: &Scene<'_>, node: &Arc<str>, held: &NodeLedger, device: LocalId) -> Option<Wishes> {
        let chain = self.chain(scene, node)?;
        let mut replica = Replica::new(chain.fleet(), None, &mut Entropy::from_seed([0; 32]));
        for document in [DocumentId::Trust, DocumentId::Desired(device)] {
            replica.hold(document);
            for (_, record) in held.document(document) {
                let bytes = match record {
                    LaneRecord::Envelope(envelope) => &envelope.bytes,
                    LaneRecord::Memory(bytes) => bytes,
                };
                // What cannot be taken, a node leaves out too.
                let _ = replica.load(bytes);
            }
        }
        let roster = Roster::of(chain, &replica);
        let _ = replica.set_writers(roster.writers(BTreeMap::new(), BTreeMap::new()));
        Some(told(&replica.resolve(device)))
    }

    fn chain(&mut self, scene: &Scene<'_>, node: &str) -> Option<&RootChain> {
        let roots = scene.ledger.roots(node);
        let (version, newest) = roots.last_key_value()?;
        if !self.chains.contains_key(version) {
            let records = roots.values().map(|record| record.encode());
            self.chains.insert(*version, RootChain::load(newest.body().fleet, records).ok()?);
        }
        self.chains.get(version)
    }

    /// Compares a node with whoever stood at the same heads.
    fn agree(
        &mut self,
        scene: &Scene<'_>,
        node: &Arc<str>,
        held: &NodeLedger,
        trusted: &Trusted,
        word: &Word,
        device: LocalId,
    ) -> Result<(), Broken> {
        let mut heads = Vec::new();
        for (lane, word) in read_lanes(held, DocumentId::Desired(device)) {
            match (trusted.weight(lane), word) {
                (Some(weight), Ok(word)) => heads.push((lane, weight, word.head)),
                (Some(_), Err(_)) | (None, _) => {}
            }
        }
        match self.known.get(&(device, heads.clone())) {
            None => drop(self.known.insert((device, heads), (Arc::clone(node), word.wishes.clone()))),
            Some((other, wishes)) if *wishes != word.wishes => {
                let seen = format!("at the same heads it resolves to {:?}, {other} to {wishes:?}", word.wishes);
                return Broken::on(node, seen);
            }
            Some((other, _)) if other != node => scene.marks.reach("two nodes agreed at the same heads"),
            Some(_) => {}
        }
        Ok(())
    }
}

impl Inspector for ResolvedChecker {
    fn invariant(&self) -> u8 {
        1
    }

    fn name(&self) -> &'static str {
        "resolved"
    }

    fn learn(&mut self, scene: &Scene<'_>, node: &Arc<str>, fact: Fact<'_>) -> Result<(), Broken> {
        let Fact::Settled(documents) = fact else { return Ok(()) };
        let all = match (documents.contains(&DocumentId::Trust), scene.ledger.node(node)) {
            (true, Some(held)) => held.documents(),
            _ => documents.clone(),
        };
        for document in all {
            if let DocumentId::Desired(device) = document {
                self.compare(scene, node, device)?;
            }
        }
        Ok(())
    }
}
