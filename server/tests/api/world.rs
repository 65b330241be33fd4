//! A server of its own for each test, and a client that says what it is told.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use fleetd_actors::device::record::{DeviceRecord, Membership};
use fleetd_actors::shell::ShellEngine;
use fleetd_server::access::{AccessTokens, AccessWish};
use fleetd_server::artifact_store::memory::MemoryArtifactStore;
use fleetd_server::blocking::RuntimeThreads;
use fleetd_server::connect::schemas;
use fleetd_server::edge::authenticate::Role;
use fleetd_server::edge::limit::Limits;
use fleetd_server::edge::rate::Rate;
use fleetd_server::edge::{Api, serve};
use fleetd_server::keys::Keys;
use fleetd_server::node::{Node, Seams, ServerIdentity};
use fleetd_server::record;
use fleetd_server::rpc::backend::{Backend, Introduction};
use fleetd_server::rpc::help::Help;
use fleetd_server::rpc::routes;
use fleetd_sync_core::commit::{ActorKey, Batch, Commit as _};
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::id::{ArtifactDigest, BootId, DeviceId};
use fleetd_sync_core::key::SecretKey;
use fleetd_sync_core::name::Platform;
use fleetd_sync_core::release::{Artifact, Manifest, Probe, SignedManifest};
use fleetd_sync_core::time::{Clock, ClockQuality, Monotonic, Now, Wall};
use fleetd_sync_core::trust::{Change, Role as TrustRole};
use fleetd_sync_store::memory::MemoryStore;
use fleetd_sync_transport::endpoint::{Endpoint, Settings};
use fleetd_sync_transport::identity::{ApiCertificates, ServerName, api_client_tls, api_server_tls, signing_request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost_reflect::{DescriptorPool, MethodDescriptor};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::Status;

/// Where errors say that their pages are.
pub(crate) const HELP_AT: &str = "https://fleet.example:4800";

/// The time at which every test begins.
const BEGIN: Wall = Wall(1_800_000_000_000);

/// A date by which no test is run any more: clients that are not ours judge the certificate by the machine's clock.
const FAR: Wall = Wall(4_000_000_000_000);

/// A clock that a test turns by hand.
#[derive(Default)]
pub(crate) struct HandClock(AtomicI64);

impl HandClock {
    pub(crate) fn turn(&self, ms: i64) {
        self.0.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Now {
        let passed_ms = self.0.load(Ordering::Relaxed);
        let monotonic = Monotonic(u64::try_from(passed_ms).unwrap_or_default() * 1_000_000);
        Now { monotonic, wall: Wall(BEGIN.0 + passed_ms), quality: ClockQuality::Floor }
    }
}

/// Why a call was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// The kind, as Connect names it.
    pub(crate) kind: String,
    /// The name for programs.
    pub(crate) code: String,
    /// What a person reads first.
    pub(crate) message: String,
    pub(crate) details: String,
    pub(crate) next_command: String,
    pub(crate) help_url: String,
}

/// A server, and all that a test wants to look at.
pub(crate) struct World {
    pub(crate) address: SocketAddr,
    tls: rustls::ClientConfig,
    /// What browsers are shown.
    pub(crate) browser: CertificateDer<'static>,
    pub(crate) keys: Keys,
    pub(crate) store: MemoryStore,
    pub(crate) node: Node,
    pub(crate) clock: Arc<HandClock>,
    /// The API behind the port, for callers who need none.
    pub(crate) api: Api,
    pub(crate) admin: String,
    requests: AtomicU32,
    _folder: tempfile::TempDir,
}

/// The limits of a server that puts nobody off.
pub(crate) fn patient_limits() -> Limits {
    let often = Rate { per_second: 100_000, burst: 100_000 };
    Limits { calls: often, failures: often, open_calls: often, ..Limits::default() }
}

impl World {
    /// A world whose server puts nobody off: tests call it as often as they like.
    pub(crate) async fn start() -> Self {
        Self::start_with(patient_limits()).await
    }

    pub(crate) async fn start_with(limits: Limits) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut entropy = Entropy::from_seed([7; 32]);
        let keys = Keys::open_or_create(&folder.path().join("keys"), &mut entropy).expect("keys");
        let (clock, store) = (Arc::new(HandClock::default()), MemoryStore::immediate());
        let dyn_clock: Arc<dyn Clock> = clock.clone();
        let engine = ShellEngine::start(Arc::clone(&dyn_clock), Arc::new(store.clone())).await.expect("an engine");
        let runtime = tokio::runtime::Handle::current();
        let link = Endpoint::new(runtime.clone(), Settings::server(), Arc::clone(&dyn_clock), entropy.stream("link"));
        let seams = Seams {
            clock: Arc::clone(&dyn_clock),
            store: Arc::new(store.clone()),
            link: Arc::new(link),
            artifacts: Arc::new(MemoryArtifactStore::default()),
            blocking: Arc::new(RuntimeThreads(runtime)),
            entropy: entropy.stream("node"),
        };
        let certificates = Arc::new(keys.certificate_authority().expect("a CA"));
        let identity = ServerIdentity {
            trust_file: Arc::new(keys.trust_file()),
            authority: keys.authority().clone(),
            certificates: Arc::clone(&certificates),
            boot: BootId::random(&mut entropy),
        };
        let node = Node::start(&engine, seams, identity).expect("a node");
        let tokens = Arc::new(AccessTokens::open(Arc::new(store.clone()), dyn_clock).expect("no tokens yet"));
        let wish = AccessWish { name: "ana".to_owned(), role: Role::Admin, expires_at: None, created_by: None };
        let (_, admin) = tokens.create(wish, &mut entropy).await.expect("a token");
        let introduction = Introduction {
            server_id: keys.server_id(),
            addresses: vec!["fleet.example:4433".parse().expect("an address")],
            premises: None,
        };
        let backend = Backend::new(node.clone(), Arc::clone(&tokens), introduction, Arc::new(store.clone()));
        let authenticator = Arc::clone(&tokens);
        let api = Api::open(routes(&backend), authenticator, limits, Help::at(HELP_AT)).await;
        let api = api.expect("valid schemas").heard_by(backend.hear_refusals());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let names = ["localhost", "127.0.0.1"].map(ServerName::of_host);
        let identity = keys.listen_identity(&names, FAR, &mut entropy).expect("a certificate");
        let browser = keys.publish(&names, BEGIN).expect("a certificate");
        let shown = ApiCertificates::new(&identity, &browser).expect("certificates");
        let server_tls = api_server_tls(Arc::new(shown)).expect("TLS");
        tokio::spawn(serve(listener, server_tls, api.clone(), std::future::pending()));
        let tls = api_client_tls(keys.fleet(), [certificates.key()]).expect("TLS");
        let requests = AtomicU32::new(0);
        let browser = browser.certificate().clone();
        Self { address, tls, browser, keys, store, node, clock, api, admin, requests, _folder: folder }
    }

    /// An id that no request has had.
    pub(crate) fn request_id(&self) -> String {
        format!("request {}", self.requests.fetch_add(1, Ordering::Relaxed))
    }

    /// Calls an RPC (`device.v1.DeviceService/ListDevices`) as the admin, with a request id of its own.
    pub(crate) async fn call(&self, rpc: &str, mut request: Value) -> Result<Value, Refused> {
        let fields = request.as_object_mut().expect("an object");
        if method(rpc).input().get_field_by_name("request_id").is_some() {
            fields.entry("requestId").or_insert_with(|| self.request_id().into());
        }
        self.call_as(&self.admin, rpc, &request).await
    }

    /// Calls an RPC with a token, or without one.
    pub(crate) async fn call_as(&self, token: &str, rpc: &str, request: &Value) -> Result<Value, Refused> {
        let body = Bytes::from(request.to_string());
        let response = self.send(token, rpc, "application/json", body).await;
        let is_ok = response.status().is_success();
        let body = response.into_body().collect().await.expect("a whole answer").to_bytes();
        let answer: Value = serde_json::from_slice(&body).expect("JSON");
        if is_ok { Ok(answer) } else { Err(refused(&answer)) }
    }

    /// Opens a stream as the admin.
    pub(crate) async fn open(&self, rpc: &str, request: &Value) -> Entries {
        self.open_as(&self.admin, rpc, request).await
    }

    /// Opens a stream with a token.
    pub(crate) async fn open_as(&self, token: &str, rpc: &str, request: &Value) -> Entries {
        let body = frame(request);
        let response = self.send(token, rpc, "application/connect+json", body).await;
        Entries { body: response.into_body(), read: Vec::new() }
    }

    /// Sends messages in a stream, and reads the one answer.
    pub(crate) async fn upload(&self, rpc: &str, requests: &[Value]) -> Result<Value, Refused> {
        let body: Vec<u8> = requests.iter().flat_map(|request| frame(request).to_vec()).collect();
        let response = self.send(&self.admin, rpc, "application/connect+json", body.into()).await;
        let mut entries = Entries { body: response.into_body(), read: Vec::new() };
        entries.next().await.expect("an answer or a refusal")
    }

    async fn send(
        &self,
        token: &str,
        rpc: &str,
        content_type: &str,
        body: Bytes,
    ) -> http::Response<hyper::body::Incoming> {
        self.send_with(token, rpc, &[("content-type", content_type)], body).await
    }

    /// Connects by one version of HTTP.
    async fn connect(&self, alpn: &[u8]) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.address).await.expect("the server listens");
        let mut tls = self.tls.clone();
        tls.alpn_protocols = vec![alpn.to_vec()];
        let name = "localhost".try_into().expect("a name");
        TlsConnector::from(Arc::new(tls)).connect(name, stream).await.expect("a handshake")
    }

    /// Calls an RPC (`/package.Service/Method`) by gRPC with a body of frames, and gives the status that it ends with.
    pub(crate) async fn grpc(&self, path: &str, token: &str, body: Bytes) -> Status {
        let stream = TokioIo::new(self.connect(b"h2").await);
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.expect("HTTP/2");
        tokio::spawn(connection);
        let mut request = http::Request::post(format!("https://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("grpc-timeout", "300m");
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Full::new(body)).expect("a request");
        let (parts, body) = sender.send_request(request).await.expect("an answer").into_parts();
        if let Some(status) = Status::from_header_map(&parts.headers) {
            return status;
        }
        let body = body.collect().await.expect("a whole answer");
        Status::from_header_map(body.trailers().expect("trailers")).expect("a status")
    }

    /// Sends a request with these headers: by GET if the RPC has a query, else by POST.
    pub(crate) async fn send_with(
        &self,
        token: &str,
        rpc: &str,
        headers: &[(&'static str, &str)],
        body: Bytes,
    ) -> http::Response<hyper::body::Incoming> {
        self.send_to(token, &format!("/fleetd.{rpc}"), headers, body).await
    }

    /// The same, to a path (`/package.Service/Method`).
    pub(crate) async fn send_to(
        &self,
        token: &str,
        path: &str,
        headers: &[(&'static str, &str)],
        body: Bytes,
    ) -> http::Response<hyper::body::Incoming> {
        let stream = self.connect(b"http/1.1").await;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
        tokio::spawn(connection);
        let mut request = http::Request::builder()
            .method(if path.contains('?') { "GET" } else { "POST" })
            .uri(path)
            .header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        sender.send_request(request.body(Full::new(body)).expect("a request")).await.expect("an answer")
    }

    /// Registers a device of its own, as devices without QUIC would, and gives its answer.
    pub(crate) async fn register(&self, token: &str, seed: u8) -> Result<Value, Refused> {
        let facts = json!({ "platform": "linux/arm64", "diskFreeBytes": "1000000000" });
        self.register_with(token, seed, facts).await
    }

    /// Registers a device that says this of itself.
    pub(crate) async fn register_with(&self, token: &str, seed: u8, facts: Value) -> Result<Value, Refused> {
        let request = json!({
            "requestId": self.request_id(),
            "token": token,
            "csrDer": base64(&signing_request(&device_key(seed)).expect("a signing request")),
            "facts": facts,
        });
        self.call_as("", "registration.v1.RegistrationService/RegisterDevice", &request).await
    }

    /// Lets devices join, and gives their names.
    pub(crate) async fn devices(&self, count: u8) -> Vec<String> {
        let request = json!({ "usesMax": count, "needsApproval": false, "labels": { "shop": "7" } });
        let made = self.call("enrolment.v1.EnrolmentService/CreateEnrolmentToken", request).await.expect("a token");
        let mut names = Vec::new();
        for seed in 0..count {
            let answer = self.register(text(&made["text"]), 100 + seed).await.expect("it joins");
            names.push(text(&answer["registered"]["name"]).to_owned());
        }
        names
    }

    /// Puts the record of a device into the store that no actor was loaded for yet: one that has run things is not to be had
    /// by registering it.
    pub(crate) fn stored_device(&self, seed: u8, change: impl FnOnce(&mut DeviceRecord)) -> DeviceRecord {
        let key = device_key(seed).public();
        let facts = [("platform", "linux/arm64"), ("disk_free_bytes", "1000000000")];
        let mut record = DeviceRecord {
            local: key.id().into(),
            device: DeviceId::from_bytes([seed; 10]),
            name: format!("otter-{seed}").parse().expect("a name"),
            key: key.into(),
            sealing_key: [0; 32],
            token: None,
            membership: Membership::Enrolled,
            labels: BTreeMap::new(),
            site: String::new(),
            facts: facts.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            registered_at: BEGIN,
            last_heard_at: Some(BEGIN),
            wanted: BTreeMap::new(),
            holds: BTreeMap::new(),
            pins: BTreeMap::new(),
            reports: BTreeMap::new(),
            events: VecDeque::new(),
        };
        change(&mut record);
        let mut mutations = Vec::new();
        record::device::put(&record, &mut mutations);
        let batch = Batch { actor: ActorKey::only("test"), mutations };
        self.store.submit(batch, Box::new(|result| result.expect("it is stored")));
        record
    }

    /// The digest of a release's signed manifest, of one that [`World::push`] pushes.
    pub(crate) fn manifest_digest(&self, key: &SecretKey, workload: &str, version: &str) -> ArtifactDigest {
        let content = format!("#!/bin/sh\necho {workload} {version}\n").into_bytes();
        self.manifest(workload, version, &content).sign(key).expect("it may be signed").digest()
    }

    /// Delegates a key for releases of some workloads.
    pub(crate) async fn delegate(&self, key: &SecretKey, workloads: &[&str]) {
        let workloads = workloads.iter().map(|name| name.parse().expect("a name")).collect();
        let change = Change::Delegate { key: key.public(), role: TrustRole::Release { workloads } };
        let chain = self.node.shared.trust().chain.clone();
        let record = chain.draft_next([change]).expect("a draft").sign(self.keys.root().expect("the root's key"));
        let request = json!({ "rootRecord": base64(&record.encode()) });
        self.call("trust.v1.TrustService/AddRootRecord", request).await.expect("it follows");
    }

    /// Pushes a release with one artifact for any platform, and gives the answer.
    pub(crate) async fn push(&self, key: &SecretKey, workload: &str, version: &str) -> Result<Value, Refused> {
        let content = format!("#!/bin/sh\necho {workload} {version}\n").into_bytes();
        self.send_artifact(&content).await;
        let signed = self.manifest(workload, version, &content).sign(key).expect("it may be signed");
        self.call("release.v1.ReleaseService/CreateRelease", release_request(&signed)).await
    }

    pub(crate) async fn send_artifact(&self, content: &[u8]) {
        let request = json!({
            "digest": ArtifactDigest::of(content).to_string(),
            "sizeBytes": content.len().to_string(),
            "content": base64(content),
        });
        let answer = self.call("artifact.v1.ArtifactService/UploadArtifactChunk", request).await.expect("it is taken");
        assert_eq!(answer["complete"], true);
    }

    pub(crate) fn manifest(&self, workload: &str, version: &str, content: &[u8]) -> Manifest {
        let size_bytes = u64::try_from(content.len()).expect("it is short");
        let artifact = Artifact { digest: ArtifactDigest::of(content), size_bytes, file_name: "run".to_owned() };
        Manifest {
            fleet: self.keys.fleet(),
            workload: workload.parse().expect("a name"),
            version: version.parse().expect("a version"),
            artifacts: [(Platform::any(), artifact)].into(),
            argv: Vec::new(),
            environment: BTreeMap::new(),
            probe: Probe::default(),
            user: None,
            stop_grace: std::time::Duration::from_secs(1),
        }
    }

    /// A delegated key, and `coffee` in this version, ready to be rolled out.
    pub(crate) async fn with_release(&self, version: &str) -> SecretKey {
        let key = signer(1);
        self.delegate(&key, &["coffee"]).await;
        self.push(&key, "coffee", version).await.expect("it is taken");
        key
    }
}

/// Finds an RPC (`device.v1.DeviceService/ListDevices`) in the schemas.
pub(crate) fn method(rpc: &str) -> MethodDescriptor {
    static SCHEMAS: LazyLock<DescriptorPool> = LazyLock::new(|| schemas().expect("they are valid"));
    let (service, name) = rpc.split_once('/').expect("a service and a method");
    let service = SCHEMAS.get_service_by_name(&format!("fleetd.{service}")).expect("there is such a service");
    service.methods().find(|method| method.name() == name).expect("there is such an RPC")
}

/// The entries of a stream.
pub(crate) struct Entries {
    body: hyper::body::Incoming,
    read: Vec<u8>,
}

impl Entries {
    /// The next entry, the refusal that ends the stream, or nothing at its end.
    pub(crate) async fn next(&mut self) -> Option<Result<Value, Refused>> {
        loop {
            if let Some(&[flags, a, b, c, d]) = self.read.first_chunk::<5>() {
                let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).expect("it is short");
                if self.read.len() >= 5 + length {
                    let entry: Value = serde_json::from_slice(&self.read[5..5 + length]).expect("JSON");
                    self.read.drain(..5 + length);
                    return match (flags & 2 == 0, entry.get("error")) {
                        (true, _) => Some(Ok(entry)),
                        (false, Some(error)) => Some(Err(refused(error))),
                        (false, None) => None,
                    };
                }
            }
            let frame = self.body.frame().await.expect("the stream has an end").expect("it does not break");
            self.read.extend_from_slice(&frame.into_data().unwrap_or_default());
        }
    }

    /// The next entry, which there must be.
    pub(crate) async fn entry(&mut self) -> Value {
        self.next().await.expect("there is more").expect("no refusal")
    }

    /// All that is left.
    pub(crate) async fn rest(&mut self) -> Vec<Value> {
        let mut rest = Vec::new();
        while let Some(entry) = self.next().await {
            rest.push(entry.expect("no refusal"));
        }
        rest
    }
}

fn frame(message: &Value) -> Bytes {
    framed(message.to_string().as_bytes())
}

/// Puts the five bytes of a frame before a message.
pub(crate) fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).expect("it is short");
    [&[0], length.to_be_bytes().as_slice(), message].concat().into()
}

pub(crate) fn refused(answer: &Value) -> Refused {
    let detail = &answer["details"][0]["debug"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Refused {
        kind: text(&answer["code"]),
        code: text(&detail["code"]),
        message: text(&answer["message"]),
        details: text(&detail["details"]),
        next_command: text(&detail["nextCommand"]),
        help_url: text(&detail["helpUrl"]),
    }
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    data_encoding::BASE64.encode(bytes)
}

/// A text; JSON leaves an empty one out.
pub(crate) fn text(value: &Value) -> &str {
    assert!(value.is_string() || value.is_null(), "no text: {value}");
    value.as_str().unwrap_or_default()
}

pub(crate) fn device_key(seed: u8) -> SecretKey {
    SecretKey::generate(&mut Entropy::from_seed([seed; 32]))
}

pub(crate) fn signer(seed: u8) -> SecretKey {
    SecretKey::generate(&mut Entropy::from_seed([200 + seed; 32]))
}

/// How many entries a list has; JSON leaves an empty one out.
pub(crate) fn count(list: &Value) -> usize {
    list.as_array().map_or(0, Vec::len)
}

/// A request that brings a signed manifest.
pub(crate) fn release_request(signed: &SignedManifest) -> Value {
    let encoded = signed.encode();
    let signature = encoded.last_chunk::<64>().expect("it ends with its signature");
    json!({ "signedManifest": {
        "manifest": base64(&signed.claims().encode().expect("it is valid")),
        "keyId": signed.key().to_string(),
        "signature": base64(signature),
    } })
}

/// Checks how a call was refused.
#[track_caller]
pub(crate) fn refuses(answer: Result<Value, Refused>, kind: &str, code: &str) -> Refused {
    let refused = answer.expect_err("it is refused");
    assert_eq!((refused.kind.as_str(), refused.code.as_str()), (kind, code), "{refused:?}");
    refused
}
