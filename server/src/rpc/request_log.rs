//! Answers to changes, so that repeating a request changes nothing more.
//!
//! A change and its receipt are one batch: after a crash either both are there or neither is. The answer follows the
//! receipt, and where a crash lost it, it is made anew from what is stored, or its loss is told. The receipt is
//! fenced: of two changes for one request, however they came about, the store takes one.
//!
//! Answers are kept for a day. Two requests with one id at once wait for each other. A secret in an answer is kept
//! in memory only: after a restart its repetition is told that it was shown.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fleetd_sync_core::commit::{ActorKey, Mutation, Revision, Space};
use fleetd_sync_core::limit::REQUEST_ID_CHARS_MAX;
use fleetd_sync_core::time::Wall;
use fleetd_sync_store::state_store::{KeyRange, StateStore};
use prost::{Message, Name};

use super::call_error::{CallError, required};
use crate::commit::commit;
use crate::edge::authenticate::Caller;
use crate::receipt::with_receipt;
use crate::record::request::{self, GivenAnswer};

/// Time for which an answer is kept: a client that repeats a request later has long given up.
const KEPT_FOR: Duration = Duration::from_hours(24);
/// Answers after which old ones are looked for.
const SWEEP_EVERY: u32 = 1024;
/// Old answers that one sweep removes.
const SWEPT_MAX: usize = 4096;
/// Answers with secrets that are kept in memory.
const SECRETS_MAX: usize = 256;
/// Requests with ids of one lane wait for each other.
const LANES: usize = 64;

/// What may be kept of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// All of it.
    Whole,
    /// Only that there was one: it holds a secret.
    Secret,
}

/// Answers that hold a secret, by their request, each with its time.
type Secrets = BTreeMap<Vec<u8>, (Wall, Vec<u8>)>;

/// The answers that were given.
pub(crate) struct RequestLog {
    store: Arc<dyn StateStore>,
    actor: ActorKey,
    lanes: Vec<tokio::sync::Mutex<()>>,
    secrets: Mutex<Secrets>,
    until_sweep: AtomicU32,
}

impl RequestLog {
    pub(crate) fn new(store: Arc<dyn StateStore>) -> Self {
        let lanes = (0..LANES).map(|_| tokio::sync::Mutex::new(())).collect();
        let actor = ActorKey::only("requests");
        Self { store, actor, lanes, secrets: Mutex::default(), until_sweep: AtomicU32::new(0) }
    }

    /// Answers a request: as before when it is repeated, with `again` when that answer was lost, and else with what
    /// `answer` comes to.
    pub(crate) async fn once<Q: Message + Name, R: Message + Default>(
        &self,
        (caller, now, kept): (&Caller, Wall, Kept),
        request_id: &str,
        asked: &Q,
        answer: impl Future<Output = Result<R, CallError>>,
        again: impl Fn() -> Result<R, CallError>,
    ) -> Result<R, CallError> {
        let length = required(request_id, "request_id")?.chars().count();
        if length > REQUEST_ID_CHARS_MAX {
            let cause = format!("it has {length} characters; it may have {REQUEST_ID_CHARS_MAX}");
            return Err(CallError::Invalid { field: "request_id", cause });
        }
        let key = request::request_key(caller.id, request_id);
        let lane = blake3::hash(&key).as_bytes().first().map_or(0, |byte| usize::from(*byte) % LANES);
        let _turn = match self.lanes.get(lane) {
            Some(lane) => Some(lane.lock().await),
            None => None,
        };
        let (method, request_hash) = (Q::full_name(), blake3::hash(&asked.encode_to_vec()).as_bytes().to_vec());
        let fresh = || Ok::<_, CallError>(self.given(&key)?.filter(|(given, _)| now - given.answered_at < KEPT_FOR));
        if let Some((given, _)) = fresh()? {
            return self.repeat((&method, &request_hash, kept), request_id, &key, &given, again);
        }
        let revision = self.given(&key)?.map_or(Revision(0), |(_, revision)| revision);
        let fence = Mutation::Expect { space: Space::Request, key: key.clone(), revision };
        let receipt = GivenAnswer { method, request_hash, response: None, answered_at: now };
        let answered = with_receipt(vec![fence, request::put(key.clone(), &receipt)], answer).await;
        let GivenAnswer { method, request_hash, .. } = receipt;
        let response = match answered {
            Ok(response) => response,
            // An earlier try of the same request may have come through meanwhile, though nobody waited for it.
            Err(error) => match fresh()? {
                Some((given, _)) => {
                    return self.repeat((&method, &request_hash, kept), request_id, &key, &given, again);
                }
                None => return Err(error),
            },
        };
        let bytes = response.encode_to_vec();
        let stored = match kept {
            Kept::Whole => bytes,
            Kept::Secret => {
                self.remember(&key, now, bytes);
                Vec::new()
            }
        };
        let given = GivenAnswer { method, request_hash, response: Some(stored), answered_at: now };
        if let Err(error) = commit(self.store.as_ref(), &self.actor, vec![request::put(key, &given)]).await {
            // The change is durable with its receipt: its repetition is known for one, and changes nothing.
            tracing::warn!(%error, request_id, "an answer could not be kept for its repetition");
        }
        self.sweep(now);
        Ok(response)
    }

    /// What is stored of a request, and its revision.
    fn given(&self, key: &[u8]) -> Result<Option<(GivenAnswer, Revision)>, CallError> {
        let Some(found) = self.store.get(Space::Request, key)? else { return Ok(None) };
        Ok(Some((request::decode(&found.value)?, found.revision)))
    }

    fn repeat<R: Message + Default>(
        &self,
        (method, request_hash, kept): (&str, &[u8], Kept),
        request_id: &str,
        key: &[u8],
        given: &GivenAnswer,
        again: impl Fn() -> Result<R, CallError>,
    ) -> Result<R, CallError> {
        let request_id = || request_id.to_owned();
        if given.method != method || given.request_hash != request_hash {
            return Err(CallError::OtherRequest { request_id: request_id() });
        }
        let response = match (kept, &given.response) {
            (Kept::Whole, None) => return again(),
            (Kept::Whole, Some(response)) => response.clone(),
            (Kept::Secret, _) => {
                let secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
                let (_, response) =
                    secrets.get(key).ok_or_else(|| CallError::SecretShown { request_id: request_id() })?;
                response.clone()
            }
        };
        R::decode(response.as_slice()).map_err(|error| CallError::Internal { cause: error.to_string() })
    }

    fn remember(&self, key: &[u8], now: Wall, response: Vec<u8>) {
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        if secrets.len() >= SECRETS_MAX {
            let oldest = secrets.iter().min_by_key(|(_, (at, _))| *at).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| secrets.remove(&oldest));
        }
        secrets.insert(key.to_vec(), (now, response));
    }

    /// Removes old answers, now and then.
    fn sweep(&self, now: Wall) {
        if !self.until_sweep.fetch_add(1, Ordering::Relaxed).is_multiple_of(SWEEP_EVERY) {
            return;
        }
        let mut old = Vec::new();
        let visited = self.store.visit(Space::Request, KeyRange::all(), &mut |key, found| {
            let is_old = request::decode(&found.value).is_ok_and(|given| now - given.answered_at >= KEPT_FOR);
            if is_old {
                old.push(Mutation::Delete { space: Space::Request, key: key.to_vec() });
            }
            if old.len() < SWEPT_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        if let Err(error) = visited {
            tracing::warn!(%error, "old answers could not be looked for");
        }
        if !old.is_empty() {
            let batch = fleetd_sync_core::commit::Batch { actor: ActorKey::only("old requests"), mutations: old };
            self.store.submit(batch, Box::new(|_| {})); // What is not removed now is found by the next sweep.
        }
    }
}
