//! The server's node: which actors there are, and which driver carries out what each of them decides.
//!
//! Nothing here names an operating system, a runtime or a clock: all of that comes through [`Seams`], and how a
//! machine is spawned is the engine's business. The simulator starts the same node.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};

use fleetd_actors::address::Address;
use fleetd_actors::audit::{self, Audit};
use fleetd_actors::authority::{self, Authority, StoredTrust, Trust};
use fleetd_actors::device::{self, Device};
use fleetd_actors::directory::Directory;
use fleetd_actors::lobby::{self, Lobby};
use fleetd_actors::log_stream::{self, LogStore};
use fleetd_actors::orders::{self, OrderBook, Orders};
use fleetd_actors::registration::{self, Registration};
use fleetd_actors::rollout::{self, Rollout};
use fleetd_actors::spawn::{Load, LoadActorError, Spawn};
use fleetd_sync_core::blocking::Blocking;
use fleetd_sync_core::commit::{ActorKey, Space};
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::envelope::DocumentId;
use fleetd_sync_core::id::{BootId, LocalId, RolloutId};
use fleetd_sync_core::key::SecretKey;
use fleetd_sync_core::replica::document_prefix;
use fleetd_sync_core::session::message::{Registered, Renewed};
use fleetd_sync_core::time::Clock;
use fleetd_sync_core::trust::{LoadChainError, RootChain, RootRecord};
use fleetd_sync_store::state_store::{KeyRange, ReadError, StateStore};
use fleetd_sync_transport::identity::CertificateAuthority;
use fleetd_sync_transport::link::{Link, ListenError, ListenIdentity, Listener};

use crate::answers::Answers;
use crate::artifact_store::ArtifactStore;
use crate::connection_table::ConnectionTable;
use crate::driver::{
    AuditDriver, AuthorityDriver, DeviceDriver, LobbyDriver, LogStoreDriver, LogStoreKey, OrdersDriver,
    RegistrationDriver, RolloutDriver,
};
use crate::flights::Flights;
use crate::record;
use crate::trust_file::{TrustFile, TrustFileError};

/// Records that are read at once when the node starts.
const PAGE_RECORDS: usize = 1024;

/// What a node needs of the world.
#[derive(Clone)]
pub struct Seams {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Records and logs.
    pub store: Arc<dyn StateStore>,
    /// The network.
    pub link: Arc<dyn Link>,
    /// Artifacts.
    pub artifacts: Arc<dyn ArtifactStore>,
    /// Where work that blocks is done.
    pub blocking: Arc<dyn Blocking>,
    /// Randomness.
    pub entropy: Entropy,
}

/// Who the server is.
#[derive(Clone)]
pub struct ServerIdentity {
    /// The copy of trust beside the keys; its first root record names the fleet.
    pub trust_file: Arc<dyn TrustFile>,
    /// The key under which it writes desired state.
    pub authority: SecretKey,
    /// Issues certificates.
    pub certificates: Arc<CertificateAuthority>,
    /// This run of the server.
    pub boot: BootId,
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartNodeError {
    /// The store cannot be read.
    #[error("the store cannot be read")]
    Read(#[from] ReadError),
    /// The copy of trust beside the keys cannot be read.
    #[error("trust cannot be taken up")]
    Kept(#[from] TrustFileError),
    /// What stands over the whole fleet cannot be read.
    #[error("what stands over the whole fleet cannot be read")]
    Orders(#[from] record::order::LoadOrdersError),
    /// The stored root chain is none.
    #[error("the stored root chain is none")]
    Chain(#[from] LoadChainError),
    /// The stored trust document cannot be taken.
    #[error("the stored trust document cannot be taken: {cause}")]
    Trust {
        /// What is wrong with it.
        cause: String,
    },
}

/// What the node's parts share.
pub struct Shared {
    /// The seams.
    pub seams: Seams,
    /// Who the server is.
    pub identity: ServerIdentity,
    /// What trust is now.
    pub trust: RwLock<Arc<Trust>>,
    /// What stands over the whole fleet now.
    pub orders: RwLock<Arc<Orders>>,
    /// Connections and presence.
    pub connections: ConnectionTable,
    /// Who waits for a device's actor.
    pub device_answers: Answers<DeviceAnswer>,
    /// Who waits for a rollout's actor.
    pub rollout_answers: Answers<Result<(), rollout::RolloutError>>,
    /// Who waits for the authority.
    pub authority_answers: Answers<Result<(), authority::AuthorityError>>,
    /// Operators who wait for the orders' actor.
    pub order_answers: Answers<Result<(), orders::OrderError>>,
    /// Operators who wait for the registration.
    pub registration_answers: Answers<RegistrationAnswer>,
    /// Devices that asked to join.
    pub registered_answers: Answers<Registered>,
    /// Devices that asked for a new certificate.
    pub renewed_answers: Answers<Renewed>,
    /// What rollouts did last.
    pub flights: Flights,
    /// Who waits for an entry of the audit log, by its number.
    pub audit_answers: Answers<u64>,
    entropy: Mutex<Entropy>,
}

/// What a device's actor answers to an operator.
pub type DeviceAnswer = Result<device::command::Answer, device::command::CommandError>;

/// What the registration answers to an operator.
pub type RegistrationAnswer = Result<registration::token::Answer, registration::token::CommandError>;

impl Shared {
    /// What trust is now.
    #[must_use]
    pub fn trust(&self) -> Arc<Trust> {
        Arc::clone(&self.trust.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What stands over the whole fleet now.
    #[must_use]
    pub fn orders(&self) -> Arc<Orders> {
        Arc::clone(&self.orders.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Forgets all who wait for an answer: the node ends, and nobody gets one.
    pub fn forget_askers(&self) {
        self.device_answers.forget_all();
        self.rollout_answers.forget_all();
        self.authority_answers.forget_all();
        self.order_answers.forget_all();
        self.registration_answers.forget_all();
        self.registered_answers.forget_all();
        self.renewed_answers.forget_all();
        self.audit_answers.forget_all();
    }

    /// A stream of randomness that no other call gets.
    #[must_use]
    pub fn entropy(&self) -> Entropy {
        let mut entropy = self.entropy.lock().unwrap_or_else(PoisonError::into_inner);
        Entropy::from_seed(entropy.bytes())
    }
}

/// The actors of a node.
pub struct Actors {
    /// Devices, by local id.
    pub devices: Directory<LocalId, device::Input>,
    /// Rollouts.
    pub rollouts: Directory<RolloutId, rollout::Input>,
    /// Log stores, by device and workload.
    pub logs: Directory<LogStoreKey, log_stream::Input>,
    /// The authority.
    pub authority: Address<authority::Input>,
    /// What stands over the whole fleet.
    pub orders: Address<orders::Input>,
    /// The registration.
    pub registration: Address<registration::Input>,
    /// The lobby.
    pub lobby: Address<lobby::Input>,
    /// The audit log.
    pub audit: Address<audit::Input>,
}

/// A running server node.
#[derive(Clone)]
pub struct Node {
    /// What its parts share.
    pub shared: Arc<Shared>,
    /// Its actors.
    pub actors: Arc<Actors>,
}

impl Node {
    /// Starts a node on an engine.
    ///
    /// # Errors
    /// [`StartNodeError`] when what is stored cannot be read.
    pub fn start<S: Spawn>(engine: &S, seams: Seams, identity: ServerIdentity) -> Result<Self, StartNodeError> {
        let mut entropy = seams.entropy.stream("node");
        let authority = load_authority(&seams, &identity, &mut entropy)?;
        let shared = Arc::new(Shared {
            trust: RwLock::new(authority.trust()),
            orders: RwLock::new(Arc::new(record::order::load(seams.store.as_ref())?)),
            connections: ConnectionTable::default(),
            device_answers: Answers::new(entropy.stream("device answers")),
            rollout_answers: Answers::new(entropy.stream("rollout answers")),
            authority_answers: Answers::new(entropy.stream("authority answers")),
            order_answers: Answers::new(entropy.stream("order answers")),
            registration_answers: Answers::new(entropy.stream("registration answers")),
            registered_answers: Answers::new(entropy.stream("registered answers")),
            renewed_answers: Answers::new(entropy.stream("renewed answers")),
            flights: Flights::default(),
            audit_answers: Answers::new(entropy.stream("audit answers")),
            entropy: Mutex::new(entropy.stream("actors")),
            seams,
            identity,
        });
        let actors = Actors::spawn(engine, &shared);
        let node = Self { shared, actors };
        node.wake_unfinished()?;
        Ok(node)
    }

    /// Starts to serve devices at an address.
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn listen(&self, bind: &str, identity: ListenIdentity) -> Result<Box<dyn Listener>, ListenError> {
        self.shared.seams.link.listen(bind, identity, crate::driver::accept(self.clone()))
    }

    /// Wakes the rollouts that had not ended, and those that still owe a device something: an abort, say, that was
    /// not brought to all of them before a restart.
    fn wake_unfinished(&self) -> Result<(), ReadError> {
        let mut range = KeyRange::all();
        loop {
            let page = self.shared.seams.store.scan(Space::Rollout, range.clone(), PAGE_RECORDS)?;
            for (_, found) in &page {
                match record::rollout::decode_header(&found.value) {
                    Ok(header) if header.ended_at.is_none() || header.is_open => {
                        self.actors.rollouts.wake(&header.rollout);
                    }
                    Ok(_) => {}
                    // The others go on; whoever asks for this one is told.
                    Err(error) => tracing::error!(%error, "a rollout is unreadable, and not taken up again"),
                }
            }
            match page.last() {
                Some((key, _)) if page.len() == PAGE_RECORDS => range = range.after(key),
                _ => return Ok(()),
            }
        }
    }
}

impl Actors {
    fn spawn<S: Spawn>(engine: &S, shared: &Arc<Shared>) -> Arc<Self> {
        // Drivers speak to actors that are spawned after them: they find them here once all are.
        let later = Later::default();
        let actors = Arc::new(Self {
            devices: Directory::new(engine.clone(), "device", load_devices(shared, &later)),
            rollouts: Directory::new(engine.clone(), "rollout", load_rollouts(shared, &later)),
            logs: Directory::new(engine.clone(), "log", load_logs(shared, &later)),
            authority: engine.spawn(ActorKey::only("authority"), true, authority_load(shared, &later)).address,
            orders: engine.spawn(ActorKey::only("orders"), true, orders_load(shared, &later)).address,
            registration: engine.spawn(ActorKey::only("registration"), true, registration_load(shared, &later)).address,
            lobby: engine.spawn(ActorKey::only("lobby"), false, lobby_load(shared, &later)).address,
            audit: engine.spawn(ActorKey::only("audit"), true, audit_load(shared)).address,
        });
        later.set(&actors);
        actors
    }
}

/// The actors, once all of them are spawned, and as long as their node is there: an actor that held the others would
/// keep them, and with them the store, for ever.
#[derive(Clone, Default)]
pub struct Later {
    actors: Arc<OnceLock<Weak<Actors>>>,
}

impl Later {
    fn set(&self, actors: &Arc<Actors>) {
        let _ = self.actors.set(Arc::downgrade(actors)); // Only `Actors::spawn` sets it, once.
    }

    /// The actors; `None` while the node is being put together, and when it is gone.
    #[must_use]
    pub fn actors(&self) -> Option<Arc<Actors>> {
        self.actors.get()?.upgrade()
    }
}

fn load_authority(
    seams: &Seams,
    identity: &ServerIdentity,
    entropy: &mut Entropy,
) -> Result<Authority, StartNodeError> {
    let kept = identity.trust_file.read()?;
    let chain = stored_chain(seams.store.as_ref(), &kept.chain)?;
    let lanes = stored_lanes(seams.store.as_ref(), &[DocumentId::Trust])?;
    Authority::load(StoredTrust { chain, lanes }, &kept, identity.authority.clone(), entropy)
        .map_err(|error| StartNodeError::Trust { cause: error.to_string() })
}

/// The chain as far as the store has it. Records that are none are no loss where the copy beside the keys has them.
fn stored_chain(store: &dyn StateStore, kept: &RootChain) -> Result<RootChain, StartNodeError> {
    let stored = store.scan(Space::RootRecord, KeyRange::all(), PAGE_RECORDS)?;
    let version = u64::try_from(stored.len()).unwrap_or(u64::MAX).saturating_add(1);
    let first: Vec<Vec<u8>> = kept.records().take(1).map(RootRecord::encode).collect();
    let later = stored.into_iter().map(|(_, found)| found.value);
    match RootChain::load(kept.fleet(), first.iter().cloned().chain(later)) {
        Err(error) if version <= kept.version() => {
            tracing::error!(%error, "the stored root chain is none; the copy beside the keys takes its place");
            Ok(RootChain::load(kept.fleet(), first)?)
        }
        loaded => Ok(loaded?),
    }
}

/// Every stored envelope of some documents, in the order of their keys.
fn stored_lanes(store: &dyn StateStore, documents: &[DocumentId]) -> Result<Vec<Vec<u8>>, ReadError> {
    let mut stored = Vec::new();
    for document in documents {
        let mut range = KeyRange::prefix(&document_prefix(*document));
        loop {
            let page = store.scan(Space::Envelope, range.clone(), PAGE_RECORDS)?;
            let last = page.last().map(|(key, _)| key.clone());
            let is_last = page.len() < PAGE_RECORDS;
            stored.extend(page.into_iter().map(|(_, found)| found.value));
            match last {
                Some(key) if !is_last => range = range.after(&key),
                _ => break,
            }
        }
    }
    Ok(stored)
}

fn failed(error: impl std::fmt::Display) -> LoadActorError {
    LoadActorError { cause: error.to_string() }
}

fn authority_load(shared: &Arc<Shared>, later: &Later) -> Load<Authority, AuthorityDriver> {
    let (shared, later) = (Arc::clone(shared), later.clone());
    Arc::new(move |address| {
        let machine = load_authority(&shared.seams, &shared.identity, &mut shared.entropy()).map_err(failed)?;
        Ok((machine, AuthorityDriver::new(Arc::clone(&shared), later.clone(), address.clone())))
    })
}

fn orders_load(shared: &Arc<Shared>, later: &Later) -> Load<OrderBook, OrdersDriver> {
    let (shared, later) = (Arc::clone(shared), later.clone());
    Arc::new(move |_| {
        let orders = record::order::load(shared.seams.store.as_ref()).map_err(failed)?;
        Ok((OrderBook::load(orders), OrdersDriver::new(Arc::clone(&shared), later.clone())))
    })
}

fn lobby_load(shared: &Arc<Shared>, later: &Later) -> Load<Lobby, LobbyDriver> {
    let (shared, later) = (Arc::clone(shared), later.clone());
    Arc::new(move |_| {
        let machine = Lobby::new(shared.identity.boot, shared.trust(), shared.entropy());
        Ok((machine, LobbyDriver::new(Arc::clone(&shared), later.clone())))
    })
}

fn audit_load(shared: &Arc<Shared>) -> Load<Audit, AuditDriver> {
    let shared = Arc::clone(shared);
    Arc::new(move |address| {
        let fleet = shared.trust().chain.fleet();
        let (standing, open) = record::audit::load(shared.seams.store.as_ref(), fleet).map_err(failed)?;
        Ok((Audit::load(&standing, open), AuditDriver::new(Arc::clone(&shared), address.clone())))
    })
}

fn registration_load(shared: &Arc<Shared>, later: &Later) -> Load<Registration, RegistrationDriver> {
    let (shared, later) = (Arc::clone(shared), later.clone());
    Arc::new(move |address| {
        let machine = record::registration::load(&shared).map_err(failed)?;
        Ok((machine, RegistrationDriver::new(Arc::clone(&shared), later.clone(), address.clone())))
    })
}

fn load_devices(
    shared: &Arc<Shared>,
    later: &Later,
) -> impl Fn(&LocalId) -> Load<Device, DeviceDriver> + Send + Sync + 'static {
    let (shared, later) = (Arc::clone(shared), later.clone());
    move |local| {
        let (shared, later, local) = (Arc::clone(&shared), later.clone(), *local);
        Arc::new(move |address| {
            let store = shared.seams.store.as_ref();
            let found = store.get(Space::Device, local.as_bytes()).map_err(failed)?;
            let kept = found.map(|found| record::device::decode(&found.value)).transpose().map_err(failed)?;
            let documents = [DocumentId::Desired(local), DocumentId::Actual(local)];
            let stored = stored_lanes(store, &documents).map_err(failed)?;
            let (authority, trust) = (shared.identity.authority.clone(), shared.trust());
            let machine = Device::load(local, kept, stored, authority, trust, &mut shared.entropy()).map_err(failed)?;
            Ok((machine, DeviceDriver::new(Arc::clone(&shared), later.clone(), local, address.clone())))
        })
    }
}

fn load_rollouts(
    shared: &Arc<Shared>,
    later: &Later,
) -> impl Fn(&RolloutId) -> Load<Rollout, RolloutDriver> + Send + Sync + 'static {
    let (shared, later) = (Arc::clone(shared), later.clone());
    move |rollout| {
        let (shared, later, rollout) = (Arc::clone(&shared), later.clone(), *rollout);
        Arc::new(move |_| {
            let machine = load_rollout(shared.seams.store.as_ref(), rollout).map_err(failed)?;
            let driver = RolloutDriver::new(Arc::clone(&shared), later.clone(), &machine);
            Ok((machine, driver))
        })
    }
}

fn load_rollout(store: &dyn StateStore, rollout: RolloutId) -> Result<Rollout, LoadActorError> {
    let Some(found) = store.get(Space::Rollout, rollout.as_bytes()).map_err(failed)? else {
        return Ok(Rollout::new(rollout));
    };
    let header = record::rollout::decode_header(&found.value).map_err(failed)?;
    let plan = store.get(Space::Plan, header.plan.as_bytes()).map_err(failed)?;
    let plan = plan.ok_or_else(|| failed("its plan is missing"))?;
    let (plan, _, _) = record::rollout::decode_plan(&plan.value).map_err(failed)?;
    let mut devices = BTreeMap::new();
    let mut range = KeyRange::prefix(rollout.as_bytes());
    loop {
        let page = store.scan(Space::Assignment, range.clone(), PAGE_RECORDS).map_err(failed)?;
        for (_, found) in &page {
            let (device, progress) = record::rollout::decode_progress(&found.value).map_err(failed)?;
            devices.insert(device, progress);
        }
        match page.last() {
            Some((key, _)) if page.len() == PAGE_RECORDS => range = range.after(key),
            _ => return Ok(Rollout::load(header, plan, devices)),
        }
    }
}

fn load_logs(
    shared: &Arc<Shared>,
    later: &Later,
) -> impl Fn(&LogStoreKey) -> Load<LogStore, LogStoreDriver> + Send + Sync + 'static {
    let (shared, later) = (Arc::clone(shared), later.clone());
    move |key| {
        let (shared, later, key) = (Arc::clone(&shared), later.clone(), key.clone());
        Arc::new(move |_| {
            let machine = record::log::load(shared.seams.store.as_ref(), &key).map_err(failed)?;
            Ok((machine, LogStoreDriver::new(Arc::clone(&shared), later.clone(), key.clone())))
        })
    }
}
