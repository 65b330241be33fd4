//! A server of a fleet on loopback: the product's own port, with the two services that a login needs.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use fleetd::client::api::access::v1::access_service_server::{AccessService, AccessServiceServer};
use fleetd::client::api::access::v1::{self as access, WhoAmIRequest, WhoAmIResponse};
use fleetd::client::api::registration::v1::registration_service_server::{
    RegistrationService, RegistrationServiceServer,
};
use fleetd::client::api::registration::v1::{
    GetFleetRequest, GetFleetResponse, RegisterDeviceRequest, RegisterDeviceResponse,
};
use fleetd_server::edge::authenticate::{AuthenticateError, Authenticator, Caller, Role as CallerRole};
use fleetd_server::edge::limit::Limits;
use fleetd_server::edge::{Api, serve};
use fleetd_server::rpc::help::Help;
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::id::{AccessId, FleetId};
use fleetd_sync_core::key::{PublicKey, SecretKey};
use fleetd_sync_core::trust::{Role, RootRecord};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_ED25519, SanType};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tonic::{Request, Response, Status};

/// The one token that counts.
pub(crate) const TOKEN: &str = "fleetd-access-token-of-the-test";

/// A CA: its certificate, and the key that signs with it.
pub(crate) struct Ca {
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
    key: PublicKey,
}

impl Ca {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let public = PublicKey::from_slice(key.public_key_raw()).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Self { pem: certificate.pem(), issuer: Issuer::new(params, key), key: public }
    }

    /// Issues a certificate whose one name is made of the key's id.
    fn issue(&self, name: impl Fn(String) -> String) -> (rustls::ServerConfig, String) {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let id = PublicKey::from_slice(key.public_key_raw()).unwrap().id().to_string();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(name(id.clone()).try_into().unwrap())];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let secret = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], secret)
            .unwrap();
        (config, id)
    }
}

/// A fleet: its id, its root record, and the CA that the record names.
pub(crate) struct Fleet {
    pub(crate) id: FleetId,
    record: Vec<u8>,
    pub(crate) ca: Ca,
}

impl Fleet {
    pub(crate) fn new(seed: u8) -> Self {
        let ca = Ca::new();
        let root = SecretKey::generate(&mut Entropy::from_seed([seed; 32]));
        let record = RootRecord::draft([root.public()].into(), 1, [(ca.key, Role::CertificateAuthority)]).unwrap();
        let record = record.sign(&root);
        Self { id: record.body().fleet, record: record.encode(), ca }
    }
}

/// What a server pretends.
pub(crate) struct Claim<'a> {
    /// The fleet that it says it serves, with that fleet's public root record.
    pub(crate) fleet: &'a Fleet,
    /// The CA that it shows.
    pub(crate) shown_ca: &'a Ca,
    /// The CA that its certificate comes from.
    pub(crate) issuing_ca: &'a Ca,
    /// What its certificate says that it is.
    pub(crate) kind: &'a str,
}

impl<'a> Claim<'a> {
    /// What the fleet's own server says.
    pub(crate) fn honest(fleet: &'a Fleet) -> Self {
        Self { fleet, shown_ca: &fleet.ca, issuing_ca: &fleet.ca, kind: "server" }
    }
}

/// A running server.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    tokens: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(crate) async fn start(claim: &Claim<'_>) -> Self {
        let fleet = claim.fleet.id;
        let kind = claim.kind;
        let (tls, server_id) = claim.issuing_ca.issue(|id| format!("spiffe://{fleet}/{kind}/{id}"));
        let answer = GetFleetResponse {
            fleet_id: fleet.to_string(),
            root_records: vec![claim.fleet.record.clone()],
            ca_certificate_pem: claim.shown_ca.pem.clone(),
            server_id,
            ..GetFleetResponse::default()
        };
        let tokens = Arc::new(Mutex::new(Vec::new()));
        let mut routes = tonic::service::Routes::builder();
        routes
            .add_service(RegistrationServiceServer::new(Registration(answer)))
            .add_service(AccessServiceServer::new(Access(fleet)));
        let authenticator = Arc::new(OneAdmin { tokens: tokens.clone() });
        let api = Api::open(routes.routes(), authenticator, Limits::default(), Help::default()).await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, tls, api, std::future::pending()));
        Self { address, tokens }
    }

    /// Every token that it was shown.
    pub(crate) fn tokens(&self) -> Vec<String> {
        self.tokens.lock().unwrap().clone()
    }
}

/// An address at which nobody listens.
pub(crate) fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

struct OneAdmin {
    tokens: Arc<Mutex<Vec<String>>>,
}

impl Authenticator for OneAdmin {
    fn authenticate(&self, token: &str) -> Result<Caller, AuthenticateError> {
        self.tokens.lock().unwrap().push(token.to_owned());
        match token {
            TOKEN => Ok(Caller { id: AccessId::from_bytes([1; 10]), name: "ana".to_owned(), role: CallerRole::Admin }),
            _ => Err(AuthenticateError::Unknown),
        }
    }
}

struct Registration(GetFleetResponse);

#[tonic::async_trait]
impl RegistrationService for Registration {
    async fn get_fleet(&self, _: Request<GetFleetRequest>) -> Result<Response<GetFleetResponse>, Status> {
        Ok(Response::new(self.0.clone()))
    }

    async fn register_device(
        &self,
        _: Request<RegisterDeviceRequest>,
    ) -> Result<Response<RegisterDeviceResponse>, Status> {
        Err(Status::unimplemented("no device meets this server"))
    }
}

struct Access(FleetId);

#[tonic::async_trait]
impl AccessService for Access {
    async fn create_access_token(
        &self,
        _: Request<access::CreateAccessTokenRequest>,
    ) -> Result<Response<access::CreateAccessTokenResponse>, Status> {
        Err(Status::unimplemented("nobody asks for it here"))
    }

    async fn list_access_tokens(
        &self,
        _: Request<access::ListAccessTokensRequest>,
    ) -> Result<Response<access::ListAccessTokensResponse>, Status> {
        Err(Status::unimplemented("nobody asks for it here"))
    }

    async fn revoke_access_token(
        &self,
        _: Request<access::RevokeAccessTokenRequest>,
    ) -> Result<Response<access::RevokeAccessTokenResponse>, Status> {
        Err(Status::unimplemented("nobody asks for it here"))
    }

    async fn who_am_i(&self, _: Request<WhoAmIRequest>) -> Result<Response<WhoAmIResponse>, Status> {
        let token = access::AccessToken {
            name: "ana".to_owned(),
            role: access::Role::Admin.into(),
            ..access::AccessToken::default()
        };
        let fleet_id = self.0.to_string();
        Ok(Response::new(WhoAmIResponse { access_token: Some(token), fleet_id, ..WhoAmIResponse::default() }))
    }
}
