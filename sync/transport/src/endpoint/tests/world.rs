//! Two endpoints on loopback, with certificates as the product issues them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::id::{ConnectionId, FleetId};
use fleetd_sync_core::key::SecretKey;
use fleetd_sync_core::session::Class;
use fleetd_sync_core::time::{Clock, ClockQuality, Monotonic, Now, Wall};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::super::*;
use crate::identity::CertificateAuthority;

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// When certificates are issued, and what the server's clock says unless a test says otherwise.
const TODAY: Wall = Wall(1_795_000_000_000);

struct StoppedClock(Wall);

impl Clock for StoppedClock {
    fn now(&self) -> Now {
        Now { monotonic: Monotonic(0), wall: self.0, quality: ClockQuality::Synced }
    }
}

pub(super) struct Fleet {
    pub(super) id: FleetId,
    pub(super) ca: CertificateAuthority,
    pub(super) device: SecretKey,
    pub(super) server: SecretKey,
}

impl Fleet {
    pub(super) fn new(seed: u8) -> Self {
        let mut entropy = Entropy::from_seed([seed; 32]);
        let [ca, device, server] = [(); 3].map(|()| SecretKey::generate(&mut entropy));
        let id = FleetId::random(&mut entropy);
        Self { id, ca: CertificateAuthority::new(id, &ca).unwrap(), device, server }
    }

    pub(super) fn unknown(&self) -> DialIdentity {
        DialIdentity { key: self.device.clone(), certificates: Vec::new() }
    }

    pub(super) fn enrolled(&self) -> DialIdentity {
        let mut entropy = Entropy::from_seed([1; 32]);
        let issued = self.ca.issue_device(&self.device.public(), TODAY, &mut entropy).unwrap();
        DialIdentity { certificates: issued.chain, ..self.unknown() }
    }

    pub(super) fn server(&self) -> ListenIdentity {
        let mut entropy = Entropy::from_seed([2; 32]);
        let issued = self.ca.issue_server(&self.server.public(), &[], TODAY, &mut entropy).unwrap();
        let authorities = vec![self.ca.certificate().to_vec()];
        ListenIdentity { certificates: issued.chain, key: self.server.clone(), authorities }
    }
}

/// What was told of one connection.
pub(super) struct Told(mpsc::UnboundedReceiver<LinkEvent>);

impl Told {
    fn new() -> (LinkEvents, Self) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let events: LinkEvents = Arc::new(move |_, event| {
            let _ = sender.send(event);
        });
        (events, Self(receiver))
    }

    pub(super) async fn next(&mut self) -> LinkEvent {
        tokio::time::timeout(PATIENCE, self.0.recv()).await.expect("nothing was told").expect("nothing will be told")
    }

    pub(super) async fn frame(&mut self) -> (Class, Bytes) {
        match self.next().await {
            LinkEvent::Frame { class, bytes } => (class, bytes),
            other => panic!("expected a frame, not {other:?}"),
        }
    }

    /// Waits for the end, which must be the last that is told.
    pub(super) async fn down(&mut self) -> DownReason {
        loop {
            if let LinkEvent::Down { reason } = self.next().await {
                let more = tokio::time::timeout(PATIENCE, self.0.recv()).await.expect("the events are held for ever");
                assert_eq!(more, None, "something was told after the end");
                return reason;
            }
        }
    }
}

type Accepted = (ConnectionId, Peer, Told);

pub(super) struct World {
    pub(super) listening: Endpoint,
    pub(super) dialling: Endpoint,
    pub(super) listener: Box<dyn Listener>,
    accepted: mpsc::UnboundedReceiver<Accepted>,
    count: std::sync::atomic::AtomicU64,
}

impl World {
    pub(super) fn new(fleet: &Fleet) -> Self {
        Self::at(fleet, TODAY)
    }

    /// With a server whose clock says `wall`.
    pub(super) fn at(fleet: &Fleet, wall: Wall) -> Self {
        let endpoint = |settings, seed| {
            let clock = Arc::new(StoppedClock(wall));
            Endpoint::new(Handle::current(), settings, clock, Entropy::from_seed([seed; 32]))
        };
        let (listening, dialling) = (endpoint(Settings::server(), 1), endpoint(Settings::default(), 2));
        let (sender, accepted) = mpsc::unbounded_channel();
        let accept: Accept = Arc::new(move |connection, peer, _| {
            let (events, told) = Told::new();
            let _ = sender.send((connection, peer.clone(), told));
            events
        });
        let listener = listening.listen("127.0.0.1:0", fleet.server(), accept).unwrap();
        Self { listening, dialling, listener, accepted, count: 0.into() }
    }

    /// A server that accepts whoever comes, and runs on a runtime of its own with which it ends, saying nothing.
    pub(super) fn doomed(fleet: &Fleet, address: &str) -> (tokio::runtime::Runtime, (Endpoint, Box<dyn Listener>)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (clock, entropy) = (Arc::new(StoppedClock(TODAY)), Entropy::from_seed([3; 32]));
        let endpoint = Endpoint::new(runtime.handle().clone(), Settings::server(), clock, entropy);
        let accept: Accept = Arc::new(|_, _, _| -> LinkEvents { Arc::new(|_, _| ()) });
        let listener = endpoint.listen(address, fleet.server(), accept).unwrap();
        (runtime, (endpoint, listener))
    }

    pub(super) fn dial(&self, identity: DialIdentity) -> (ConnectionId, Told) {
        self.dial_at(&self.listener.local_address().to_string(), identity)
    }

    pub(super) fn dial_at(&self, address: &str, identity: DialIdentity) -> (ConnectionId, Told) {
        let number = self.count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let connection = ConnectionId::from_bytes(number.to_le_bytes());
        let (events, told) = Told::new();
        self.dialling.dial(connection, address, identity, events);
        (connection, told)
    }

    pub(super) async fn accepted(&mut self) -> Accepted {
        tokio::time::timeout(PATIENCE, self.accepted.recv()).await.expect("nobody was accepted").expect("a listener")
    }

    /// A connection whose streams the test writes itself.
    pub(super) async fn raw(&self, fleet: &Fleet) -> quinn::Connection {
        let config = settings::client_config(&Settings::default(), &fleet.enrolled()).unwrap();
        let ground: Arc<dyn Ground> = Arc::new(OsGround::new(Handle::current()));
        let bound = ground.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let socket = settings::open(&ground, bound, secret::dialling(Entropy::from_seed([4; 32])), None).unwrap();
        socket.connect_with(config, self.listener.local_address(), SERVER_NAME).unwrap().await.unwrap()
    }
}

/// A device and a server that are joined.
pub(super) struct Joined {
    pub(super) world: World,
    pub(super) device: ConnectionId,
    pub(super) told: Told,
    /// The certificate that the server showed.
    pub(super) leaf: Vec<u8>,
    pub(super) server: ConnectionId,
    pub(super) heard: Told,
}

impl Joined {
    pub(super) async fn new() -> Self {
        Self::of(&Fleet::new(1)).await
    }

    pub(super) async fn of(fleet: &Fleet) -> Self {
        let mut world = World::new(fleet);
        let (device, mut told) = world.dial(fleet.enrolled());
        let LinkEvent::Up { peer: Peer::Server { leaf }, .. } = told.next().await else { panic!("no server") };
        let (server, _, mut heard) = world.accepted().await;
        assert!(matches!(heard.next().await, LinkEvent::Up { .. }));
        Self { world, device, told, leaf, server, heard }
    }
}
