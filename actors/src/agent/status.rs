//! What somebody at the device may see of the agent: where it stands with its server, and why not better.

use fleetd_sync_core::id::{DeviceId, FleetId};
use fleetd_sync_core::name::DeviceName;
use fleetd_sync_core::session::CloseCode;
use fleetd_sync_core::session::dial::Phase;
use fleetd_sync_core::time::{Monotonic, Now, Wall};
use fleetd_sync_core::trust::RootChain;

use super::record::Membership;
use super::{Agent, AgentTurn, Effect};

/// What somebody at the device may see of the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentStatus {
    /// What a server calls the device, once it has joined.
    pub device: Option<(DeviceId, DeviceName)>,
    /// The fleet that it belongs to, or whose token it has.
    pub fleet: Option<FleetId>,
    /// The newest root record's version; 0 before there is one.
    pub trust_version: u64,
    /// Where it stands with its server, in a word.
    pub link: &'static str,
    /// The server's address that was dialled last.
    pub address: Option<String>,
    /// Whether somebody must approve it.
    pub is_pending: bool,
    /// Why its request to join was turned down, if it was.
    pub refusal: Option<String>,
    /// Why the last connection ended or never was; `None` since one was live.
    pub failure: Option<LinkFailure>,
    /// When it dials next, while it waits.
    pub next_dial_at: Option<Wall>,
}

/// Why a connection to a server ended, or never was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkFailure {
    /// What programs compare.
    pub code: String,
    /// What people read.
    pub message: String,
    /// Which address was dialled.
    pub address: Option<String>,
    /// When.
    pub at: Wall,
}

/// How a connection ended, or why it never was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEnd {
    /// One of the two ends closed it, and said why.
    Closed(CloseCode),
    /// Nothing was heard for too long.
    TimedOut,
    /// The address could not be resolved or dialled; the text says why.
    Unreachable(String),
    /// The handshake failed, or the other end broke the transport's rules; the text says how.
    Broken(String),
}

impl LinkEnd {
    /// Why, where either end said so.
    #[must_use]
    pub const fn code(&self) -> Option<CloseCode> {
        match self {
            Self::Closed(code) => Some(*code),
            Self::TimedOut | Self::Unreachable(_) | Self::Broken(_) => None,
        }
    }

    /// What went wrong, for programs and for people; `None` when nothing did.
    fn fault(&self) -> Option<(String, String)> {
        let (code, message) = match self {
            Self::Closed(CloseCode::Done | CloseCode::Redial) => return None,
            Self::Closed(code) => return Some((code.to_string().replace(' ', "_"), sentence(*code))),
            Self::TimedOut => ("timeout", "nothing is heard from the server".to_owned()),
            Self::Unreachable(cause) => ("unreachable", cause.clone()),
            Self::Broken(cause) => ("broken", cause.clone()),
        };
        Some((code.to_owned(), message))
    }
}

fn sentence(code: CloseCode) -> String {
    let sentence = match code {
        CloseCode::Revoked => "the fleet revoked this device's key",
        CloseCode::Retired => "an operator retired this device, or must decide who holds its key",
        CloseCode::Unknown => "the server does not know this device",
        CloseCode::NeedsAgent => "the server and this agent speak no common version of the protocol",
        CloseCode::WrongFleet => "the server belongs to another fleet",
        CloseCode::Impostor => "the server cannot prove that it belongs to this device's fleet",
        CloseCode::Busy => "the server has too much to do",
        CloseCode::Timeout => "the server does not answer in time",
        CloseCode::Replaced => "a newer connection with this device's key took the place of this one",
        CloseCode::Internal => "one end of the connection failed in itself",
        other => return format!("the connection ended: {other}"),
    };
    sentence.to_owned()
}

/// What is kept to be shown.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    /// Which address was dialled last.
    pub(super) address: Option<String>,
    failure: Option<LinkFailure>,
    /// The time of the next dial, and its date as that was first shown: a date must not drift from turn to turn.
    next_dial: Option<(Monotonic, Wall)>,
    pub(super) last: Option<AgentStatus>,
}

impl Agent {
    /// Remembers why there is no connection.
    pub(super) fn note_end(&mut self, now: Now, end: &LinkEnd) {
        if let Some((code, message)) = end.fault() {
            let address = self.shown.address.clone();
            self.shown.failure = Some(LinkFailure { code, message, address, at: now.wall });
        }
    }

    /// Forgets why there was no connection, since there is one.
    pub(super) fn forget_failure(&mut self) {
        self.shown.failure = None;
    }

    /// Shows where it stands, if that has changed.
    pub(super) fn show(&mut self, now: Now, turn: &mut AgentTurn) {
        let status = self.status(now);
        if self.shown.last.as_ref() != Some(&status) {
            self.shown.last = Some(status.clone());
            turn.effect(Effect::Show(status));
        }
    }

    fn status(&mut self, now: Now) -> AgentStatus {
        let next_dial_at = self.next_dial_at(now);
        let membership = &self.record.membership;
        let (device, refusal) = match membership {
            Membership::Enrolled { device, name, .. } => (Some((*device, name.clone())), None),
            Membership::Refused { code, message } => (None, Some(format!("{code}: {message}"))),
            Membership::Unknown | Membership::Pending { .. } => (None, None),
        };
        AgentStatus {
            device,
            fleet: self.fleet(),
            trust_version: self.chain.as_ref().map_or(0, RootChain::version),
            link: self.link_word(),
            address: self.shown.address.clone(),
            is_pending: matches!(membership, Membership::Pending { .. }),
            refusal,
            failure: self.shown.failure.clone(),
            next_dial_at,
        }
    }

    /// When it dials next; `None` when it need not wait.
    fn next_dial_at(&mut self, now: Now) -> Option<Wall> {
        let Phase::Idle { until } = *self.dialler.phase() else {
            self.shown.next_dial = None;
            return None;
        };
        if until <= now.monotonic {
            return None;
        }
        if self.shown.next_dial.is_none_or(|(shown, _)| shown != until) {
            self.shown.next_dial = Some((until, now.wall + until.since(now.monotonic)));
        }
        self.shown.next_dial.map(|(_, date)| date)
    }

    fn link_word(&self) -> &'static str {
        match self.dialler.phase() {
            Phase::Unconfigured => "unconfigured",
            Phase::Idle { .. } => "waiting",
            Phase::Dial { .. } => "dialling",
            Phase::Hello { .. } => "greeting",
            Phase::Enroll { .. } => "enrolling",
            Phase::Reconcile { .. } => "reconciling",
            Phase::Live { .. } => "live",
            Phase::Draining { .. } => "closing",
            Phase::Stopped => "stopped",
        }
    }
}
