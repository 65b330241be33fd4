//! A session whose peer says anything, in any order: frames on one end of a connection, and time that passes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use fleetd_sync_core::codec::{Reader, Writer};
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::envelope::{DocumentId, Op, Value};
use fleetd_sync_core::id::{BootId, LocalId};
use fleetd_sync_core::key::SecretKey;
use fleetd_sync_core::limit;
use fleetd_sync_core::replica::{AuthorityWriter, Replica, Writers};
use fleetd_sync_core::session::message::{Hello, Message};
use fleetd_sync_core::session::output::Output;
use fleetd_sync_core::session::{DeviceSide, Grade, Opening, ServerSide, Session, Side};
use fleetd_sync_core::time::{ClockQuality, Monotonic, Now, Wall};
use fleetd_sync_core::trust::{Rank, Role, RootChain, RootRecord, Sites};
use fleetd_sync_transport::frame::{decode, encode};

use super::{CASES_SLOW, frame};

/// Messages that one message may be answered with: all that the peer lacks, an envelope or two in each.
const ANSWERS_MAX: usize = 64;

struct Fleet {
    authority: SecretKey,
    device: SecretKey,
    chain: Arc<RootChain>,
}

static FLEET: LazyLock<Fleet> = LazyLock::new(|| {
    let [root, ca, authority, device] = [1, 2, 3, 4].map(|seed| SecretKey::from_bytes([seed; 32]));
    let central = Role::Authority { rank: Rank::CENTRAL, sites: Sites::All };
    let roles = [(ca.public(), Role::CertificateAuthority), (authority.public(), central)];
    let record = RootRecord::draft(BTreeSet::from([root.public()]), 1, roles).unwrap().sign(&root);
    let chain = Arc::new(RootChain::found(record.body().fleet, record).unwrap());
    Fleet { authority, device, chain }
});

fn now(monotonic: Monotonic) -> Now {
    Now { monotonic, wall: Wall(1_764_000_000_000), quality: ClockQuality::Synced }
}

/// The server's replica and the device's, as each session begins: signing anew takes longer than a session.
static REPLICAS: LazyLock<[Replica; 2]> = LazyLock::new(|| [false, true].map(written));

fn replica(of_device: bool) -> Replica {
    REPLICAS.get(usize::from(of_device)).unwrap().clone()
}

/// A node of the fleet that has written two changes.
fn written(of_device: bool) -> Replica {
    let fleet = &*FLEET;
    let local = LocalId::from(fleet.device.id());
    let (key, document) = if of_device {
        (&fleet.device, DocumentId::Actual(local))
    } else {
        (&fleet.authority, DocumentId::Desired(local))
    };
    let mut replica = Replica::new(fleet.chain.fleet(), Some(key.clone()), &mut Entropy::from_seed([5; 32]));
    for document in [DocumentId::Trust, DocumentId::Desired(local), DocumentId::Actual(local)] {
        replica.hold(document);
    }
    let writer = AuthorityWriter { key: fleet.authority.public(), rank: Rank::CENTRAL, sites: Sites::All };
    let _ = replica.set_writers(Writers {
        authorities: BTreeMap::from([(fleet.authority.id(), writer)]).into(),
        devices: BTreeMap::from([(local, Box::new(fleet.device.public()))]),
        sites: BTreeMap::new(),
        revoked: BTreeSet::new().into(),
        trust_version: fleet.chain.version(),
    });
    for value in 0..2 {
        let op = Op::Set { path: "workload/coffee/attempt".parse().unwrap(), value: Value::Integer(value) };
        let _ = replica.write(now(Monotonic(0)), document, vec![op]).unwrap();
    }
    replica
}

fn opening(shape: u8) -> Opening {
    let fleet = &*FLEET;
    let side = if shape & 1 == 0 {
        let grade = match shape & 6 {
            2 => Grade::Enroll,
            4 => Grade::RenewOnly,
            _ => Grade::Full,
        };
        Side::Server(ServerSide { chain: Arc::clone(&fleet.chain), grade })
    } else {
        Side::Device(DeviceSide {
            fleet: fleet.chain.fleet(),
            chain: (shape & 2 == 0).then(|| RootChain::clone(&fleet.chain)),
            trust_version_min: 0,
            server_leaf: vec![1],
            verify: |_| Ok(()),
        })
    };
    Opening { boot: BootId::from_bytes([7; 16]), log_positions: Vec::new(), side }
}

/// Says how many messages were answered. The first byte says who listens; then each step is a byte and what follows
/// its length: 0 lets time pass, and any other is a frame.
fn run(bytes: &[u8]) -> usize {
    let Some((&shape, rest)) = bytes.split_first() else { return 0 };
    let (mut time, mut out, mut answers) = (Monotonic(0), Vec::new(), 0);
    let mut replica = replica(shape & 1 == 1);
    let mut session = Session::open(time, opening(shape), &replica, &mut out);
    let mut reader = Reader::new(rest);
    while let Ok(what) = reader.u8("step") {
        let Ok(part) = reader.bytes("step", limit::FRAME_BYTES_MAX) else { break };
        let is_closed = out.iter().any(|output| matches!(output, Output::Close(_)));
        out.clear();
        if what == 0 {
            time = time + Duration::from_secs(u64::from(part.first().copied().unwrap_or(1)));
            session.handle_timeout(time, &mut out);
            session.probe(time, &mut out);
        } else if let Ok(Some(message)) = decode(part) {
            session.on_message(now(time), message, &mut replica, &mut out);
        }
        assert!(!is_closed || out.is_empty(), "after a close nothing follows: {out:?}");
        assert!(session.poll_timeout().is_none_or(|at| at + Duration::from_secs(600) > time));
        let mut sent = 0;
        for output in &out {
            match output {
                Output::Send(_, message) => {
                    assert!(encode(message).is_ok(), "what a session says fits a frame");
                    sent += 1;
                }
                Output::Deliver(_) => assert!(session.grade().is_some(), "nothing is handed on before the welcome"),
                _ => {}
            }
        }
        assert!(sent <= ANSWERS_MAX, "{sent} messages for one");
        answers += usize::from(sent > 0);
    }
    answers
}

/// What each end says to a peer that has nothing.
fn said(shape: u8) -> Vec<Message> {
    let of_device = shape & 1 == 1;
    let fleet = &*FLEET;
    let replica = replica(of_device);
    let local = LocalId::from(fleet.device.id());
    let heads = replica.heads();
    let envelopes = heads.iter().flat_map(|head| replica.envelopes_after(head.document, head.lane, None)).collect();
    let mut hello = frame::messages().into_iter().find_map(|message| match message {
        Message::Hello(hello) => Some(*hello),
        _ => None,
    });
    if let Some(hello) = &mut hello {
        hello.trust_version = 1;
        hello.welcome = (!of_device).then(|| fleetd_sync_core::session::Welcome {
            grade: Grade::Full,
            root_records: fleet.chain.records().map(RootRecord::encode).collect(),
        });
    }
    let full = hello.clone().map(|hello| Hello {
        summary: fleetd_sync_core::session::Summary::Full { heads, log_positions: Vec::new() },
        ..hello
    });
    let push = Message::Push(fleetd_sync_core::session::Push { envelopes });
    let want = Message::Want(fleetd_sync_core::session::Want {
        document: if of_device { DocumentId::Desired(local) } else { DocumentId::Actual(local) },
        lane: if of_device { fleet.authority.id() } else { fleet.device.id() },
        have: None,
    });
    let hellos = [hello, full].map(|hello| Message::Hello(Box::new(hello.unwrap())));
    hellos.into_iter().chain([push, want, Message::Ping(1)]).collect()
}

fn samples() -> Vec<Vec<u8>> {
    let steps = |shape: u8, messages: Vec<Message>| {
        let mut writer = Writer::new();
        writer.u8(shape);
        for message in messages {
            writer.u8(1).bytes(&encode(&message).unwrap());
        }
        writer.u8(0).bytes(&[20]);
        writer.finish()
    };
    let mut samples = vec![steps(0, said(1)), steps(1, said(0)), steps(3, said(0)), steps(4, said(1))];
    let hello = |shape: u8| said(shape).into_iter().take(1);
    samples.push(steps(0, hello(1).chain(frame::messages()).collect()));
    samples.push(steps(1, hello(0).chain(frame::messages()).collect()));
    samples.push(steps(2, hello(1).chain(frame::messages()).collect()));
    samples
}

#[test]
fn every_sample_of_a_session_is_answered() {
    for (index, sample) in samples().iter().enumerate() {
        assert!(run(sample) > 0, "sample {index}");
    }
}

#[test]
fn whatever_a_peer_says_a_session_keeps_its_rules() {
    bolero::check!(name = "session").with_iterations(CASES_SLOW).for_each(|bytes| {
        run(bytes);
    });
}
