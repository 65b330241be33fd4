//! Invariant 3: no position is ever written twice by an honest writer.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleetd_sync_core::codec;
use fleetd_sync_core::commit::{Mutation, Space};
use fleetd_sync_core::envelope::{DocumentId, Position};
use fleetd_sync_core::id::{EnvelopeHash, KeyId};
use fleetd_sync_core::time::Monotonic;

use super::{Broken, Checker};
use crate::mark::Marks;
use crate::observation::Observation;

/// Remembers what every node ever stored at a position, and compares.
#[derive(Debug, Default)]
pub(super) struct PositionChecker {
    seen: BTreeMap<(DocumentId, KeyId, Position), EnvelopeHash>,
}

impl PositionChecker {
    fn on_stored(&mut self, node: &Arc<str>, value: &[u8], marks: &Marks) -> Result<(), Broken> {
        // A lane's memory is stored in the same space, and is no envelope.
        let Ok(envelope) = codec::decode(value) else { return Ok(()) };
        let body = &envelope.body;
        if body.position.epoch > 1 {
            marks.reach("a lane began a further epoch");
        }
        let place = (body.document, body.lane, body.position);
        match self.seen.insert(place, envelope.hash) {
            Some(before) if before != envelope.hash => {
                let seen = format!("{:?} of lane {} stands for two bodies", body.position, body.lane);
                Err(Broken { node: Arc::clone(node), seen })
            }
            _ => Ok(()),
        }
    }
}

impl Checker for PositionChecker {
    fn invariant(&self) -> u8 {
        3
    }

    fn name(&self) -> &'static str {
        "position"
    }

    fn observe(&mut self, _at: Monotonic, observation: &Observation, marks: &Marks) -> Result<(), Broken> {
        let Observation::Answered { node, batch, is_durable: true } = observation else { return Ok(()) };
        for mutation in &batch.mutations {
            if let Mutation::Put { space: Space::Envelope, value, .. } = mutation {
                self.on_stored(node, value, marks)?;
            }
        }
        Ok(())
    }
}
