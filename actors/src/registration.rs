//! Who may join: tokens, names, approvals, and certificates for those who may.
//!
//! A device shows a token and proves its key. The machine checks both, notes the use of the token, finds a name, has a
//! certificate issued, hands the device to its own actor, and answers only when that has it durably. Asking twice
//! with one key is asking once: one device, one use of the token, one name. A revoked key never joins again.
//!
//! A token of another fleet never gets here with its secret: the device sees that this server's root chain is not
//! that of its token, and leaves. An id that nobody here has made is refused as unknown all the same.

mod device_name;
mod recovery;
#[cfg(test)]
mod tests;
pub mod token;
mod trace;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use fleetd_sync_core::enrolment::{Admission, TokenSecret, TokenState};
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::id::{DeviceId, LocalId, OperationId, TokenId};
use fleetd_sync_core::key::PublicKey;
use fleetd_sync_core::limit;
use fleetd_sync_core::machine::{Machine, Turn};
use fleetd_sync_core::name::DeviceName;
use fleetd_sync_core::session::CloseCode;
use fleetd_sync_core::session::message::{Refusal, Register, Registered, Renewed};
use fleetd_sync_core::time::{Monotonic, Now};
use fleetd_sync_core::trust::Roster;

use crate::device::record::{DeviceRecord, Membership};
use token::{Answer, Command, CommandError, Decision, Given, KnownDevice, PendingDevice, TokenRecord, TokenWish};
use trace::Next;

/// Registrations and renewals that may be under way at once; who comes later is asked to come again.
const OPEN_MAX: usize = 1024;
/// Time in which a registration must be through, before the device is asked to come again.
const OPEN_FOR_MAX: Duration = Duration::from_secs(30);
/// Ceiling of the pause for a device that waits for approval or comes at a bad time; the floor is half of it.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// Names that are tried for one device: each try draws from ten times as many.
const NAME_TRIES_MAX: u32 = 16;

/// Who may join.
#[derive(Debug)]
pub struct Registration {
    roster: Arc<Roster>,
    entropy: Entropy,
    tokens: BTreeMap<TokenId, TokenRecord>,
    pending: BTreeMap<LocalId, PendingDevice>,
    open: BTreeMap<OperationId, Open>,
    /// Devices that are joining right now, and the names that are kept for them.
    joining: BTreeSet<LocalId>,
    names: BTreeSet<DeviceName>,
}

/// A registration or renewal that is under way.
#[derive(Debug)]
struct Open {
    /// The operation of whoever asked.
    asked: OperationId,
    until: Monotonic,
    local: LocalId,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The store is asked whether it knows the device, and whether the name is free.
    Find { applicant: Box<Applicant>, name: DeviceName, tries: u32 },
    /// The certificate is being issued.
    Issue { record: Box<DeviceRecord> },
    /// The device's actor is taking it over.
    Enrol { device: DeviceId, name: DeviceName, certificates: Vec<Vec<u8>> },
    /// The certificate of a known device is being renewed.
    Renew,
    /// The audit log takes what is about to be done.
    Trace { applicant: Box<Applicant>, next: Next },
    /// The same, for a device whose record was lost.
    TraceLost { record: Box<DeviceRecord> },
    /// The store is asked whether a name is free for a device whose record was lost.
    FindLost { key: PublicKey, name: DeviceName, tries: u32 },
    /// The device's actor is taking its new record over.
    Recover { name: DeviceName },
}

/// A device that asks to join, and showed a good token.
#[derive(Debug)]
struct Applicant {
    key: PublicKey,
    request: Register,
    needs_approval: bool,
}

/// What can happen to it.
#[derive(Clone, Debug)]
pub enum Input {
    /// A device asks for an identity.
    Register {
        /// Answered by [`Effect::Registered`].
        operation: OperationId,
        /// The key of its signing request, whose signature was found good.
        key: PublicKey,
        /// What it says.
        request: Box<Register>,
    },
    /// A device of the fleet asks for a new certificate.
    Renew {
        /// Answered by [`Effect::Renewed`].
        operation: OperationId,
        /// The device, as its old certificate proved.
        device: LocalId,
        /// The key of its signing request, whose signature was found good.
        key: PublicKey,
    },
    /// A device proved a certificate of the fleet's CA, and there is no record of it. Answered by [`Effect::Enrol`] or
    /// [`Effect::NotRecovered`].
    Recover {
        /// The device.
        device: LocalId,
        /// Its key.
        key: PublicKey,
    },
    /// Answers [`Effect::Find`].
    Found {
        /// The operation.
        operation: OperationId,
        /// The device, if it is known.
        known: Option<KnownDevice>,
        /// Whether no device has the name.
        name_is_free: bool,
    },
    /// Answers [`Effect::Trace`].
    Traced {
        /// The operation.
        operation: OperationId,
    },
    /// Answers [`Effect::Issue`].
    Issued {
        /// The operation.
        operation: OperationId,
        /// The certificate and those above it, leaf first, in DER; or why there is none.
        result: Result<Vec<Vec<u8>>, String>,
    },
    /// Answers [`Effect::Enrol`].
    Enrolled {
        /// The operation.
        operation: OperationId,
    },
    /// An operator asks for something.
    Command {
        /// Answered by [`Effect::Answer`].
        operation: OperationId,
        /// Who.
        caller: String,
        /// What.
        command: Command,
    },
    /// Whose word counts now.
    Trust(Arc<Roster>),
}

/// What must be remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A token was made or changed. Its uses are not part of this.
    Token(Box<TokenRecord>),
    /// A device used a token, beside all that used it before.
    TokenUsed {
        /// The token.
        token: TokenId,
        /// The device.
        device: LocalId,
    },
    /// A device waits for approval, or an operator said something of it.
    Pending(Box<PendingDevice>),
    /// It waits no more.
    PendingGone(LocalId),
}

/// What it wants done.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Look a device and a name up.
    Find {
        /// The operation.
        operation: OperationId,
        /// The device.
        device: LocalId,
        /// The name.
        name: DeviceName,
    },
    /// Have the audit log take what is about to be done, durably.
    Trace {
        /// The operation.
        operation: OperationId,
        /// The device.
        device: LocalId,
        /// The enrolment token that it showed; none when its record was lost, and its certificate proved it.
        token: Option<TokenId>,
        /// What it will be called; none when it is to wait for an operator's word.
        name: Option<DeviceName>,
    },
    /// Issue a certificate for the key, whose holder has signed a request for it, with its id in it and nothing else that
    /// the request says.
    Issue {
        /// The operation.
        operation: OperationId,
        /// The device's key.
        key: PublicKey,
    },
    /// Hand a device to its own actor, which keeps it and its name.
    Enrol {
        /// The operation.
        operation: OperationId,
        /// What is known of it. A device that is known already keeps its name, labels and site.
        record: Box<DeviceRecord>,
    },
    /// Tell a device's actor that there is no new record for it now.
    NotRecovered {
        /// The device.
        device: LocalId,
        /// How its connection should end.
        code: CloseCode,
    },
    /// Answer a device that asked to join.
    Registered {
        /// Its operation.
        operation: OperationId,
        /// The answer.
        registered: Registered,
    },
    /// Answer a device that asked for a new certificate.
    Renewed {
        /// Its operation.
        operation: OperationId,
        /// The answer.
        renewed: Renewed,
    },
    /// Answer an operator.
    Answer {
        /// The operation.
        operation: OperationId,
        /// The answer.
        result: Result<Answer, CommandError>,
    },
}

type RegistrationTurn = Turn<Record, Effect>;

impl Registration {
    /// Takes the registration up. Each token's state holds the devices that have used it.
    #[must_use]
    pub fn load(
        tokens: impl IntoIterator<Item = TokenRecord>,
        pending: impl IntoIterator<Item = PendingDevice>,
        roster: Arc<Roster>,
        entropy: Entropy,
    ) -> Self {
        Self {
            roster,
            entropy,
            tokens: tokens.into_iter().inspect(assert_uses).map(|token| (token.token, token)).collect(),
            pending: pending.into_iter().map(|device| (device.local, device)).collect(),
            open: BTreeMap::new(),
            joining: BTreeSet::new(),
            names: BTreeSet::new(),
        }
    }
}

impl Machine for Registration {
    type Input = Input;
    type Record = Record;
    type Effect = Effect;

    fn handle(&mut self, now: Now, input: Input, turn: &mut RegistrationTurn) {
        match input {
            Input::Register { operation, key, request } => self.on_register(now, operation, key, *request, turn),
            Input::Renew { operation, device, key } => self.on_renew(now, operation, device, key, turn),
            Input::Recover { device, key } => self.on_recover(now, device, key, turn),
            Input::Found { operation, known, name_is_free } => {
                self.on_found(now, operation, known, name_is_free, turn);
            }
            Input::Traced { operation } => self.on_traced(now, operation, turn),
            Input::Issued { operation, result } => self.on_issued(operation, result, turn),
            Input::Enrolled { operation } => self.on_enrolled(operation, turn),
            Input::Command { operation, caller, command } => self.on_command(now, operation, caller, command, turn),
            Input::Trust(roster) => self.roster = roster,
        }
        self.assert_invariants();
    }

    fn handle_timeout(&mut self, now: Now, turn: &mut RegistrationTurn) {
        let late = self.open.iter().filter(|(_, open)| open.until <= now.monotonic);
        let late: Vec<_> = late.map(|(operation, _)| *operation).collect();
        for operation in late {
            if let Some(open) = self.close(operation) {
                self.put_off(&open, turn);
            }
        }
    }

    fn poll_timeout(&self) -> Option<Monotonic> {
        self.open.values().map(|open| open.until).min()
    }

    fn is_idle(&self) -> bool {
        self.open.is_empty()
    }
}

impl Registration {
    fn on_register(
        &mut self,
        now: Now,
        asked: OperationId,
        key: PublicKey,
        request: Register,
        turn: &mut RegistrationTurn,
    ) {
        let local = LocalId::from(key.id());
        let admission = match self.admit(now, local, &request) {
            Ok(admission) => admission,
            Err(refusal) => return answer(asked, Registered::Refused(refusal), turn),
        };
        // One that is joining already asked twice, on two connections: the first goes on, the second comes again.
        if self.open.len() >= OPEN_MAX || self.joining.contains(&local) {
            return answer(asked, Registered::Pending { retry_after: self.pause() }, turn);
        }
        let needs_approval = admission == Admission::NeedsApproval;
        let applicant = Box::new(Applicant { key, request, needs_approval });
        self.joining.insert(local);
        self.find(now, asked, local, applicant, 0, turn);
    }

    fn on_renew(&mut self, now: Now, asked: OperationId, device: LocalId, key: PublicKey, turn: &mut RegistrationTurn) {
        let refusal = if self.roster.is_device_revoked(device) {
            Some(refusal("enrolment.key.revoked", "this device's key was revoked"))
        } else if LocalId::from(key.id()) != device {
            Some(refusal("enrolment.key.other", "the request is for another key than the device's"))
        } else if self.open.len() >= OPEN_MAX {
            Some(refusal("enrolment.busy", "too many devices ask at once; ask again"))
        } else {
            None
        };
        if let Some(refusal) = refusal {
            turn.effect(Effect::Renewed { operation: asked, renewed: Renewed::Refused(refusal) });
            return;
        }
        let operation = self.open(now, asked, device, Stage::Renew);
        turn.effect(Effect::Issue { operation, key });
    }

    fn on_found(
        &mut self,
        now: Now,
        operation: OperationId,
        known: Option<KnownDevice>,
        name_is_free: bool,
        turn: &mut RegistrationTurn,
    ) {
        let Some(open) = self.close(operation) else { return };
        let (asked, local) = (open.asked, open.local);
        let (applicant, name, tries) = match open.stage {
            Stage::Find { applicant, name, tries } => (applicant, name, tries),
            Stage::FindLost { key, name, tries } => {
                let is_free = name_is_free && !self.is_given_away(&name, local);
                return self.on_lost_found(now, (local, key), known.is_some(), (name, is_free, tries), turn);
            }
            _ => return,
        };
        let waits = applicant.needs_approval && !self.is_approved(local);
        match known {
            Some(known) if matches!(known.membership, Membership::Revoked | Membership::Quarantined) => {
                let refusal = refusal("enrolment.device.ended", "this device is not of the fleet any more");
                answer(asked, Registered::Refused(refusal), turn);
            }
            // One that waits for an operator's word gets it by approval only.
            Some(known) if waits && known.membership == Membership::Recovered => {
                self.let_wait(now, asked, applicant, turn);
            }
            Some(known) => self.let_in(now, asked, applicant, (known.device, known.name, true), turn),
            None if waits => self.let_wait(now, asked, applicant, turn),
            None if name_is_free && !self.is_given_away(&name, local) => {
                let device = DeviceId::random(&mut self.entropy);
                self.let_in(now, asked, applicant, (device, name, false), turn);
            }
            None if tries < NAME_TRIES_MAX => {
                self.joining.insert(local);
                self.find(now, asked, local, applicant, tries + 1, turn);
            }
            None => answer(asked, Registered::Pending { retry_after: self.pause() }, turn),
        }
    }

    fn on_issued(&mut self, operation: OperationId, result: Result<Vec<Vec<u8>>, String>, turn: &mut RegistrationTurn) {
        let Some(open) = self.open.get_mut(&operation) else { return };
        let (asked, local, until) = (open.asked, open.local, open.until);
        match (&open.stage, result) {
            (Stage::Renew, Ok(certificates)) => {
                self.close(operation);
                turn.effect(Effect::Renewed { operation: asked, renewed: Renewed::Issued { certificates } });
            }
            (Stage::Renew, Err(cause)) => {
                self.close(operation);
                let refusal = refusal("enrolment.request.invalid", &cause);
                turn.effect(Effect::Renewed { operation: asked, renewed: Renewed::Refused(refusal) });
            }
            (Stage::Issue { record }, Ok(certificates)) => {
                let record = record.clone();
                let stage = Stage::Enrol { device: record.device, name: record.name.clone(), certificates };
                let next = OperationId::random(&mut self.entropy);
                self.open.remove(&operation);
                self.open.insert(next, Open { asked, until, local, stage });
                turn.effect(Effect::Enrol { operation: next, record });
            }
            (Stage::Issue { .. }, Err(cause)) => {
                self.close(operation);
                answer(asked, Registered::Refused(refusal("enrolment.request.invalid", &cause)), turn);
            }
            // It is the answer of another stage than the one it is at.
            (_, _) => {}
        }
    }

    fn on_enrolled(&mut self, operation: OperationId, turn: &mut RegistrationTurn) {
        match self.open.get(&operation).map(|open| &open.stage) {
            Some(Stage::Enrol { .. }) => {}
            Some(Stage::Recover { .. }) => return drop(self.close(operation)),
            _ => return,
        }
        let Some(Open { asked, local, stage: Stage::Enrol { device, name, certificates }, .. }) = self.close(operation)
        else {
            return;
        };
        if self.pending.remove(&local).is_some() {
            turn.persist(Record::PendingGone(local));
        }
        answer(asked, Registered::Issued { device, name, certificates }, turn);
    }

    fn on_command(
        &mut self,
        now: Now,
        operation: OperationId,
        caller: String,
        command: Command,
        turn: &mut RegistrationTurn,
    ) {
        let result = match command {
            Command::CreateToken(wish) => self.create_token(now, caller, wish, turn),
            Command::ListTokens => Ok(Answer::Tokens(self.tokens.values().cloned().collect())),
            Command::RevokeToken(token) => self.revoke_token(now, token, turn),
            Command::ListPending => {
                let waiting = self.pending.values().filter(|device| device.decision == Decision::Waiting);
                let mut waiting: Vec<_> = waiting.cloned().collect();
                waiting.sort_by_key(|device| (device.requested_at, device.local));
                Ok(Answer::Pending(waiting))
            }
            Command::Approve { device, given } => self.approve(now, device, given, turn),
            Command::Deny(device) => self.decide(device, Decision::Denied, Given::default(), turn),
        };
        turn.effect(Effect::Answer { operation, result });
    }

    /// Decides whether a device may join at all, before anything is looked up.
    fn admit(&self, now: Now, local: LocalId, request: &Register) -> Result<Admission, Refusal> {
        if self.roster.is_device_revoked(local) {
            return Err(refusal("enrolment.key.revoked", "this device's key was revoked"));
        }
        let Some(token) = self.tokens.get(&request.token) else {
            return Err(refusal("enrolment.token.unknown", "no token of this fleet has that id"));
        };
        let secret = TokenSecret::from_slice(&request.secret)
            .ok_or_else(|| refusal("enrolment.token.wrong", "the enrolment token's secret is wrong"))?;
        let admission = token
            .state
            .admit(local, &secret, now.wall)
            .map_err(|error| refusal(token::code_of(&error), &error.to_string()))?;
        if request.csr.len() > limit::CSR_BYTES_MAX {
            return Err(refusal("enrolment.request.invalid", "the signing request is too large"));
        }
        if self.pending.get(&local).is_some_and(|device| device.decision == Decision::Denied) {
            return Err(refusal("enrolment.denied", "an operator turned this device away"));
        }
        Ok(admission)
    }

    fn is_approved(&self, local: LocalId) -> bool {
        self.pending.get(&local).is_some_and(|device| device.decision == Decision::Approved)
    }

    /// What an operator gave a device with the approval.
    fn given(&self, local: LocalId) -> Given {
        let approved = self.pending.get(&local).filter(|device| device.decision == Decision::Approved);
        approved.map(|device| device.given.clone()).unwrap_or_default()
    }

    /// Whether a name is another joining device's, or was promised to one with its approval.
    fn is_given_away(&self, name: &DeviceName, local: LocalId) -> bool {
        let others = || self.pending.values().filter(|device| device.local != local);
        self.names.contains(name) || others().any(|device| device.given.name.as_ref() == Some(name))
    }

    fn find(
        &mut self,
        now: Now,
        asked: OperationId,
        local: LocalId,
        applicant: Box<Applicant>,
        tries: u32,
        turn: &mut RegistrationTurn,
    ) {
        // A name that was taken since the approval is drawn again like any other: the device joins all the same.
        let given = self.given(local).name.filter(|_| tries == 0);
        let Some(name) = given.or_else(|| device_name::draw(&mut self.entropy, tries).ok()) else {
            self.joining.remove(&local);
            return answer(asked, Registered::Pending { retry_after: self.pause() }, turn);
        };
        let operation = self.open(now, asked, local, Stage::Find { applicant, name: name.clone(), tries });
        turn.effect(Effect::Find { operation, device: local, name });
    }

    /// Lets a device wait for an operator's word.
    fn wait(&mut self, now: Now, asked: OperationId, applicant: &Applicant, turn: &mut RegistrationTurn) {
        let local = LocalId::from(applicant.key.id());
        if !self.pending.contains_key(&local) && self.pending.len() < limit::PENDING_DEVICES_MAX {
            let device = PendingDevice {
                local,
                key: applicant.key,
                token: applicant.request.token,
                facts: applicant.request.facts.clone(),
                requested_at: now.wall,
                decision: Decision::Waiting,
                given: Given::default(),
            };
            turn.persist(Record::Pending(Box::new(device.clone())));
            self.pending.insert(local, device);
        }
        answer(asked, Registered::Pending { retry_after: self.pause() }, turn);
    }

    /// Notes the use of the token and has a certificate issued.
    fn issue(
        &mut self,
        now: Now,
        asked: OperationId,
        applicant: Applicant,
        device: DeviceId,
        name: DeviceName,
        turn: &mut RegistrationTurn,
    ) {
        let Applicant { key, request, .. } = applicant;
        let local = LocalId::from(key.id());
        // Much may have happened since it was admitted: others may have used the token up meanwhile.
        if let Err(refusal) = self.admit(now, local, &request) {
            return answer(asked, Registered::Refused(refusal), turn);
        }
        let given = self.given(local);
        let Some(token) = self.tokens.get_mut(&request.token) else { return };
        if token.state.used_by.insert(local) {
            assert_uses(token);
            turn.persist(Record::TokenUsed { token: request.token, device: local });
        }
        let mut labels = token.labels.clone();
        labels.extend(given.labels);
        let record = Box::new(DeviceRecord {
            local,
            device,
            name: name.clone(),
            key: key.into(),
            sealing_key: request.sealing_key,
            token: Some(request.token),
            membership: Membership::Enrolled,
            labels,
            site: token.site.clone(),
            facts: request.facts,
            registered_at: now.wall,
            last_heard_at: None,
            wanted: BTreeMap::new(),
            holds: BTreeMap::new(),
            pins: BTreeMap::new(),
            reports: BTreeMap::new(),
            events: VecDeque::new(),
        });
        self.joining.insert(local);
        self.names.insert(name);
        let operation = self.open(now, asked, local, Stage::Issue { record });
        turn.effect(Effect::Issue { operation, key });
    }

    fn create_token(
        &mut self,
        now: Now,
        caller: String,
        wish: TokenWish,
        turn: &mut RegistrationTurn,
    ) -> Result<Answer, CommandError> {
        let count_max = limit::DEVICE_LABELS_MAX;
        if wish.uses_max == 0 {
            return Err(CommandError::NoUses);
        }
        if let Some(expires_at) = wish.expires_at.filter(|expires_at| *expires_at <= now.wall) {
            return Err(CommandError::ExpiresInThePast { expires_at, now: now.wall });
        }
        if wish.labels.len() > count_max {
            return Err(CommandError::TooManyLabels { count: wish.labels.len(), count_max });
        }
        let secret = TokenSecret::draw(&mut self.entropy);
        let token = TokenRecord {
            token: TokenId::random(&mut self.entropy),
            note: wish.note,
            labels: wish.labels,
            site: wish.site,
            state: TokenState {
                secret_hash: secret.hash(),
                uses_max: wish.uses_max,
                used_by: BTreeSet::new(),
                needs_approval: wish.needs_approval.unwrap_or(wish.uses_max > 1),
                expires_at: wish.expires_at,
                revoked_at: None,
            },
            created_at: now.wall,
            created_by: caller,
        };
        self.tokens.insert(token.token, token.clone());
        turn.persist(Record::Token(Box::new(token.clone())));
        Ok(Answer::Created { token: Box::new(token), secret })
    }

    fn revoke_token(&mut self, now: Now, token: TokenId, turn: &mut RegistrationTurn) -> Result<Answer, CommandError> {
        let Some(record) = self.tokens.get_mut(&token) else { return Err(CommandError::UnknownToken { token }) };
        if record.state.revoked_at.is_none() {
            record.state.revoked_at = Some(now.wall);
            turn.persist(Record::Token(Box::new(record.clone())));
        }
        Ok(Answer::Done)
    }

    /// Lets a device in, with all that it is given, or with nothing changed.
    fn approve(
        &mut self,
        now: Now,
        device: LocalId,
        given: Given,
        turn: &mut RegistrationTurn,
    ) -> Result<Answer, CommandError> {
        let Some(pending) = self.pending.get(&device) else { return Err(CommandError::NotPending { device }) };
        // It asks again with that token, and would be turned away with an operator's word.
        if let Some(token) = self.tokens.get(&pending.token)
            && let Err(cause) = token.state.check_open(device, now.wall)
        {
            return Err(CommandError::TokenEnded { device, token: pending.token, cause });
        }
        let mut labels = self.tokens.get(&pending.token).map(|token| token.labels.clone()).unwrap_or_default();
        labels.extend(given.labels.clone());
        if labels.len() > limit::DEVICE_LABELS_MAX {
            let count_max = limit::DEVICE_LABELS_MAX;
            return Err(CommandError::TooManyLabels { count: labels.len(), count_max });
        }
        if let Some(name) = given.name.as_ref().filter(|name| self.is_given_away(name, device)) {
            return Err(CommandError::NameTaken { name: name.clone() });
        }
        self.decide(device, Decision::Approved, given, turn)
    }

    fn decide(
        &mut self,
        device: LocalId,
        decision: Decision,
        given: Given,
        turn: &mut RegistrationTurn,
    ) -> Result<Answer, CommandError> {
        let Some(pending) = self.pending.get_mut(&device) else { return Err(CommandError::NotPending { device }) };
        if pending.decision != decision || pending.given != given {
            pending.decision = decision;
            pending.given = given;
            turn.persist(Record::Pending(Box::new(pending.clone())));
        }
        Ok(Answer::Done)
    }

    fn open(&mut self, now: Now, asked: OperationId, local: LocalId, stage: Stage) -> OperationId {
        let operation = OperationId::random(&mut self.entropy);
        self.open.insert(operation, Open { asked, until: now.monotonic + OPEN_FOR_MAX, local, stage });
        operation
    }

    fn close(&mut self, operation: OperationId) -> Option<Open> {
        let open = self.open.remove(&operation)?;
        match &open.stage {
            Stage::Renew => {}
            Stage::Find { .. } | Stage::FindLost { .. } => {
                self.joining.remove(&open.local);
            }
            Stage::Trace { next: Next::Wait, .. } => {
                self.joining.remove(&open.local);
            }
            Stage::Trace { next: Next::Issue { name, .. }, .. } | Stage::Recover { name } => {
                self.leave(open.local, &name.clone());
            }
            Stage::TraceLost { record } | Stage::Issue { record } => self.leave(open.local, &record.name.clone()),
            Stage::Enrol { name, .. } => self.leave(open.local, &name.clone()),
        }
        Some(open)
    }

    fn leave(&mut self, local: LocalId, name: &DeviceName) {
        self.joining.remove(&local);
        self.names.remove(name);
    }

    /// Asks a device to come again: what was started for it has not answered.
    fn put_off(&mut self, open: &Open, turn: &mut RegistrationTurn) {
        let operation = open.asked;
        match open.stage {
            Stage::Renew => {
                let refusal = refusal("enrolment.busy", "the certificate was not issued in time; ask again");
                turn.effect(Effect::Renewed { operation, renewed: Renewed::Refused(refusal) });
            }
            Stage::FindLost { .. } | Stage::TraceLost { .. } | Stage::Recover { .. } => {
                turn.effect(Effect::NotRecovered { device: open.local, code: CloseCode::Busy });
            }
            Stage::Find { .. } | Stage::Trace { .. } | Stage::Issue { .. } | Stage::Enrol { .. } => {
                answer(operation, Registered::Pending { retry_after: self.pause() }, turn);
            }
        }
    }

    fn pause(&mut self) -> Duration {
        RETRY_AFTER / 2 + self.entropy.jitter(RETRY_AFTER / 2)
    }

    fn assert_invariants(&self) {
        let joining = self.open.values().filter(|open| !matches!(open.stage, Stage::Renew)).count();
        assert_eq!(joining, self.joining.len(), "a device joins twice at once, or was forgotten");
    }
}

/// Holds a token to what it may admit. Whoever changes its uses, or loads them, asks: a fleet has many tokens, and an
/// input touches one.
fn assert_uses(token: &TokenRecord) {
    let uses = u32::try_from(token.state.used_by.len()).unwrap_or(u32::MAX);
    assert!(uses <= token.state.uses_max, "{} admitted more devices than it may", token.token);
}

fn answer(operation: OperationId, registered: Registered, turn: &mut RegistrationTurn) {
    turn.effect(Effect::Registered { operation, registered });
}

fn refusal(code: &'static str, message: &str) -> Refusal {
    Refusal { code: code.to_owned(), message: message.to_owned() }
}
