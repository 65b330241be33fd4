//! A node's documents: what it was told, what it tells, and what its peers lack.
//!
//! A replica holds the documents of one node, knows who may write them, and writes the lanes of its own key. It is
//! memory only: every change comes with the [`LaneRecord`]s that make it durable, and its owner stores those before
//! it lets anybody hear of the change. After a failed commit the owner makes a new replica and loads it, or calls
//! [`Replica::commit_failed`]; either way the next write is under a new stamp, so that no position is used twice.
//!
//! Where to start reading: [`Replica::receive`], [`Replica::write`], [`Writers`], then [`crate::lane`].

mod counters;
mod record;
mod writers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use counters::Counters;
pub use record::{LaneRecord, document_prefix};
pub use writers::{AuthorityWriter, Writers};

use crate::codec::{self, DecodeEnvelopeError};
use crate::document::Document;
use crate::entropy::Entropy;
use crate::envelope::{DocumentId, Envelope, Head, Need, Op, Path, Position, Value};
use crate::id::{FleetId, KeyId, LocalId, Stamp};
use crate::key::{Domain, PublicKey, SecretKey, Signature};
use crate::lane::{self, Changes, ForkProof, Lane, LaneMemory, Outcome, Refusal, State, WriteError};
use crate::limit;
use crate::planted::{Bug, is_planted};
use crate::resolve::{DesiredLane, Resolved, resolve};
use crate::session::message::{LaneHead, LogPosition};
use crate::time::Now;

/// What became of bytes that were received.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Received {
    /// What became of them.
    pub outcome: Outcome,
    /// The document that they name, if they could be read.
    pub document: Option<DocumentId>,
    /// The lane that they name, if they could be read.
    pub lane: Option<KeyId>,
    /// What to store.
    pub records: Vec<LaneRecord>,
    /// The documents whose state has changed: this one's, and those in which something waited for it.
    pub changed: BTreeSet<DocumentId>,
    /// The document in which to call [`Replica::reopen`]: a higher branch of this device's own lane has come in.
    pub reopen: Option<DocumentId>,
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Written {
    /// The envelopes, for those who are connected; none when nothing would have changed.
    pub envelopes: Vec<Arc<[u8]>>,
    /// What to store.
    pub records: Vec<LaneRecord>,
    /// The documents whose state has changed.
    pub changed: BTreeSet<DocumentId>,
    /// The lane's head now.
    pub head: Option<Head>,
}

/// What a change of who may write has led to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Settled {
    /// What to store.
    pub records: Vec<LaneRecord>,
    /// The documents whose state has changed, or in which a lane began or ceased to count.
    pub changed: BTreeSet<DocumentId>,
}

/// Why a stored record cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// It is neither an envelope nor a lane's memory, or only a newer agent reads it.
    #[error("the record is no envelope that this agent reads")]
    Decode(#[from] DecodeEnvelopeError),
    /// It is of another fleet.
    #[error("the record is of fleet {found}, this node is of {expected}")]
    ForeignFleet {
        /// This node's fleet.
        expected: FleetId,
        /// The record's.
        found: FleetId,
    },
    /// It does not follow what was loaded before: something is missing from the store. What was loaded stands, and
    /// peers will send the rest.
    #[error("the record at {position:?} in lane {lane} of {document} does not follow {head:?}")]
    Broken {
        /// The document.
        document: DocumentId,
        /// The lane.
        lane: KeyId,
        /// Where it stands.
        position: Position,
        /// What was loaded last.
        head: Option<Head>,
    },
    /// Its document has as many lanes as it may.
    #[error("{document} has {lanes_max} lanes, which is the limit")]
    Lanes {
        /// The document.
        document: DocumentId,
        /// The limit.
        lanes_max: usize,
    },
}

/// Whether a lane counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LaneStanding {
    /// It counts.
    Live,
    /// Its key may not write it, or not any more.
    Void,
    /// Two hold its key.
    Quarantined,
    /// It counts, but its writer has written what only a newer agent understands.
    NeedsAgent,
}

/// The documents of one node.
#[derive(Clone, Debug)]
pub struct Replica {
    fleet: FleetId,
    key: Option<SecretKey>,
    /// The key's id.
    own: Option<KeyId>,
    entropy: Entropy,
    stamp: Stamp,
    writers: Writers,
    documents: BTreeMap<DocumentId, Document>,
    counters: Counters,
}

impl Replica {
    /// Starts a replica that holds nothing yet, and takes the right to write.
    #[must_use]
    pub fn new(fleet: FleetId, writer: Option<SecretKey>, entropy: &mut Entropy) -> Self {
        let mut entropy = Entropy::from_seed(entropy.bytes());
        let stamp = if is_planted(Bug::StampKept) { Stamp(1) } else { Stamp::draw(&mut entropy) };
        let own = writer.as_ref().map(SecretKey::id);
        Self {
            fleet,
            key: writer,
            own,
            entropy,
            stamp,
            writers: Writers::default(),
            documents: BTreeMap::new(),
            counters: Counters::default(),
        }
    }

    /// Holds a document: envelopes of others are refused.
    pub fn hold(&mut self, document: DocumentId) {
        self.documents.entry(document).or_insert_with(|| Document::new(document));
    }

    /// Takes one stored record, in the order of their keys. Signatures are not checked again: the store has its own
    /// checksums. After the last record, [`Replica::set_writers`] lets what waits have its effect.
    ///
    /// # Errors
    /// [`LoadError`]; what was loaded before stands.
    pub fn load(&mut self, bytes: &[u8]) -> Result<(), LoadError> {
        if LaneMemory::is_one(bytes) {
            let memory = LaneMemory::decode(bytes)?;
            self.load_lane(memory.document, memory.lane)?.recall(memory);
            return Ok(());
        }
        let envelope = codec::decode(bytes)?;
        if envelope.body.fleet != self.fleet {
            return Err(LoadError::ForeignFleet { expected: self.fleet, found: envelope.body.fleet });
        }
        let (document, lane, position) = (envelope.body.document, envelope.body.lane, envelope.body.position);
        let lane_of = self.load_lane(document, lane)?;
        let head = lane_of.head();
        if lane_of.load(envelope) { Ok(()) } else { Err(LoadError::Broken { document, lane, position, head }) }
    }

    fn load_lane(&mut self, document: DocumentId, lane: KeyId) -> Result<&mut Lane, LoadError> {
        let held = self.documents.entry(document).or_insert_with(|| Document::new(document));
        if !held.has_room_for(lane) {
            return Err(LoadError::Lanes { document, lanes_max: limit::DOCUMENT_LANES_MAX });
        }
        Ok(held.begin(lane))
    }

    /// Says who may write from now on. Lanes become void or count again, and what waited for a trust version or for
    /// a lane that is void now has its effect, whatever the order in which all this came.
    pub fn set_writers(&mut self, writers: Writers) -> Settled {
        let before = self.standings();
        self.writers = writers;
        let (records, mut changed) = self.settle();
        let after = self.standings();
        changed.extend(before.symmetric_difference(&after).map(|(document, ..)| *document));
        Settled { records, changed }
    }

    fn standings(&self) -> BTreeSet<(DocumentId, KeyId, LaneStanding, u8)> {
        let rank = |lane| self.writers.authorities.get(&lane).map_or(0, |authority| authority.rank.0);
        self.lanes()
            .map(|(document, lane)| {
                let key = lane.writer();
                (document, key, self.standing_of(document, lane), rank(key))
            })
            .collect()
    }

    /// Who may write.
    #[must_use]
    pub const fn writers(&self) -> &Writers {
        &self.writers
    }

    /// This node's fleet.
    #[must_use]
    pub const fn fleet(&self) -> FleetId {
        self.fleet
    }

    /// The lane that this node writes, if it has a key.
    #[must_use]
    pub const fn own_lane(&self) -> Option<KeyId> {
        self.own
    }

    /// Takes an envelope from a peer, if it is worth something.
    pub fn receive(&mut self, bytes: &[u8]) -> Received {
        let mut received = self.receive_uncounted(bytes);
        self.counters.count(&received.outcome);
        if let (Some(document), Some(lane)) = (received.document, received.lane) {
            let overtaken = |lane: &Lane| lane.is_overtaken(self.stamp) && !lane.is_quarantined();
            let own = matches!(document, DocumentId::Actual(_)) && self.own_lane() == Some(lane);
            received.reopen = self.lane(document, lane).filter(|lane| own && overtaken(lane)).map(|_| document);
        }
        received
    }

    fn receive_uncounted(&mut self, bytes: &[u8]) -> Received {
        let envelope = match codec::decode(bytes) {
            Ok(envelope) => envelope,
            Err(DecodeEnvelopeError::Class { document, lane, .. }) => {
                self.mark_needs_agent(document, lane, bytes);
                return outcome(Outcome::NeedsAgent, Some((document, lane)));
            }
            Err(error) if error.needs_agent() => return outcome(Outcome::NeedsAgent, None),
            Err(error) => return outcome(Outcome::Refused(error.into()), None),
        };
        let (document, lane) = (envelope.body.document, envelope.body.lane);
        let named = Some((document, lane));
        let key = match self.admit(&envelope) {
            Ok(key) => key,
            Err(refusal) => return outcome(Outcome::Refused(refusal), named),
        };
        let Some((evicted, mut lane_of)) = self.take_lane(document, lane) else {
            let lanes_max = limit::DOCUMENT_LANES_MAX;
            return outcome(Outcome::Refused(Refusal::Lanes { document, lanes_max }), named);
        };
        let (result, changes) = lane_of.receive(envelope, &key, |need| self.is_met(need));
        let mut received = outcome(result, named);
        self.put_back(document, lane_of, evicted, &changes, &mut received.records);
        if changes.state {
            received.changed.insert(document);
        }
        self.record(document, lane, changes, &mut received.records);
        let (records, changed) = self.settle();
        received.records.extend(records);
        received.changed.extend(changed);
        received
    }

    /// Checks what costs nothing: the fleet, the document, and whether the key may write there.
    fn admit(&self, envelope: &Envelope) -> Result<PublicKey, Refusal> {
        let body = &envelope.body;
        if body.fleet != self.fleet {
            return Err(Refusal::ForeignFleet { expected: self.fleet, found: body.fleet });
        }
        if !self.documents.contains_key(&body.document) {
            return Err(Refusal::NotHeld { document: body.document });
        }
        self.writer_key(body.document, body.lane)
    }

    fn writer_key(&self, document: DocumentId, lane: KeyId) -> Result<PublicKey, Refusal> {
        match (self.writers.key(document, lane), &self.key) {
            (Ok(key), _) => Ok(*key),
            // What comes back of this node's own writing.
            (Err(Refusal::ForeignLane { .. }), Some(key))
                if self.own == Some(lane)
                    && document == DocumentId::Actual(lane.into())
                    && !self.writers.revoked.contains(&lane) =>
            {
                Ok(key.public())
            }
            (Err(refusal), _) => Err(refusal),
        }
    }

    /// Takes a lane out of its document, so that it can be changed while the others are read. Where there is no
    /// room for it, the lane of a key that may not write there gives way.
    fn take_lane(&mut self, document: DocumentId, lane: KeyId) -> Option<(Option<Lane>, Lane)> {
        let held = self.documents.get(&document)?;
        let evicted = if held.has_room_for(lane) {
            None
        } else {
            let void = held.lanes().map(Lane::writer).find(|writer| self.writer_key(document, *writer).is_err())?;
            Some(void)
        };
        let held = self.documents.get_mut(&document)?;
        let evicted = evicted.and_then(|void| held.remove(void));
        Some((evicted, held.remove(lane).unwrap_or_else(|| Lane::new(document, lane))))
    }

    /// Puts a lane back, unless it is still empty; and with it the one that made room, unless it was needed.
    fn put_back(
        &mut self,
        document: DocumentId,
        lane: Lane,
        evicted: Option<Lane>,
        changes: &Changes,
        records: &mut Vec<LaneRecord>,
    ) {
        let keep = !lane.is_blank();
        let Some(held) = self.documents.get_mut(&document) else { return };
        match evicted {
            Some(void) if changes.put.is_empty() => held.put(void),
            Some(void) => {
                let writer = void.writer();
                let forgotten =
                    void.positions().map(|position| LaneRecord::Forget { document, lane: writer, position });
                records.extend(forgotten);
                records.push(LaneRecord::ForgetMemory { document, lane: writer });
            }
            None => {}
        }
        if keep {
            held.put(lane);
        }
    }

    fn mark_needs_agent(&mut self, document: DocumentId, lane: KeyId, bytes: &[u8]) {
        let Ok(key) = self.writer_key(document, lane) else { return };
        let Some((signed, signature)) = bytes.split_last_chunk::<{ Signature::LENGTH }>() else { return };
        let signature = Signature::from_slice(signature);
        let vouched = signature.is_some_and(|signature| key.verify(Domain::Envelope, signed, &signature).is_ok());
        if let (true, Some(held)) = (vouched, self.documents.get_mut(&document))
            && held.has_room_for(lane)
        {
            held.begin(lane).mark_needs_agent();
        }
    }

    /// Writes `ops` into this node's lane of `document`. The first write under a stamp, and every now and then
    /// another, carries the lane's whole state.
    ///
    /// # Errors
    /// [`WriteError`]; nothing was written.
    pub fn write(&mut self, now: Now, document: DocumentId, ops: Vec<Op>) -> Result<Written, WriteError> {
        self.write_when(now, document, ops, Vec::new())
    }

    /// Writes `ops`, to have their effect on each node once it has what `needs` names.
    ///
    /// # Errors
    /// [`WriteError`]; nothing was written.
    pub fn write_when(
        &mut self,
        now: Now,
        document: DocumentId,
        ops: Vec<Op>,
        needs: Vec<Need>,
    ) -> Result<Written, WriteError> {
        let key = self.key.clone().ok_or(WriteError::ReadOnly)?;
        let lane = self.own_lane().ok_or(WriteError::ReadOnly)?;
        if !self.documents.contains_key(&document) {
            return Err(WriteError::NotHeld { document });
        }
        self.writer_key(document, lane).map_err(|_| WriteError::NotAllowed { document, lane })?;
        let lanes_max = limit::DOCUMENT_LANES_MAX;
        let taken = self.take_lane(document, lane).ok_or(WriteError::Lanes { document, lanes_max })?;
        let (evicted, mut lane_of) = taken;
        let writer = lane::Writer { fleet: self.fleet, key: &key, stamp: self.stamp, now };
        let result = lane_of.write(writer, ops, needs, |need| self.is_met(need));
        let head = lane_of.head();
        let mut written = Written { head, ..Written::default() };
        let none = Changes::default();
        let changes = result.as_ref().map_or(&none, |(_, changes)| changes);
        self.put_back(document, lane_of, evicted, changes, &mut written.records);
        let (envelopes, changes) = result?;
        written.envelopes = envelopes.into_iter().map(|envelope| envelope.bytes).collect();
        if changes.state {
            written.changed.insert(document);
        }
        self.record(document, lane, changes, &mut written.records);
        let (records, changed) = self.settle();
        written.records.extend(records);
        written.changed.extend(changed);
        Ok(written)
    }

    /// Writes an opener above a higher branch of this node's own lane, once: what [`Received::reopen`] asks for.
    /// Nothing is written when there is no such branch.
    ///
    /// # Errors
    /// [`WriteError`]; nothing was written.
    pub fn reopen(&mut self, now: Now, document: DocumentId) -> Result<Written, WriteError> {
        self.write(now, document, Vec::new())
    }

    /// Takes the right to write anew, since it is not known what of the last turn is on disk.
    pub fn commit_failed(&mut self) {
        self.stamp = Stamp::draw(&mut self.entropy);
    }

    fn record(&self, document: DocumentId, lane: KeyId, changes: Changes, records: &mut Vec<LaneRecord>) {
        let put = |(position, bytes)| LaneRecord::Put { document, lane, position, bytes };
        // What was appended and at once replaced by a snapshot is never stored.
        let (forget, put_now): (BTreeSet<_>, Vec<_>) = (changes.forget.iter().copied().collect(), changes.put);
        records.extend(put_now.into_iter().filter(|(position, _)| !forget.contains(position)).map(put));
        records.extend(changes.forget.into_iter().map(|position| LaneRecord::Forget { document, lane, position }));
        if changes.remember
            && let Some(lane_of) = self.lane(document, lane)
        {
            records.push(LaneRecord::Remember { document, lane, bytes: lane_of.memory() });
        }
    }

    /// Lets what waits have its effect, until nothing more does.
    fn settle(&mut self) -> (Vec<LaneRecord>, BTreeSet<DocumentId>) {
        let (mut records, mut changed) = (Vec::new(), BTreeSet::new());
        // Heads do not change here, so that one look at each lane is enough.
        let parked: Vec<_> = self.lanes().filter(|(_, lane)| lane.parked() > 0).collect();
        let parked: Vec<_> = parked.into_iter().map(|(document, lane)| (document, lane.writer())).collect();
        for (document, writer) in parked {
            let Some(mut lane) = self.documents.get_mut(&document).and_then(|held| held.remove(writer)) else {
                continue;
            };
            let changes = lane.settle(|need| self.is_met(need));
            if changes.state {
                changed.insert(document);
            }
            if let Some(held) = self.documents.get_mut(&document) {
                held.put(lane);
            }
            self.record(document, writer, changes, &mut records);
        }
        (records, changed)
    }

    /// Says whether a need is met: by the lane's head, whether what stands there waits or not; and by a revoked key,
    /// whose lane will never get there. So what was met once stays met.
    fn is_met(&self, need: &Need) -> bool {
        match need {
            Need::TrustVersion(version) => self.writers.trust_version >= *version,
            Need::Head { lane, .. } if self.writers.revoked.contains(lane) => true,
            Need::Head { document, lane, position } => {
                self.lane(*document, *lane).and_then(Lane::head).is_some_and(|head| head.position >= *position)
            }
        }
    }

    fn lanes(&self) -> impl Iterator<Item = (DocumentId, &Lane)> {
        self.documents.values().flat_map(|document| document.lanes().map(|lane| (document.id(), lane)))
    }

    /// One lane, whether it counts or not.
    #[must_use]
    pub fn lane(&self, document: DocumentId, lane: KeyId) -> Option<&Lane> {
        self.documents.get(&document)?.lane(lane)
    }

    /// What one lane says, whether it counts or not.
    #[must_use]
    pub fn lane_state(&self, document: DocumentId, lane: KeyId) -> Option<&State> {
        self.lane(document, lane).map(Lane::state)
    }

    /// The documents that this node holds.
    pub fn documents(&self) -> impl Iterator<Item = &Document> {
        self.documents.values()
    }

    /// What all lanes of a document say, whether they count or not; of the trust document, this is what a roster is
    /// made of.
    pub fn entries(&self, document: DocumentId) -> impl Iterator<Item = (KeyId, &Path, &Value)> {
        let lanes = self.documents.get(&document).into_iter().flat_map(Document::lanes);
        lanes.flat_map(|lane| lane.entries().map(|(path, value)| (lane.writer(), path, value)))
    }

    /// Says whether a lane counts.
    #[must_use]
    pub fn standing(&self, document: DocumentId, lane: KeyId) -> Option<LaneStanding> {
        self.lane(document, lane).map(|lane| self.standing_of(document, lane))
    }

    fn standing_of(&self, document: DocumentId, lane: &Lane) -> LaneStanding {
        match () {
            () if self.writer_key(document, lane.writer()).is_err() => LaneStanding::Void,
            () if lane.is_quarantined() => LaneStanding::Quarantined,
            () if lane.needs_agent() => LaneStanding::NeedsAgent,
            () => LaneStanding::Live,
        }
    }

    /// The head of each lane that is not void, sorted.
    #[must_use]
    pub fn heads(&self) -> Vec<LaneHead> {
        self.lanes()
            .filter(|(document, lane)| self.standing_of(*document, lane) != LaneStanding::Void)
            .filter_map(|(document, lane)| {
                lane.head_for_peers().map(|head| LaneHead { document, lane: lane.writer(), head })
            })
            .collect()
    }

    /// A digest over the heads of the documents that this node holds, and how far log streams have come: two nodes
    /// with one digest have nothing to say to each other.
    #[must_use]
    pub fn digest(&self, log_positions: &[LogPosition]) -> [u8; 16] {
        digest(&self.heads(), log_positions)
    }

    /// The envelopes of a lane that a peer lacks whose head is `have`, in order.
    #[must_use]
    pub fn envelopes_after(&self, document: DocumentId, lane: KeyId, have: Option<Head>) -> Vec<Arc<[u8]>> {
        let lane = self.lane(document, lane).filter(|lane| self.writer_key(document, lane.writer()).is_ok());
        lane.map(|lane| lane.envelopes_after(have)).unwrap_or_default()
    }

    /// What a device should run, by all lanes of its desired document that count.
    #[must_use]
    pub fn resolve(&self, device: LocalId) -> Resolved {
        let document = DocumentId::Desired(device);
        let lanes = self.documents.get(&document).into_iter().flat_map(Document::lanes);
        let lanes: Vec<_> = lanes
            .filter(|lane| self.writer_key(document, lane.writer()).is_ok())
            .filter_map(|lane| {
                let rank = self.writers.authorities.get(&lane.writer())?.rank;
                let entries = lane.entries().collect();
                Some(DesiredLane { lane: lane.writer(), rank, head: lane.settled_head(), entries })
            })
            .collect();
        resolve(&lanes)
    }

    /// The lanes that forked, each with its proof.
    pub fn fork_proofs(&self) -> impl Iterator<Item = (DocumentId, KeyId, &ForkProof)> {
        self.lanes().filter_map(|(document, lane)| lane.fork_proof().map(|proof| (document, lane.writer(), proof)))
    }

    /// What became of all that was received.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }
}

/// A digest over sorted heads and log positions.
#[must_use]
pub fn digest(heads: &[LaneHead], log_positions: &[LogPosition]) -> [u8; 16] {
    let (mut heads, mut log_positions): (Vec<_>, Vec<_>) = (heads.iter().collect(), log_positions.iter().collect());
    heads.sort();
    log_positions.sort();
    let mut writer = codec::Writer::new();
    writer.count(heads.len());
    for LaneHead { document, lane, head } in heads {
        codec::write_document(&mut writer, *document);
        let Position { epoch, stamp, seq } = head.position;
        writer.array(lane.as_bytes()).varint(epoch).fixed_u64(stamp.0).varint(seq).array(head.hash.as_bytes());
    }
    writer.count(log_positions.len());
    for LogPosition { stream, sequence } in log_positions {
        writer.text(stream.workload.as_str()).array(stream.boot.as_bytes());
        writer.fixed_u64(stream.stamp.0).varint(*sequence);
    }
    let mut digest = [0; 16];
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"fleetd/digest/1\0").update(&writer.finish()).finalize_xof().fill(&mut digest);
    digest
}

fn outcome(outcome: Outcome, named: Option<(DocumentId, KeyId)>) -> Received {
    Received {
        outcome,
        document: named.map(|(document, _)| document),
        lane: named.map(|(_, lane)| lane),
        records: Vec::new(),
        changed: BTreeSet::new(),
        reopen: None,
    }
}
