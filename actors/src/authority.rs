//! One server as an authority: the root chain that it holds, and its lane of the trust document.
//!
//! It takes root records that somebody signed elsewhere, writes revocations, and tells every device's actor what
//! trust is now. It cannot give a role to a key: only the root can.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::envelope::{DocumentId, Op, ParsePathError, Value};
use fleetd_sync_core::id::{FleetId, KeyId, OperationId};
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
    pub chain: RootChain,
    /// What chain and document together say of keys.
    pub roster: Arc<Roster>,
    /// The trust document's envelopes, for devices that lack them.
    pub envelopes: Vec<Arc<[u8]>>,
}

/// Decides what trust is on this server.
#[derive(Debug)]
pub struct Authority {
    chain: RootChain,
    replica: Replica,
    announced: bool,
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
    /// A device brings envelopes of the trust document that another authority wrote.
    Received(Vec<Arc<[u8]>>),
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
}

impl Authority {
    /// Takes the authority up from what is stored.
    ///
    /// # Errors
    /// [`LoadError`] when a stored envelope cannot be taken.
    pub fn load(
        fleet: FleetId,
        chain: RootChain,
        key: SecretKey,
        stored: impl IntoIterator<Item = Vec<u8>>,
        entropy: &mut Entropy,
    ) -> Result<Self, LoadError> {
        let mut replica = Replica::new(fleet, Some(key), entropy);
        replica.hold(DocumentId::Trust);
        for bytes in stored {
            replica.load(&bytes)?;
        }
        Ok(Self { chain, replica, announced: false })
    }

    /// What trust is now.
    #[must_use]
    pub fn trust(&self) -> Arc<Trust> {
        let lanes = self.replica.heads();
        let envelopes = lanes.iter().flat_map(|head| self.replica.envelopes_after(head.document, head.lane, None));
        Arc::new(Trust { chain: self.chain.clone(), roster: Arc::new(self.roster()), envelopes: envelopes.collect() })
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
            Input::Received(envelopes) => self.on_received(&envelopes, turn),
        }
    }

    fn handle_timeout(&mut self, _now: Now, turn: &mut Turn<Record, Effect>) {
        if !self.announced {
            self.announced = true;
            self.settle(turn);
            turn.effect(Effect::Announce(self.trust()));
        }
    }

    fn poll_timeout(&self) -> Option<Monotonic> {
        None
    }
}

impl Authority {
    fn on_root_record(&mut self, operation: OperationId, record: RootRecord, turn: &mut Turn<Record, Effect>) {
        let version = record.body().version;
        let result = match self.chain.extend(record.clone()) {
            Ok(Extension::Extended) => {
                turn.persist(Record::Root(Box::new(record)));
                self.settle(turn);
                turn.effect(Effect::Announce(self.trust()));
                Ok(())
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

    fn on_revoke(
        &mut self,
        now: Now,
        operation: OperationId,
        key: KeyId,
        revocation: Revocation,
        turn: &mut Turn<Record, Effect>,
    ) {
        let result = self.revoke(now, key, revocation, turn);
        if result == Ok(true) {
            self.settle(turn);
            turn.effect(Effect::Announce(self.trust()));
        }
        turn.effect(Effect::Answer { operation, result: result.map(drop) });
    }

    fn on_received(&mut self, envelopes: &[Arc<[u8]>], turn: &mut Turn<Record, Effect>) {
        let mut changed = false;
        for envelope in envelopes {
            let received = self.replica.receive(envelope);
            changed |= !received.changed.is_empty();
            received.records.into_iter().for_each(|record| turn.persist(Record::Lane(record)));
        }
        if changed {
            self.settle(turn);
            turn.effect(Effect::Announce(self.trust()));
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
        let settled = self.replica.set_writers(self.roster().writers(BTreeMap::new(), BTreeMap::new()));
        settled.records.into_iter().for_each(|record| turn.persist(Record::Lane(record)));
    }
}
