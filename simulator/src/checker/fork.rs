//! Invariant 8: a key that two hold is proven to be cloned, and no other ever is.

use std::collections::BTreeSet;
use std::sync::Arc;

use fleetd_sync_core::codec::Reader;
use fleetd_sync_core::id::{KeyId, LocalId};
use fleetd_sync_core::limit;

use super::ledger::{LaneRecord, Part};
use super::{Broken, Fact, Inspector, Scene};
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

/// Knows which keys were cloned, and sees every proof.
#[derive(Debug, Default)]
pub(super) struct ForkChecker {
    cloned: BTreeSet<KeyId>,
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
                self.cloned.extend(scene.ledger.local(node).map(KeyId::from));
                Ok(())
            }
            Fact::Stored(Part::Lane { record: LaneRecord::Memory(bytes), .. }) => {
                let Some(memory) = Memory::read(bytes).filter(|memory| memory.has_proof) else { return Ok(()) };
                if self.cloned.contains(&memory.lane) {
                    scene.marks.reach("a cloned key was proven");
                    return Ok(());
                }
                Broken::on(node, format!("lane {} counts as cloned, and only one ever held its key", memory.lane))
            }
            _ => Ok(()),
        }
    }
}
