//! Meeting a server for the first time: it proves that it serves the fleet before it is told anything.
//!
//! The connection asks at first only that the server holds the key of some certificate. Over it come the root
//! records, which must hash to the fleet id that the operator has from elsewhere; the newest of them names the CA,
//! and the certificate that this very connection showed must come from it.

use std::sync::{Arc, Mutex};

use fleetd_proto::fleetd::registration::v1::registration_service_client::RegistrationServiceClient;
use fleetd_proto::fleetd::registration::v1::{GetFleetRequest, GetFleetResponse};
use fleetd_sync_core::id::FleetId;
use fleetd_sync_core::key::PublicKey;
use fleetd_sync_core::trust::{LoadChainError, RootChain, Roster};

use super::certificate::{Belief, CheckServerError, Pin, Shown};
use super::connect::{self, ConnectError};
use super::server_url::ServerUrl;
use super::{CallError, Target};
use crate::error::CommandError;

/// What a server said of itself, and proved.
#[derive(Clone, Debug)]
pub struct Introduction {
    /// Where it is.
    pub url: ServerUrl,
    /// The fleet that it serves.
    pub fleet: FleetId,
    /// What it said.
    pub answer: GetFleetResponse,
    pin: Pin,
}

impl Introduction {
    /// The server as a target for [`super::FleetClient::connect`].
    #[must_use]
    pub fn target(&self, token: Option<String>) -> Target {
        Target { url: self.url.clone(), pin: self.pin.clone(), token }
    }
}

/// Why a server is told nothing.
#[derive(Debug, thiserror::Error)]
pub enum IntroduceError {
    /// There is no connection.
    #[error("there is no connection to the server")]
    Connect(#[from] ConnectError),
    /// It does not say which fleet it serves.
    #[error("the server does not say which fleet it serves")]
    Call(#[from] CallError),
    /// It serves another fleet.
    #[error("{url} serves fleet {found}, not {expected}")]
    OtherFleet {
        /// Where it is.
        url: String,
        /// The fleet that it should serve.
        expected: FleetId,
        /// What it says that it serves.
        found: String,
    },
    /// It claims the fleet and cannot prove it.
    #[error("{url} claims to serve fleet {fleet} and cannot prove it")]
    Unproven {
        /// Where it is.
        url: String,
        /// The fleet that it should serve.
        fleet: FleetId,
        /// What is wrong with its root records.
        source: LoadChainError,
    },
    /// Its CA is not one that the root names.
    #[error("{url} shows a CA that the newest root record of fleet {fleet} does not name")]
    ForeignCa {
        /// Where it is.
        url: String,
        /// The fleet that it should serve.
        fleet: FleetId,
        /// The CA's key, where it could be read.
        found: Option<PublicKey>,
    },
    /// Its certificate does not come from the CA, or is not for a server.
    #[error("{url} is not believed")]
    NotBelieved {
        /// Where it is.
        url: String,
        /// What is wrong with its certificate.
        source: CheckServerError,
    },
}

impl From<IntroduceError> for CommandError {
    fn from(error: IntroduceError) -> Self {
        let message = error.to_string();
        let cause = std::error::Error::source(&error).map(crate::error::chain).unwrap_or_default();
        let (code, next) = match error {
            IntroduceError::Connect(error) => return error.into(),
            IntroduceError::Call(error) => return error.into(),
            IntroduceError::OtherFleet { .. } => {
                ("login.other_fleet", "compare with the fleet id that `fleetd serve` printed; nothing secret was sent")
            }
            IntroduceError::Unproven { .. } | IntroduceError::ForeignCa { .. } | IntroduceError::NotBelieved { .. } => {
                ("login.impostor", "check the URL and what answers there; nothing secret was sent")
            }
        };
        Self::new(code, message).cause(cause).next_command(next)
    }
}

/// Meets the server at `url`, which must prove to serve `fleet`.
///
/// # Errors
/// [`IntroduceError`] when it cannot be reached or does not prove it.
pub async fn introduce(url: &ServerUrl, fleet: FleetId) -> Result<Introduction, IntroduceError> {
    let shown: Shown = Arc::new(Mutex::new(Vec::new()));
    let channel = connect::connect(url, Belief::Possession(shown.clone())).await?;
    let mut request = tonic::Request::new(GetFleetRequest { trust_version: 0 });
    request.set_timeout(super::CALL_TIMEOUT);
    let answer = RegistrationServiceClient::new(channel).get_fleet(request).await.map_err(CallError::from)?;
    let answer = answer.into_inner();
    let certificates = shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    let at = || url.to_string();
    if answer.fleet_id != fleet.to_string() {
        return Err(IntroduceError::OtherFleet { url: at(), expected: fleet, found: answer.fleet_id });
    }
    let chain = RootChain::load(fleet, &answer.root_records).map_err(|source| IntroduceError::Unproven {
        url: at(),
        fleet,
        source,
    })?;
    let not_believed = |source| IntroduceError::NotBelieved { url: at(), source };
    let pin = Pin::new(fleet, &answer.ca_certificate_pem).map_err(not_believed)?;
    let found = pin.key().map_err(not_believed)?;
    let roster = Roster::new(&chain, []);
    if !roster.certificate_authorities().any(|named| Some(named) == found) {
        return Err(IntroduceError::ForeignCa { url: at(), fleet, found });
    }
    let (leaf, intermediates) = certificates
        .split_first()
        .ok_or_else(|| not_believed(CheckServerError::Unreadable { what: "server's", reason: "none".to_owned() }))?;
    let server = pin.check(leaf, intermediates).map_err(not_believed)?;
    if server != answer.server_id {
        return Err(not_believed(CheckServerError::OtherServer { expected: answer.server_id, found: server }));
    }
    Ok(Introduction { url: url.clone(), fleet, answer, pin })
}
