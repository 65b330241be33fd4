//! A whole server in one process: keys, store, node, and both of its ports.
//!
//! ```text
//! DATA/keys/        see [`crate::keys`]
//! DATA/store/       records and logs
//! DATA/artifacts/   see [`crate::artifact_store::disk`]
//! ```
//! A start takes up what the last run left, however that ended. It takes both ports first: where another process has
//! one of them, nothing is made. It ends by itself when the store takes nothing any more.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fleetd_actors::audit::{Call, action};
use fleetd_actors::shell::{ShellEngine, StartEngineError};
use fleetd_sync_core::audit::Outcome;
use fleetd_sync_core::commit::CommitError;
use fleetd_sync_core::enrolment::{ParseAddressError, ServerAddress};
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::id::{BootId, FleetId};
use fleetd_sync_core::time::Clock;
use fleetd_sync_store::disk::{DiskStore, Profile, quarantine};
pub use fleetd_sync_store::open_error::OpenStoreError;
use fleetd_sync_store::open_error::open_or_put_aside;
use fleetd_sync_store::state_store::StateStore;
use fleetd_sync_transport::clock::{NoEntropyError, SystemClock, system_entropy};
use fleetd_sync_transport::endpoint::{Endpoint, Settings};
use fleetd_sync_transport::identity::{IssueError, ServerName, TlsError, api_server_tls};
pub use fleetd_sync_transport::link::ListenError;
use fleetd_sync_transport::link::Listener;
use tokio::net::TcpListener;
use tokio::runtime::Handle;

use crate::access::{AccessTokens, AccessWish, OpenAccessError};
use crate::artifact_store::ArtifactError;
use crate::artifact_store::disk::DiskArtifactStore;
use crate::audit::UnauditedError;
use crate::blocking::RuntimeThreads;
use crate::edge::authenticate::{Authenticator as _, Role};
use crate::edge::limit::Limits;
use crate::edge::{self, Api, OpenApiError};
use crate::examine::Premises;
use crate::history::{self, TakeUpHistoryError};
use crate::keys::{Keys, OpenKeysError, PublishError, RoleError, RootKey};
use crate::memory;
use crate::node::{Node, Seams, ServerIdentity, StartNodeError};
use crate::own_certificate::{OwnCertificate, RenewError};
use crate::presence::{self, Presence, TakeUpPresenceError};
use crate::rpc::backend::{Backend, Introduction};
use crate::rpc::help::Help;
use crate::rpc::routes;

/// Time in which devices are told that the server goes.
const FAREWELL: Duration = Duration::from_secs(1);
/// Time for which actors may hold the store after they were told to stop.
const CLOSING: Duration = Duration::from_secs(5);
/// Pause between two looks at who holds the store.
const CLOSING_POLL: Duration = Duration::from_millis(10);
/// Pause between two looks at whether the store has failed.
const FAILURE_POLL: Duration = Duration::from_secs(1);
/// Looks in a row that find the store failed before the server ends. A store opens itself again when it can, at the
/// next commit; one that does not within this time needs somebody.
const FAILED_LOOKS_MAX: u32 = 5;
/// What the token is called that the server's own operator gets.
const OWN_TOKEN: &str = "local";

/// How to serve.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Where everything is kept.
    pub data: PathBuf,
    /// Where the API listens, by TCP; port 0 chooses a free one.
    pub api_address: SocketAddr,
    /// Where devices sync, by UDP; port 0 chooses a free one.
    pub sync_address: SocketAddr,
    /// Where devices find it, the best first; by default where it listens.
    pub advertise: Vec<String>,
    /// The access tokens that the operator on this machine has. When none of them is an admin's, one is made.
    pub own_tokens: Vec<String>,
}

/// What a server says when it is up.
#[derive(Clone, Debug)]
pub struct Announcement {
    /// Where the API listens.
    pub api_address: SocketAddr,
    /// Where devices sync.
    pub sync_address: SocketAddr,
    /// Where devices are told to find it.
    pub advertised: Vec<ServerAddress>,
    /// The fleet.
    pub fleet: FleetId,
    /// Whether this start has made the fleet.
    pub is_new_fleet: bool,
    /// Where the root's key lies, or lay before somebody moved it.
    pub root_key_path: PathBuf,
    /// What became of it.
    pub root_key: RootKey,
    /// The fleet's CA, in PEM.
    pub ca_certificate_pem: String,
    /// A new admin's token for the operator on this machine, when there was none that counts.
    pub admin_token: Option<String>,
    /// Where the former store was put aside, when it was damaged.
    pub quarantined: Option<PathBuf>,
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The operating system has no randomness.
    #[error("no key can be made")]
    Entropy(#[from] NoEntropyError),
    /// The data directory cannot be made.
    #[error("the data directory {path} cannot be made")]
    Data {
        /// Where it should be.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The keys cannot be opened.
    #[error("the server's keys cannot be opened")]
    Keys(#[from] OpenKeysError),
    /// The store cannot be opened.
    #[error("the store cannot be opened")]
    Store(#[from] OpenStoreError),
    /// The damaged store cannot be put aside.
    #[error("the damaged store {path} cannot be put aside")]
    Quarantine {
        /// Where it is.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The artifacts cannot be opened.
    #[error("the artifacts cannot be opened")]
    Artifacts(#[from] ArtifactError),
    /// When devices were last heard cannot be taken up.
    #[error("when devices were last heard cannot be taken up")]
    Presence(#[from] TakeUpPresenceError),
    /// The store's history has no name.
    #[error("the store's history cannot be given a name")]
    History(#[from] TakeUpHistoryError),
    /// The actors do not start.
    #[error("the actors do not start")]
    Engine(#[from] StartEngineError),
    /// The server's certificate cannot be issued.
    #[error("the server's certificate cannot be issued")]
    Certificate(#[from] IssueError),
    /// The node does not start.
    #[error("what is stored cannot be taken up")]
    Node(#[from] StartNodeError),
    /// The server's certificate is not what was issued.
    #[error("the server's own certificate cannot be used")]
    OwnCertificate(#[from] RenewError),
    /// The root gives the keys other roles.
    #[error("the server's keys do not count")]
    Role(#[from] RoleError),
    /// An address to advertise is none.
    #[error("an address to advertise is none")]
    Advertise(#[from] ParseAddressError),
    /// Devices cannot be listened to.
    #[error("devices cannot be listened to")]
    Sync(#[from] ListenError),
    /// Another process has the API's port.
    #[error("another process listens on {address}")]
    ApiInUse {
        /// The address.
        address: SocketAddr,
    },
    /// The API's port cannot be opened.
    #[error("the API cannot listen on {address}")]
    ApiAddress {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// The access tokens cannot be read.
    #[error("the access tokens cannot be read")]
    Access(#[from] OpenAccessError),
    /// The operator's token cannot be kept.
    #[error("the operator's token cannot be kept")]
    Token(#[from] CommitError),
    /// The audit log cannot be written.
    #[error("the start cannot be noted")]
    Audit(#[from] UnauditedError),
    /// The API's TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[from] TlsError),
    /// The API cannot be opened.
    #[error("the API cannot be opened")]
    Api(#[from] OpenApiError),
    /// The store has failed while the server ran.
    #[error("the store {path} takes no changes any more")]
    StoreFailed {
        /// Where it is.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl From<PublishError> for ServeError {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Keep(error) => Self::Keys(error),
            PublishError::Make(error) => Self::Certificate(error),
        }
    }
}

/// The ports of a server, taken before anything is made.
struct Ports {
    api: TcpListener,
    endpoint: Endpoint,
    names: Vec<ServerName>,
}

impl Ports {
    async fn take(options: &ServeOptions, clock: &Arc<dyn Clock>, entropy: &Entropy) -> Result<Self, ServeError> {
        let names = names(options)?;
        let entropy = entropy.stream("link");
        let endpoint = Endpoint::new(Handle::current(), Settings::server(), Arc::clone(clock), entropy);
        endpoint.reserve(options.sync_address)?;
        Ok(Self { api: bind_api(options.api_address).await?, endpoint, names })
    }
}

/// Serves until `shutdown` ends, or the store fails; `announce` is told once everything listens.
///
/// # Errors
/// [`ServeError`] when the server does not start, and when its store fails. What it had opened is closed then.
pub async fn serve(
    options: ServeOptions,
    announce: impl FnOnce(Announcement),
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let mut entropy = system_entropy()?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let ports = Ports::take(&options, &clock, &entropy).await?;
    let keys = open_keys(&options.data, &mut entropy)?;
    let (store, quarantined) = open_store(&options.data.join("store"))?;
    presence::take_up(store.as_ref()).await?;
    history::take_up(store.as_ref(), &mut entropy).await?;
    let engine = ShellEngine::start(Arc::clone(&clock), Arc::clone(&store) as _).await?;
    let endpoint = ports.endpoint.clone();
    let parts = Parts { ports, keys, store: Arc::clone(&store), quarantined, clock, engine: engine.clone() };
    let result = run(&options, parts, &mut entropy, announce, shutdown).await;
    endpoint.shut_down(FAREWELL).await;
    engine.stop();
    drop(engine);
    close(store).await;
    result
}

/// What a server was made of, before it runs.
struct Parts {
    ports: Ports,
    keys: Keys,
    store: Arc<DiskStore>,
    quarantined: Option<PathBuf>,
    clock: Arc<dyn Clock>,
    engine: ShellEngine,
}

async fn run(
    options: &ServeOptions,
    parts: Parts,
    entropy: &mut Entropy,
    announce: impl FnOnce(Announcement),
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let Parts { ports, keys, store, quarantined, clock, engine } = parts;
    let tokens = Arc::new(AccessTokens::open(Arc::clone(&store) as Arc<dyn StateStore>, Arc::clone(&clock))?);
    let seams = Seams {
        clock: Arc::clone(&clock),
        store: Arc::clone(&store) as _,
        link: Arc::new(ports.endpoint.clone()),
        artifacts: Arc::new(DiskArtifactStore::open(&options.data.join("artifacts"))?),
        blocking: Arc::new(RuntimeThreads(Handle::current())),
        entropy: entropy.stream("node"),
    };
    let node = Node::start(&engine, seams, identity(&keys, BootId::random(entropy))?)?;
    keys.check_roles(&node.shared.trust().roster)?;
    note_start(&node, quarantined.as_deref()).await?;

    let listen_identity = keys.listen_identity(&ports.names, clock.now().wall, entropy)?;
    let listener: Arc<dyn Listener> =
        Arc::from(node.listen(&options.sync_address.to_string(), listen_identity.clone())?);
    let advertised = advertised(&options.advertise, listener.as_ref())?;
    let admin_token = own_token(&node, &tokens, &options.own_tokens, entropy).await?;
    let announcement = Announcement {
        api_address: ports.api.local_addr().unwrap_or(options.api_address),
        sync_address: listener.local_address(),
        advertised,
        fleet: keys.fleet(),
        is_new_fleet: keys.is_new_fleet(),
        root_key_path: keys.root_path(),
        root_key: keys.root_standing(&node.shared.trust().chain),
        ca_certificate_pem: node.shared.identity.certificates.certificate_pem(),
        admin_token,
        quarantined,
    };
    let introduction = introduction(options, &keys, &announcement);
    let (presence, shared) = (Presence::new(Arc::clone(&node.shared)), Arc::clone(&node.shared));
    let backend = Backend::new(node, Arc::clone(&tokens), introduction, Arc::clone(&store) as _);
    let api = open_api(&backend, tokens, help(&announcement)).await?;
    let (owner, entropy) = ((Arc::new(keys), ports.names), entropy.stream("own certificate"));
    let certificate = OwnCertificate::new(owner, &listen_identity, Arc::downgrade(&listener), clock, entropy)?;
    let tls = api_server_tls(certificate.shown_by_api())?;
    announce(announcement);
    let (presence, certificate) = (tokio::spawn(presence.run()), tokio::spawn(certificate.run()));
    let memory = tokio::spawn(memory::give_back(Arc::clone(&shared)));
    let mut failure = None;
    let ended = async {
        tokio::select! {
            biased;
            () = shutdown => {}
            cause = failed(store.as_ref()) => failure = Some(cause),
        }
    };
    edge::serve(ports.api, tls, api, ended).await;
    presence.abort();
    certificate.abort();
    memory.abort();

    // The listener goes last: with it would go its socket, and devices would not hear that the server ends.
    ports.endpoint.shut_down(FAREWELL).await;
    drop(listener);
    shared.forget_askers();
    failure.map_or(Ok(()), |cause| {
        let (path, source) = (options.data.join("store"), io::Error::other(cause));
        Err(ServeError::StoreFailed { path, source })
    })
}

fn identity(keys: &Keys, boot: BootId) -> Result<ServerIdentity, IssueError> {
    Ok(ServerIdentity {
        trust_file: Arc::new(keys.trust_file()),
        authority: keys.authority().clone(),
        certificates: Arc::new(keys.certificate_authority()?),
        boot,
    })
}

async fn open_api(backend: &Arc<Backend>, tokens: Arc<AccessTokens>, help: Help) -> Result<Api, OpenApiError> {
    let api = Api::open(routes(backend), tokens, Limits::default(), help).await?;
    Ok(api.heard_by(backend.hear_refusals()))
}

/// Notes that the server starts, before it takes any call.
async fn note_start(node: &Node, quarantined: Option<&Path>) -> Result<(), UnauditedError> {
    let mut request = format!("fleetd {}, boot {}", env!("CARGO_PKG_VERSION"), node.shared.identity.boot);
    if let Some(aside) = quarantined {
        request.push_str(&format!("; the store was damaged and lies in {} now", aside.display()));
    }
    node.note(Call::own(action::START, None, request), Outcome::Done).await
}

/// Ends when the store has failed and does not recover by itself; says why.
async fn failed(store: &dyn StateStore) -> String {
    let mut looks = 0;
    loop {
        match store.failure() {
            Some(cause) if looks + 1 == FAILED_LOOKS_MAX => return cause,
            Some(_) => looks += 1,
            None => looks = 0,
        }
        tokio::time::sleep(FAILURE_POLL).await;
    }
}

/// Closes the store once its actors have let go of it: only then has it noted how far it came.
async fn close(store: Arc<DiskStore>) {
    let mut store = Some(store);
    let closed = async {
        while let Some(held) = store.take() {
            match Arc::try_unwrap(held) {
                Ok(only) => return drop(tokio::task::spawn_blocking(move || drop(only)).await),
                Err(held) => store = Some(held),
            }
            tokio::time::sleep(CLOSING_POLL).await;
        }
    };
    if tokio::time::timeout(CLOSING, closed).await.is_err() {
        tracing::warn!("the store is still in use; it is closed with the process");
    }
}

fn open_keys(data: &Path, entropy: &mut Entropy) -> Result<Keys, ServeError> {
    std::fs::create_dir_all(data).map_err(|source| ServeError::Data { path: data.to_owned(), source })?;
    Ok(Keys::open_or_create(&data.join("keys"), entropy)?)
}

/// Opens the store. A damaged one is put aside: devices bring back what they know.
fn open_store(path: &Path) -> Result<(Arc<DiskStore>, Option<PathBuf>), ServeError> {
    let put_aside = |error: &OpenStoreError| {
        let aside = quarantine(path).map_err(|source| ServeError::Quarantine { path: path.to_owned(), source })?;
        tracing::error!(%error, aside = %aside.display(), "the store is damaged; a new one takes its place");
        Ok::<_, ServeError>(aside)
    };
    let (store, aside) = open_or_put_aside(|| DiskStore::open(path, Profile::Server), put_aside)?;
    Ok((Arc::new(store), aside))
}

async fn bind_api(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ServeError::ApiInUse { address },
        _ => ServeError::ApiAddress { address, source },
    })
}

/// The names under which clients that check names may dial the API.
fn names(options: &ServeOptions) -> Result<Vec<ServerName>, ParseAddressError> {
    let mut names = vec![ServerName::of_host("localhost"), ServerName::Ip(Ipv4Addr::LOCALHOST.into())];
    for address in [options.api_address.ip(), options.sync_address.ip()] {
        if !address.is_unspecified() {
            names.push(ServerName::Ip(address));
        }
    }
    for address in &options.advertise {
        names.push(ServerName::of_host(address.parse::<ServerAddress>()?.host()));
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// Where devices find the server. Where it listens on all addresses, nobody else knows one of them.
fn advertised(asked: &[String], listener: &dyn Listener) -> Result<Vec<ServerAddress>, ParseAddressError> {
    if !asked.is_empty() {
        return asked.iter().map(|address| address.parse()).collect();
    }
    let mut address = listener.local_address();
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    Ok(vec![address.to_string().parse()?])
}

/// What the server says of itself.
fn introduction(options: &ServeOptions, keys: &Keys, announcement: &Announcement) -> Introduction {
    let Announcement { api_address, sync_address, .. } = *announcement;
    let premises = Premises { data: options.data.clone(), api_address, sync_address };
    Introduction { server_id: keys.server_id(), addresses: announcement.advertised.clone(), premises: Some(premises) }
}

/// Where readers of errors find the API: on the host that is advertised to devices, by the API's own port.
fn help(announcement: &Announcement) -> Help {
    let host = announcement.advertised.first().map_or("localhost", ServerAddress::host);
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    Help::at(&format!("https://{host}:{}", announcement.api_address.port()))
}

/// Makes a token for whoever runs the server, unless that one has a good one: who can read its keys may do anything.
async fn own_token(
    node: &Node,
    tokens: &AccessTokens,
    own: &[String],
    entropy: &mut Entropy,
) -> Result<Option<String>, ServeError> {
    let is_admin = |token: &String| tokens.authenticate(token).is_ok_and(|caller| caller.role == Role::Admin);
    if own.iter().any(is_admin) {
        return Ok(None);
    }
    let wish = AccessWish { name: OWN_TOKEN.to_owned(), role: Role::Admin, expires_at: None, created_by: None };
    let request = format!("a token {OWN_TOKEN} with the role {}", wish.role);
    let intent = node.intend(Call::own(action::OWN_TOKEN, Some(OWN_TOKEN.to_owned()), request), String::new()).await?;
    let (token, text) = tokens.create(wish, entropy).await?;
    node.conclude(intent, vec![token.id.to_string()], Outcome::Done).await?;
    Ok(Some(text))
}
