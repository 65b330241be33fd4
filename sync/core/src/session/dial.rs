//! How a device finds its server again: addresses in turn, pauses with full jitter, and the phases of a connection.
//!
//! A round tries each address once. After a round in which none led to a server that let the device in, it pauses
//! for a random time below a ceiling that doubles with each failed round. The number of failed rounds outlives a
//! reboot, so that a fleet whose power comes back does not dial as one.

use std::time::Duration;

use crate::entropy::Entropy;
use crate::id::ConnectionId;
use crate::limit;
use crate::session::{CloseCode, Grade};
use crate::time::Monotonic;

/// Where a device stands with its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It knows no address.
    Unconfigured,
    /// It has no connection, and dials at this time.
    Idle {
        /// When.
        until: Monotonic,
    },
    /// It dials.
    Dial {
        /// The connection to be.
        connection: ConnectionId,
        /// Until when it may take.
        deadline: Monotonic,
    },
    /// The ends are joined, and the server's Hello has not been verified.
    Hello {
        /// The connection.
        connection: ConnectionId,
    },
    /// The server let it in to register, and nothing else.
    Enroll {
        /// The connection.
        connection: ConnectionId,
    },
    /// The server let it in, and the two tell each other what they lack.
    Reconcile {
        /// The connection.
        connection: ConnectionId,
        /// [`Grade::RenewOnly`] or [`Grade::Full`].
        grade: Grade,
    },
    /// Both have what the other has, and changes travel as they happen.
    Live {
        /// The connection.
        connection: ConnectionId,
        /// [`Grade::RenewOnly`] or [`Grade::Full`].
        grade: Grade,
    },
    /// It has closed the connection and waits for its end.
    Draining {
        /// The connection.
        connection: ConnectionId,
        /// Until when it waits.
        deadline: Monotonic,
        /// Whether it had been of use, so that its end is no failure.
        served: bool,
        /// Whether the device stays away then, because it was told to stop.
        stopping: bool,
    },
    /// It was told to stop.
    Stopped,
}

impl Phase {
    /// What it is called.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Unconfigured => "unconfigured",
            Self::Idle { .. } => "idle",
            Self::Dial { .. } => "dial",
            Self::Hello { .. } => "hello",
            Self::Enroll { .. } => "enroll",
            Self::Reconcile { .. } => "reconcile",
            Self::Live { .. } => "live",
            Self::Draining { .. } => "draining",
            Self::Stopped => "stopped",
        }
    }

    /// The connection, while there is one.
    #[must_use]
    pub const fn connection(&self) -> Option<ConnectionId> {
        match self {
            Self::Unconfigured | Self::Idle { .. } | Self::Stopped => None,
            Self::Dial { connection, .. }
            | Self::Hello { connection }
            | Self::Enroll { connection }
            | Self::Reconcile { connection, .. }
            | Self::Live { connection, .. }
            | Self::Draining { connection, .. } => Some(*connection),
        }
    }
}

/// What a dialler decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DialOutput {
    /// Dials an address.
    Dial {
        /// As this connection.
        connection: ConnectionId,
        /// Which address.
        address: String,
    },
    /// Closes a connection.
    Close {
        /// Which.
        connection: ConnectionId,
        /// Why.
        code: CloseCode,
    },
    /// Remembers how many rounds have failed in a row.
    Failures(u32),
    /// Remembers the address that let the device in: it is tried first after a reboot.
    Reached(String),
}

/// Finds a device's server and keeps it found.
#[derive(Clone, Debug)]
pub struct Dialler {
    entropy: Entropy,
    addresses: Vec<String>,
    next: usize,
    round: Round,
    failures: u32,
    reached: Option<String>,
    retry_after: Option<Duration>,
    /// How often in a row another holder of this device's key took the connection.
    replaced: u32,
    phase: Phase,
}

/// What one round has come to so far.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    tried: usize,
    refused: usize,
}

impl Dialler {
    /// Starts without an address, with the failures and the address that a former run remembered.
    #[must_use]
    pub fn new(entropy: Entropy, failures: u32, reached: Option<String>) -> Self {
        Self {
            entropy,
            addresses: Vec::new(),
            next: 0,
            round: Round::default(),
            failures: failures.min(limit::DIAL_FAILURES_MAX),
            reached,
            retry_after: None,
            replaced: 0,
            phase: Phase::Unconfigured,
        }
    }

    /// Where the device stands.
    #[must_use]
    pub const fn phase(&self) -> &Phase {
        &self.phase
    }

    /// How many rounds have failed in a row.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// Says whether `connection` is the one that counts; events of others are to be ignored.
    #[must_use]
    pub fn is_current(&self, connection: ConnectionId) -> bool {
        self.phase.connection() == Some(connection)
    }

    /// Takes the addresses to try, the best first. An open connection stays.
    pub fn on_addresses(&mut self, now: Monotonic, addresses: &[String]) {
        let mut known: Vec<String> = Vec::new();
        let reached = self.reached.iter().filter(|reached| addresses.contains(reached));
        for address in reached.chain(addresses).take(limit::DIAL_ADDRESSES_MAX + 1) {
            if !known.contains(address) {
                known.push(address.clone());
            }
        }
        known.truncate(limit::DIAL_ADDRESSES_MAX);
        self.addresses = known;
        self.next = 0;
        self.round = Round::default();
        match self.phase {
            Phase::Unconfigured if !self.addresses.is_empty() => self.pause(now),
            Phase::Idle { .. } if self.addresses.is_empty() => self.phase = Phase::Unconfigured,
            _ => {}
        }
    }

    /// Dials at once, because something says that it may work now: an operator, or a network that came up.
    pub fn on_wake(&mut self, now: Monotonic) {
        if matches!(self.phase, Phase::Idle { .. }) {
            self.phase = Phase::Idle { until: now };
        }
    }

    /// The link has joined the two ends.
    pub fn on_up(&mut self, connection: ConnectionId) {
        if matches!(self.phase, Phase::Dial { connection: current, .. } if current == connection) {
            self.phase = Phase::Hello { connection };
        }
    }

    /// The session has verified the server: only now is the device connected.
    pub fn on_welcomed(&mut self, connection: ConnectionId, grade: Grade, out: &mut Vec<DialOutput>) {
        if !matches!(self.phase, Phase::Hello { connection: current } if current == connection) {
            return;
        }
        match grade {
            Grade::Enroll => {
                self.phase = Phase::Enroll { connection };
                self.succeed(out);
            }
            Grade::RenewOnly | Grade::Full => self.phase = Phase::Reconcile { connection, grade },
        }
        let address = self.addresses.get(self.next).cloned();
        if address.is_some() && address != self.reached {
            self.reached.clone_from(&address);
            out.extend(address.map(DialOutput::Reached));
        }
    }

    /// The session has said that both ends have what the other had.
    pub fn on_live(&mut self, connection: ConnectionId, out: &mut Vec<DialOutput>) {
        match self.phase {
            Phase::Reconcile { connection: current, grade } if current == connection => {
                self.phase = Phase::Live { connection, grade };
                self.succeed(out);
            }
            _ => {}
        }
    }

    /// The server asks to be left alone for so long.
    pub fn on_retry_after(&mut self, connection: ConnectionId, pause: Duration) {
        if self.is_current(connection) {
            self.retry_after = Some(pause.min(limit::RETRY_AFTER_MAX));
        }
    }

    /// Ends the connection, and dials again when it is down.
    pub fn close(&mut self, now: Monotonic, code: CloseCode, out: &mut Vec<DialOutput>) {
        self.drain(now, code, false, out);
    }

    /// Ends the connection and stays away.
    pub fn stop(&mut self, now: Monotonic, out: &mut Vec<DialOutput>) {
        self.drain(now, CloseCode::Done, true, out);
    }

    /// Dials again after [`Dialler::stop`].
    pub fn resume(&mut self, now: Monotonic) {
        match self.phase {
            Phase::Stopped if self.addresses.is_empty() => self.phase = Phase::Unconfigured,
            Phase::Stopped => self.pause(now),
            Phase::Draining { connection, deadline, served, .. } => {
                self.phase = Phase::Draining { connection, deadline, served, stopping: false };
            }
            _ => {}
        }
    }

    /// The connection is down, or never was up; `code` says why, where either end said so.
    pub fn on_down(
        &mut self,
        now: Monotonic,
        connection: ConnectionId,
        code: Option<CloseCode>,
        out: &mut Vec<DialOutput>,
    ) {
        if !self.is_current(connection) {
            return;
        }
        let served = self.has_served();
        let is_replaced = code == Some(CloseCode::Replaced);
        self.replaced = if is_replaced { (self.replaced + 1).min(limit::DIAL_FAILURES_MAX) } else { 0 };
        if matches!(self.phase, Phase::Draining { stopping: true, .. }) {
            self.phase = Phase::Stopped;
        } else if self.addresses.is_empty() {
            self.phase = Phase::Unconfigured;
        } else if let Some(pause) = self.retry_after.take() {
            // Those who were sent away together must not come back together.
            self.phase = Phase::Idle { until: now + pause + self.entropy.jitter(pause) };
        } else if code == Some(CloseCode::Redial) {
            self.phase = Phase::Idle { until: now };
        } else if is_replaced {
            // Somebody else has this device's key, and comes back as this one does: two of them that dialled at once
            // would take the connection from each other without end.
            self.phase = Phase::Idle { until: now + self.entropy.jitter(ceiling(self.replaced)) };
        } else if code.is_some_and(CloseCode::is_lasting) {
            self.next_address(now, true, out);
        } else if served {
            // The same server first: it was there a moment ago.
            self.pause(now);
        } else {
            self.next_address(now, false, out);
        }
    }

    /// When [`Dialler::handle_timeout`] next has work.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Monotonic> {
        match self.phase {
            Phase::Idle { until } => Some(until),
            Phase::Dial { deadline, .. } | Phase::Draining { deadline, .. } => Some(deadline),
            Phase::Unconfigured
            | Phase::Hello { .. }
            | Phase::Enroll { .. }
            | Phase::Reconcile { .. }
            | Phase::Live { .. }
            | Phase::Stopped => None,
        }
    }

    /// Dials, or gives up waiting.
    pub fn handle_timeout(&mut self, now: Monotonic, out: &mut Vec<DialOutput>) {
        if self.poll_timeout().is_none_or(|due| due > now) {
            return;
        }
        match self.phase {
            Phase::Idle { .. } => self.dial(now, out),
            Phase::Dial { connection, .. } => {
                out.push(DialOutput::Close { connection, code: CloseCode::Timeout });
                self.on_down(now, connection, Some(CloseCode::Timeout), out);
            }
            Phase::Draining { connection, .. } => self.on_down(now, connection, None, out),
            _ => {}
        }
    }

    fn dial(&mut self, now: Monotonic, out: &mut Vec<DialOutput>) {
        if self.next >= self.addresses.len() {
            self.next = 0;
        }
        let Some(address) = self.addresses.get(self.next).cloned() else {
            self.phase = Phase::Unconfigured;
            return;
        };
        let connection = ConnectionId::random(&mut self.entropy);
        self.phase = Phase::Dial { connection, deadline: now + limit::HELLO_TIMEOUT };
        out.push(DialOutput::Dial { connection, address });
    }

    fn drain(&mut self, now: Monotonic, code: CloseCode, stopping: bool, out: &mut Vec<DialOutput>) {
        match self.phase {
            Phase::Draining { connection, deadline, served, stopping: before } => {
                self.phase = Phase::Draining { connection, deadline, served, stopping: stopping || before };
            }
            _ => match self.phase.connection() {
                Some(connection) => {
                    out.push(DialOutput::Close { connection, code });
                    let (deadline, served) = (now + limit::DRAIN_TIMEOUT, self.has_served());
                    self.phase = Phase::Draining { connection, deadline, served, stopping };
                }
                None if stopping => self.phase = Phase::Stopped,
                None => {}
            },
        }
    }

    /// Says whether the connection came to something. One that ends while the two reconcile did not: a server that
    /// fails each time must not be dialled without a pause.
    const fn has_served(&self) -> bool {
        matches!(self.phase, Phase::Enroll { .. } | Phase::Live { .. } | Phase::Draining { served: true, .. })
    }

    fn succeed(&mut self, out: &mut Vec<DialOutput>) {
        self.round = Round::default();
        self.set_failures(0, out);
    }

    /// Goes on to the next address at once, or pauses when the round is over.
    fn next_address(&mut self, now: Monotonic, refused: bool, out: &mut Vec<DialOutput>) {
        self.next = (self.next + 1) % self.addresses.len().max(1);
        self.round.tried += 1;
        self.round.refused += usize::from(refused);
        if self.round.tried < self.addresses.len() {
            self.phase = Phase::Idle { until: now };
            return;
        }
        let all_refused = self.round.refused == self.round.tried;
        self.round = Round::default();
        self.set_failures((self.failures + 1).min(limit::DIAL_FAILURES_MAX), out);
        if all_refused {
            self.phase = Phase::Idle { until: now + self.entropy.jitter(limit::DIAL_BACKOFF_REFUSED) };
        } else {
            self.pause(now);
        }
    }

    fn pause(&mut self, now: Monotonic) {
        self.phase = Phase::Idle { until: now + self.entropy.jitter(ceiling(self.failures)) };
    }

    fn set_failures(&mut self, failures: u32, out: &mut Vec<DialOutput>) {
        // Only a change is written: a device that is alone for a year must not wear out its flash with it.
        if self.failures != failures {
            self.failures = failures;
            out.push(DialOutput::Failures(failures));
        }
    }
}

/// The ceiling of the pause after so many failed rounds.
fn ceiling(failures: u32) -> Duration {
    limit::DIAL_BACKOFF_FIRST.saturating_mul(1_u32 << failures.min(16)).min(limit::DIAL_BACKOFF_LAST)
}

#[cfg(test)]
mod tests;
