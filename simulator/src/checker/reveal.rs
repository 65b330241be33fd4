//! Invariant 3, seen from outside: a writer tells nobody of an envelope that a power cut could still take back.

use std::collections::BTreeSet;
use std::sync::Arc;

use fleetd_sync_core::codec;
use fleetd_sync_core::id::EnvelopeHash;
use fleetd_sync_core::session::{Class, Message};
use fleetd_sync_transport::frame;

use super::ledger::{LaneRecord, Part};
use super::{Broken, Fact, Inspector, Scene};
use crate::observation::Observation;

/// Knows what was ever durable at its writer.
#[derive(Debug, Default)]
pub(super) struct RevealChecker {
    durable: BTreeSet<EnvelopeHash>,
}

impl RevealChecker {
    fn on_sent(&self, scene: &Scene<'_>, node: &Arc<str>, class: Class, bytes: &[u8]) -> Result<(), Broken> {
        if !matches!(class, Class::Trust | Class::Desired | Class::Actual) {
            return Ok(());
        }
        let Ok(Some(Message::Push(push))) = frame::decode(bytes) else { return Ok(()) };
        for envelope in push.envelopes {
            let Ok(envelope) = codec::decode(&envelope) else { continue };
            let is_own = scene.ledger.writer(envelope.body.lane) == &**node;
            if is_own && !self.durable.contains(&envelope.hash) {
                let (position, document) = (envelope.body.position, envelope.body.document);
                return Broken::on(node, format!("it told of {position:?} in {document} before that was durable"));
            }
        }
        Ok(())
    }
}

impl Inspector for RevealChecker {
    fn invariant(&self) -> u8 {
        3
    }

    fn name(&self) -> &'static str {
        "reveal"
    }

    fn learn(&mut self, scene: &Scene<'_>, node: &Arc<str>, fact: Fact<'_>) -> Result<(), Broken> {
        match fact {
            Fact::Stored(Part::Lane { record: LaneRecord::Envelope(envelope), .. })
            | Fact::Found(Part::Lane { record: LaneRecord::Envelope(envelope), .. }) => {
                if scene.ledger.writer(envelope.body.lane) == &**node {
                    self.durable.insert(envelope.hash);
                }
                Ok(())
            }
            Fact::Seen(Observation::Sent { class, frame, .. }) => self.on_sent(scene, node, *class, frame),
            _ => Ok(()),
        }
    }
}
