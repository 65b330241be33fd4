//! Invariant 1: a lane goes up, never down, and what is kept of it is one unbroken run from its opener on.

use std::sync::Arc;

use fleetd_sync_core::envelope::{DocumentId, Envelope, Position};
use fleetd_sync_core::id::KeyId;

use super::ledger::{LaneRecord, NodeLedger, Part};
use super::word::read_lanes;
use super::{Broken, Fact, Inspector, Scene};

/// Looks at each lane that changes.
#[derive(Debug)]
pub(super) struct LaneChecker;

impl Inspector for LaneChecker {
    fn invariant(&self) -> u8 {
        1
    }

    fn name(&self) -> &'static str {
        "lane"
    }

    fn learn(&mut self, scene: &Scene<'_>, node: &Arc<str>, fact: Fact<'_>) -> Result<(), Broken> {
        let held = || scene.ledger.node(node);
        match fact {
            Fact::Stored(Part::Lane { record: LaneRecord::Envelope(envelope), .. }) => {
                held().map_or(Ok(()), |held| on_stored(held, node, envelope))
            }
            Fact::Settled(documents) => {
                let Some(held) = held() else { return Ok(()) };
                documents.iter().try_for_each(|document| on_settled(held, node, *document))
            }
            _ => Ok(()),
        }
    }
}

/// What comes above a lane's head is taken; the lower branch is stale.
fn on_stored(held: &NodeLedger, node: &Arc<str>, envelope: &Envelope) -> Result<(), Broken> {
    let body = &envelope.body;
    let Some(head) = head(held, body.document, body.lane) else { return Ok(()) };
    if body.position < head {
        let seen = format!("it took {:?} of {} below the head {head:?} of {}", body.position, body.document, body.lane);
        return Broken::on(node, seen);
    }
    Ok(())
}

fn on_settled(held: &NodeLedger, node: &Arc<str>, document: DocumentId) -> Result<(), Broken> {
    for (lane, word) in read_lanes(held, document) {
        if let Err(why) = word {
            return Broken::on(node, format!("what it keeps of lane {lane} of {document} is no lane: {why}"));
        }
    }
    Ok(())
}

fn head(held: &NodeLedger, document: DocumentId, lane: KeyId) -> Option<Position> {
    let positions = held.document(document).filter_map(|(_, record)| match record {
        LaneRecord::Envelope(envelope) if envelope.body.lane == lane => Some(envelope.body.position),
        LaneRecord::Envelope(_) | LaneRecord::Memory(_) => None,
    });
    positions.max()
}
