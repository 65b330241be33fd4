//! Hostile peers: messages that nobody honest sends, floods of them, and strangers who knock.
//!
//! They speak through the same link as everybody, so whatever limits peers meet limits them, too.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::envelope::DocumentId;
use fleetd_sync_core::id::{ArtifactDigest, BootId, ConnectionId, KeyId, Stamp, TokenId};
use fleetd_sync_core::key::SecretKey;
use fleetd_sync_core::session::message::{
    ArtifactWant, LogPosition, LogPush, LogStream, Message, Push, Register, Want, WantedGroups,
};
use fleetd_sync_core::session::{Class, CloseCode};
use fleetd_sync_transport::frame;
use fleetd_sync_transport::link::{DialIdentity, Link, LinkEvent, LinkEvents};

use crate::fleet::coffee;
use crate::links::Links;
use crate::tapped_link::TappedLink;
use crate::world::World;

/// Ticks a second of a flood: what it sends in between comes at once.
const TICKS_A_SECOND: u64 = 10;
/// Bytes of a made-up blob.
const BLOB_BYTES_MAX: u64 = 2048;
/// Time after which a stranger who was shut out knocks again.
const KNOCKS_AGAIN_AFTER: Duration = Duration::from_secs(3);

/// Whether a hostile peer still is one. Clones are the same.
#[derive(Clone, Debug)]
pub struct Hostility(Arc<AtomicBool>);

impl Default for Hostility {
    fn default() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }
}

impl Hostility {
    /// Ends it.
    pub fn end(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    fn goes_on(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A message that nobody honest sends, or none at all.
#[must_use]
pub fn made_up(entropy: &mut Entropy) -> (Class, Bytes) {
    let digest = ArtifactDigest::of(&entropy.bytes::<32>());
    let key = KeyId::random(entropy);
    let document = match entropy.below(3) {
        0 => DocumentId::Trust,
        1 => DocumentId::Desired(key.into()),
        _ => DocumentId::Actual(key.into()),
    };
    let stream = LogStream { workload: coffee(), boot: BootId::random(entropy), stamp: Stamp::draw(entropy) };
    let (class, message) = match entropy.below(8) {
        0 => (Class::Control, Message::Want(Want { document, lane: key, have: None })),
        1 => (Class::of_document(document), Message::Push(Push { envelopes: vec![blob(entropy).into()] })),
        2 => {
            let groups = WantedGroups::Run { group_first: entropy.below(1 << 20), group_count: 1 << 20 };
            (Class::Artifacts, Message::ArtifactWant(ArtifactWant { digest, groups, tree: true }))
        }
        3 => {
            let (sequence_first, count) = (entropy.next_u64(), u32::MAX);
            let records = blob(entropy);
            let push = LogPush { stream, sequence_first, count, records, signature: Vec::new(), preview: false };
            (Class::Logs, Message::LogPush(push))
        }
        4 => (Class::Logs, Message::LogAck(LogPosition { stream, sequence: entropy.next_u64() })),
        5 => (Class::Control, Message::Ping(entropy.next_u64())),
        6 => {
            let (csr, secret) = (blob(entropy), blob(entropy));
            let (token, facts) = (TokenId::random(entropy), [("platform".to_owned(), "none".to_owned())].into());
            (Class::Control, Message::Register(Register { token, secret, csr, facts, sealing_key: [7; 32] }))
        }
        _ => return (Class::Control, blob(entropy).into()),
    };
    let bytes = frame::encode(&message).unwrap_or_else(|_| Bytes::from(blob(entropy)));
    (class, bytes)
}

fn blob(entropy: &mut Entropy) -> Vec<u8> {
    let length = entropy.below(BLOB_BYTES_MAX);
    (0..length).map(|_| u8::try_from(entropy.below(256)).unwrap_or(0)).collect()
}

/// How often a flood sends, and how much each time.
fn beat(per_second: u64) -> (Duration, u64) {
    if per_second <= TICKS_A_SECOND {
        (Duration::from_secs(1) / u32::try_from(per_second.max(1)).unwrap_or(1), 1)
    } else {
        (Duration::from_secs(1) / u32::try_from(TICKS_A_SECOND).unwrap_or(1), per_second / TICKS_A_SECOND)
    }
}

/// The link that a node has while it runs. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct LinkSlot {
    link: Arc<Mutex<Option<Arc<TappedLink>>>>,
}

impl LinkSlot {
    /// The node has started with this link, or has ended.
    pub(crate) fn put(&self, link: Option<Arc<TappedLink>>) {
        *self.link.lock().unwrap_or_else(PoisonError::into_inner) = link;
    }

    fn link(&self) -> Option<Arc<TappedLink>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Sends made-up messages on whatever connections a node has, besides its own, for as long as the hostility goes on.
pub fn flood(world: &World, link: LinkSlot, node: &str, per_second: u64, hostility: Hostility) {
    let entropy = world.entropy(&format!("flood from {node}"));
    Flood { world: world.clone(), link, node: node.to_owned(), per_second, hostility, entropy }.go_on();
}

struct Flood {
    world: World,
    link: LinkSlot,
    node: String,
    per_second: u64,
    hostility: Hostility,
    entropy: Entropy,
}

impl Flood {
    fn go_on(mut self) {
        if !self.hostility.goes_on() {
            return;
        }
        let (pause, count) = beat(self.per_second);
        if let Some(link) = self.link.link() {
            for _ in 0..count {
                link.send_besides(|| made_up(&mut self.entropy));
            }
        }
        let (world, node) = (self.world.clone(), self.node.clone());
        world.schedule(pause, &node, b"flood", move || self.go_on());
    }
}

/// Somebody without a certificate who dials an address again and again, and sends what is made up.
pub struct Stranger {
    world: World,
    link: Arc<dyn Link>,
    name: String,
    address: String,
    per_second: u64,
    hostility: Hostility,
    state: Mutex<StrangerState>,
}

struct StrangerState {
    entropy: Entropy,
    key: SecretKey,
    connection: Option<ConnectionId>,
}

impl fmt::Debug for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stranger({})", self.name)
    }
}

impl Stranger {
    /// Lets a stranger knock at an address.
    pub fn knock((world, network): (&World, &Links), name: &str, address: &str, per_second: u64, hostility: Hostility) {
        let mut entropy = world.entropy(name);
        let key = SecretKey::generate(&mut entropy);
        let state = Mutex::new(StrangerState { entropy, key, connection: None });
        let stranger = Arc::new(Self {
            world: world.clone(),
            link: network.link(name),
            name: name.to_owned(),
            address: address.to_owned(),
            per_second,
            hostility,
            state,
        });
        stranger.dial();
        stranger.go_on();
    }

    fn dial(self: &Arc<Self>) {
        if !self.hostility.goes_on() {
            return;
        }
        let (connection, key) = {
            let mut state = self.lock();
            (ConnectionId::random(&mut state.entropy), state.key.clone())
        };
        let stranger = Arc::clone(self);
        let events: LinkEvents = Arc::new(move |connection, event| stranger.on_event(connection, event));
        self.link.dial(connection, &self.address, DialIdentity { key, certificates: Vec::new() }, events);
    }

    fn on_event(self: &Arc<Self>, connection: ConnectionId, event: LinkEvent) {
        match event {
            LinkEvent::Up { .. } => self.lock().connection = Some(connection),
            LinkEvent::Frame { .. } => self.link.grant(connection, 1),
            LinkEvent::Down { .. } => {
                self.lock().connection = None;
                let stranger = Arc::clone(self);
                self.world.schedule(KNOCKS_AGAIN_AFTER, &self.name, b"knock", move || stranger.dial());
            }
        }
    }

    fn go_on(self: &Arc<Self>) {
        if !self.hostility.goes_on() {
            let connection = self.lock().connection;
            if let Some(connection) = connection {
                self.link.close(connection, CloseCode::Done);
            }
            return;
        }
        let (pause, count) = beat(self.per_second);
        let connection = self.lock().connection;
        if let Some(connection) = connection {
            for _ in 0..count {
                let (class, frame) = made_up(&mut self.lock().entropy);
                let _ = self.link.send(connection, class, frame); // One that is gone or full takes no more.
            }
        }
        let stranger = Arc::clone(self);
        self.world.schedule(pause, &self.name, b"flood", move || stranger.go_on());
    }

    fn lock(&self) -> MutexGuard<'_, StrangerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
