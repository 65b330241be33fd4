//! The server of a fleet in the world: its node while it runs, and what outlives it.

use std::collections::BTreeSet;
use std::sync::Arc;

use fleetd_actors::authority::KeptTrust;
use fleetd_server::artifact_store::memory::MemoryArtifactStore;
use fleetd_server::node as server_node;
use fleetd_server::trust_file::memory::MemoryTrustFile;
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::id::BootId;
use fleetd_sync_core::key::SecretKey;
use fleetd_sync_core::time::ClockQuality;
use fleetd_sync_core::trust::{Rank, Role, RootRecord, Sites};
use fleetd_sync_store::memory::MemoryStore;
use fleetd_sync_transport::identity::{CertificateAuthority, key_pkcs8};
use fleetd_sync_transport::link::{ListenIdentity, Listener};

use super::engines::Engines;
use super::{SERVER_ADDRESS, ScenarioError, failed};
use crate::blocking::NodeBlocking;
use crate::clock::{NodeClock, new_year_2026};
use crate::engine::NodeEngine;
use crate::links::Links;
use crate::observation::Tap;
use crate::store::NodeStore;
use crate::tapped_link::TappedLink;
use crate::world::World;

/// What traces call the server.
pub const SERVER: &str = "server";

/// A server in the world.
pub struct SimulatedServer {
    /// Its store.
    pub store: Arc<MemoryStore>,
    pub(super) artifacts: Arc<MemoryArtifactStore>,
    trust_file: Arc<MemoryTrustFile>,
    authority: SecretKey,
    certificates: Arc<CertificateAuthority>,
    listen: ListenIdentity,
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
    pub(super) fn new(root: &SecretKey, entropy: &mut Entropy) -> Result<Self, ScenarioError> {
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
            key_pkcs8: key_pkcs8(&server),
            authorities: vec![certificates.certificate().to_vec()],
        };
        Ok(Self {
            store: Arc::new(MemoryStore::manual()),
            artifacts: Arc::new(MemoryArtifactStore::default()),
            trust_file: Arc::new(MemoryTrustFile::new(&first_record).map_err(failed)?),
            authority,
            certificates: Arc::new(certificates),
            listen,
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
    pub(super) fn start(
        &mut self,
        world: &World,
        network: &Links,
        engines: &Engines,
        tap: &Tap,
    ) -> Result<(), ScenarioError> {
        if self.running.is_some() {
            return Ok(());
        }
        self.starts += 1;
        let entropy = world.entropy(SERVER).stream(&format!("start {}", self.starts));
        let clock = Arc::new(NodeClock::new(world.clone(), new_year_2026(), ClockQuality::Synced));
        let store = Arc::new(NodeStore::new(SERVER, world.clone(), Arc::clone(&self.store), tap.clone()));
        let engine = engines.engine(SERVER, Arc::<NodeClock>::clone(&clock), Arc::<NodeStore>::clone(&store))?;
        let boot = BootId::random(&mut entropy.stream("boot"));
        let seams = server_node::Seams {
            clock,
            store,
            link: TappedLink::new(SERVER, network.link(SERVER), tap.clone()),
            artifacts: Arc::<MemoryArtifactStore>::clone(&self.artifacts),
            blocking: Arc::new(NodeBlocking::new(SERVER, world.clone())),
            entropy,
        };
        let identity = server_node::ServerIdentity {
            trust_file: Arc::<MemoryTrustFile>::clone(&self.trust_file),
            authority: self.authority.clone(),
            certificates: Arc::clone(&self.certificates),
            boot,
        };
        let node = server_node::Node::start(&engine, seams, identity).map_err(failed)?;
        let listener = node.listen(&network.listen_address(SERVER_ADDRESS), self.listen.clone()).map_err(failed)?;
        self.running = Some(Running { node, engine, _listener: listener });
        Ok(())
    }

    /// Ends its process: nothing of it happens any more. Its store is the caller's to crash or kill.
    pub(super) fn end(&mut self) -> bool {
        let Some(running) = self.running.take() else { return false };
        running.engine.kill();
        true
    }

    /// Takes its store away, and returns it; it begins without one when it is started.
    pub(super) fn lose_store(&mut self) -> Arc<MemoryStore> {
        std::mem::replace(&mut self.store, Arc::new(MemoryStore::manual()))
    }

    /// Takes the revocations out of the copy of trust beside its keys, as who restores the keys from a backup does.
    pub fn forget_revocations(&self) {
        if let Some(node) = self.node() {
            let chain = node.shared.trust().chain.clone();
            self.trust_file.restore(KeptTrust { chain, envelopes: Vec::new() });
        }
    }

    /// Opens its store again after it was crashed or killed.
    pub(super) fn reopen(&mut self) -> Result<(), ScenarioError> {
        self.store = Arc::new(self.store.reopen().map_err(failed)?);
        Ok(())
    }
}
