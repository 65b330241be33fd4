//! Signatures that are counted instead of computed, for simulations of more devices than Ed25519 leaves time for.
//!
//! A counted signature is a hash over the public key, the purpose, if it has one, and the body: it has the size of a real one, and a
//! changed byte of any of the three makes it wrong. It proves nothing against whoever computes it, so this module
//! exists only with the feature `counted-crypto`, which the simulator turns on and no agent has. It is switched on for
//! one thread, and a thread of the product never is.

use std::cell::Cell;

use super::{PublicKey, Signature};

thread_local! {
    static COUNTING: Cell<Option<Counts>> = const { Cell::new(None) };
}

/// How many signatures were made and checked without being computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Signatures that were made.
    pub signed: u64,
    /// Signatures that were checked.
    pub verified: u64,
}

/// Counts signatures on this thread from now on. Those that were computed before do not count any more.
pub fn begin() {
    COUNTING.set(Some(Counts::default()));
}

/// What was counted on this thread; nothing when signatures are computed there.
#[must_use]
pub fn counts() -> Option<Counts> {
    COUNTING.get()
}

/// Makes a signature, if this thread counts.
pub(super) fn sign(key: &PublicKey, message: &[&[u8]]) -> Option<Signature> {
    let counts = COUNTING.get()?;
    COUNTING.set(Some(Counts { signed: counts.signed + 1, ..counts }));
    Some(signature(key, message))
}

/// Says whether a signature is right, if this thread counts.
pub(super) fn verify(key: &PublicKey, message: &[&[u8]], given: &Signature) -> Option<bool> {
    let counts = COUNTING.get()?;
    COUNTING.set(Some(Counts { verified: counts.verified + 1, ..counts }));
    Some(signature(key, message) == *given)
}

fn signature(key: &PublicKey, message: &[&[u8]]) -> Signature {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"fleetd/counted/1\0").update(key.as_bytes());
    for part in message {
        hasher.update(part);
    }
    let mut bytes = [0; Signature::LENGTH];
    hasher.finalize_xof().fill(&mut bytes);
    Signature(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::Entropy;
    use crate::key::{Domain, SecretKey};

    #[test]
    fn a_counted_signature_counts_for_its_key_domain_and_body_only() {
        let mut entropy = Entropy::from_seed([5; 32]);
        let (key, other) = (SecretKey::generate(&mut entropy), SecretKey::generate(&mut entropy));
        let computed = key.sign(Domain::Envelope, b"body");
        begin();
        let counted = key.sign(Domain::Envelope, b"body");
        assert_eq!(key.public().verify(Domain::Envelope, b"body", &counted), Ok(()));
        for refused in [
            key.public().verify(Domain::Release, b"body", &counted),
            key.public().verify(Domain::Envelope, b"Body", &counted),
            other.public().verify(Domain::Envelope, b"body", &counted),
            key.public().verify(Domain::Envelope, b"body", &computed),
        ] {
            assert!(refused.is_err());
        }
        assert_eq!(counts(), Some(Counts { signed: 1, verified: 5 }));
    }

    #[test]
    fn a_thread_that_was_not_asked_computes() {
        begin();
        let signed = std::thread::scope(|scope| {
            let own = scope.spawn(|| {
                let key = SecretKey::from_bytes([7; 32]);
                (counts(), key.sign(Domain::Envelope, b"body"), key.public())
            });
            own.join().unwrap()
        });
        let (counts, signature, key) = signed;
        assert_eq!(counts, None);
        assert!(key.verify(Domain::Envelope, b"body", &signature).is_err(), "here it would have to be counted");
    }
}
