//! Lanes under a writer who may write them and means harm: bodies of any content, signed with the right key, and
//! anything at all in the place of a stored record.

use std::collections::{BTreeMap, BTreeSet};

use fleetd_sync_core::codec::{self, Reader};
use fleetd_sync_core::commit::Mutation;
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::envelope::{DocumentId, Previous};
use fleetd_sync_core::id::{FleetId, LocalId};
use fleetd_sync_core::key::SecretKey;
use fleetd_sync_core::limit;
use fleetd_sync_core::replica::{AuthorityWriter, LaneRecord, Replica, Writers};
use fleetd_sync_core::trust::{Rank, Sites};

use super::{CASES_SLOW, envelope};

const FLEET: FleetId = FleetId::from_bytes(*b"a golden fleet..");
/// Envelopes of one lane that may lie on a disk: an epoch, its opener, and what it may keep of branches.
const LANE_RECORDS_MAX: usize = 4 * limit::EPOCH_CHANGES_MAX as usize;

type Disk = BTreeMap<Vec<u8>, Vec<u8>>;

fn authority() -> SecretKey {
    SecretKey::from_bytes([1; 32])
}

fn device() -> SecretKey {
    SecretKey::from_bytes([2; 32])
}

fn writers() -> Writers {
    let authority = authority();
    let writer = AuthorityWriter { key: authority.public(), rank: Rank::CENTRAL, sites: Sites::All };
    Writers {
        authorities: BTreeMap::from([(authority.id(), writer)]).into(),
        devices: BTreeMap::from([(LocalId::from(device().id()), Box::new(device().public()))]),
        sites: BTreeMap::new(),
        revoked: BTreeSet::new().into(),
        trust_version: 1,
    }
}

fn empty() -> Replica {
    let mut replica = Replica::new(FLEET, None, &mut Entropy::from_seed([5; 32]));
    let local = LocalId::from(device().id());
    for document in [DocumentId::Trust, DocumentId::Desired(local), DocumentId::Actual(local)] {
        replica.hold(document);
    }
    replica
}

fn apply(disk: &mut Disk, records: Vec<LaneRecord>) {
    for record in records {
        match record.into_mutation() {
            Mutation::Put { key, value, .. } => drop(disk.insert(key, value)),
            Mutation::Delete { key, .. } => drop(disk.remove(&key)),
            other => panic!("a replica only puts and deletes, not {other:?}"),
        }
    }
}

/// Reads the input as steps: a byte that says what to do, a length, and so many bytes.
fn steps(bytes: &[u8]) -> Vec<(u8, &[u8])> {
    let mut reader = Reader::new(bytes);
    let mut steps = Vec::new();
    while let (Ok(what), Ok(part)) = (reader.u8("step"), reader.bytes("step", limit::SNAPSHOT_BYTES_MAX)) {
        steps.push((what, part));
    }
    steps
}

/// Signs what the bytes say, as a writer of this fleet would. Bit 0 of `what` takes the link from the lane's head.
fn signed(what: u8, bytes: &[u8], replica: &Replica) -> Option<Vec<u8>> {
    let mut body = codec::decode(bytes).ok()?.body;
    body.fleet = FLEET;
    let (key, local) = match body.document {
        DocumentId::Actual(_) => (device(), LocalId::from(device().id())),
        DocumentId::Trust | DocumentId::Desired(_) => (authority(), LocalId::from(device().id())),
    };
    body.lane = key.id();
    body.document = match body.document {
        DocumentId::Trust => DocumentId::Trust,
        DocumentId::Desired(_) => DocumentId::Desired(local),
        DocumentId::Actual(_) => DocumentId::Actual(local),
    };
    let head = replica.heads().into_iter().find(|head| (head.document, head.lane) == (body.document, body.lane));
    if let (1, Some(head)) = (what & 1, head) {
        match &mut body.previous {
            Previous::Link(link) => {
                *link = head.head.hash;
                body.position = head.head.position;
                body.position.seq = body.position.seq.checked_add(1)?;
            }
            Previous::Parent(parent) => {
                *parent = head.head;
                body.position.epoch = head.head.position.epoch.checked_add(1)?;
            }
            Previous::Start => {}
        }
    }
    Some(codec::seal(body, &key).bytes.to_vec())
}

/// Says how many envelopes had an effect.
fn receive(bytes: &[u8]) -> usize {
    let mut replica = empty();
    let mut disk = Disk::new();
    apply(&mut disk, replica.set_writers(writers()).records);
    let mut effects = 0;
    for (what, part) in steps(bytes) {
        let envelope = if what & 2 == 0 { signed(what, part, &replica) } else { None };
        let received = replica.receive(envelope.as_deref().unwrap_or(part));
        effects += usize::from(!received.changed.is_empty());
        apply(&mut disk, received.records);
        assert!(disk.len() <= 2 * LANE_RECORDS_MAX, "{} records of two lanes", disk.len());
    }
    let mut again = empty();
    for record in disk.values() {
        again.load(record).unwrap_or_else(|error| panic!("what was stored is not loaded: {error:?}"));
    }
    let settled = again.set_writers(writers());
    assert_eq!(settled.records, Vec::new(), "what was stored had nothing left to settle");
    assert_eq!(again.heads(), replica.heads());
    let local = LocalId::from(device().id());
    assert_eq!(again.resolve(local), replica.resolve(local));
    effects
}

/// Loads anything as stored records, and then uses the replica.
fn load(bytes: &[u8]) {
    let mut replica = empty();
    for (_, part) in steps(bytes) {
        let _ = replica.load(part);
    }
    let mut disk = Disk::new();
    apply(&mut disk, replica.set_writers(writers()).records);
    for head in replica.heads() {
        let _ = replica.envelopes_after(head.document, head.lane, None);
        let _ = replica.standing(head.document, head.lane);
    }
    let _ = replica.resolve(LocalId::from(device().id()));
    for sample in envelope::samples() {
        let _ = replica.receive(&sample);
    }
}

fn samples() -> Vec<Vec<u8>> {
    let mut writer = codec::Writer::new();
    for sample in envelope::samples() {
        writer.u8(1).bytes(&sample);
    }
    let all = writer.finish();
    let [first, delta, above] = <[Vec<u8>; 3]>::try_from(envelope::samples()).unwrap();
    let mut writer = codec::Writer::new();
    writer.u8(0).bytes(&first).u8(1).bytes(&above).u8(2).bytes(&delta).u8(1).bytes(&first);
    vec![all, writer.finish()]
}

#[test]
fn every_sample_of_a_lane_has_its_effect() {
    assert!(samples().iter().all(|sample| receive(sample) > 0));
}

#[test]
fn what_a_writer_sends_is_stored_and_loads_as_it_was() {
    bolero::check!(name = "replica").with_iterations(CASES_SLOW).for_each(|bytes: &[u8]| match bytes.split_first() {
        Some((0x00, rest)) => load(rest),
        _ => drop(receive(bytes)),
    });
}
