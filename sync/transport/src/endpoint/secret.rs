//! What QUIC draws or keeps secret for one socket: connection ids, the tokens that end a connection from outside, and
//! its own choices.
//!
//! # Tokens of a server
//! A server that was started again must be able to tell its peers that their connections are gone. A peer that says
//! something on a connection of an earlier start gets a stateless reset, and dials again. It believes the reset because
//! of a token that only this server can compute; so the key of those tokens must be the same after each start, and comes
//! from the server's own key. Without it a peer would notice only when it has heard nothing for its whole idle timeout,
//! which on a LAN is a quarter of an hour.
//!
//! # Source
//! RFC 9000, section 10.3.

use std::sync::Arc;
use std::time::Duration;

use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::key::SecretKey;
use quinn::crypto::{CryptoError, HmacKey};
use quinn::{ConnectionId, ConnectionIdGenerator, EndpointConfig};

/// Separates this use of the server's key from every other.
const CONTEXT: &str = "fleetd 2026 stateless reset tokens";
/// Bytes of a connection id: as many as nobody guesses while a connection lasts.
const ID_BYTES: usize = 8;

/// The configuration of a socket on which a server listens.
pub(super) fn listening(key: &SecretKey, mut entropy: Entropy) -> EndpointConfig {
    let mut config = EndpointConfig::new(Arc::new(ResetKey(blake3::derive_key(CONTEXT, &key.to_bytes()))));
    config.rng_seed(Some(entropy.bytes()));
    // The usual ids can be told from others' by a key of this start, and those of an earlier start would be ignored.
    config.cid_generator(move || Box::new(RandomIds { entropy: entropy.clone() }));
    config
}

/// The configuration of a socket from which a device dials: nothing outlives its process.
pub(super) fn dialling(mut entropy: Entropy) -> EndpointConfig {
    let mut config = EndpointConfig::new(Arc::new(ResetKey(entropy.bytes())));
    config.rng_seed(Some(entropy.bytes()));
    config
}

struct ResetKey([u8; blake3::KEY_LEN]);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        let hash = blake3::keyed_hash(&self.0, data);
        for (out, byte) in signature_out.iter_mut().zip(hash.as_bytes()) {
            *out = *byte;
        }
    }

    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let found: [u8; blake3::OUT_LEN] = signature.try_into().map_err(|_| CryptoError)?;
        // Compared in constant time by the hash's own type.
        if blake3::keyed_hash(&self.0, data) == blake3::Hash::from_bytes(found) { Ok(()) } else { Err(CryptoError) }
    }
}

struct RandomIds {
    entropy: Entropy,
}

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&self.entropy.bytes::<ID_BYTES>())
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
