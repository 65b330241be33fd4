//! The server's own certificates, issued anew while it runs.
//!
//! Devices and the CLI ignore their dates. Browsers and other clients of the API do not, and a server may run for years.

use std::sync::{Arc, Weak};
use std::time::Duration;

use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::time::{Clock, Wall};
use fleetd_sync_transport::identity::{
    ApiCertificates, IssueError, ReadCertificateError, SERVER_CERTIFICATE_LIFETIME, ServerName, TlsError,
    certificate_not_after,
};
use fleetd_sync_transport::link::{ListenError, ListenIdentity, Listener};

use crate::keys::{Keys, PublishError};

/// Pause between two looks at the date: a day of a certificate's ninety does not count, and a clock that is set right is
/// noticed.
const LOOK_EVERY: Duration = Duration::from_secs(60 * 60);

/// Why the server goes on with the certificates that it has.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// The server's own cannot be issued.
    #[error("the server's certificate cannot be issued")]
    Issue(#[from] IssueError),
    /// It cannot be read.
    #[error("the server's certificate cannot be read")]
    Read(#[from] ReadCertificateError),
    /// What browsers are shown cannot be made or written.
    #[error("the certificate for browsers cannot be made")]
    Publish(#[from] PublishError),
    /// The port of the devices does not take it.
    #[error("the port of the devices does not take the certificate")]
    Listen(#[from] ListenError),
    /// The port of the API does not take it.
    #[error("the port of the API does not take the certificate")]
    Tls(#[from] TlsError),
}

/// The server's own certificates, and the ports that show them.
pub struct OwnCertificate {
    keys: Arc<Keys>,
    names: Vec<ServerName>,
    not_after: Wall,
    listener: Weak<dyn Listener>,
    api: Arc<ApiCertificates>,
    clock: Arc<dyn Clock>,
    entropy: Entropy,
}

impl OwnCertificate {
    /// Takes what the port of the devices shows now, and makes what that of the API is to show.
    ///
    /// # Errors
    /// [`RenewError`] when `identity` has no certificate of ours, or that for browsers cannot be made or written.
    pub fn new(
        (keys, names): (Arc<Keys>, Vec<ServerName>),
        identity: &ListenIdentity,
        listener: Weak<dyn Listener>,
        clock: Arc<dyn Clock>,
        entropy: Entropy,
    ) -> Result<Self, RenewError> {
        let not_after = last_date(identity)?;
        let browser = keys.publish(&names, clock.now().wall)?;
        let api = Arc::new(ApiCertificates::new(identity, &browser)?);
        Ok(Self { keys, names, not_after, listener, api, clock, entropy })
    }

    /// What the port of the API shows.
    #[must_use]
    pub fn shown_by_api(&self) -> Arc<ApiCertificates> {
        Arc::clone(&self.api)
    }

    /// Looks at the date for as long as the server runs.
    pub async fn run(mut self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = self.clock.now().wall;
            match self.renew(now) {
                Ok(false) => {}
                Ok(true) => tracing::info!("the server has a new certificate"),
                Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "no new certificate"),
            }
        }
    }

    /// Issues new certificates once half of their time is over, and shows them to connections from then on. Says
    /// whether it did.
    ///
    /// # Errors
    /// [`RenewError`] when one of them cannot be made or shown; the next look tries again.
    pub fn renew(&mut self, now: Wall) -> Result<bool, RenewError> {
        if now + SERVER_CERTIFICATE_LIFETIME / 2 < self.not_after {
            return Ok(false);
        }
        let identity = self.keys.listen_identity(&self.names, now, &mut self.entropy)?;
        let not_after = last_date(&identity)?;
        self.api.replace(&identity, &self.keys.publish(&self.names, now)?)?;
        if let Some(listener) = self.listener.upgrade() {
            listener.set_identity(identity)?;
        }
        self.not_after = not_after;
        Ok(true)
    }
}

fn last_date(identity: &ListenIdentity) -> Result<Wall, ReadCertificateError> {
    certificate_not_after(identity.certificates.first().ok_or(ReadCertificateError::Missing)?)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use fleetd_sync_core::id::ConnectionId;
    use fleetd_sync_core::key::SecretKey;
    use fleetd_sync_transport::clock::SystemClock;
    use fleetd_sync_transport::endpoint::{Endpoint, Settings};
    use fleetd_sync_transport::identity::{api_client_tls, api_server_tls};
    use fleetd_sync_transport::link::{DialIdentity, Link as _, LinkEvent, Peer};
    use rustls::pki_types::ServerName as TlsName;
    use tokio::sync::mpsc;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;

    const BEGIN: Wall = Wall(1_800_000_000_000);

    /// The last date of what the port of the devices shows.
    async fn shown_to_devices(endpoint: &Endpoint, address: SocketAddr, number: u8) -> Wall {
        let (told, mut events) = mpsc::unbounded_channel();
        let told = Arc::new(move |_, event| drop(told.send(event)));
        let nobody = DialIdentity { key: SecretKey::from_bytes([3; 32]), certificates: Vec::new() };
        endpoint.dial(ConnectionId::from_bytes([number; 8]), &address.to_string(), nobody, told);
        match events.recv().await.unwrap() {
            LinkEvent::Up { peer: Peer::Server { leaf }, .. } => certificate_not_after(&leaf).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// The last date of what the port of the API shows.
    async fn shown_by_api(keys: &Keys, api: &Arc<ApiCertificates>) -> Wall {
        let ca = keys.certificate_authority().unwrap().key();
        let connector = TlsConnector::from(Arc::new(api_client_tls(keys.fleet(), [ca]).unwrap()));
        let acceptor = TlsAcceptor::from(Arc::new(api_server_tls(Arc::clone(api)).unwrap()));
        let (near, far) = tokio::io::duplex(16 << 10);
        let name = TlsName::try_from("localhost").unwrap();
        let (client, server) = tokio::join!(connector.connect(name, near), acceptor.accept(far));
        server.unwrap();
        let leaf = client.unwrap().get_ref().1.peer_certificates().unwrap()[0].to_vec();
        certificate_not_after(&leaf).unwrap()
    }

    #[tokio::test]
    async fn both_ports_show_a_new_certificate_once_half_of_the_time_is_over() {
        let (folder, mut entropy) = (tempfile::tempdir().unwrap(), Entropy::from_seed([1; 32]));
        let keys = Arc::new(Keys::open_or_create(&folder.path().join("keys"), &mut entropy).unwrap());
        let names = vec![ServerName::of_host("localhost")];
        let identity = keys.listen_identity(&names, BEGIN, &mut entropy).unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let runtime = tokio::runtime::Handle::current();
        let endpoint = Endpoint::new(runtime, Settings::default(), Arc::clone(&clock), entropy.stream("endpoint"));
        let nobody_cares =
            Arc::new(|_, _: &Peer, _| -> fleetd_sync_transport::link::LinkEvents { Arc::new(|_, _| {}) });
        let listener: Arc<dyn Listener> =
            Arc::from(endpoint.listen("127.0.0.1:0", identity.clone(), nobody_cares).unwrap());
        let (owner, weak) = ((Arc::clone(&keys), names), Arc::downgrade(&listener));
        let mut own = OwnCertificate::new(owner, &identity, weak, clock, entropy.stream("own")).unwrap();
        let api = own.shown_by_api();

        let (first, half) = (BEGIN + SERVER_CERTIFICATE_LIFETIME, SERVER_CERTIFICATE_LIFETIME / 2);
        assert!(!own.renew(BEGIN + (half - LOOK_EVERY)).unwrap());
        let at = listener.local_address();
        assert_eq!((shown_to_devices(&endpoint, at, 1).await, shown_by_api(&keys, &api).await), (first, first));
        assert!(own.renew(BEGIN + half).unwrap());
        let second = first + half;
        assert_eq!((shown_to_devices(&endpoint, at, 2).await, shown_by_api(&keys, &api).await), (second, second));
        assert!(!own.renew(BEGIN + half + LOOK_EVERY).unwrap(), "once is enough");
    }
}
