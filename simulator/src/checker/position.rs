//! Invariant 3: no position is ever written twice by an honest writer.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleetd_sync_core::envelope::{DocumentId, Envelope, Position};
use fleetd_sync_core::id::{EnvelopeHash, KeyId};

use super::ledger::{LaneRecord, Part};
use super::{Broken, Fact, Inspector, Scene};

/// Remembers what every node ever stored at a position, and compares.
#[derive(Debug, Default)]
pub(super) struct PositionChecker {
    seen: BTreeMap<(DocumentId, KeyId, Position), EnvelopeHash>,
}

impl PositionChecker {
    fn on_stored(&mut self, node: &Arc<str>, envelope: &Envelope) -> Result<(), Broken> {
        let body = &envelope.body;
        let place = (body.document, body.lane, body.position);
        match self.seen.insert(place, envelope.hash) {
            Some(before) if before != envelope.hash => {
                Broken::on(node, format!("{:?} of lane {} stands for two bodies", body.position, body.lane))
            }
            _ => Ok(()),
        }
    }
}

impl Inspector for PositionChecker {
    fn invariant(&self) -> u8 {
        3
    }

    fn name(&self) -> &'static str {
        "position"
    }

    fn learn(&mut self, _scene: &Scene<'_>, node: &Arc<str>, fact: Fact<'_>) -> Result<(), Broken> {
        match fact {
            Fact::Stored(Part::Lane { record: LaneRecord::Envelope(envelope), .. })
            | Fact::Found(Part::Lane { record: LaneRecord::Envelope(envelope), .. }) => self.on_stored(node, envelope),
            _ => Ok(()),
        }
    }
}
