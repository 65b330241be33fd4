//! Sessions over real connections: what is said, in how many bytes, and what an impostor hears.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::envelope::{DocumentId, Op, Value};
use fleetd_sync_core::id::BootId;
use fleetd_sync_core::key::SecretKey;
use fleetd_sync_core::replica::{AuthorityWriter, Replica, Writers};
use fleetd_sync_core::session::{
    DeviceSide, Grade, Message, Opening, Output, ServerEvidence, ServerSide, Session, Side,
};
use fleetd_sync_core::time::{ClockQuality, Monotonic, Now, Wall};
use fleetd_sync_core::trust::{Rank, Role, RootChain, RootRecord, Sites};

use super::super::*;
use super::world::{Fleet, Joined, Told, World};
use crate::frame;
use crate::identity::CertificateAuthority;

const NOW: Now = Now { monotonic: Monotonic(0), wall: Wall(1_764_000_000_000), quality: ClockQuality::Synced };

/// A fleet whose root names the CA that its certificates are from.
struct Rooted {
    fleet: Fleet,
    chain: RootChain,
    authority: SecretKey,
}

impl Rooted {
    fn new(seed: u8) -> Self {
        let mut entropy = Entropy::from_seed([seed; 32]);
        let [root, ca, authority] = [(); 3].map(|()| SecretKey::generate(&mut entropy));
        let role = Role::Authority { rank: Rank::CENTRAL, sites: Sites::All };
        let roles = [(ca.public(), Role::CertificateAuthority), (authority.public(), role)];
        let record = RootRecord::draft(BTreeSet::from([root.public()]), 1, roles).unwrap().sign(&root);
        let chain = RootChain::found(record.body().fleet, record).unwrap();
        let id = chain.fleet();
        let fleet = Fleet { id, ca: CertificateAuthority::new(id, &ca).unwrap(), ..Fleet::new(seed) };
        Self { fleet, chain, authority }
    }

    fn desired(&self) -> DocumentId {
        DocumentId::Desired(self.fleet.device.id().into())
    }

    fn replica(&self, key: &SecretKey, seed: u8) -> Replica {
        let local = self.fleet.device.id().into();
        let mut replica = Replica::new(self.fleet.id, Some(key.clone()), &mut Entropy::from_seed([seed; 32]));
        for document in [DocumentId::Trust, self.desired(), DocumentId::Actual(local)] {
            replica.hold(document);
        }
        let key = self.authority.public();
        let _ = replica.set_writers(Writers {
            authorities: Arc::new(BTreeMap::from([(
                key.id(),
                AuthorityWriter { key, rank: Rank::CENTRAL, sites: Sites::All },
            )])),
            devices: BTreeMap::from([(local, Box::new(self.fleet.device.public()))]),
            trust_version: 1,
            ..Writers::default()
        });
        replica
    }
}

/// One end: a session, and the link that carries what it says.
struct End<'a> {
    session: Session,
    replica: Replica,
    link: &'a Endpoint,
    connection: ConnectionId,
    /// The frames that were sent, with their lengths on the stream.
    sent: Vec<(Message, usize)>,
    decided: Vec<Output>,
}

impl<'a> End<'a> {
    fn open(side: Side, replica: Replica, link: &'a Endpoint, connection: ConnectionId) -> Self {
        let opening = Opening { boot: BootId::from_bytes([255; 16]), log_positions: Vec::new(), side };
        let mut out = Vec::new();
        let session = Session::open(Monotonic(0), opening, &replica, &mut out);
        let mut end = Self { session, replica, link, connection, sent: Vec::new(), decided: Vec::new() };
        end.carry_out(out);
        end
    }

    fn carry_out(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match &output {
                Output::Send(class, message) => {
                    let bytes = frame::encode(message).unwrap();
                    self.sent.push((message.clone(), frame::framed_length(bytes.len())));
                    self.link.send(self.connection, *class, bytes).unwrap();
                }
                Output::Close(code) => self.link.close(self.connection, *code),
                _ => {}
            }
            self.decided.push(output);
        }
    }

    async fn hear(&mut self, told: &mut Told) {
        let (_, bytes) = told.frame().await;
        let message = frame::decode(&bytes).unwrap().unwrap();
        let mut out = Vec::new();
        self.session.on_message(NOW, message, &mut self.replica, &mut out);
        self.carry_out(out);
    }
}

fn device_side(fleet: &Rooted, leaf: Vec<u8>) -> Side {
    let chain = Some(fleet.chain.clone());
    let (fleet, verify) = (fleet.fleet.id, verify_server);
    Side::Device(DeviceSide { fleet, chain, trust_version_min: 0, server_leaf: leaf, verify })
}

fn server_side(fleet: &Rooted, grade: Grade) -> Side {
    Side::Server(ServerSide { chain: Arc::new(fleet.chain.clone()), grade })
}

#[tokio::test]
async fn a_change_costs_at_most_190_bytes_and_an_unchanged_pair_at_most_48_each_way() {
    let fleet = Rooted::new(1);
    let mut joined = Joined::of(&fleet.fleet).await;
    let (listening, dialling) = (joined.world.listening.clone(), joined.world.dialling.clone());
    let server = server_side(&fleet, Grade::Full);
    let mut server = End::open(server, fleet.replica(&fleet.authority, 1), &listening, joined.server);
    let device = device_side(&fleet, joined.leaf.clone());
    let mut device = End::open(device, fleet.replica(&fleet.fleet.device, 2), &dialling, joined.device);
    server.hear(&mut joined.heard).await;
    device.hear(&mut joined.told).await;
    assert!(server.session.is_live() && device.session.is_live());
    let lengths = |end: &End<'_>| end.sent.iter().map(|(_, length)| *length).collect::<Vec<_>>();
    assert_eq!((lengths(&device), lengths(&server)), (vec![43], vec![45]));

    for version in ["1.8.0", "1.8.1"] {
        let path = "workload/coffee/release".parse().unwrap();
        let change = Op::Set { path, value: Value::Text(version.to_owned()) };
        let written = server.replica.write(NOW, fleet.desired(), vec![change]).unwrap();
        let mut out = Vec::new();
        server.session.on_local_change(fleet.desired(), &written.envelopes, &mut out);
        server.carry_out(out);
        device.hear(&mut joined.told).await;
    }
    assert_eq!(device.replica.heads(), server.replica.heads());
    assert_eq!(lengths(&server).last(), Some(&189), "one signed change, with its framing");
}

#[tokio::test]
async fn an_impostor_with_a_ca_of_its_own_gets_no_secret() {
    let (fleet, impostor) = (Rooted::new(1), Rooted::new(2));
    // It shows certificates of its own CA, for its own fleet or for the device's.
    let forged = CertificateAuthority::new(fleet.fleet.id, &SecretKey::from_bytes([66; 32])).unwrap();
    let posing = Rooted { fleet: Fleet { id: fleet.fleet.id, ca: forged, ..Fleet::new(3) }, ..Rooted::new(1) };
    for (shown, code) in [(&impostor, CloseCode::WrongFleet), (&posing, CloseCode::Impostor)] {
        let mut world = World::new(&shown.fleet);
        let (connection, mut told) = world.dial(fleet.fleet.unknown());
        let LinkEvent::Up { peer: Peer::Server { leaf }, .. } = told.next().await else { panic!() };
        let (id, peer, mut heard) = world.accepted().await;
        assert_eq!(peer, Peer::Anonymous);
        assert!(matches!(heard.next().await, LinkEvent::Up { .. }));
        let server = server_side(shown, Grade::Enroll);
        let (listening, dialling) = (world.listening.clone(), world.dialling.clone());
        let mut server = End::open(server, shown.replica(&shown.authority, 1), &listening, id);
        let new = DeviceSide {
            fleet: fleet.fleet.id,
            chain: None,
            trust_version_min: 0,
            server_leaf: leaf,
            verify: verify_server,
        };
        let mut device = End::open(Side::Device(new), fleet.replica(&fleet.fleet.device, 2), &dialling, connection);
        server.hear(&mut heard).await;
        device.hear(&mut told).await;
        assert_eq!(device.decided.last(), Some(&Output::Close(code)));
        assert!(matches!(device.sent.as_slice(), [(Message::Hello(_), _)]), "{:?}", device.sent);
        assert_eq!(heard.down().await, DownReason::ClosedByPeer { code });
    }
}

#[tokio::test]
async fn a_device_that_knows_its_fleet_sees_through_a_copied_chain() {
    let fleet = Rooted::new(1);
    let mut joined = Joined::of(&fleet.fleet).await;
    // Somebody else's leaf, as if the connection ended at another server than the one that says Hello.
    let other = Rooted::new(2).fleet.server().certificates.remove(0);
    let evidence = ServerEvidence { leaf: &other, authorities: &[fleet.fleet.ca.key()], fleet: fleet.fleet.id };
    assert!(verify_server(&evidence).is_err());
    let (listening, dialling) = (joined.world.listening.clone(), joined.world.dialling.clone());
    let server = server_side(&fleet, Grade::Full);
    let mut server = End::open(server, fleet.replica(&fleet.authority, 1), &listening, joined.server);
    let device = device_side(&fleet, other);
    let mut device = End::open(device, fleet.replica(&fleet.fleet.device, 2), &dialling, joined.device);
    server.hear(&mut joined.heard).await;
    device.hear(&mut joined.told).await;
    assert_eq!(device.decided.last(), Some(&Output::Close(CloseCode::Impostor)));
}
