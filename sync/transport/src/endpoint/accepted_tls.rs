//! TLS of an accepted connection, which gives back what only its handshake needed.
//!
//! quinn's own session keeps what rustls has for as long as the connection lives, and derives the keys of the next
//! phase before anyone asks: 6 KB for each device that is connected. Nothing of it is needed again. This server sends
//! no tickets, and after its handshake a client of QUIC has nothing to say in TLS (RFC 9001, sections 4.4 and 6). What
//! stays is the client's certificates, and the secrets that the keys of later phases come from.

use std::any::Any;
use std::io::Cursor;
use std::sync::{Arc, OnceLock};

use bytes::BytesMut;
use quinn::crypto::rustls::{NoInitialCipherSuite, QuicServerConfig};
use quinn::crypto::{
    CryptoError, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, ServerConfig, Session,
    UnsupportedVersion,
};
use quinn::{ConnectionId, Side, TransportErrorCode};
use quinn_proto::TransportError;
use quinn_proto::transport_parameters::TransportParameters;
use rustls::AlertDescription;
use rustls::pki_types::CertificateDer;
use rustls::quic::{KeyChange, PacketKeySet, Secrets, ServerConnection, Version};

/// RFC 9000, section 15.
const QUIC_VERSION_1: u32 = 1;

/// TLS of the connections that a server accepts.
pub(super) struct AcceptedTls {
    tls: Arc<rustls::ServerConfig>,
    /// What has no state: the keys of first packets, and the tags of retries.
    stateless: Arc<QuicServerConfig>,
}

impl AcceptedTls {
    /// Takes settings of TLS 1.3 that send no tickets.
    pub(super) fn new(tls: rustls::ServerConfig) -> Result<Self, NoInitialCipherSuite> {
        let tls = Arc::new(tls);
        let stateless = Arc::new(QuicServerConfig::try_from(Arc::clone(&tls))?);
        Ok(Self { tls, stateless })
    }
}

impl ServerConfig for AcceptedTls {
    fn initial_keys(&self, version: u32, dst_cid: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        self.stateless.initial_keys(version, dst_cid)
    }

    fn retry_tag(&self, version: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.stateless.retry_tag(version, orig_dst_cid, packet)
    }

    fn start_session(self: Arc<Self>, version: u32, params: &TransportParameters) -> Box<dyn Session> {
        // Only versions that `initial_keys` knows come here: the first one and its last drafts.
        let draft = version != QUIC_VERSION_1;
        let mut said = Vec::new();
        params.write(&mut said);
        let tls = Arc::clone(&self.tls);
        let begun = ServerConnection::new(tls, if draft { Version::V1Draft } else { Version::V1 }, said);
        let stage = match begun {
            Ok(tls) => Stage::Handshake(Box::new(tls)),
            Err(error) => Stage::Refused(error),
        };
        Box::new(AcceptedSession { stateless: Arc::clone(&self.stateless), version, stage, agreed: None, handed: None })
    }
}

/// TLS of one connection.
struct AcceptedSession {
    stateless: Arc<QuicServerConfig>,
    version: u32,
    stage: Stage,
    /// What the keys of the second phase come from, until quinn has asked for them.
    agreed: Option<Box<Secrets>>,
    /// The last phase that quinn has the keys of.
    handed: Option<Arc<Phase>>,
}

enum Stage {
    Handshake(Box<ServerConnection>),
    Over {
        peer: Option<Vec<CertificateDer<'static>>>,
    },
    /// The settings are none for QUIC. No packet is answered.
    Refused(rustls::Error),
}

impl AcceptedSession {
    /// Lets go of the handshake once it is over and has nothing left to send.
    fn settle(&mut self) {
        if let Stage::Handshake(tls) = &self.stage
            && !tls.is_handshaking()
        {
            self.stage = Stage::Over { peer: certificates(tls) };
        }
    }
}

fn certificates(tls: &ServerConnection) -> Option<Vec<CertificateDer<'static>>> {
    let chain = tls.peer_certificates()?;
    Some(chain.iter().map(|certificate| certificate.clone().into_owned()).collect())
}

fn broken(code: TransportErrorCode, reason: String) -> TransportError {
    TransportError { code, frame: None, reason }
}

impl Session for AcceptedSession {
    fn initial_keys(&self, dst_cid: &ConnectionId, _side: Side) -> Keys {
        // A session begins only for versions that there are such keys for.
        match self.stateless.initial_keys(self.version, dst_cid) {
            Ok(keys) => keys,
            Err(UnsupportedVersion) => unreachable!("a session of an unknown version was begun"),
        }
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        // One protocol is spoken here, and nobody asks under which name.
        None
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        let chain = match &self.stage {
            Stage::Handshake(tls) => certificates(tls)?,
            Stage::Over { peer } => peer.clone()?,
            Stage::Refused(_) => return None,
        };
        Some(Box::new(chain))
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        None
    }

    fn early_data_accepted(&self) -> Option<bool> {
        None
    }

    fn is_handshaking(&self) -> bool {
        match &self.stage {
            Stage::Handshake(tls) => tls.is_handshaking(),
            Stage::Over { .. } => false,
            Stage::Refused(_) => true,
        }
    }

    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        let tls = match &mut self.stage {
            Stage::Handshake(tls) => tls,
            Stage::Over { .. } => {
                let code = TransportErrorCode::crypto(AlertDescription::UnexpectedMessage.into());
                return Err(broken(code, "TLS had ended".to_owned()));
            }
            Stage::Refused(error) => return Err(broken(TransportErrorCode::INTERNAL_ERROR, error.to_string())),
        };
        let read = tls.read_hs(buf);
        let code = |alert: AlertDescription| TransportErrorCode::crypto(alert.into());
        read.map_err(|error| {
            let code = tls.alert().map_or(TransportErrorCode::PROTOCOL_VIOLATION, code);
            broken(code, error.to_string())
        })?;
        Ok(false)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        let Stage::Handshake(tls) = &self.stage else { return Ok(None) };
        let Some(said) = tls.quic_transport_parameters() else { return Ok(None) };
        Ok(Some(TransportParameters::read(Side::Server, &mut Cursor::new(said))?))
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        let Stage::Handshake(tls) = &mut self.stage else { return None };
        let keys = match tls.write_hs(buf) {
            Some(KeyChange::Handshake { keys }) => keys,
            Some(KeyChange::OneRtt { keys, next }) => {
                self.agreed = Some(Box::new(next));
                keys
            }
            None => {
                if buf.is_empty() {
                    self.settle();
                }
                return None;
            }
        };
        let (local, remote) = (keys.local, keys.remote);
        Some(Keys {
            header: KeyPair { local: Box::new(local.header), remote: Box::new(remote.header) },
            packet: KeyPair { local: Box::new(local.packet), remote: Box::new(remote.packet) },
        })
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        let secrets = match self.handed.take() {
            Some(phase) => phase.following(),
            None => *self.agreed.take()?,
        };
        let phase = Arc::new(Phase { secrets, keys: OnceLock::new() });
        self.handed = Some(Arc::clone(&phase));
        Some(KeyPair {
            local: Box::new(PhaseKey { phase: Arc::clone(&phase), end: End::Local }),
            remote: Box::new(PhaseKey { phase, end: End::Remote }),
        })
    }

    fn is_valid_retry(&self, _orig_dst_cid: &ConnectionId, _header: &[u8], _payload: &[u8]) -> bool {
        // Clients are sent retries, servers are not.
        false
    }

    fn export_keying_material(
        &self,
        _output: &mut [u8],
        _label: &[u8],
        _context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        Err(ExportKeyingMaterialError)
    }
}

/// Keys of packets between two updates of them, derived when the first is needed: most connections never update.
struct Phase {
    secrets: Secrets,
    keys: OnceLock<PacketKeySet>,
}

impl Phase {
    fn keys(&self) -> &PacketKeySet {
        self.keys.get_or_init(|| self.secrets.clone().next_packet_keys())
    }

    /// What the keys of the phase after this one come from.
    fn following(&self) -> Secrets {
        let mut secrets = self.secrets.clone();
        let keys = secrets.next_packet_keys();
        self.keys.get_or_init(|| keys);
        secrets
    }
}

/// One of a phase's two keys.
struct PhaseKey {
    phase: Arc<Phase>,
    end: End,
}

enum End {
    Local,
    Remote,
}

impl PhaseKey {
    fn key(&self) -> &dyn PacketKey {
        let keys = self.phase.keys();
        match self.end {
            End::Local => &keys.local,
            End::Remote => &keys.remote,
        }
    }
}

impl PacketKey for PhaseKey {
    fn encrypt(&self, packet: u64, buf: &mut [u8], header_len: usize) {
        self.key().encrypt(packet, buf, header_len);
    }

    fn decrypt(&self, packet: u64, header: &[u8], payload: &mut BytesMut) -> Result<(), CryptoError> {
        self.key().decrypt(packet, header, payload)
    }

    fn tag_len(&self) -> usize {
        self.key().tag_len()
    }

    fn confidentiality_limit(&self) -> u64 {
        self.key().confidentiality_limit()
    }

    fn integrity_limit(&self) -> u64 {
        self.key().integrity_limit()
    }
}
