//! What each end lacks, and how it gets it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::message::LaneHead;
use super::{Class, CloseCode, Grade, LogPosition, Message, Output, Phase, Push, Session, Side, Summary, Want};
use crate::envelope::{DocumentId, Head};
use crate::id::KeyId;
use crate::lane::{Lane, Outcome};
use crate::limit;
use crate::replica::Replica;
use crate::time::{Monotonic, Now};

impl Session {
    /// Takes what the peer says that it has.
    pub(super) fn on_summary(&mut self, now: Now, summary: Summary, replica: &mut Replica, out: &mut Vec<Output>) {
        let opening = matches!(self.phase, Phase::Comparing { .. });
        match summary {
            Summary::Digest(digest) if opening && digest == self.announced.digest => {
                let (heads, positions) = (self.announced.heads.clone(), self.opening.log_positions.clone());
                self.reconcile(now, &heads, positions, replica, out);
            }
            Summary::Digest(_) if opening && !self.announced.full => self.announce(replica, true, None, out),
            // A digest says something only while the two compare.
            Summary::Digest(_) => {}
            Summary::Full { heads, log_positions } => {
                if !self.announced.full {
                    self.announce(replica, true, None, out);
                }
                self.reconcile(now, &heads, log_positions, replica, out);
            }
        }
    }

    /// Pushes what the peer lacks, and waits for what it has and this end lacks.
    fn reconcile(
        &mut self,
        now: Now,
        peer: &[LaneHead],
        log_positions: Vec<LogPosition>,
        replica: &mut Replica,
        out: &mut Vec<Output>,
    ) {
        let theirs: BTreeMap<_, _> = peer.iter().map(|entry| ((entry.document, entry.lane), entry.head)).collect();
        let own: BTreeMap<_, _> =
            replica.heads().into_iter().map(|entry| ((entry.document, entry.lane), entry.head)).collect();
        let mut batch = Batch::default();
        for (key, head) in &own {
            let have = theirs.get(key).copied();
            if self.may_send(key.0) && have != Some(*head) {
                for bytes in replica.envelopes_after(key.0, key.1, have) {
                    batch.add(Class::of_document(key.0), bytes, out);
                }
            }
        }
        batch.finish(out);
        let behind = |(key, head): (&(DocumentId, KeyId), &Head)| {
            let lacks = own.get(key).is_none_or(|own| own.position < head.position);
            (lacks && self.may_receive(key.0) && admits(replica, *key)).then_some((*key, head.position))
        };
        let awaited: BTreeMap<_, _> = theirs.iter().filter_map(behind).collect();
        if matches!(self.phase, Phase::Comparing { .. }) {
            out.push(Output::LogPositions(log_positions));
            self.phase = Phase::Reconciling { deadline: now.monotonic + limit::RECONCILE_TIMEOUT, awaited };
            self.settle(now, replica, out);
        } else {
            awaited.keys().for_each(|key| self.want(now.monotonic, *key, replica, out));
        }
    }

    /// Takes envelopes from the peer.
    pub(super) fn on_push(&mut self, now: Now, push: Push, replica: &mut Replica, out: &mut Vec<Output>) {
        match &mut self.phase {
            Phase::Greeting { early, .. } if matches!(self.opening.side, Side::Device(_)) => {
                // A live change may overtake the server's Hello, which is on another stream.
                let bytes: usize = early.iter().chain([&push]).flat_map(|push| &push.envelopes).map(|e| e.len()).sum();
                if bytes > limit::EARLY_BYTES_MAX || early.len() == limit::EARLY_PUSHES_MAX {
                    return self.close(CloseCode::Unexpected, out);
                }
                return early.push(push);
            }
            Phase::Greeting { .. } | Phase::Enrolling { .. } | Phase::Closed => {
                self.counters.unexpected += 1;
                return;
            }
            Phase::Comparing { .. } | Phase::Reconciling { .. } | Phase::Live => {}
        }
        for bytes in &push.envelopes {
            self.on_envelope(now.monotonic, bytes, replica, out);
        }
        self.settle(now, replica, out);
    }

    fn on_envelope(&mut self, now: Monotonic, bytes: &Arc<[u8]>, replica: &mut Replica, out: &mut Vec<Output>) {
        let received = replica.receive(bytes);
        out.extend(received.records.into_iter().map(Output::Persist));
        out.extend(received.changed.into_iter().map(Output::Changed));
        self.reopen.extend(received.reopen);
        let (Some(document), Some(lane)) = (received.document, received.lane) else { return };
        let key = (document, lane);
        match received.outcome {
            Outcome::Applied | Outcome::Parked => {
                self.wanted.remove(&key);
                out.push(Output::Applied { document, lane, envelope: Arc::clone(bytes) });
            }
            Outcome::Gap { .. } => {
                self.counters.gaps += 1;
                self.want(now, key, replica, out);
            }
            Outcome::Forked(proof) => out.push(Output::Fork { document, lane, proof }),
            Outcome::NeedsAgent => {
                out.push(Output::NeedsAgent { document, lane });
                self.stop_awaiting(key);
            }
            Outcome::Refused(_) => self.stop_awaiting(key),
            Outcome::Duplicate | Outcome::Stale => {}
        }
        self.arrive(key, replica);
    }

    /// Answers a peer that lacks something.
    pub(super) fn on_want(&mut self, want: Want, replica: &Replica, out: &mut Vec<Output>) {
        let open = matches!(self.phase, Phase::Comparing { .. } | Phase::Reconciling { .. } | Phase::Live);
        if !open || !self.may_send(want.document) {
            self.counters.unexpected += 1;
            return;
        }
        let mut batch = Batch::default();
        for bytes in replica.envelopes_after(want.document, want.lane, want.have) {
            batch.add(Class::of_document(want.document), bytes, out);
        }
        batch.finish(out);
    }

    /// Pushes envelopes that were written here, or came from elsewhere, as soon as they are durable.
    ///
    /// Before the peer's heads are known nothing needs to be sent: what it lacks is found out then.
    pub fn on_local_change(&mut self, document: DocumentId, envelopes: &[Arc<[u8]>], out: &mut Vec<Output>) {
        if !matches!(self.phase, Phase::Reconciling { .. } | Phase::Live) || !self.may_send(document) {
            return;
        }
        let mut batch = Batch::default();
        for bytes in envelopes {
            batch.add(Class::of_document(document), Arc::clone(bytes), out);
        }
        batch.finish(out);
    }

    /// Asks for the rest of a lane, unless that was asked for a moment ago.
    fn want(&mut self, now: Monotonic, key: (DocumentId, KeyId), replica: &Replica, out: &mut Vec<Output>) {
        if self.wanted.get(&key).is_some_and(|again| *again > now) {
            return;
        }
        self.wanted.insert(key, now + limit::WANT_AGAIN);
        let (document, lane) = key;
        let have = head(replica, key);
        out.push(Output::Send(Class::Control, Message::Want(Want { document, lane, have })));
    }

    /// Strikes a lane off the list of what is awaited, once it is there.
    fn arrive(&mut self, key: (DocumentId, KeyId), replica: &Replica) {
        if let Phase::Reconciling { awaited, .. } = &mut self.phase
            && let Some(position) = awaited.get(&key)
            && head(replica, key).is_some_and(|head| head.position >= *position)
        {
            awaited.remove(&key);
        }
    }

    /// Forgets that a lane is awaited: what came of it is worth nothing here.
    fn stop_awaiting(&mut self, key: (DocumentId, KeyId)) {
        if let Phase::Reconciling { awaited, .. } = &mut self.phase {
            awaited.remove(&key);
        }
    }

    /// Goes live when nothing is awaited any more.
    fn settle(&mut self, now: Now, replica: &mut Replica, out: &mut Vec<Output>) {
        if matches!(&self.phase, Phase::Reconciling { awaited, .. } if awaited.is_empty()) {
            self.phase = Phase::Live;
            self.reopen_lanes(now, replica, out);
            out.push(Output::Live);
        } else if matches!(self.phase, Phase::Live) {
            self.reopen_lanes(now, replica, out);
        }
    }

    /// Writes above a higher branch of this node's own lane, which an earlier life of its store has left with the
    /// peer: once, when all of it is there.
    fn reopen_lanes(&mut self, now: Now, replica: &mut Replica, out: &mut Vec<Output>) {
        for document in std::mem::take(&mut self.reopen) {
            // A state that fits no snapshot was not written by this node; the next write reports it.
            let Ok(written) = replica.reopen(now, document) else { continue };
            out.extend(written.records.into_iter().map(Output::Persist));
            self.on_local_change(document, &written.envelopes, out);
        }
    }

    /// Goes live without what the peer said it had: it keeps it back, or this end refuses it.
    pub(super) fn give_up_awaiting(&mut self, out: &mut Vec<Output>) {
        if matches!(self.phase, Phase::Reconciling { .. }) {
            self.phase = Phase::Live;
            out.push(Output::Live);
        }
    }

    /// A session that only renews a certificate keeps desired state back: an expired device gets none.
    fn may_send(&self, document: DocumentId) -> bool {
        match (&self.opening.side, self.grade) {
            (_, None | Some(Grade::Enroll)) => false,
            (_, Some(Grade::Full)) | (Side::Device(_), Some(Grade::RenewOnly)) => true,
            (Side::Server(_), Some(Grade::RenewOnly)) => document == DocumentId::Trust,
        }
    }

    fn may_receive(&self, document: DocumentId) -> bool {
        match (&self.opening.side, self.grade) {
            (_, None | Some(Grade::Enroll)) => false,
            (_, Some(Grade::Full)) | (Side::Server(_), Some(Grade::RenewOnly)) => true,
            (Side::Device(_), Some(Grade::RenewOnly)) => document == DocumentId::Trust,
        }
    }
}

/// Where a lane ends, as peers compare it.
fn head(replica: &Replica, (document, lane): (DocumentId, KeyId)) -> Option<Head> {
    replica.lane(document, lane).and_then(Lane::head_for_peers)
}

/// Says whether envelopes of a lane would be taken: what never comes is not awaited.
fn admits(replica: &Replica, (document, lane): (DocumentId, KeyId)) -> bool {
    let own = matches!(document, DocumentId::Actual(_)) && replica.own_lane() == Some(lane);
    let own = own && !replica.writers().revoked.contains(&lane);
    own || replica.writers().key(document, lane).is_ok()
}

/// Envelopes on their way into pushes: one class each, and no larger than a frame.
#[derive(Default)]
struct Batch {
    class: Option<Class>,
    envelopes: Vec<Arc<[u8]>>,
    bytes: usize,
}

impl Batch {
    fn add(&mut self, class: Class, bytes: Arc<[u8]>, out: &mut Vec<Output>) {
        let full =
            self.bytes + bytes.len() > limit::PUSH_BYTES_MAX || self.envelopes.len() == limit::PUSH_ENVELOPES_MAX;
        if full || self.class.is_some_and(|before| before != class) {
            std::mem::take(self).finish(out);
        }
        self.class = Some(class);
        self.bytes += bytes.len();
        self.envelopes.push(bytes);
    }

    fn finish(self, out: &mut Vec<Output>) {
        if let Some(class) = self.class {
            out.push(Output::Send(class, Message::Push(Push { envelopes: self.envelopes })));
        }
    }
}
