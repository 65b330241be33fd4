//! Access tokens: who may call the API, and as what.
//!
//! A token's text is `fdt_`, its id, `_` and a secret of 256 random bits. The server keeps the secret's hash: the text
//! is shown once, when the token is made.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use data_encoding::BASE32_NOPAD;
use fleetd_sync_core::commit::{ActorKey, CommitError, Mutation, Space};
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::id::AccessId;
use fleetd_sync_core::time::{Clock, Wall};
use fleetd_sync_store::state_store::{KeyRange, ReadError, StateStore};

use crate::commit::commit;
use crate::edge::authenticate::{AuthenticateError, Authenticator, Caller, Role};
use crate::receipt::receipt;
use crate::record::{self, ReadRecordError};

/// What every token's text starts with.
const PREFIX: &str = "fdt_";
/// Bytes of a token's secret.
const SECRET_BYTES: usize = 32;
/// Tokens that are read at once when the server starts.
const PAGE_RECORDS: usize = 1024;

/// What a server keeps of a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessToken {
    /// Its id, which is no secret.
    pub id: AccessId,
    /// Whose or what it is for.
    pub name: String,
    /// The hash of its secret. Comparing two of them takes the same time whatever they are.
    pub secret_hash: blake3::Hash,
    /// What it allows.
    pub role: Role,
    /// When it was made.
    pub created_at: Wall,
    /// From when on it is refused.
    pub expires_at: Option<Wall>,
    /// When it was revoked.
    pub revoked_at: Option<Wall>,
    /// Who made it; nobody for the first one.
    pub created_by: Option<AccessId>,
}

impl AccessToken {
    /// Says whether it counts at `now`.
    #[must_use]
    pub fn counts(&self, now: Wall) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|expires_at| now < expires_at)
    }
}

/// What a new token is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessWish {
    /// Whose or what it is for.
    pub name: String,
    /// What it allows.
    pub role: Role,
    /// From when on it is refused.
    pub expires_at: Option<Wall>,
    /// Who makes it.
    pub created_by: Option<AccessId>,
}

/// Why access tokens cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenAccessError {
    /// The store cannot be read.
    #[error("the store cannot be read")]
    Read(#[from] ReadError),
    /// A record is none.
    #[error("a stored access token is unreadable")]
    Record(#[from] ReadRecordError),
}

/// The access tokens of one server.
pub struct AccessTokens {
    store: Arc<dyn StateStore>,
    clock: Arc<dyn Clock>,
    actor: ActorKey,
    tokens: RwLock<BTreeMap<AccessId, AccessToken>>,
}

impl std::fmt::Debug for AccessTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AccessTokens")
    }
}

impl AccessTokens {
    /// Reads the tokens that are stored.
    ///
    /// # Errors
    /// [`OpenAccessError`].
    pub fn open(store: Arc<dyn StateStore>, clock: Arc<dyn Clock>) -> Result<Self, OpenAccessError> {
        let mut tokens = BTreeMap::new();
        let mut range = KeyRange::all();
        loop {
            let page = store.scan(Space::AccessToken, range.clone(), PAGE_RECORDS)?;
            for (_, found) in &page {
                let token = record::access::decode(&found.value)?;
                tokens.insert(token.id, token);
            }
            match page.last() {
                Some((key, _)) if page.len() == PAGE_RECORDS => range = range.after(key),
                _ => break,
            }
        }
        Ok(Self { store, clock, actor: ActorKey::only("access"), tokens: RwLock::new(tokens) })
    }

    /// Makes a token and gives its text, which cannot be had again.
    ///
    /// # Errors
    /// [`CommitError`] when it could not be kept; there is no token then.
    pub async fn create(&self, wish: AccessWish, entropy: &mut Entropy) -> Result<(AccessToken, String), CommitError> {
        let secret: [u8; SECRET_BYTES] = entropy.bytes();
        let token = AccessToken {
            id: AccessId::random(entropy),
            name: wish.name,
            secret_hash: hash(&secret),
            role: wish.role,
            created_at: self.clock.now().wall,
            expires_at: wish.expires_at,
            revoked_at: None,
            created_by: wish.created_by,
        };
        commit(self.store.as_ref(), &self.actor, with_receipt_of(&token)).await?;
        self.insert(token.clone());
        let id = token.id.to_string();
        let digits = id.strip_prefix(AccessId::PREFIX).unwrap_or(&id);
        let text = format!("{PREFIX}{digits}_{}", BASE32_NOPAD.encode(&secret).to_ascii_lowercase());
        Ok((token, text))
    }

    /// Revokes a token at once; nothing when there is none.
    ///
    /// # Errors
    /// [`CommitError`] when that could not be kept. This run of the server refuses the token all the same.
    pub async fn revoke(&self, id: AccessId) -> Result<Option<AccessToken>, CommitError> {
        let Some(mut token) = self.get(id) else { return Ok(None) };
        if token.revoked_at.is_none() {
            token.revoked_at = Some(self.clock.now().wall);
            // Refused from now on, whatever becomes of the record: a caller that is cut off has still revoked it.
            self.insert(token.clone());
            commit(self.store.as_ref(), &self.actor, with_receipt_of(&token)).await?;
        }
        Ok(Some(token))
    }

    /// One token.
    #[must_use]
    pub fn get(&self, id: AccessId) -> Option<AccessToken> {
        self.tokens.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// All tokens, by id.
    #[must_use]
    pub fn list(&self) -> Vec<AccessToken> {
        self.tokens.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn insert(&self, token: AccessToken) {
        self.tokens.write().unwrap_or_else(PoisonError::into_inner).insert(token.id, token);
    }
}

impl Authenticator for AccessTokens {
    fn authenticate(&self, text: &str) -> Result<Caller, AuthenticateError> {
        let (id, secret) = read(text).ok_or(AuthenticateError::Unknown)?;
        let token = self.get(id).filter(|token| token.secret_hash == hash(&secret));
        let token = token.ok_or(AuthenticateError::Unknown)?;
        if token.revoked_at.is_some() {
            return Err(AuthenticateError::Revoked { id });
        }
        if !token.counts(self.clock.now().wall) {
            return Err(AuthenticateError::Expired { id });
        }
        Ok(Caller { id, name: token.name, role: token.role })
    }
}

/// A token's record, with the receipt of the request that changed it.
fn with_receipt_of(token: &AccessToken) -> Vec<Mutation> {
    let mut mutations = receipt();
    mutations.push(record::access::put(token));
    mutations
}

fn read(text: &str) -> Option<(AccessId, [u8; SECRET_BYTES])> {
    let (digits, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
    let id = format!("{}{digits}", AccessId::PREFIX).parse().ok()?;
    let secret = BASE32_NOPAD.decode(secret.to_ascii_uppercase().as_bytes()).ok()?;
    Some((id, secret.try_into().ok()?))
}

/// A secret of 256 random bits needs no slow hash.
fn hash(secret: &[u8; SECRET_BYTES]) -> blake3::Hash {
    blake3::Hasher::new().update(b"fleetd/access/1\0").update(secret).finalize()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};
    use std::time::Duration;

    use fleetd_sync_core::time::Now;
    use fleetd_sync_store::memory::MemoryStore;

    use super::*;

    #[derive(Default)]
    struct HandClock(AtomicI64);

    impl Clock for HandClock {
        fn now(&self) -> Now {
            Now { wall: Wall(self.0.load(Ordering::Relaxed)), ..Now::default() }
        }
    }

    fn wish(expires_at: Option<Wall>) -> AccessWish {
        AccessWish { name: "ci".to_owned(), role: Role::Deployer, expires_at, created_by: None }
    }

    #[tokio::test]
    async fn a_token_counts_after_a_restart_until_it_is_revoked() {
        let (store, clock) = (MemoryStore::immediate(), Arc::new(HandClock::default()));
        let mut entropy = Entropy::from_seed([1; 32]);
        let tokens = AccessTokens::open(Arc::new(store.clone()), clock.clone()).unwrap();
        let (token, text) = tokens.create(wish(None), &mut entropy).await.unwrap();
        let again = AccessTokens::open(Arc::new(store.clone()), clock.clone()).unwrap();
        let caller = Caller { id: token.id, name: "ci".to_owned(), role: Role::Deployer };
        assert_eq!(again.authenticate(&text), Ok(caller));
        assert_eq!(again.list(), vec![token.clone()]);
        assert!(again.revoke(token.id).await.unwrap().unwrap().revoked_at.is_some());
        assert_eq!(again.authenticate(&text), Err(AuthenticateError::Revoked { id: token.id }));
        let third = AccessTokens::open(Arc::new(store), clock).unwrap();
        assert_eq!(third.authenticate(&text), Err(AuthenticateError::Revoked { id: token.id }));
    }

    #[tokio::test]
    async fn a_wrong_secret_learns_nothing_of_the_token() {
        let clock = Arc::new(HandClock::default());
        let tokens = AccessTokens::open(Arc::new(MemoryStore::immediate()), clock.clone()).unwrap();
        let mut entropy = Entropy::from_seed([2; 32]);
        let (token, text) = tokens.create(wish(Some(Wall(0) + Duration::from_secs(1))), &mut entropy).await.unwrap();
        clock.0.store(1000, Ordering::Relaxed);
        assert_eq!(tokens.authenticate(&text), Err(AuthenticateError::Expired { id: token.id }));
        let mut wrong = text.clone();
        let last = if wrong.pop() == Some('a') { 'q' } else { 'a' };
        wrong.push(last);
        for text in ["", "fdt_", "fdt__", "x", &wrong, &text.replace(PREFIX, "acc_")] {
            assert_eq!(tokens.authenticate(text), Err(AuthenticateError::Unknown), "{text:?}");
        }
    }
}
