//! One connection to a server's API: TCP, TLS with our own idea of whom to believe, HTTP/2.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};

use super::certificate::{Belief, CheckServerError};
use super::server_url::ServerUrl;

/// Time for TCP and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two signs of life on a connection that waits, so that a dead one is noticed while a rollout is watched.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Why a server cannot be talked to.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody answers there.
    #[error("{url} cannot be reached")]
    Unreachable {
        /// Where.
        url: String,
        /// Why.
        source: Arc<io::Error>,
    },
    /// Nobody answers in time.
    #[error("{url} did not answer within {seconds} s")]
    TimedOut {
        /// Where.
        url: String,
        /// How long was waited.
        seconds: u64,
    },
    /// What answers does not speak TLS, or not as we do.
    #[error("{url} answers, but not as a server of fleetd")]
    Tls {
        /// Where.
        url: String,
        /// Why.
        source: Arc<io::Error>,
    },
    /// What answers is not the server that it should be.
    #[error("{url} is not believed")]
    NotBelieved {
        /// Where.
        url: String,
        /// What is wrong with it.
        source: CheckServerError,
    },
    /// The HTTP/2 connection could not be made.
    #[error("{url} answers, but not with HTTP/2: {reason}")]
    Http {
        /// Where.
        url: String,
        /// What went wrong.
        reason: String,
    },
}

/// Connects, so that whatever is wrong is said now and not by the first call.
pub(super) async fn connect(url: &ServerUrl, belief: Belief) -> Result<Channel, ConnectError> {
    let http =
        |error: &dyn std::error::Error| ConnectError::Http { url: url.to_string(), reason: crate::error::chain(error) };
    // The connector below does TLS itself, so the endpoint must not try to: it would ask for a host name.
    let plain = format!("http://{}", url.authority()).parse::<Uri>().map_err(|error| http(&error))?;
    let origin = url.to_string().parse::<Uri>().map_err(|error| http(&error))?;
    let endpoint = Endpoint::from(plain)
        .origin(origin)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .user_agent(concat!("fleetd/", env!("CARGO_PKG_VERSION")))
        .map_err(|error| http(&error))?;
    let (url_of_connector, config) = (url.clone(), Arc::new(belief.into_config()));
    let connector = tower::service_fn(move |_: Uri| {
        let (url, config) = (url_of_connector.clone(), config.clone());
        async move { open(&url, config).await.map(TokioIo::new) }
    });
    endpoint.connect_with_connector(connector).await.map_err(|error| find(&error).unwrap_or_else(|| http(&error)))
}

/// Finds our own error below what the transport made of it.
pub(super) fn find(error: &(dyn std::error::Error + 'static)) -> Option<ConnectError> {
    let mut below = Some(error);
    while let Some(error) = below {
        if let Some(found) = error.downcast_ref::<ConnectError>() {
            return Some(found.clone());
        }
        below = error.source();
    }
    None
}

async fn open(url: &ServerUrl, config: Arc<rustls::ClientConfig>) -> Result<TlsStream<TcpStream>, ConnectError> {
    let unreachable = |source: io::Error| ConnectError::Unreachable { url: url.to_string(), source: Arc::new(source) };
    let name = ServerName::try_from(url.host().to_owned())
        .map_err(|error| unreachable(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    let opening = async {
        let stream = TcpStream::connect((url.host(), url.port())).await.map_err(unreachable)?;
        // Small requests wait for nothing; where the option cannot be set, they are merely slower.
        let _ = stream.set_nodelay(true);
        TlsConnector::from(config).connect(name, stream).await.map_err(|source| not_tls(url, source))
    };
    match tokio::time::timeout(CONNECT_TIMEOUT, opening).await {
        Ok(result) => result,
        Err(_) => Err(ConnectError::TimedOut { url: url.to_string(), seconds: CONNECT_TIMEOUT.as_secs() }),
    }
}

fn not_tls(url: &ServerUrl, error: io::Error) -> ConnectError {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if let Some(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other))) = tls
        && let Some(source) = other.0.downcast_ref::<CheckServerError>()
    {
        return ConnectError::NotBelieved { url: url.to_string(), source: source.clone() };
    }
    ConnectError::Tls { url: url.to_string(), source: Arc::new(error) }
}
