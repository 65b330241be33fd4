//! One server as an authority: the root chain that it holds, and its lane of the trust document.
//!
//! It takes root records that somebody signed elsewhere, writes revocations, and tells every device's actor what
//! trust is now. It cannot give a role to a key: only the root can.
//!
//! What it knows is in the store, and a copy apart from it, beside the keys ([`KeptTrust`]): a server that lost its
//! store must not take a second record of a version that it had, nor let in again whom it had turned away. So a root
//! record is in the copy before it counts; a revocation counts at once, and the copy follows.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::envelope::{DocumentId, Op, ParsePathError, Value};
use fleetd_sync_core::id::{KeyId, OperationId};
use fleetd_sync_core::key::SecretKey;
use fleetd_sync_core::lane::WriteError;
use fleetd_sync_core::machine::{Machine, Turn};
use fleetd_sync_core::replica::{LaneRecord, LoadError, Replica};
use fleetd_sync_core::time::{Monotonic, Now};
use fleetd_sync_core::trust::{ExtendError, Extension, Revocation, RootChain, RootRecord, Roster, revoke_path};

/// What trust is at one moment: shared with every actor that serves a device.
#[derive(Clone, Debug)]
pub struct Trust {
    /// The root chain.
    pub chain: Arc<RootChain>,
    /// What chain and document together say of keys.
    pub roster: Arc<Roster>,
    /// The trust document's envelopes, for devices that lack them.
    pub envelopes: Vec<Arc<[u8]>>,
}

/// What is kept of trust apart from the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptTrust {
    /// The root chain.
    pub chain: RootChain,
    /// The trust document's envelopes, each lane's in its order.
    pub envelopes: Vec<Arc<[u8]>>,
}

/// What the store has of trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTrust {
    /// The root chain; the first record alone where nothing is stored.
    pub chain: RootChain,
    /// The records of the trust document's lanes, in the order of their keys.
    pub lanes: Vec<Vec<u8>>,
}

/// Root records that may wait for one that is being kept: people bring them, one at a time.
const WAITING_MAX: usize = 16;

/// Decides what trust is on this server.
#[derive(Debug)]
pub struct Authority {
    chain: RootChain,
    replica: Replica,
    announced: bool,
    /// What the copy had that the store lacks.
    owed: Vec<Record>,
    keeping: Keeping,
    /// Whether the copy lacks something that counts already.
    is_copy_stale: bool,
    waiting: VecDeque<(OperationId, RootRecord)>,
}

/// What is being written to the copy: one thing at a time, so that an older never replaces a newer.
#[derive(Debug)]
enum Keeping {
    Nothing,
    /// What counts already.
    Present,
    /// The chain with a record that counts once it is kept.
    Extended {
        operation: OperationId,
        record: RootRecord,
    },
}

/// What can happen to it.
#[derive(Clone, Debug)]
pub enum Input {
    /// Somebody brings a root record.
    AddRootRecord {
        /// Answered by [`Effect::Answer`].
        operation: OperationId,
        /// The record.
        record: Box<RootRecord>,
    },
    /// An admin revokes a key.
    Revoke {
        /// Answered by [`Effect::Answer`].
        operation: OperationId,
        /// The key.
        key: KeyId,
        /// How.
        revocation: Revocation,
    },
    /// A device brings envelopes of the trust document that this server lacks.
    Received(Vec<Arc<[u8]>>),
    /// Answers [`Effect::Keep`]: the copy has it, or why not.
    Kept(Result<(), String>),
}

/// What it must remember.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The chain's newest record.
    Root(Box<RootRecord>),
    /// A change of the trust document's lanes.
    Lane(LaneRecord),
}

/// What it wants done.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Tell everybody what trust is now.
    Announce(Arc<Trust>),
    /// Replace the copy of trust apart from the store. Answered by [`Input::Kept`].
    Keep(Box<KeptTrust>),
    /// A request is done, durably, or refused.
    Answer {
        /// The request's operation.
        operation: OperationId,
        /// What came of it.
        result: Result<(), AuthorityError>,
    },
    /// The root's keys signed two records of one version: people must be told.
    Alarm {
        /// The version.
        version: u64,
    },
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// The root record does not follow the chain.
    #[error("the root record does not follow the chain")]
    Record(#[from] ExtendError),
    /// The chain has another record of that version.
    #[error("the chain has another record of version {version}; the first one stays")]
    Contradiction {
        /// The version.
        version: u64,
    },
    /// The trust document does not take the change.
    #[error("the trust document does not take the change")]
    Write(#[from] WriteError),
    /// The key's id makes no path.
    #[error("the key's id makes no path")]
    Path(#[from] ParsePathError),
    /// The copy beside the keys could not be written.
    #[error("the root record could not be kept beside the keys: {cause}")]
    Keep {
        /// What went wrong.
        cause: String,
    },
    /// Too many root records at once.
    #[error("{waiting_max} root records wait to be kept already; bring this one again")]
    Busy {
        /// How many may wait.
        waiting_max: usize,
    },
}

impl Authority {
    /// Takes the authority up from what is stored and from the copy beside the keys: of the two chains the longer one
    /// counts, and envelopes of both do.
    ///
    /// # Errors
    /// [`LoadError`] when a stored envelope cannot be taken.
    pub fn load(
        stored: StoredTrust,
        kept: &KeptTrust,
        key: SecretKey,
        entropy: &mut Entropy,
    ) -> Result<Self, LoadError> {
        let StoredTrust { chain: stored_chain, lanes } = stored;
        let mut replica = Replica::new(stored_chain.fleet(), Some(key), entropy);
        replica.hold(DocumentId::Trust);
        for bytes in lanes {
            replica.load(&bytes)?;
        }
        let chain = if stored_chain.version() > kept.chain.version() { &stored_chain } else { &kept.chain };
        let unstored = chain.records().filter(|record| stored_chain.record(record.body().version) != Some(*record));
        let mut authority = Self {
            chain: chain.clone(),
            replica,
            announced: false,
            owed: unstored.map(|record| Record::Root(Box::new(record.clone()))).collect(),
            keeping: Keeping::Nothing,
            is_copy_stale: false,
            waiting: VecDeque::new(),
        };
        authority.take_up(&kept.envelopes);
        authority.is_copy_stale = authority.kept() != *kept;
        Ok(authority)
    }

    /// Takes the copy's envelopes, with what trust says of their writers.
    fn take_up(&mut self, envelopes: &[Arc<[u8]>]) {
        let mut records = self.settled();
        for envelope in envelopes {
            records.extend(self.replica.receive(envelope).records);
        }
        records.extend(self.settled());
        self.owed.extend(records.into_iter().map(Record::Lane));
    }

    fn envelopes(&self) -> impl Iterator<Item = Arc<[u8]>> {
        let lanes = self.replica.heads().into_iter();
        lanes.flat_map(|head| self.replica.envelopes_after(head.document, head.lane, None))
    }

    fn kept(&self) -> KeptTrust {
        KeptTrust { chain: self.chain.clone(), envelopes: self.envelopes().collect() }
    }

    /// What trust is now.
    #[must_use]
    pub fn trust(&self) -> Arc<Trust> {
        let (roster, envelopes) = (Arc::new(self.roster()), self.envelopes().collect());
        Arc::new(Trust { chain: Arc::new(self.chain.clone()), roster, envelopes })
    }

    fn roster(&self) -> Roster {
        Roster::of(&self.chain, &self.replica)
    }
}

impl Machine for Authority {
    type Input = Input;
    type Record = Record;
    type Effect = Effect;

    fn handle(&mut self, now: Now, input: Input, turn: &mut Turn<Record, Effect>) {
        match input {
            Input::AddRootRecord { operation, record } => self.on_root_record(operation, *record, turn),
            Input::Revoke { operation, key, revocation } => self.on_revoke(now, operation, key, revocation, turn),
            Input::Received(envelopes) => self.on_received(now, &envelopes, turn),
            Input::Kept(result) => self.on_kept(result, turn),
        }
    }

    fn handle_timeout(&mut self, _now: Now, turn: &mut Turn<Record, Effect>) {
        if !self.announced {
            self.announced = true;
            std::mem::take(&mut self.owed).into_iter().for_each(|record| turn.persist(record));
            self.settle(turn);
            turn.effect(Effect::Announce(self.trust()));
            self.keep_next(turn);
        }
    }

    fn poll_timeout(&self) -> Option<Monotonic> {
        None
    }
}

impl Authority {
    fn on_root_record(&mut self, operation: OperationId, record: RootRecord, turn: &mut Turn<Record, Effect>) {
        if matches!(self.keeping, Keeping::Nothing) {
            return self.begin_record(operation, record, turn);
        }
        if self.waiting.len() < WAITING_MAX {
            return self.waiting.push_back((operation, record));
        }
        let result = Err(AuthorityError::Busy { waiting_max: WAITING_MAX });
        turn.effect(Effect::Answer { operation, result });
    }

    /// Judges a root record, and has it kept if it is new and good.
    fn begin_record(&mut self, operation: OperationId, record: RootRecord, turn: &mut Turn<Record, Effect>) {
        let version = record.body().version;
        let mut extended = self.kept();
        let result = match extended.chain.extend(record.clone()) {
            Ok(Extension::Extended) => {
                self.keeping = Keeping::Extended { operation, record };
                return turn.effect(Effect::Keep(Box::new(extended)));
            }
            Ok(Extension::Known) => Ok(()),
            Ok(Extension::Alarm { .. }) => {
                turn.effect(Effect::Alarm { version });
                Err(AuthorityError::Contradiction { version })
            }
            Err(error) => Err(error.into()),
        };
        turn.effect(Effect::Answer { operation, result });
    }

    fn on_kept(&mut self, result: Result<(), String>, turn: &mut Turn<Record, Effect>) {
        match std::mem::replace(&mut self.keeping, Keeping::Nothing) {
            Keeping::Extended { operation, record } => {
                let result = match result {
                    Ok(()) => self.extend(record, turn),
                    Err(cause) => Err(AuthorityError::Keep { cause }),
                };
                turn.effect(Effect::Answer { operation, result });
            }
            // Where the copy could not be written, the next change tries again; the next start does in any case.
            Keeping::Present | Keeping::Nothing => {}
        }
        self.keep_next(turn);
    }

    /// Lets a root record count that is kept.
    fn extend(&mut self, record: RootRecord, turn: &mut Turn<Record, Effect>) -> Result<(), AuthorityError> {
        self.chain.extend(record.clone())?;
        turn.persist(Record::Root(Box::new(record)));
        self.settle(turn);
        turn.effect(Effect::Announce(self.trust()));
        Ok(())
    }

    /// Goes on with what waits for the copy.
    fn keep_next(&mut self, turn: &mut Turn<Record, Effect>) {
        while matches!(self.keeping, Keeping::Nothing)
            && let Some((operation, record)) = self.waiting.pop_front()
        {
            self.begin_record(operation, record, turn);
        }
        if matches!(self.keeping, Keeping::Nothing) && std::mem::take(&mut self.is_copy_stale) {
            self.keeping = Keeping::Present;
            turn.effect(Effect::Keep(Box::new(self.kept())));
        }
    }

    /// Tells everybody what has changed, and has it kept.
    fn announce(&mut self, turn: &mut Turn<Record, Effect>) {
        self.settle(turn);
        turn.effect(Effect::Announce(self.trust()));
        self.is_copy_stale = true;
        self.keep_next(turn);
    }

    fn on_revoke(
        &mut self,
        now: Now,
        operation: OperationId,
        key: KeyId,
        revocation: Revocation,
        turn: &mut Turn<Record, Effect>,
    ) {
        let result = self.revoke(now, key, revocation, turn);
        turn.effect(Effect::Answer { operation, result: result.clone().map(drop) });
        if result == Ok(true) {
            self.announce(turn);
        }
    }

    fn on_received(&mut self, now: Now, envelopes: &[Arc<[u8]>], turn: &mut Turn<Record, Effect>) {
        let mut changed = false;
        for envelope in envelopes {
            let received = self.replica.receive(envelope);
            changed |= !received.changed.is_empty();
            received.records.into_iter().for_each(|record| turn.persist(Record::Lane(record)));
        }
        // Words of this server's own that it had lost: what it has said since is said again, above them.
        if let Ok(written) = self.replica.reopen(now, DocumentId::Trust) {
            changed |= !written.envelopes.is_empty();
            written.records.into_iter().for_each(|record| turn.persist(Record::Lane(record)));
        }
        if changed {
            self.announce(turn);
        }
    }

    /// Writes a revocation; says whether anything changed.
    fn revoke(
        &mut self,
        now: Now,
        key: KeyId,
        revocation: Revocation,
        turn: &mut Turn<Record, Effect>,
    ) -> Result<bool, AuthorityError> {
        let path = revoke_path(key).parse()?;
        let value = Value::Text(revocation.as_str().to_owned());
        let written = self.replica.write(now, DocumentId::Trust, vec![Op::Set { path, value }])?;
        written.records.into_iter().for_each(|record| turn.persist(Record::Lane(record)));
        Ok(!written.changed.is_empty())
    }

    /// Lets what is revoked, and who is an authority, take effect on the trust document itself.
    fn settle(&mut self, turn: &mut Turn<Record, Effect>) {
        self.settled().into_iter().for_each(|record| turn.persist(Record::Lane(record)));
    }

    fn settled(&mut self) -> Vec<LaneRecord> {
        self.replica.set_writers(self.roster().writers(BTreeMap::new(), BTreeMap::new())).records
    }
}
