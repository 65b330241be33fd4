//! What a doctor finds of the network, the clock and certificates. [`crate::reach`] does the asking.

use std::net::SocketAddr;
use std::time::Duration;

use fleetd_sync_core::finding::{Finding, State};
use fleetd_sync_core::id::FleetId;
use fleetd_sync_core::key::PublicKey;
use fleetd_sync_core::session::CloseCode;
use fleetd_sync_core::time::{ClockFloor, Now, Wall};

use crate::clock::BUILD_FLOOR;
use crate::identity::{SERVER_CERTIFICATE_LIFETIME, certificate_key, certificate_not_after, is_renewal_due};
use crate::reach::{Answered, Reach};

/// A date before which a clock has not been set at all since its power failed: 1980-01-06, where GPS begins.
const NEVER_SET: Wall = Wall(315_964_800_000);
/// How far a clock may be from what a server's certificate says of the server's.
const SKEW_MAX: Duration = Duration::from_secs(24 * 60 * 60);
const SET_CLOCK: &str =
    "timedatectl set-ntp true; without a network: date -u -s 'YYYY-MM-DD hh:mm:ss', then hwclock -w";

/// A date as people read it.
#[must_use]
pub fn date(at: Wall) -> String {
    const DAY_MS: i64 = 24 * 60 * 60 * 1000;
    let (days, ms) = (at.0.div_euclid(DAY_MS), at.0.rem_euclid(DAY_MS));
    // Days to a date of the Gregorian calendar, which repeats after 146,097 days, from 0000-03-01 on.
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day = days.rem_euclid(146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// How much depends on a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockDuty {
    /// Only dates that people read: a device.
    Tells,
    /// Expiries are judged by it: a server.
    Judges,
}

/// Looks at a clock. `floor` is a date that is known to have passed; `servers` is when a server's certificate ends,
/// which says what the server's clock said when it was issued.
#[must_use]
pub fn clock(now: Now, floor: Option<ClockFloor>, servers: Option<Wall>, duty: ClockDuty) -> Finding {
    let wrong = |found: String| {
        let (state, meaning) = match duty {
            ClockDuty::Tells => (State::Warn, "dates of logs are wrong; sync goes on"),
            ClockDuty::Judges => (State::Fail, "expiries are judged by it"),
        };
        Finding { state, ..Finding::warn("clock", format!("{found}: {meaning}"), SET_CLOCK) }
    };
    let says = date(now.wall);
    if now.wall < NEVER_SET {
        return wrong(format!("it says {says}: nobody has set it since it lost its power"));
    }
    let passed = floor.map_or(BUILD_FLOOR, |floor| floor.0.max(BUILD_FLOOR));
    if now.wall < passed {
        return wrong(format!("it says {says}, and {} has passed already", date(passed)));
    }
    if let Some(not_after) = servers {
        let issued = Wall(not_after.0.saturating_sub(millis(SERVER_CERTIFICATE_LIFETIME)));
        if now.wall + SKEW_MAX < issued {
            return wrong(format!("it says {says}, and the server's said {} before that", date(issued)));
        }
        if now.wall > not_after + SKEW_MAX {
            let found = format!("it says {says}, and the server's certificate ended at {}", date(not_after));
            return wrong(format!("{found}; or the server's clock is behind, or it has not been restarted since"));
        }
    }
    Finding::ok("clock", says)
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// Looks at a certificate that should be for `key`, was issued for `lifetime`, and is renewed by itself.
#[must_use]
pub fn certificate(chain: &[Vec<u8>], key: &PublicKey, lifetime: Duration, now: Now, remedies: &Remedies) -> Finding {
    let check = "certificate";
    let leaf = chain.first().map(Vec::as_slice).unwrap_or_default();
    let read = certificate_not_after(leaf).and_then(|not_after| Ok((not_after, certificate_key(leaf)?)));
    let (not_after, held) = match read {
        Ok(read) => read,
        Err(error) => return Finding::fail(check, error.to_string(), remedies.unusable),
    };
    if held != *key {
        let found = format!("it is for the key {}, and the device's is {}", held.id(), key.id());
        return Finding::fail(check, found, remedies.unusable);
    }
    let ends = date(not_after);
    if now.wall > not_after {
        return Finding::warn(check, format!("it ended at {ends}"), remedies.expired);
    }
    if is_renewal_due(not_after, lifetime, now.wall) {
        return Finding::warn(check, format!("it ends at {ends}, and should have been renewed"), remedies.expired);
    }
    Finding::ok(check, format!("until {ends}"))
}

/// What to do about a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remedies {
    /// It cannot be used.
    pub unusable: &'static str,
    /// It has ended, or should have been renewed.
    pub expired: &'static str,
}

/// Where somebody asks from, which decides what can be done there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Viewpoint {
    /// A device that looks for its server.
    Device,
    /// A server that looks for itself.
    Server,
    /// An operator's machine.
    Operator,
}

/// Says what came of an attempt to reach a server by UDP, and what to do. `fleet` is the one that it should be of.
#[must_use]
pub fn server(check: String, address: &str, reach: &Reach, fleet: Option<FleetId>, from: Viewpoint) -> Finding {
    let port = address.rsplit_once(':').map_or("4433", |(_, port)| port);
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    let fail = |found: String, remedy: String| Finding::fail(check.clone(), found, remedy);
    match reach {
        Reach::Unresolved { cause } => {
            let found = format!("{host} is no name that this machine can resolve: {cause}");
            fail(found, format!("getent hosts {host}; then mend /etc/resolv.conf, or {}", other_address(from)))
        }
        Reach::NoRoute { target, cause } => {
            let found = format!("there is no way to {target}: {cause}");
            fail(found, format!("ip route get {}; bring the network up, or add the route", target.ip()))
        }
        Reach::Forbidden { target, cause } => {
            let found = format!("this machine lets no UDP out to {target}: {cause}");
            fail(found, format!("nft list ruleset; then allow UDP out to port {port}"))
        }
        Reach::Closed { target } => {
            let found = format!("the machine at {target} is there, and nothing listens on UDP port {port}");
            let remedy = match from {
                Viewpoint::Server => format!("ss -lunp 'sport = :{port}'; then fleetd serve"),
                Viewpoint::Device | Viewpoint::Operator => {
                    format!("on the server: ss -lunp 'sport = :{port}'; then fleetd serve, or {}", other_address(from))
                }
            };
            fail(found, remedy)
        }
        Reach::Silent { target, waited } => {
            let found = format!(
                "nothing came back from {target} by UDP within {} s: UDP is blocked on the way, or the server is down",
                waited.as_secs().max(1)
            );
            let remedy = match from {
                Viewpoint::Server => format!("nft list ruleset; then allow UDP in on port {port}"),
                Viewpoint::Device | Viewpoint::Operator => {
                    let here = "on the server: fleetd doctor --data DIR; if it is well there";
                    format!("{here}, allow UDP port {port} in each firewall on the way")
                }
            };
            fail(found, remedy)
        }
        Reach::Foreign { target, cause } => {
            fail(format!("what answers at {target} is no fleet server: {cause}"), other_address(from).to_owned())
        }
        Reach::Refused { target, code: CloseCode::Busy } => {
            let found = format!("the server at {target} has as many callers as it takes");
            Finding::warn(check, found, "wait a minute; if it stays so, on the server: fleetd doctor --data DIR")
        }
        Reach::Refused { target, code } => fail(
            format!("the server at {target} turned this machine away: {code}"),
            "ask the operator: fleetd device list".to_owned(),
        ),
        Reach::NotOurs { target, claimed, code } => {
            let (found, remedy) = not_ours(*target, *claimed, fleet, *code, from);
            fail(found, remedy)
        }
        Reach::Answered(Answered { target, took, fleet: found, is_proven, .. }) => {
            let proof = if *is_proven { "proved to be of" } else { "says that it is of" };
            Finding::ok(check, format!("{target} answered within {} ms and {proof} {found}", took.as_millis()))
        }
    }
}

/// What is wrong with a server that is not believed, and what to do.
fn not_ours(
    target: SocketAddr,
    claimed: Option<FleetId>,
    fleet: Option<FleetId>,
    code: CloseCode,
    from: Viewpoint,
) -> (String, String) {
    let ours = fleet.map_or_else(|| "this fleet".to_owned(), |fleet| fleet.to_string());
    match claimed {
        Some(claimed) if Some(claimed) != fleet => {
            let found = format!("the server at {target} is of fleet {claimed}, not of {ours}");
            (found, other_address(from).to_owned())
        }
        _ => {
            let found = format!("the server at {target} names {ours} and cannot prove it ({code})");
            (found, format!("find out who answers there; {}", other_address(from)))
        }
    }
}

const fn other_address(from: Viewpoint) -> &'static str {
    match from {
        Viewpoint::Device => "give the right address: --server HOST:PORT, or `servers` in the configuration",
        Viewpoint::Server => "give the right address: fleetd serve --advertise HOST:PORT",
        Viewpoint::Operator => "start the server with the right address: fleetd serve --advertise HOST:PORT",
    }
}
