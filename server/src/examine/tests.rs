//! What can be wrong with a server's folder, made and seen. What takes a server that runs is played with real
//! processes in `chaos-tests`.

use std::fs::{self, Permissions};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;

use fleetd_sync_core::commit::ActorKey;
use fleetd_sync_core::finding::State;
use fleetd_sync_core::key::SecretKey;
use fleetd_sync_core::time::{Now, Wall};
use fleetd_sync_core::trust::Change;
use fleetd_sync_store::disk::DiskStore;
use fleetd_sync_transport::clock::BUILD_FLOOR;

use super::*;
use crate::backup::taken;
use crate::commit::commit;

/// A clock that stands still.
struct Standing(Wall);

impl Clock for Standing {
    fn now(&self) -> Now {
        Now { wall: self.0, ..Now::default() }
    }
}

/// The folder of a server that does not run.
struct Folder {
    home: tempfile::TempDir,
    now: Wall,
}

impl Folder {
    fn new() -> Self {
        let (home, now) = (tempfile::tempdir().unwrap(), Wall(BUILD_FLOOR.0 + 86_400_000));
        Keys::open_or_create(&home.path().join("keys"), &mut Entropy::from_seed([1; 32])).unwrap();
        Self { home, now }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    async fn look_at(&self, sync_address: SocketAddr) -> Vec<Finding> {
        let data = self.home.path().to_owned();
        let api_address = SocketAddr::from(([127, 0, 0, 1], 1));
        let premises = Premises { data, api_address, sync_address };
        let clock: Arc<dyn Clock> = Arc::new(Standing(self.now));
        look_at_folder(&premises, &clock, &mut Entropy::from_seed([2; 32])).await
    }

    async fn finding(&self, check: &str) -> Finding {
        let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let findings = self.look_at(free).await;
        findings.iter().find(|finding| finding.check == check).unwrap_or_else(|| panic!("{findings:#?}")).clone()
    }
}

#[tokio::test]
async fn a_folder_before_its_first_start_is_no_failure() {
    let folder = Folder { home: tempfile::tempdir().unwrap(), now: BUILD_FLOOR };
    let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let findings = folder.look_at(free).await;
    assert_eq!(fleetd_sync_core::finding::failed(&findings), [""; 0], "{findings:#?}");
    assert_eq!(fs::read_dir(folder.home.path()).unwrap().count(), 0, "it only looks");
}

#[tokio::test]
async fn a_clock_in_1970_fails_since_expiries_are_judged_by_it() {
    let mut folder = Folder::new();
    assert_eq!(folder.finding("clock").await.state, State::Ok);
    folder.now = Wall(1_000);
    let clock = folder.finding("clock").await;
    assert!(clock.state == State::Fail && clock.found.contains("1970-01-01"), "{clock:?}");
}

#[tokio::test]
async fn keys_that_are_open_missing_or_still_with_the_root_are_named() {
    let folder = Folder::new();
    assert_eq!(folder.finding("root key").await.state, State::Warn);
    fs::rename(folder.path("keys/root.key"), folder.path("root.key")).unwrap();
    for check in ["root key", "ca", "trust", "keys", "key files"] {
        assert_eq!(folder.finding(check).await.state, State::Ok, "{check}");
    }
    fs::set_permissions(folder.path("keys"), Permissions::from_mode(0o755)).unwrap();
    let open = folder.finding("keys").await;
    assert_eq!((open.state, open.remedy), (State::Fail, format!("chmod 700 {}", folder.path("keys").display())));
    fs::set_permissions(folder.path("keys"), Permissions::from_mode(0o700)).unwrap();
    fs::remove_file(folder.path("keys/ca.key")).unwrap();
    let missing = folder.finding("fleet").await;
    assert!(missing.state == State::Fail && missing.found.contains("ca.key is missing"), "{missing:?}");
    assert!(missing.remedy.starts_with("cp -a SAVED-KEYS"), "{missing:?}");
}

#[tokio::test]
async fn a_backup_is_missing_fresh_or_old() {
    let mut folder = Folder::new();
    let open = || DiskStore::open(&folder.path("store"), Profile::Server).unwrap();
    drop(open());
    assert_eq!(folder.finding("backup").await.state, State::Warn);
    let store = open();
    commit(&store, &ActorKey::only("test"), vec![taken(folder.now)]).await.unwrap();
    drop(store);
    assert_eq!(folder.finding("backup").await.state, State::Ok);
    folder.now = folder.now + Duration::from_secs(8 * 86_400);
    let old = folder.finding("backup").await;
    assert!(old.state == State::Warn && old.remedy == "fleetd backup --out FILE", "{old:?}");
}

#[tokio::test]
async fn a_port_that_another_process_has_is_told_from_a_free_one() {
    let folder = Folder::new();
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let findings = folder.look_at(address).await;
    let check = format!("UDP {}", address.port());
    let port = findings.iter().find(|finding| finding.check == check).unwrap();
    assert_eq!(port.state, State::Fail, "{port:?}");
    drop(taken);
    let findings = folder.look_at(address).await;
    let port = findings.iter().find(|finding| finding.check == check).unwrap();
    assert!(port.state == State::Warn && port.remedy.contains("--sync-address"), "{port:?}");
}

#[tokio::test]
async fn a_root_key_that_counts_is_a_danger_and_one_that_was_rotated_away_is_rubbish() {
    let folder = Folder::new();
    let finding = folder.finding("root key").await;
    assert!(finding.state == State::Warn && finding.remedy.contains("mv '"), "{finding:?}");

    let keys = Keys::open_or_create(&folder.path("keys"), &mut Entropy::from_seed([3; 32])).unwrap();
    let next = SecretKey::generate(&mut Entropy::from_seed([4; 32]));
    let mut kept = keys.trust_file().read().unwrap();
    let rotate = Change::Rotate { keys: [next.public()].into(), threshold: 1 };
    let record = kept.chain.draft_next([rotate]).unwrap().sign(keys.root().unwrap()).sign(&next);
    kept.chain.extend(record).unwrap();
    keys.trust_file().write(&kept).unwrap();
    drop(keys);
    let finding = folder.finding("root key").await;
    assert!(finding.state == State::Warn && finding.remedy.starts_with("rm '"), "{finding:?}");
    fs::remove_file(folder.path("keys/root.key")).unwrap();
    assert_eq!(folder.finding("root key").await.state, State::Ok);
}
