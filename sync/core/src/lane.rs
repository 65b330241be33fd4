//! One writer's signed, hash-linked changes to one document, as a receiver and as the writer itself hold them.
//!
//! A lane keeps the envelopes since its last snapshot, for sending, and the state that they fold to. It takes an
//! envelope only where it follows; what is missing is asked for and never queued. An envelope that waits for
//! something is kept at the end, counts in the head, and has no effect until its needs are met. Only deltas wait:
//! a snapshot says all that its writer has said, so that equal heads mean equal states.
//!
//! Nothing here is durable: the lane says what to store, and its owner stores that before anybody else hears of it.
//!
//! Where to start reading: [`Outcome`], then [`Lane::receive`], [`fork`](ForkProof), and the lane as its writer
//! sees it in [`writing`](WriteError).

mod fork;
mod memory;
mod outcome;
mod writing;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use fork::ForkProof;
pub(crate) use memory::LaneMemory;
pub use outcome::{Outcome, Refusal, RefusalKind};
pub use writing::{WriteError, Writer};

use crate::envelope::{Body, DocumentId, Envelope, Head, Kind, Need, Op, Path, Position, Previous, Value};
use crate::id::{EnvelopeHash, KeyId, Stamp};
use crate::key::{Domain, PublicKey};
use crate::limit;
use crate::planted::{Bug, is_planted};
use fork::{Takeover, Takeovers};

/// What a lane says: each path with its value.
pub type State = BTreeMap<Path, Value>;

/// The first segment of the path of a hold.
pub const HOLD: &str = "hold";

/// One envelope that is kept. Its operations are kept only while they wait.
#[derive(Clone, Debug)]
struct Link {
    head: Head,
    opener: bool,
    bytes: Arc<[u8]>,
    waiting: Option<Box<Envelope>>,
}

/// A value that a losing branch said and that stays, with the head of that branch.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Residue {
    value: Value,
    lost: Head,
}

/// What the store must do after a lane has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Envelopes to store.
    pub(crate) put: Vec<(Position, Arc<[u8]>)>,
    /// Envelopes to forget.
    pub(crate) forget: Vec<Position>,
    /// Whether to store the lane's memory again.
    pub(crate) remember: bool,
    /// Whether the state has changed.
    pub(crate) state: bool,
}

impl Changes {
    pub(crate) fn extend(&mut self, other: Self) {
        self.put.extend(other.put);
        self.forget.extend(other.forget);
        self.remember |= other.remember;
        self.state |= other.state;
    }
}

/// One lane.
#[derive(Clone, Debug)]
pub struct Lane {
    document: DocumentId,
    writer: KeyId,
    /// One epoch: an opener, and the deltas that follow it.
    links: Vec<Link>,
    /// How many links from the front have their effect.
    settled: usize,
    state: State,
    takeovers: Takeovers,
    residue: BTreeMap<Path, Residue>,
    proof: Option<Arc<ForkProof>>,
    needs_agent: bool,
    /// What this process has written here under its stamp, where the lane is its own.
    pen: Option<writing::Pen>,
}

enum Place {
    Follows,
    Opens,
    Duplicate,
    Stale,
    Gap,
    /// Another body stands at its position.
    Rival(Arc<[u8]>),
    /// It is stale, and a takeover that is worth keeping: a fork may show by it.
    Below(Takeover),
}

impl Lane {
    /// Starts an empty lane.
    #[must_use]
    pub fn new(document: DocumentId, writer: KeyId) -> Self {
        Self {
            document,
            writer,
            links: Vec::new(),
            settled: 0,
            state: State::new(),
            takeovers: Takeovers::default(),
            residue: BTreeMap::new(),
            proof: None,
            needs_agent: false,
            pen: None,
        }
    }

    /// The lane's writer, whose key's id names it.
    #[must_use]
    pub const fn writer(&self) -> KeyId {
        self.writer
    }

    /// The last envelope, whether it waits or not.
    #[must_use]
    pub fn head(&self) -> Option<Head> {
        self.links.last().map(|link| link.head)
    }

    /// The last envelope that has its effect.
    #[must_use]
    pub fn settled_head(&self) -> Option<Head> {
        self.settled.checked_sub(1).and_then(|last| self.links.get(last)).map(|link| link.head)
    }

    /// The positions of the envelopes that are kept.
    pub(crate) fn positions(&self) -> impl Iterator<Item = Position> {
        self.links.iter().map(|link| link.head.position)
    }

    /// The envelopes that have their effect, from an opener on.
    pub fn settled_envelopes(&self) -> impl Iterator<Item = &[u8]> {
        self.links.iter().take(self.settled).map(|link| &*link.bytes)
    }

    /// Says whether there is nothing to keep the lane for.
    pub(crate) const fn is_blank(&self) -> bool {
        self.links.is_empty() && self.proof.is_none() && !self.needs_agent
    }

    /// What the envelopes that have their effect fold to.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// What the lane says: its state, and what stays of a branch that lost.
    pub fn entries(&self) -> impl Iterator<Item = (&Path, &Value)> {
        let residue = self.residue.iter().filter(|(path, _)| !self.state.contains_key(*path));
        self.state.iter().chain(residue.map(|(path, residue)| (path, &residue.value)))
    }

    /// How many envelopes wait.
    #[must_use]
    pub const fn parked(&self) -> usize {
        self.links.len().saturating_sub(self.settled)
    }

    /// Says whether the writer has written what only a newer agent understands.
    #[must_use]
    pub const fn needs_agent(&self) -> bool {
        self.needs_agent
    }

    /// The proof that two hold the lane's key, if there is one.
    #[must_use]
    pub fn fork_proof(&self) -> Option<&ForkProof> {
        self.proof.as_deref()
    }

    /// Says whether the lane counts for nothing since it forked. A device's does; an authority's goes on, with an
    /// alarm, because all devices wait for it.
    #[must_use]
    pub const fn is_quarantined(&self) -> bool {
        self.proof.is_some() && matches!(self.document, DocumentId::Actual(_))
    }

    /// The envelopes that a peer lacks whose head of this lane is `have`: none if it is not behind. Of a
    /// quarantined lane, those that prove the fork.
    #[must_use]
    pub fn envelopes_after(&self, have: Option<Head>) -> Vec<Arc<[u8]>> {
        if let Some(proof) = self.proof.as_deref().filter(|_| self.is_quarantined()) {
            return if have == self.head_for_peers() { Vec::new() } else { proof.envelopes().to_vec() };
        }
        let links = || self.links.iter().map(|link| (link.head, &link.bytes));
        if let Some(known) = have.and_then(|have| links().position(|(head, _)| head == have)) {
            return links().skip(known.saturating_add(1)).map(|(_, bytes)| Arc::clone(bytes)).collect();
        }
        if have.is_some_and(|have| self.head().is_none_or(|head| head.position < have.position)) {
            return Vec::new();
        }
        // By which openers stamps took over, a peer must learn too, or it could not tell a fork from a restart.
        let oldest = self.links.first().map(|link| link.head);
        let on_branch = |have: &Head| self.takeovers.lead_from(*have) || self.is_under_stamp_of(*have);
        let floor = have.filter(on_branch).map(|have| have.position);
        let above = |head: &Head| Some(*head) < oldest && Some(head.position) > floor;
        let takeovers = self.takeovers.iter().filter(|takeover| above(&takeover.head)).map(|takeover| &takeover.bytes);
        takeovers.chain(self.links.iter().map(|link| &link.bytes)).map(Arc::clone).collect()
    }

    fn is_under_stamp_of(&self, have: Head) -> bool {
        self.head().is_some_and(|head| head.position.stamp == have.position.stamp)
    }

    /// The head as peers compare it. All nodes that know of a fork name one head, whatever proved it to them and
    /// wherever they stood, so that they have nothing more to say to each other.
    #[must_use]
    pub fn head_for_peers(&self) -> Option<Head> {
        if self.is_quarantined() {
            let position = Position { epoch: u64::MAX, stamp: Stamp(u64::MAX), seq: u64::MAX };
            return Some(Head { position, hash: EnvelopeHash::from_bytes([0xff; EnvelopeHash::LENGTH]) });
        }
        self.head()
    }

    /// Takes an envelope of this lane from a peer. Its size, and whether its key may write, were looked at before.
    pub(crate) fn receive(
        &mut self,
        envelope: Envelope,
        key: &PublicKey,
        met: impl Fn(&Need) -> bool,
    ) -> (Outcome, Changes) {
        let refused = |refusal| (Outcome::Refused(refusal), Changes::default());
        if self.is_quarantined() {
            return refused(Refusal::Quarantined { document: self.document, lane: self.writer });
        }
        let place = self.place(&envelope);
        match place {
            Place::Duplicate => return (Outcome::Duplicate, Changes::default()),
            Place::Stale => return (Outcome::Stale, Changes::default()),
            Place::Gap => return (Outcome::Gap { have: self.head() }, Changes::default()),
            Place::Follows => {
                if let Err(refusal) = self.check_room(&envelope) {
                    return refused(refusal);
                }
            }
            Place::Opens | Place::Rival(_) | Place::Below(_) => {}
        }
        let is_signed = key.verify(Domain::Envelope, envelope.signed_bytes(), &envelope.signature).is_ok();
        if !(is_signed || is_planted(Bug::SignatureUnchecked)) {
            return refused(Refusal::Signature { lane: self.writer });
        }
        match place {
            Place::Rival(rival) => return self.forked(ForkProof::Rivals([rival, envelope.bytes])),
            Place::Below(takeover) => return self.note(takeover),
            _ => {}
        }
        if let Err(refusal) = self.check_meaning(&envelope) {
            return refused(refusal);
        }
        self.accept(envelope, met)
    }

    fn accept(&mut self, envelope: Envelope, met: impl Fn(&Need) -> bool) -> (Outcome, Changes) {
        let had_proof = self.proof.is_some();
        let changes = self.append(envelope, met);
        let outcome = match &self.proof {
            Some(proof) if !had_proof => Outcome::Forked(Box::new(ForkProof::clone(proof))),
            _ if self.parked() > 0 => Outcome::Parked,
            _ => Outcome::Applied,
        };
        (outcome, changes)
    }

    /// Keeps a takeover that is below the head, unless it closes a circle of stamps.
    fn note(&mut self, takeover: Takeover) -> (Outcome, Changes) {
        if let Some(openers) = self.takeovers.circle(&takeover) {
            return self.forked(ForkProof::Circle(openers));
        }
        self.takeovers.keep(takeover);
        (Outcome::Stale, Changes { remember: true, ..Changes::default() })
    }

    fn forked(&mut self, proof: ForkProof) -> (Outcome, Changes) {
        let outcome = Outcome::Forked(Box::new(proof.clone()));
        self.proof = Some(Arc::new(proof));
        (outcome, Changes { remember: true, state: true, ..Changes::default() })
    }

    fn place(&self, envelope: &Envelope) -> Place {
        let at = envelope.head();
        let held = self.links.iter().map(|link| (link.head, &link.bytes));
        let kept = self.takeovers.iter().map(|takeover| (takeover.head, &takeover.bytes));
        if let Some((head, bytes)) = held.chain(kept).find(|(head, _)| head.position == at.position) {
            return match () {
                () if head == at => Place::Duplicate,
                // One proof is enough, and a lane that goes on in spite of it keeps the body that it has.
                () if self.proof.is_some() => Place::Stale,
                () => Place::Rival(Arc::clone(bytes)),
            };
        }
        let head = self.head();
        if head.is_some_and(|head| at.position < head.position) && !is_planted(Bug::StaleAccepted) {
            let takeover = Takeover::of(envelope).filter(|takeover| self.takeovers.would_keep(takeover));
            return takeover.filter(|_| self.proof.is_none()).map_or(Place::Stale, Place::Below);
        }
        match envelope.body.previous {
            Previous::Start | Previous::Parent(_) => Place::Opens,
            Previous::Link(link) if self.follows(envelope, link) => Place::Follows,
            Previous::Link(_) => Place::Gap,
        }
    }

    fn follows(&self, envelope: &Envelope, link: EnvelopeHash) -> bool {
        self.head().is_some_and(|head| {
            let next = Position { seq: head.position.seq.saturating_add(1), ..head.position };
            envelope.body.position == next && link == head.hash
        })
    }

    /// Says whether what an envelope needs is met. What it needs of its own lane is, if that is not above it.
    fn is_ready(envelope: &Envelope, met: impl Fn(&Need) -> bool) -> bool {
        let body = &envelope.body;
        body.needs.iter().all(|need| match need {
            Need::Head { document, lane, position } if (*document, *lane) == (body.document, body.lane) => {
                *position <= body.position
            }
            _ => met(need),
        })
    }

    /// Checks that an epoch ends where it must, so that a hostile writer cannot fill a receiver's store.
    fn check_room(&self, envelope: &Envelope) -> Result<(), Refusal> {
        let changes = envelope.body.position.seq;
        let bytes = self.epoch_bytes().saturating_add(envelope.bytes.len());
        if changes > limit::EPOCH_CHANGES_MAX || bytes > limit::EPOCH_BYTES_MAX {
            let (changes_max, bytes_max) = (limit::EPOCH_CHANGES_MAX, limit::EPOCH_BYTES_MAX);
            return Err(Refusal::EpochFull { changes, changes_max, bytes, bytes_max });
        }
        Ok(())
    }

    /// Bytes of the changes since the last opener.
    fn epoch_bytes(&self) -> usize {
        self.links.iter().rev().take_while(|link| !link.opener).map(|link| link.bytes.len()).sum()
    }

    fn check_meaning(&self, envelope: &Envelope) -> Result<(), Refusal> {
        if envelope.body.kind == Kind::Snapshot && !is_plain_snapshot(&envelope.body) {
            return Err(Refusal::Snapshot);
        }
        if self.document == DocumentId::Trust {
            for op in &envelope.body.ops {
                if let Op::Delete { path } = op {
                    return Err(Refusal::AddOnly { path: path.clone() });
                }
            }
        }
        Ok(())
    }

    /// Appends an envelope that was checked, and lets it have its effect if it may.
    fn append(&mut self, envelope: Envelope, met: impl Fn(&Need) -> bool) -> Changes {
        let mut changes = Changes::default();
        changes.put.push((envelope.body.position, Arc::clone(&envelope.bytes)));
        self.needs_agent = false;
        if let Some(takeover) = Takeover::of(&envelope) {
            changes.remember = true;
            if self.proof.is_none() {
                self.proof = self.takeovers.circle(&takeover).map(|openers| Arc::new(ForkProof::Circle(openers)));
            }
            self.takeovers.keep(takeover);
        }
        self.push(envelope);
        changes.extend(self.settle(met));
        changes
    }

    fn push(&mut self, envelope: Envelope) {
        let (head, opener, bytes) = (envelope.head(), envelope.is_opener(), Arc::clone(&envelope.bytes));
        if self.links.is_empty() {
            // A lane at rest has one, and there are as many as devices.
            self.links.reserve_exact(1);
        }
        self.links.push(Link { head, opener, bytes, waiting: Some(Box::new(envelope)) });
    }

    /// Lets what waits have its effect, as far as its needs are met. An opener waits for nothing, and replaces all
    /// that is below it.
    pub(crate) fn settle(&mut self, met: impl Fn(&Need) -> bool) -> Changes {
        let mut changes = Changes::default();
        while let Some(envelope) = self.take_ready(&met) {
            changes.state = true;
            if envelope.is_opener() {
                let opener = self.links.len().saturating_sub(1);
                changes.remember |= self.replace(&envelope, opener);
                changes.forget.extend(self.links.drain(..opener).map(|link| link.head.position));
                self.settled = 1;
            } else {
                changes.remember |= self.fold(&envelope.body.ops);
                self.settled = self.settled.saturating_add(1);
            }
        }
        changes
    }

    /// The next envelope that may have its effect: an opener, which is always the last, or the next in order.
    fn take_ready(&mut self, met: impl Fn(&Need) -> bool) -> Option<Box<Envelope>> {
        if let Some(opener) = self.links.last_mut().filter(|link| link.opener && link.waiting.is_some()) {
            return opener.waiting.take();
        }
        let next = self.links.get_mut(self.settled)?;
        if Self::is_ready(next.waiting.as_deref()?, met) { next.waiting.take() } else { None }
    }

    /// Takes over the state of an opener at `index`. Returns whether what stays of losing branches has changed.
    fn replace(&mut self, opener: &Envelope, index: usize) -> bool {
        let before = self.residue.clone();
        let below = if is_planted(Bug::SnapshotNotRefolded) { self.state.clone() } else { State::new() };
        let next = folded(below, &opener.body.ops);
        let grows = self.document == DocumentId::Trust;
        let lost = index.checked_sub(1).and_then(|below| self.links.get(below)).map(|link| link.head);
        if let Some(lost) = lost.filter(|lost| grows || !self.takeovers.descends(opener, *lost)) {
            for (path, value) in &self.state {
                if (grows || self.is_hold(path)) && !next.contains_key(path) {
                    self.residue.insert(path.clone(), Residue { value: value.clone(), lost });
                }
            }
        }
        let takeovers = &self.takeovers;
        self.residue
            .retain(|path, residue| !next.contains_key(path) && (grows || !takeovers.descends(opener, residue.lost)));
        self.state = next;
        before != self.residue
    }

    fn is_hold(&self, path: &Path) -> bool {
        matches!(self.document, DocumentId::Desired(_)) && path.segments().next() == Some(HOLD)
    }

    fn fold(&mut self, ops: &[Op]) -> bool {
        let before = self.residue.len();
        for op in ops {
            if let Op::Delete { path } | Op::Set { path, .. } = op {
                self.residue.remove(path);
            }
        }
        self.state = folded(std::mem::take(&mut self.state), ops);
        before != self.residue.len()
    }

    /// Takes an envelope from this node's own store, if it follows what was loaded before.
    pub(crate) fn load(&mut self, envelope: Envelope) -> bool {
        let follows = match envelope.body.previous {
            Previous::Link(link) => self.follows(&envelope, link),
            _ => self.head().is_none_or(|head| head.position < envelope.body.position),
        };
        if !follows {
            return false;
        }
        if let Some(takeover) = Takeover::of(&envelope) {
            self.takeovers.keep(takeover);
        }
        self.push(envelope);
        // Only what waits for nothing has its effect here: who else is loaded already must not matter.
        let _ = self.settle(|_| false);
        true
    }

    /// Says that the writer has written what only a newer agent understands.
    pub(crate) const fn mark_needs_agent(&mut self) {
        self.needs_agent = true;
    }
}

/// Applies operations in their order. Those that this version does not know change nothing here; they stay in
/// their envelope, for whoever knows them.
pub(crate) fn folded(mut state: State, ops: &[Op]) -> State {
    for op in ops {
        match op {
            Op::Set { path, value } => {
                state.insert(path.clone(), value.clone());
            }
            Op::Delete { path } => {
                state.remove(path);
            }
            Op::Unknown { .. } => {}
        }
    }
    state
}

/// A snapshot is a whole state, and waits for nothing: what it stands on could not be known from the lane's head.
fn is_plain_snapshot(body: &Body) -> bool {
    let mut last: Option<&Path> = None;
    body.needs.is_empty()
        && body.ops.iter().all(|op| match op {
            Op::Set { path, .. } => last.replace(path).is_none_or(|last| last < path),
            Op::Delete { .. } => false,
            Op::Unknown { .. } => true,
        })
}
