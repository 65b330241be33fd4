//! Whether a server can be reached at an address, and is one of the fleet: what a doctor asks of the network.
//!
//! First a packet goes out that keeps nothing at the server and tells a closed port from silence (`knock.rs`). Where a
//! server answers, the product's own handshake and session follow, as a device without a certificate would begin
//! them, to the point at which it would believe the server. No secret is sent, and the connection is closed.

mod knock;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::id::{BootId, ConnectionId, FleetId};
use fleetd_sync_core::key::SecretKey;
use fleetd_sync_core::limit;
use fleetd_sync_core::replica::Replica;
use fleetd_sync_core::session::{CloseCode, DeviceSide, Opening, Output, Session, Side};
use fleetd_sync_core::time::{Clock, Monotonic, Wall};
use fleetd_sync_core::trust::RootChain;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use self::knock::{Knock, PATIENCE, knock};
use crate::endpoint::{Endpoint, Settings, verify_server};
use crate::frame;
use crate::identity;
use crate::link::{DialIdentity, DownReason, Link as _, LinkEvent, Peer};

/// Addresses of a name that are tried.
const TARGETS_MAX: usize = 4;
/// Time for the close to arrive.
const FAREWELL: Duration = Duration::from_millis(500);

/// The fleet whose server it should be, as far as the caller knows the fleet.
#[derive(Clone, Debug)]
pub struct Expected {
    /// The fleet.
    pub fleet: FleetId,
    /// Its root chain; `None` where it was not heard yet.
    pub chain: Option<RootChain>,
    /// The least trust version that is believed.
    pub trust_version_min: u64,
}

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The name has no address.
    Unresolved {
        /// What the operating system said.
        cause: String,
    },
    /// There is no way to it.
    NoRoute {
        /// Where.
        target: SocketAddr,
        /// What the operating system said.
        cause: String,
    },
    /// This machine lets nothing out to it.
    Forbidden {
        /// Where.
        target: SocketAddr,
        /// What the operating system said.
        cause: String,
    },
    /// The machine is there, and nothing listens on that port.
    Closed {
        /// Where.
        target: SocketAddr,
    },
    /// Nothing came back.
    Silent {
        /// Where.
        target: SocketAddr,
        /// How long it was waited for.
        waited: Duration,
    },
    /// Something answers that is no server of this protocol.
    Foreign {
        /// Where.
        target: SocketAddr,
        /// What is wrong with it.
        cause: String,
    },
    /// A server answers, and turned the caller away before it was judged.
    Refused {
        /// Where.
        target: SocketAddr,
        /// What it said.
        code: CloseCode,
    },
    /// A server answers, and is not one of the fleet.
    NotOurs {
        /// Where.
        target: SocketAddr,
        /// The fleet that its certificate names, where it has one of ours.
        claimed: Option<FleetId>,
        /// Why it is not believed.
        code: CloseCode,
    },
    /// A server answered.
    Answered(Answered),
}

/// A server that answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Where.
    pub target: SocketAddr,
    /// Time from the first packet of the handshake until it was believed.
    pub took: Duration,
    /// The fleet that its certificate names.
    pub fleet: FleetId,
    /// Whether it has proven that; it cannot to a caller that knows no fleet.
    pub is_proven: bool,
    /// The last date of its certificate.
    pub not_after: Wall,
}

impl Reach {
    /// How far it came: of a name's addresses, the one that came furthest tells most.
    const fn rank(&self) -> u8 {
        match self {
            Self::Unresolved { .. } => 0,
            Self::NoRoute { .. } => 1,
            Self::Forbidden { .. } => 2,
            Self::Silent { .. } => 3,
            Self::Closed { .. } => 4,
            Self::Foreign { .. } => 5,
            Self::Refused { .. } => 6,
            Self::NotOurs { .. } => 7,
            Self::Answered(_) => 8,
        }
    }
}

/// Tries to reach a server at `address` (`host:port`). Runs on the tokio runtime of its caller.
pub async fn reach(address: &str, expected: Option<&Expected>, clock: &Arc<dyn Clock>, entropy: &mut Entropy) -> Reach {
    let targets: Vec<SocketAddr> = match tokio::net::lookup_host(address).await {
        Ok(targets) => targets.take(TARGETS_MAX).collect(),
        Err(error) => return Reach::Unresolved { cause: error.to_string() },
    };
    let mut best = Reach::Unresolved { cause: "the name has no address".to_owned() };
    for target in targets {
        let reached = reach_target(target, expected, clock, entropy).await;
        if reached.rank() > best.rank() {
            best = reached;
        }
        if matches!(best, Reach::Answered(_)) {
            break;
        }
    }
    best
}

async fn reach_target(
    target: SocketAddr,
    expected: Option<&Expected>,
    clock: &Arc<dyn Clock>,
    entropy: &mut Entropy,
) -> Reach {
    match knock(target, entropy).await {
        Knock::Answered => meet(target, expected, clock, entropy).await,
        Knock::Foreign => Reach::Foreign { target, cause: "what answers there does not speak QUIC".to_owned() },
        Knock::Closed => Reach::Closed { target },
        Knock::NoRoute(error) => Reach::NoRoute { target, cause: error.to_string() },
        Knock::Forbidden(error) => Reach::Forbidden { target, cause: error.to_string() },
        Knock::Silent => Reach::Silent { target, waited: PATIENCE },
    }
}

/// Begins a session, and ends it once the server is judged.
async fn meet(target: SocketAddr, expected: Option<&Expected>, clock: &Arc<dyn Clock>, entropy: &mut Entropy) -> Reach {
    let endpoint = Endpoint::new(Handle::current(), Settings::default(), Arc::clone(clock), entropy.stream("reach"));
    let (told, mut events) = mpsc::unbounded_channel();
    let connection = ConnectionId::random(entropy);
    let identity = DialIdentity { key: SecretKey::generate(entropy), certificates: Vec::new() };
    let begin = clock.now().monotonic;
    let heard = Arc::new(move |_, event| {
        let _ = told.send(event); // Whoever asked has its answer, and hears no more.
    });
    endpoint.dial(connection, &target.to_string(), identity, heard);
    let mut meeting = Meeting { target, expected, clock, begin, judge: None };
    let judged = async {
        while let Some(event) = events.recv().await {
            if let Some(reached) = meeting.on_event(&endpoint, connection, event, entropy) {
                return reached;
            }
        }
        Reach::Silent { target, waited: clock.now().monotonic.since(begin) }
    };
    let reached = tokio::time::timeout(limit::HELLO_TIMEOUT, judged).await;
    endpoint.close(connection, CloseCode::Done);
    endpoint.shut_down(FAREWELL).await;
    reached.unwrap_or(Reach::Silent { target, waited: limit::HELLO_TIMEOUT })
}

/// A session on its way to a judgement.
struct Meeting<'a> {
    target: SocketAddr,
    expected: Option<&'a Expected>,
    clock: &'a Arc<dyn Clock>,
    begin: Monotonic,
    /// The session that judges the server, once there is a connection, and what its certificate says.
    judge: Option<(Session, Replica, Claim)>,
}

/// What a server's certificate says of itself.
#[derive(Clone, Copy)]
struct Claim {
    fleet: FleetId,
    not_after: Wall,
}

impl Meeting<'_> {
    fn took(&self) -> Duration {
        self.clock.now().monotonic.since(self.begin)
    }

    fn on_event(
        &mut self,
        endpoint: &Endpoint,
        connection: ConnectionId,
        event: LinkEvent,
        entropy: &mut Entropy,
    ) -> Option<Reach> {
        let mut out = Vec::new();
        match event {
            LinkEvent::Up { peer: Peer::Server { leaf }, .. } => {
                let claim = match identity::server_claim(&leaf) {
                    Ok((fleet, not_after)) => Claim { fleet, not_after },
                    Err(error) => return Some(Reach::Foreign { target: self.target, cause: error.to_string() }),
                };
                let Some(expected) = self.expected else { return Some(self.answered(claim, false)) };
                let side = DeviceSide {
                    fleet: expected.fleet,
                    chain: expected.chain.clone(),
                    trust_version_min: expected.trust_version_min,
                    server_leaf: leaf,
                    verify: verify_server,
                };
                let replica = Replica::new(expected.fleet, None, entropy);
                let boot = BootId::random(entropy);
                let opening = Opening { boot, log_positions: Vec::new(), side: Side::Device(side) };
                let session = Session::open(self.clock.now().monotonic, opening, &replica, &mut out);
                self.judge = Some((session, replica, claim));
            }
            LinkEvent::Up { .. } => return None,
            LinkEvent::Frame { bytes, .. } => {
                endpoint.grant(connection, 1);
                let (session, replica, _) = self.judge.as_mut()?;
                match frame::decode(&bytes) {
                    Ok(Some(message)) => session.on_message(self.clock.now(), message, replica, &mut out),
                    Ok(None) => return None,
                    Err(error) => return Some(Reach::Foreign { target: self.target, cause: error.to_string() }),
                }
            }
            LinkEvent::Down { reason } => return Some(self.down(reason)),
        }
        self.carry_out(endpoint, connection, out)
    }

    fn carry_out(&self, endpoint: &Endpoint, connection: ConnectionId, out: Vec<Output>) -> Option<Reach> {
        let claim = self.judge.as_ref().map(|(_, _, claim)| *claim);
        for output in out {
            match output {
                Output::Send(class, message) => {
                    // What cannot be sent is told as the connection's end.
                    let _ = frame::encode(&message).map(|frame| endpoint.send(connection, class, frame));
                }
                Output::Welcomed(_) => return claim.map(|claim| self.answered(claim, true)),
                Output::Close(code) => {
                    let claimed = claim.map(|claim| claim.fleet);
                    return Some(Reach::NotOurs { target: self.target, claimed, code });
                }
                _ => {}
            }
        }
        None
    }

    fn answered(&self, claim: Claim, is_proven: bool) -> Reach {
        let Claim { fleet, not_after } = claim;
        Reach::Answered(Answered { target: self.target, took: self.took(), fleet, is_proven, not_after })
    }

    fn down(&self, reason: DownReason) -> Reach {
        let target = self.target;
        match reason {
            DownReason::ClosedByPeer { code } => Reach::Refused { target, code },
            DownReason::TimedOut => Reach::Silent { target, waited: self.took() },
            DownReason::Unreachable { cause, .. } | DownReason::Failed { cause } => Reach::Foreign { target, cause },
            DownReason::ClosedHere { code } => Reach::Refused { target, code },
        }
    }
}

#[cfg(test)]
mod tests;
