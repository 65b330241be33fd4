//! Invariant 2: nothing is stored that its lane's own writer has not written, byte for byte, or may not write.

use std::collections::BTreeSet;
use std::sync::Arc;

use fleetd_sync_core::envelope::{DocumentId, Envelope};
use fleetd_sync_core::id::KeyId;
use fleetd_sync_core::key::Domain;

use super::ledger::{LaneRecord, Part};
use super::{Broken, Fact, Inspector, Scene};
use crate::fleet::SERVER;
use crate::observation::Observation;

/// Knows every envelope that was written by whom it should be.
#[derive(Debug, Default)]
pub(super) struct AuthorityChecker {
    written: BTreeSet<Arc<[u8]>>,
    /// Keys that somebody else holds, too: what they write, nobody saw.
    cloned: BTreeSet<KeyId>,
}

impl AuthorityChecker {
    /// Takes what a lane's writer hands to its own store as written by it. An authority's signature is checked, since
    /// its lanes come back to it from devices.
    fn on_submitted(&mut self, scene: &Scene<'_>, node: &Arc<str>, envelope: &Envelope) -> Result<(), Broken> {
        let lane = envelope.body.lane;
        if scene.ledger.writer(lane) != &**node || !self.written.insert(Arc::clone(&envelope.bytes)) {
            return Ok(());
        }
        let authority = scene.words.trusted(node).and_then(|trusted| trusted.authorities.get(&lane));
        let Some((key, _)) = authority else { return Ok(()) };
        match key.verify(Domain::Envelope, envelope.signed_bytes(), &envelope.signature) {
            Ok(()) => Ok(()),
            Err(error) => Broken::on(node, format!("it takes {:?} for its own: {error}", envelope.body.position)),
        }
    }

    fn on_stored(&self, scene: &Scene<'_>, node: &Arc<str>, envelope: &Envelope) -> Result<(), Broken> {
        let body = &envelope.body;
        let (lane, trusted) = (body.lane, scene.words.trusted(node));
        if let Some(fleet) = trusted.and_then(|trusted| trusted.fleet)
            && body.fleet != fleet
        {
            return Broken::on(node, format!("it stored an envelope of fleet {}", body.fleet));
        }
        let may_write = match body.document {
            DocumentId::Actual(device) => KeyId::from(device) == lane,
            // A lane that is void by now may still be kept.
            DocumentId::Trust | DocumentId::Desired(_) => {
                trusted.is_none_or(|trusted| trusted.authorities.contains_key(&lane))
            }
        };
        if !may_write {
            return Broken::on(node, format!("it stored what {lane} may not write, in {}", body.document));
        }
        if !self.written.contains(&envelope.bytes) && !self.cloned.contains(&lane) {
            let seen = format!("it stored {:?} of {}, which {lane} has not written", body.position, body.document);
            return Broken::on(node, seen);
        }
        Ok(())
    }
}

impl Inspector for AuthorityChecker {
    fn invariant(&self) -> u8 {
        2
    }

    fn name(&self) -> &'static str {
        "authority"
    }

    fn learn(&mut self, scene: &Scene<'_>, node: &Arc<str>, fact: Fact<'_>) -> Result<(), Broken> {
        match fact {
            Fact::Seen(Observation::Cloned { node }) => {
                self.cloned.extend(scene.ledger.local(node).map(KeyId::from));
                Ok(())
            }
            Fact::Submitted(Part::Lane { record: LaneRecord::Envelope(envelope), .. }) => {
                self.on_submitted(scene, node, envelope)
            }
            Fact::Stored(Part::Lane { record: LaneRecord::Envelope(envelope), .. }) => {
                self.on_stored(scene, node, envelope)
            }
            // What was there when the run began is where it begins.
            Fact::Found(Part::Lane { record: LaneRecord::Envelope(envelope), .. }) if !scene.has_begun => {
                self.written.insert(Arc::clone(&envelope.bytes));
                Ok(())
            }
            Fact::Found(Part::Lane { record: LaneRecord::Envelope(envelope), .. }) => {
                self.on_stored(scene, node, envelope)
            }
            _ => Ok(()),
        }
    }

    /// A key that is revoked is served no more.
    fn conclude(&mut self, scene: &Scene<'_>) -> Result<(), Broken> {
        let Some(trusted) = scene.words.trusted(SERVER) else { return Ok(()) };
        for (number, device) in scene.fleet.devices.iter().enumerate() {
            if trusted.revoked.contains_key(&KeyId::from(device.local())) && scene.fleet.is_linked(number) {
                return Broken::on(&SERVER.into(), format!("it serves {}, whose key is revoked", device.name));
            }
        }
        Ok(())
    }
}
