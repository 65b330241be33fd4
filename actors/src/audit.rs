//! The audit log: gives each entry its number and its place in the chain, and sees that each call gets its outcome.
//!
//! Whoever changes something asks for an entry first, and acts when it is durable. A call whose caller has gone, or
//! that the server's end cut off, is looked up later by the receipt that its change would have left, and gets its
//! outcome then. The log is bounded by its number of entries, and refusals leave few: nobody fills a disk with what
//! they may not do. The first entry that is kept holds the hash of the last one that is not.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use fleetd_sync_core::audit::{By, Chain, Entry, EntryHash, Outcome, Stage};
use fleetd_sync_core::counted::Counted;
use fleetd_sync_core::id::{AccessId, OperationId};
use fleetd_sync_core::limit;
use fleetd_sync_core::machine::{Machine, Turn};
use fleetd_sync_core::time::{Monotonic, Now};

/// Time after which nobody answers a call any more whose caller has gone: an actor must have answered in 10 s.
const LEFT_FOR: Duration = Duration::from_secs(15);
/// Entries that are forgotten at once.
const FORGOTTEN_AT_ONCE: u64 = 256;
/// Time in which a caller's refusals are counted together.
const REFUSALS_COUNTED_FOR: Duration = Duration::from_hours(1);

/// What the server calls what it did by itself.
pub mod action {
    /// It started.
    pub const START: &str = "server/start";
    /// It was made of a backup.
    pub const RESTORE: &str = "server/restore";
    /// It made an access token for the operator on its own machine.
    pub const OWN_TOKEN: &str = "server/create_own_token";
    /// It took a device up again whose record was lost.
    pub const RECOVER: &str = "server/recover_device";
    /// It gave a device another certificate.
    pub const RENEW: &str = "server/renew_certificate";
    /// A rollout has ended by itself.
    pub const ROLLOUT_ENDED: &str = "server/end_rollout";
    /// A rollout has stopped by itself.
    pub const ROLLOUT_HALTED: &str = "server/halt_rollout";
    /// It forgot old entries of this log.
    pub const FORGET: &str = "server/forget_audit_entries";
    /// It counted refusals that left no entry.
    pub const REFUSALS: &str = "server/count_refusals";
}

/// Where the log stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The first entry that is kept; above the last when there is none.
    pub first: u64,
    /// The last entry; 0 when there was none yet.
    pub last: u64,
    /// Its hash, or the fleet's origin.
    pub head: EntryHash,
}

impl Standing {
    /// A log without entries.
    #[must_use]
    pub const fn empty(origin: EntryHash) -> Self {
        Self { first: 1, last: 0, head: origin }
    }
}

/// What is to be noted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Who.
    pub by: By,
    /// What.
    pub action: String,
    /// On what.
    pub subjects: Vec<String>,
    /// What was asked, without secrets.
    pub request: String,
}

impl Call {
    /// Something that the server does by itself.
    #[must_use]
    pub fn own(action: &str, subject: Option<String>, request: String) -> Self {
        Self { by: By::Server, action: action.to_owned(), subjects: subject.into_iter().collect(), request }
    }
}

/// The audit log.
#[derive(Debug)]
pub struct Audit {
    first: u64,
    chain: Chain,
    kept: u64,
    open: BTreeMap<u64, Open>,
    refusals: Refusals,
}

/// A call that has no outcome yet.
#[derive(Debug)]
struct Open {
    by: By,
    action: String,
    subjects: Vec<String>,
    request_id: String,
    look: Look,
}

/// Whether somebody will say how a call ended.
#[derive(Debug)]
enum Look {
    /// It is being answered.
    Answering,
    /// It was taken from the store, and the time since is not known yet.
    Loaded,
    /// Nobody waits for its answer: its receipt is looked for at this time.
    At(Monotonic),
    /// It is being looked for.
    Asked,
}

/// Refusals for too low a role, within an hour.
#[derive(Debug, Default)]
struct Refusals {
    until: Option<Monotonic>,
    noted: BTreeMap<By, u32>,
    more: usize,
}

/// What can happen to it.
#[derive(Clone, Debug)]
pub enum Input {
    /// A call is about to act. Answered by [`Effect::Noted`].
    Intend {
        /// The operation.
        operation: OperationId,
        /// The call.
        call: Call,
        /// What identifies it across repetitions.
        request_id: String,
    },
    /// A call has ended. Answered by [`Effect::Noted`].
    Conclude {
        /// The operation.
        operation: OperationId,
        /// The entry of its intent.
        intent: u64,
        /// What it turned out to be about.
        subjects: Vec<String>,
        /// How it ended.
        outcome: Outcome,
    },
    /// Nobody waits for a call's outcome any more.
    Leave {
        /// The entry of its intent.
        intent: u64,
    },
    /// Answers [`Effect::Look`].
    Looked {
        /// The entry of its intent.
        intent: u64,
        /// Whether its change was made.
        is_made: bool,
    },
    /// Something was decided, and is done once this is durable. Answered by [`Effect::Noted`] where an operation is
    /// given.
    Note {
        /// The operation.
        operation: Option<OperationId>,
        /// What.
        call: Call,
        /// How it ended.
        outcome: Outcome,
    },
    /// A caller's role was too low.
    Refuse {
        /// What was called.
        call: Call,
        /// What the caller was told.
        code: String,
    },
}

/// What must be remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// An entry.
    Entry {
        /// Its number.
        number: u64,
        /// The entry, encoded.
        entry: Vec<u8>,
    },
    /// Where the log stands.
    Standing(Standing),
    /// A call has no outcome yet.
    Opened {
        /// The entry of its intent.
        intent: u64,
        /// The entry, encoded.
        entry: Vec<u8>,
    },
    /// It has.
    Closed {
        /// The entry of its intent.
        intent: u64,
    },
    /// Entries are not kept any more.
    Forgotten {
        /// The first of them.
        first: u64,
        /// The last of them.
        last: u64,
    },
}

/// What it wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Answer whoever asked for an entry: it is durable.
    Noted {
        /// The operation.
        operation: OperationId,
        /// The entry's number.
        number: u64,
    },
    /// Look whether a call's change has left its receipt.
    Look {
        /// The entry of its intent.
        intent: u64,
        /// Whose call it was.
        caller: AccessId,
        /// What identifies it.
        request_id: String,
    },
}

type AuditTurn = Turn<Record, Effect>;

impl Audit {
    /// Takes the log up, with the intents that have no outcome.
    #[must_use]
    pub fn load(standing: &Standing, intents: impl IntoIterator<Item = Entry>) -> Self {
        let opened = intents.into_iter().filter_map(|entry| {
            let Stage::Intent { request_id, .. } = entry.stage else { return None };
            let (by, action, subjects) = (entry.by, entry.action, entry.subjects);
            Some((entry.number, Open { by, action, subjects, request_id, look: Look::Loaded }))
        });
        Self {
            first: standing.first,
            chain: Chain::after(standing.last, standing.head),
            kept: limit::AUDIT_ENTRIES_KEPT,
            open: opened.collect(),
            refusals: Refusals::default(),
        }
    }

    /// The same log, which keeps so many entries.
    #[must_use]
    pub fn keeping(self, kept: u64) -> Self {
        Self { kept, ..self }
    }
}

impl Machine for Audit {
    type Input = Input;
    type Record = Record;
    type Effect = Effect;

    fn handle(&mut self, now: Now, input: Input, turn: &mut AuditTurn) {
        match input {
            Input::Intend { operation, call, request_id } => self.on_intend(now, operation, call, request_id, turn),
            Input::Conclude { operation, intent, subjects, outcome } => {
                let number = self.conclude(now, intent, subjects, outcome, turn);
                turn.effect(Effect::Noted { operation, number });
            }
            Input::Leave { intent } => self.on_leave(now, intent),
            Input::Looked { intent, is_made } => {
                let outcome = if is_made { Outcome::Made } else { Outcome::Unknown };
                self.conclude(now, intent, Vec::new(), outcome, turn);
            }
            Input::Note { operation, call, outcome } => self.on_note(now, operation, call, outcome, turn),
            Input::Refuse { call, code } => self.on_refuse(now, call, code, turn),
        }
        self.assert_invariants();
    }

    fn handle_timeout(&mut self, now: Now, turn: &mut AuditTurn) {
        for open in self.open.values_mut().filter(|open| matches!(open.look, Look::Loaded)) {
            // It may have been loaded beside calls that are still being answered.
            open.look = Look::At(now.monotonic + LEFT_FOR);
        }
        self.look(now, turn);
        if self.refusals.until.is_some_and(|until| until <= now.monotonic) {
            let Refusals { more, .. } = std::mem::take(&mut self.refusals);
            if more > 0 {
                let request = format!("{} for too low a role left no entry", Counted(more, "more refusal"));
                self.whole(now, Call::own(action::REFUSALS, None, request), Outcome::Done, turn);
            }
        }
    }

    fn poll_timeout(&self) -> Option<Monotonic> {
        let looks = self.open.values().filter_map(|open| match open.look {
            Look::At(at) => Some(at),
            Look::Answering | Look::Loaded | Look::Asked => None,
        });
        looks.chain(self.refusals.until).min()
    }
}

impl Audit {
    fn on_intend(&mut self, now: Now, operation: OperationId, call: Call, request_id: String, turn: &mut AuditTurn) {
        let Call { by, action, subjects, request } = call;
        let stage = Stage::Intent { request_id: request_id.clone(), request };
        let (number, entry) = self.append(now, (by.clone(), action.clone(), subjects.clone()), stage, turn);
        turn.persist(Record::Opened { intent: number, entry });
        self.open.insert(number, Open { by, action, subjects, request_id, look: Look::Answering });
        turn.effect(Effect::Noted { operation, number });
    }

    fn on_leave(&mut self, now: Now, intent: u64) {
        if let Some(open) = self.open.get_mut(&intent) {
            open.look = Look::At(now.monotonic + LEFT_FOR);
        }
    }

    fn on_note(
        &mut self,
        now: Now,
        operation: Option<OperationId>,
        call: Call,
        outcome: Outcome,
        turn: &mut AuditTurn,
    ) {
        let number = self.whole(now, call, outcome, turn);
        if let Some(operation) = operation {
            turn.effect(Effect::Noted { operation, number });
        }
    }

    fn on_refuse(&mut self, now: Now, call: Call, code: String, turn: &mut AuditTurn) {
        self.refusals.until.get_or_insert(now.monotonic + REFUSALS_COUNTED_FOR);
        let all: u32 = self.refusals.noted.values().sum();
        let noted = self.refusals.noted.get(&call.by).copied().unwrap_or_default();
        if all >= limit::AUDIT_REFUSALS_MAX || noted >= limit::AUDIT_REFUSALS_EACH_MAX {
            self.refusals.more = self.refusals.more.saturating_add(1);
            return;
        }
        self.refusals.noted.insert(call.by.clone(), noted.saturating_add(1));
        self.whole(now, call, Outcome::Refused(code), turn);
    }

    /// Has the receipts looked for of calls that nobody will conclude.
    fn look(&mut self, now: Now, turn: &mut AuditTurn) {
        let is_due = |open: &Open| matches!(open.look, Look::At(at) if at <= now.monotonic);
        let due: Vec<u64> = self.open.iter().filter(|(_, open)| is_due(open)).map(|(intent, _)| *intent).collect();
        for intent in due {
            let Some(open) = self.open.get_mut(&intent) else { continue };
            open.look = Look::Asked;
            match &open.by {
                By::Token { id, .. } if !open.request_id.is_empty() => {
                    let (caller, request_id) = (*id, open.request_id.clone());
                    turn.effect(Effect::Look { intent, caller, request_id });
                }
                _ => drop(self.conclude(now, intent, Vec::new(), Outcome::Unknown, turn)),
            }
        }
    }

    /// Gives a call its outcome, once, and returns the entry that has it.
    fn conclude(
        &mut self,
        now: Now,
        intent: u64,
        subjects: Vec<String>,
        outcome: Outcome,
        turn: &mut AuditTurn,
    ) -> u64 {
        // One that has its outcome already was given up, and has ended all the same.
        let Some(open) = self.open.remove(&intent) else { return self.chain.last() };
        let mut about = open.subjects;
        about.extend(subjects);
        let (number, _) = self.append(now, (open.by, open.action, about), Stage::Outcome { intent, outcome }, turn);
        turn.persist(Record::Closed { intent });
        number
    }

    fn whole(&mut self, now: Now, call: Call, outcome: Outcome, turn: &mut AuditTurn) -> u64 {
        let Call { by, action, subjects, request } = call;
        self.append(now, (by, action, subjects), Stage::Whole { request, outcome }, turn).0
    }

    fn append(
        &mut self,
        now: Now,
        about: (By, String, Vec<String>),
        stage: Stage,
        turn: &mut AuditTurn,
    ) -> (u64, Vec<u8>) {
        let appended = self.chain(now, about, stage, turn);
        self.forget_old(now, turn);
        let standing = Standing { first: self.first, last: self.chain.last(), head: self.chain.head() };
        turn.persist(Record::Standing(standing));
        appended
    }

    fn chain(
        &mut self,
        now: Now,
        (by, action, mut subjects): (By, String, Vec<String>),
        stage: Stage,
        turn: &mut AuditTurn,
    ) -> (u64, Vec<u8>) {
        keep_first_of_each(&mut subjects);
        let (number, previous) = (self.chain.last().saturating_add(1), self.chain.head());
        let (at, quality) = (now.wall, now.quality);
        let entry = Entry { number, previous, at, quality, by, action, subjects, stage }.encode();
        self.chain = Chain::after(number, EntryHash::of(&entry));
        turn.persist(Record::Entry { number, entry: entry.clone() });
        (number, entry)
    }

    /// Forgets the oldest entries when there are too many, many at once, and says so in an entry of its own. A log that
    /// was taken up with far too many, by whatever it says of itself, loses them over time and not in one turn.
    fn forget_old(&mut self, now: Now, turn: &mut AuditTurn) {
        let count = self.chain.last().saturating_sub(self.first).saturating_add(1);
        if count < self.kept.saturating_add(FORGOTTEN_AT_ONCE) {
            return;
        }
        let (first, last) = (self.first, self.first.saturating_add(FORGOTTEN_AT_ONCE - 1));
        turn.persist(Record::Forgotten { first, last });
        self.first = last.saturating_add(1);
        let request = format!("entries {first} to {last}: {} are kept", self.kept);
        let Call { by, action, subjects, request } = Call::own(action::FORGET, None, request);
        self.chain(now, (by, action, subjects), Stage::Whole { request, outcome: Outcome::Done }, turn);
    }

    fn assert_invariants(&self) {
        assert!(self.first <= self.chain.last().saturating_add(1), "the log begins behind its end");
        let last = self.open.keys().next_back().copied().unwrap_or_default();
        assert!(last <= self.chain.last(), "call {last} is open, and has no entry");
    }
}

/// A device that was named by its id is one thing, not two.
fn keep_first_of_each(subjects: &mut Vec<String>) {
    let mut kept: Vec<String> = Vec::new();
    subjects.retain(|subject| !subject.is_empty());
    for subject in subjects.drain(..) {
        if !kept.contains(&subject) {
            kept.push(subject);
        }
    }
    *subjects = kept;
}
