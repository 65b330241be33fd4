//! Invariant 8: a key that two hold is proven to be cloned, and no other ever is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fleetd_sync_core::codec::Reader;
use fleetd_sync_core::envelope::{DocumentId, Envelope, Previous};
use fleetd_sync_core::id::{EnvelopeHash, KeyId, LocalId, Stamp};
use fleetd_sync_core::limit;

use super::ledger::{LaneRecord, Part};
use super::{Broken, Fact, Inspector, Scene};
use crate::fleet::SERVER;
use crate::observation::Observation;

/// The first byte of a lane's memory.
const MEMORY_VERSION: u8 = 0x81;
/// More than a lane remembers of anything.
const COUNT_MAX: usize = 1 << 16;

/// What a lane's memory says, as far as a checker cares.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    /// Whose lane it is.
    pub(super) lane: KeyId,
    /// Whether a proof that its key was cloned is in it.
    pub(super) has_proof: bool,
    /// How many values stay of branches that lost.
    pub(super) residue: usize,
}

impl Memory {
    /// Reads a memory by the layout that `sync/core/src/lane/memory.rs` writes.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        if reader.u8("version").ok()? != MEMORY_VERSION {
            return None;
        }
        if reader.u8("document").ok()? != 0 {
            let _ = reader.take("device", LocalId::LENGTH).ok()?;
        }
        let lane = KeyId::from_bytes(reader.array("lane").ok()?);
        skip_envelopes(&mut reader)?;
        let has_proof = reader.u8("proof").ok()? != 0;
        if has_proof {
            skip_envelopes(&mut reader)?;
        }
        let residue = reader.count("residue", COUNT_MAX).ok()?;
        Some(Self { lane, has_proof, residue })
    }
}

fn skip_envelopes(reader: &mut Reader<'_>) -> Option<()> {
    for _ in 0..reader.count("envelopes", COUNT_MAX).ok()? {
        reader.bytes("envelope", limit::SNAPSHOT_BYTES_MAX).ok()?;
    }
    Some(())
}

/// What has been said under a key since somebody copied it.
#[derive(Debug, Default)]
struct Cloned {
    /// What its device wrote: it hands an envelope to its own store before anybody else has it.
    by_device: BTreeSet<EnvelopeHash>,
    /// The openers of the thief that the server has, each with the stamp that it took the lane over from.
    taken_from: BTreeMap<EnvelopeHash, Stamp>,
    /// The server has the device's answer to the thief: both have written, and each has met the server since.
    is_due: bool,
}

impl Cloned {
    /// The server stores an envelope of the lane. A stamp that follows the one which followed it is the proof.
    fn on_server(&mut self, envelope: &Envelope) {
        let Previous::Parent(parent) = envelope.body.previous else { return };
        if !self.by_device.contains(&envelope.hash) {
            self.taken_from.insert(envelope.hash, parent.position.stamp);
            return;
        }
        self.is_due |= self.taken_from.get(&parent.hash) == Some(&envelope.body.position.stamp);
    }
}

/// Knows which keys were cloned, and sees every proof: none for a key that one held, and one for a key that two held as
/// soon as the server has seen either hold it.
#[derive(Debug, Default)]
pub(super) struct ForkChecker {
    cloned: BTreeMap<KeyId, Cloned>,
}

impl ForkChecker {
    fn on_cloned(&mut self, scene: &Scene<'_>, node: &Arc<str>) {
        let Some(local) = scene.ledger.local(node) else { return };
        let cloned = self.cloned.entry(local.into()).or_default();
        for held in [scene.ledger.node(node), scene.ledger.node(SERVER)].into_iter().flatten() {
            for (_, record) in held.document(DocumentId::Actual(local)) {
                if let LaneRecord::Envelope(envelope) = record {
                    cloned.by_device.insert(envelope.hash);
                }
            }
        }
    }

    fn on_memory(&self, scene: &Scene<'_>, node: &Arc<str>, bytes: &[u8]) -> Result<(), Broken> {
        let Some(memory) = Memory::read(bytes).filter(|memory| memory.has_proof) else { return Ok(()) };
        if self.cloned.contains_key(&memory.lane) {
            scene.marks.reach("a cloned key was proven");
            return Ok(());
        }
        Broken::on(node, format!("lane {} counts as cloned, and only one ever held its key", memory.lane))
    }

    /// All of a turn of the server's is stored: what is due by now has to be in it.
    fn on_settled(&mut self, scene: &Scene<'_>, node: &Arc<str>) -> Result<(), Broken> {
        for (lane, cloned) in self.cloned.iter_mut().filter(|(_, cloned)| cloned.is_due) {
            cloned.is_due = false;
            let document = DocumentId::Actual(LocalId::from(*lane));
            let held = scene.ledger.node(node).into_iter().flat_map(|held| held.document(document));
            let has_proof = |record: &LaneRecord| match record {
                LaneRecord::Memory(bytes) => Memory::read(bytes).is_some_and(|memory| memory.has_proof),
                LaneRecord::Envelope(_) => false,
            };
            if !held.into_iter().any(|(_, record)| has_proof(record)) {
                return Broken::on(node, format!("two wrote lane {lane}, the one after the other, and none is proven"));
            }
        }
        Ok(())
    }
}

impl Inspector for ForkChecker {
    fn invariant(&self) -> u8 {
        8
    }

    fn name(&self) -> &'static str {
        "fork"
    }

    fn learn(&mut self, scene: &Scene<'_>, node: &Arc<str>, fact: Fact<'_>) -> Result<(), Broken> {
        match fact {
            Fact::Seen(Observation::Cloned { node }) => {
                self.on_cloned(scene, node);
                Ok(())
            }
            Fact::Stored(Part::Lane { record: LaneRecord::Memory(bytes), .. }) => self.on_memory(scene, node, bytes),
            Fact::Submitted(Part::Lane { record: LaneRecord::Envelope(envelope), .. }) if &**node != SERVER => {
                let is_own = scene.ledger.writer(envelope.body.lane) == &**node;
                if let Some(cloned) = self.cloned.get_mut(&envelope.body.lane).filter(|_| is_own) {
                    // What comes back from a peer was there before, or is the thief's.
                    let is_thiefs = cloned.taken_from.contains_key(&envelope.hash);
                    if !is_thiefs {
                        cloned.by_device.insert(envelope.hash);
                    }
                }
                Ok(())
            }
            Fact::Stored(Part::Lane { record: LaneRecord::Envelope(envelope), .. }) if &**node == SERVER => {
                if let Some(cloned) = self.cloned.get_mut(&envelope.body.lane) {
                    cloned.on_server(envelope);
                }
                Ok(())
            }
            Fact::Seen(Observation::Restored { node }) if &**node == SERVER => {
                // It may have lost the half of what would be a proof.
                self.cloned.values_mut().for_each(|cloned| cloned.taken_from.clear());
                Ok(())
            }
            Fact::Settled(_) if &**node == SERVER => self.on_settled(scene, node),
            _ => Ok(()),
        }
    }
}
