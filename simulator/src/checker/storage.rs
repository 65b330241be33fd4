//! Invariant 9: what a node keeps of a lane, and a device in all, stays within its bounds however long it runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleetd_sync_core::commit::Space;
use fleetd_sync_core::envelope::DocumentId;
use fleetd_sync_core::id::KeyId;
use fleetd_sync_core::limit;
use fleetd_sync_store::state_store::{KeyRange, StateStore as _};

use super::ledger::{LaneRecord, NodeLedger};
use super::{Broken, Fact, Inspector, Scene};

/// Records that a device's store may have in all: three documents of eight lanes, and some for each workload.
const DEVICE_RECORDS_MAX: usize = 3 * 8 * 66 + 1024;

/// Measures each document that changes, and each device at the end.
#[derive(Debug)]
pub(super) struct StorageChecker;

fn measure(held: &NodeLedger, node: &Arc<str>, document: DocumentId) -> Result<(), Broken> {
    let mut lanes: BTreeMap<KeyId, (u64, usize)> = BTreeMap::new();
    for (_, record) in held.document(document) {
        if let LaneRecord::Envelope(envelope) = record {
            let (count, bytes) = lanes.entry(envelope.body.lane).or_default();
            *count += 1;
            *bytes += envelope.bytes.len();
        }
    }
    // An epoch's changes, and the opener below them.
    let (count_max, bytes_max) = (limit::EPOCH_CHANGES_MAX + 1, limit::EPOCH_BYTES_MAX + limit::SNAPSHOT_BYTES_MAX);
    for (lane, (count, bytes)) in lanes {
        if count > count_max || bytes > bytes_max {
            let seen = format!("it keeps {count} envelopes of {bytes} bytes of lane {lane} in {document}");
            return Broken::on(node, seen);
        }
    }
    Ok(())
}

impl Inspector for StorageChecker {
    fn invariant(&self) -> u8 {
        9
    }

    fn name(&self) -> &'static str {
        "storage"
    }

    fn learn(&mut self, scene: &Scene<'_>, node: &Arc<str>, fact: Fact<'_>) -> Result<(), Broken> {
        let (Fact::Settled(documents), Some(held)) = (fact, scene.ledger.node(node)) else { return Ok(()) };
        documents.iter().try_for_each(|document| measure(held, node, *document))
    }

    fn conclude(&mut self, scene: &Scene<'_>) -> Result<(), Broken> {
        for device in &scene.fleet.devices {
            let count = |space| device.store.scan(space, KeyRange::all(), usize::MAX).map_or(0, |found| found.len());
            let records: usize = Space::ALL.into_iter().map(count).sum();
            if records > DEVICE_RECORDS_MAX {
                let node = Arc::from(device.name.as_str());
                return Broken::on(&node, format!("its store has {records} records"));
            }
        }
        Ok(())
    }
}
