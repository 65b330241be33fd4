//! The server's doctor: everything that a server needs, each with what to do when it is wrong.
//!
//! It looks in two ways. [`examine_running`] is the server looking at itself, which `fleetd doctor --server` asks for;
//! [`examine_folder`] is what `fleetd doctor --data` does on the server's machine, also where no server comes up. Both
//! look at the same things, and change none of them.

mod stored;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::finding::Finding;
use fleetd_sync_core::id::FleetId;
use fleetd_sync_core::time::Clock;
use fleetd_sync_core::trust::{RootChain, Roster};
use fleetd_sync_store::disk::Profile;
use fleetd_sync_store::examine::{Room, StoreRemedies, StoreUse, private_files, private_folder, room, store};
use fleetd_sync_transport::clock::{NoEntropyError, SystemClock, system_entropy};
use fleetd_sync_transport::examine::{ClockDuty, Viewpoint, clock, date, server};
use fleetd_sync_transport::identity::{SERVER_CERTIFICATE_LIFETIME, is_renewal_due};
use fleetd_sync_transport::reach::{Expected, Reach, reach};

use crate::artifact_store::disk::DiskArtifactStore;
use crate::keys::{Keys, OpenKeysError, RootKey};
use crate::node::Shared;
use crate::support::Part;
use crate::trust_file::TrustFile as _;

/// Room below which the store cannot open itself again after a failure.
const ROOM_NEEDED_BYTES: u64 = 64 << 20;
/// Room below which an upload or a busy day may fill the disk.
const ROOM_WANTED_BYTES: u64 = 512 << 20;
/// Time in which the API's port must take a connection from this machine.
const API_PATIENCE: Duration = Duration::from_secs(3);

/// Where a server is.
#[derive(Clone, Debug)]
pub struct Premises {
    /// The folder that it keeps everything in.
    pub data: PathBuf,
    /// Where its API listens.
    pub api_address: SocketAddr,
    /// Where devices sync.
    pub sync_address: SocketAddr,
}

impl Premises {
    /// How the server was started, for those who help from afar.
    #[must_use]
    pub fn configuration(&self) -> Part {
        let value = serde_json::json!({
            "data": self.data.display().to_string(), "apiAddress": self.api_address.to_string(),
            "syncAddress": self.sync_address.to_string(),
        });
        Part::json("config", &value)
    }

    fn keys(&self) -> PathBuf {
        self.data.join("keys")
    }
}

/// A server that runs looks at itself. Without premises it stands on a store that is no folder.
pub async fn examine_running(shared: &Arc<Shared>, premises: Option<&Premises>) -> Vec<Finding> {
    let now = shared.seams.clock.now();
    let trust = shared.trust();
    let (asked, place) = (Arc::clone(shared), premises.cloned());
    let of_disk = tokio::task::spawn_blocking(move || {
        let mut findings = place.map_or_else(Vec::new, |place| {
            let (mut findings, keys) = keys(&place.keys());
            findings.extend(keys.map(|keys| roles(&keys)));
            findings.push(disk(&place.data));
            findings.push(match asked.seams.store.failure() {
                Some(cause) => {
                    Finding::fail("store", format!("it takes no changes any more: {cause}"), restart(&place))
                }
                None => store(&place.data.join("store"), Profile::Server, StoreUse::Running("server"), &remedies()).0,
            });
            findings
        });
        findings.extend(stored::examine(asked.seams.store.as_ref(), Some(asked.seams.artifacts.as_ref()), now));
        findings
    });
    let mut findings = vec![clock(now, None, None, ClockDuty::Judges)];
    findings.extend(of_disk.await.unwrap_or_else(|error| {
        vec![Finding::fail("disk", format!("looking at it failed: {error}"), "fleetd doctor --data DIR")]
    }));
    if let Some(premises) = premises {
        let expected =
            Expected { fleet: trust.roster.fleet(), chain: Some(RootChain::clone(&trust.chain)), trust_version_min: 0 };
        let mut entropy = shared.entropy();
        let clock = &shared.seams.clock;
        findings.extend(sync_port(premises.sync_address, Some(&expected), clock, &mut entropy).await.0);
        findings.push(api_port(premises.api_address, true).await);
    }
    findings
}

/// Looks at a server's folder and its ports on this machine, whether the server runs or not.
///
/// # Errors
/// [`NoEntropyError`]: then no server can be asked.
pub async fn examine_folder(premises: &Premises) -> Result<Vec<Finding>, NoEntropyError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    Ok(look_at_folder(premises, &clock, &mut system_entropy()?).await)
}

/// Says whether the server of a fleet can be reached by UDP from this machine, as devices reach it. `records` are the
/// fleet's root records.
///
/// # Errors
/// [`NoEntropyError`]: then no server can be asked.
pub async fn examine_address(address: &str, fleet: FleetId, records: &[Vec<u8>]) -> Result<Finding, NoEntropyError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let expected = Expected { fleet, chain: RootChain::load(fleet, records).ok(), trust_version_min: 0 };
    let reached = reach(address, Some(&expected), &clock, &mut system_entropy()?).await;
    Ok(server("sync address".to_owned(), address, &reached, Some(fleet), Viewpoint::Operator))
}

/// Looks at a server's folder and its ports, by this clock.
pub async fn look_at_folder(premises: &Premises, clock_now: &Arc<dyn Clock>, entropy: &mut Entropy) -> Vec<Finding> {
    let now = clock_now.now();
    let mut findings = vec![clock(now, None, None, ClockDuty::Judges)];
    let (of_keys, keys) = keys(&premises.keys());
    findings.extend(of_keys);
    let expected = keys.as_ref().map(|keys| {
        findings.push(roles(keys));
        let chain = keys.trust_file().read().ok().map(|kept| kept.chain);
        Expected { fleet: keys.fleet(), chain, trust_version_min: 0 }
    });
    findings.push(disk(&premises.data));
    let (of_sync, runs) = sync_port(premises.sync_address, expected.as_ref(), clock_now, entropy).await;
    let used = if runs { StoreUse::Running("server, which runs") } else { StoreUse::Nobody };
    let (of_store, opened) = store(&premises.data.join("store"), Profile::Server, used, &remedies());
    findings.push(of_store);
    if let Some(opened) = opened {
        let folder = premises.data.join("artifacts");
        let artifacts = folder.is_dir().then(|| DiskArtifactStore::open(&folder).ok()).flatten();
        findings.extend(stored::examine(&opened, artifacts.as_ref().map(|found| found as _), now));
    } else if runs {
        findings.push(Finding::warn("artifacts", "only the server that runs can tell", "fleetd doctor --server"));
    }
    findings.extend(of_sync);
    findings.push(api_port(premises.api_address, runs).await);
    findings
}

/// Looks at the keys: that they are all there, are secret, and are those of the fleet.
fn keys(folder: &Path) -> (Vec<Finding>, Option<Keys>) {
    let shown = folder.display();
    let mut findings = vec![private_folder("keys", folder, "fleetd serve makes them at its first start")];
    if !folder.is_dir() {
        return (findings, None);
    }
    findings.push(private_files("key files", folder));
    let restore = format!("cp -a SAVED-KEYS/. '{shown}'; without them no device believes this server");
    let keys = match Keys::read(folder) {
        Ok(Some(keys)) => keys,
        Ok(None) => {
            findings.push(Finding::warn("fleet", format!("there is no fleet in {shown} yet"), "fleetd serve"));
            return (findings, None);
        }
        // Which of them others can read has been said.
        Err(OpenKeysError::TooOpen { .. }) => return (findings, None),
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            findings.push(Finding::fail("fleet", format!("{error}{cause}"), restore));
            return (findings, None);
        }
    };
    findings.push(Finding::ok("fleet", keys.fleet().to_string()));
    findings.push(root_key(&keys));
    findings.push(match keys.certificate_authority() {
        Ok(authority) => Finding::ok("ca", format!("issues certificates as {}, and never ends", authority.key().id())),
        Err(error) => Finding::fail("ca", error.to_string(), restore),
    });
    (findings, Some(keys))
}

/// Looks whether whoever breaks in would find a key of the root.
fn root_key(keys: &Keys) -> Finding {
    let root = keys.root_path();
    if keys.root().is_none() {
        return Finding::ok("root key", "is not on this machine, as it should be");
    }
    let chain = keys.trust_file().read().map(|kept| kept.chain);
    if chain.is_ok_and(|chain| keys.root_standing(&chain) == RootKey::Spent) {
        let found = format!("{} is of no use any more: the root has other keys", root.display());
        return Finding::warn("root key", found, format!("rm '{}'", root.display()));
    }
    let found = format!("{} is on the server: who breaks in becomes the fleet's owner", root.display());
    let remedy = format!("mv '{}' to a medium that you lock away; fleetd trust takes it by --root", root.display());
    Finding::warn("root key", found, remedy)
}

/// Looks whether the root still gives the keys the roles that the server uses them in.
fn roles(keys: &Keys) -> Finding {
    let kept = match keys.trust_file().read() {
        Ok(kept) => kept,
        Err(error) => {
            let remedy = "restore fleet.trust from where the keys were saved; devices bring back what is newer";
            return Finding::fail("trust", error.to_string(), remedy);
        }
    };
    match keys.check_roles(&Roster::new(&kept.chain, [])) {
        Ok(()) => {
            Finding::ok("trust", format!("root record {}, by which this server's keys count", kept.chain.version()))
        }
        Err(error) => {
            Finding::fail("trust", error.to_string(), "fleetd trust delegate KEY --role …, with the root's key")
        }
    }
}

fn disk(data: &Path) -> Finding {
    let wanted_bytes = ROOM_WANTED_BYTES.max(folder_bytes(&data.join("store")));
    let what_for = "to go on after a failure the store needs";
    room("disk", data, Room { needed_bytes: ROOM_NEEDED_BYTES, wanted_bytes, what_for })
}

/// Bytes of the files in a folder and below it.
fn folder_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => folder_bytes(&entry.path()),
        Ok(metadata) => metadata.len(),
        // What is gone by now has none.
        Err(_) => 0,
    });
    bytes.sum()
}

fn restart(premises: &Premises) -> String {
    format!("make room, then start it again: fleetd serve --data '{}'", premises.data.display())
}

fn remedies() -> StoreRemedies {
    StoreRemedies {
        absent: "fleetd serve makes one; where there was one, fleetd restore BACKUP --data DIR".into(),
        damaged: "fleetd restore BACKUP --data DIR; without one fleetd serve puts it aside, and devices come back"
            .into(),
        locked: "another process has it: fuser -v DIR/store/records; or ask the server: fleetd doctor --server".into(),
    }
}

/// How this machine dials what listens at an address.
fn own(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    address
}

/// Looks at the port for devices from this machine; says too whether the fleet's server answered there.
async fn sync_port(
    address: SocketAddr,
    expected: Option<&Expected>,
    clock: &Arc<dyn Clock>,
    entropy: &mut Entropy,
) -> (Vec<Finding>, bool) {
    let check = format!("UDP {}", address.port());
    let dialled = own(address).to_string();
    let reached = reach(&dialled, expected, clock, entropy).await;
    if matches!(reached, Reach::Closed { .. }) {
        let found = format!("nothing listens on {address}: no server runs, or it listens elsewhere");
        return (
            vec![Finding::warn(check, found, "fleetd serve; or say where it listens: --sync-address IP:PORT")],
            false,
        );
    }
    let fleet: Option<FleetId> = expected.map(|expected| expected.fleet);
    let mut findings = vec![server(check, &dialled, &reached, fleet, Viewpoint::Server)];
    let Reach::Answered(answered) = reached else { return (findings, false) };
    let ends = date(answered.not_after);
    findings.push(if is_renewal_due(answered.not_after, SERVER_CERTIFICATE_LIFETIME, clock.now().wall) {
        let found = format!("the server's ends at {ends}; clients of the API that look at dates will turn away");
        Finding::warn(
            "certificate",
            found,
            "look at what the server logs of it, and restart it: it issues its own anew",
        )
    } else {
        Finding::ok("certificate", format!("the server's, until {ends}"))
    });
    (findings, true)
}

/// Looks at the port of the API from this machine.
async fn api_port(address: SocketAddr, runs: bool) -> Finding {
    let check = format!("TCP {}", address.port());
    let dialled = own(address);
    let connected = tokio::time::timeout(API_PATIENCE, tokio::net::TcpStream::connect(dialled)).await;
    let listens = matches!(connected, Ok(Ok(_)));
    let who = format!("ss -ltnp 'sport = :{}'", address.port());
    match (listens, runs) {
        (true, true) => Finding::ok(check, format!("{dialled} takes connections")),
        (true, false) => {
            let found = format!("another process listens on {address}: the server cannot");
            Finding::fail(check, found, format!("{who}; then end it, or fleetd serve --api-address IP:PORT"))
        }
        (false, true) => {
            let found = format!("the server runs, and {dialled} takes no connection");
            Finding::fail(check, found, format!("{who}; or say where the API listens: --api-address IP:PORT"))
        }
        (false, false) => Finding::ok(check, format!("{address} is free for the server's API")),
    }
}

#[cfg(test)]
mod tests;
