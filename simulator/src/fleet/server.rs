//! The server of a fleet in the world: its node while it runs, and what outlives it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use fleetd_actors::authority::KeptTrust;
use fleetd_server::artifact_store::memory::MemoryArtifactStore;
use fleetd_server::node as server_node;
use fleetd_server::trust_file::memory::MemoryTrustFile;
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::id::BootId;
use fleetd_sync_core::key::SecretKey;
use fleetd_sync_core::trust::{Rank, Role, RootChain, RootRecord, Sites};
use fleetd_sync_store::memory::MemoryStore;
use fleetd_sync_store::open_error::{OpenStoreError, open_or_put_aside};
use fleetd_sync_transport::identity::CertificateAuthority;
use fleetd_sync_transport::link::{ListenIdentity, Listener};

use super::{End, SERVER_ADDRESS, ScenarioError, Setting, failed};
use crate::agenda::Task;
use crate::blocking::NodeBlocking;
use crate::clock::{NodeClock, new_year_2026};
use crate::engine::NodeEngine;
use crate::fuse::Fuse;
use crate::observation::Observation;
use crate::store::{Ailment, NodeStore, TappedStore};
use crate::tapped_link::TappedLink;
use crate::world::World;

/// What traces call the server.
pub const SERVER: &str = "server";

/// Time after which a server whose store has failed ends.
///
/// # Source
/// The looks of `server/src/serve.rs`.
const FAILURE_NOTICED_AFTER: Duration = Duration::from_secs(5);

/// A server in the world.
pub struct SimulatedServer {
    /// Its store.
    pub store: Arc<MemoryStore>,
    pub(super) artifacts: Arc<MemoryArtifactStore>,
    trust_file: Arc<MemoryTrustFile>,
    authority: SecretKey,
    certificates: Arc<CertificateAuthority>,
    listen: ListenIdentity,
    pub(super) clock: NodeClock,
    pub(super) ailment: Ailment,
    pub(super) fuse: Fuse,
    running: Option<Running>,
    starts: u32,
}

struct Running {
    node: server_node::Node,
    engine: NodeEngine,
    _listener: Box<dyn Listener>,
}

impl SimulatedServer {
    /// A server with keys of its own, which does not run yet.
    pub(super) fn new(root: &SecretKey, world: &World, entropy: &mut Entropy) -> Result<Self, ScenarioError> {
        let [ca, authority, server] = std::array::from_fn(|_| SecretKey::generate(entropy));
        let roles = [
            (ca.public(), Role::CertificateAuthority),
            (authority.public(), Role::Authority { rank: Rank::CENTRAL, sites: Sites::All }),
        ];
        let first_record = RootRecord::draft(BTreeSet::from([root.public()]), 1, roles).map_err(failed)?.sign(root);
        let certificates = CertificateAuthority::new(first_record.body().fleet, &ca).map_err(failed)?;
        let issued = certificates.issue_server(&server.public(), &[], new_year_2026(), entropy).map_err(failed)?;
        let listen = ListenIdentity {
            certificates: issued.chain,
            key: server.clone(),
            authorities: vec![certificates.certificate().to_vec()],
        };
        Ok(Self {
            store: Arc::new(MemoryStore::manual()),
            artifacts: Arc::new(MemoryArtifactStore::default()),
            trust_file: Arc::new(MemoryTrustFile::new(&first_record).map_err(failed)?),
            authority,
            certificates: Arc::new(certificates),
            listen,
            clock: NodeClock::right(world.clone(), true),
            ailment: Ailment::default(),
            fuse: Fuse::default(),
            running: None,
            starts: 0,
        })
    }

    /// Its node, while it runs.
    #[must_use]
    pub fn node(&self) -> Option<&server_node::Node> {
        self.running.as_ref().map(|running| &running.node)
    }

    /// Starts it.
    pub(super) fn start(&mut self, setting: &Setting<'_>) -> Result<(), ScenarioError> {
        if self.running.is_some() {
            return Ok(());
        }
        self.starts += 1;
        self.fuse = Fuse::default();
        if self.starts > 1 {
            self.open_store(setting)?;
        }
        let world = setting.world;
        let entropy = world.entropy(SERVER).stream(&format!("start {}", self.starts));
        let clock = Arc::new(self.clock.clone());
        setting.network.set_clock(SERVER, self.clock.clone());
        let database = NodeStore::new(SERVER, world.clone(), Arc::clone(&self.store));
        let (agenda, again) = (setting.agenda.clone(), world.clone());
        let failed_late = move || {
            let agenda = agenda.clone();
            again.schedule(FAILURE_NOTICED_AFTER, SERVER, b"store failed", move || {
                agenda.add(Task::Fail(SERVER.to_owned()));
            });
        };
        let database = database.with(self.ailment.clone(), self.fuse.clone()).on_failure(Arc::new(failed_late));
        let store = Arc::new(TappedStore::new(SERVER, Arc::new(database), setting.tap.clone()));
        let engine =
            setting.engines.engine(SERVER, Arc::<NodeClock>::clone(&clock), Arc::<TappedStore>::clone(&store))?;
        let boot = BootId::random(&mut entropy.stream("boot"));
        let seams = server_node::Seams {
            clock,
            store,
            link: TappedLink::new(SERVER, setting.network.link(SERVER), setting.tap.clone(), self.fuse.clone()),
            artifacts: Arc::<MemoryArtifactStore>::clone(&self.artifacts),
            blocking: Arc::new(NodeBlocking::new(SERVER, world.clone()).with(self.fuse.clone())),
            entropy,
        };
        let identity = server_node::ServerIdentity {
            trust_file: Arc::<MemoryTrustFile>::clone(&self.trust_file),
            authority: self.authority.clone(),
            certificates: Arc::clone(&self.certificates),
            boot,
        };
        let node = server_node::Node::start(&engine, seams, identity).map_err(failed)?;
        let listener =
            node.listen(&setting.network.listen_address(SERVER_ADDRESS), self.listen.clone()).map_err(failed)?;
        self.running = Some(Running { node, engine, _listener: listener });
        Ok(())
    }

    /// Opens its store again, as the product does at its start: one that is damaged is put aside.
    fn open_store(&mut self, setting: &Setting<'_>) -> Result<(), ScenarioError> {
        let (store, was_aside) = reopen(&self.store)?;
        self.store = Arc::new(store);
        if was_aside {
            setting.tap.note(|| Observation::Restored { node: SERVER.into() });
        }
        Ok(())
    }

    /// Ends its process, or its power. Returns whether it ran.
    pub(super) fn end(&mut self, end: End, setting: &Setting<'_>, entropy: &mut Entropy) -> bool {
        let running = self.running.take();
        let has_run = running.is_some();
        if let Some(running) = running {
            running.engine.kill();
        }
        self.fuse.blow();
        setting.network.kill(SERVER);
        match end {
            End::Crash if has_run => self.store.kill(),
            End::Crash => {}
            End::PowerCut => self.store.crash(entropy),
        }
        if has_run {
            setting.tap.note(|| Observation::Died { node: SERVER.into() });
        }
        has_run
    }

    /// Takes its store away, and returns it; it begins without one when it is started.
    pub(super) fn lose_store(&mut self) -> Arc<MemoryStore> {
        let empty = MemoryStore::manual();
        empty.kill();
        std::mem::replace(&mut self.store, Arc::new(empty))
    }

    /// Takes the revocations out of the copy of trust beside its keys, as who restores the keys from a backup does.
    pub fn forget_revocations(&self) {
        if let Some(node) = self.node() {
            let chain = RootChain::clone(&node.shared.trust().chain);
            self.trust_file.restore(KeptTrust { chain, envelopes: Vec::new() });
        }
    }
}

/// Opens a store again that was closed, killed or crashed; one that is damaged is put aside, and an empty one takes its
/// place. Says whether that was so.
pub(super) fn reopen(former: &MemoryStore) -> Result<(MemoryStore, bool), ScenarioError> {
    let put_aside = |_: &OpenStoreError| {
        former.quarantine();
        Ok::<_, OpenStoreError>(())
    };
    let (store, aside) = open_or_put_aside(|| former.reopen(), put_aside).map_err(failed)?;
    Ok((store, aside.is_some()))
}
