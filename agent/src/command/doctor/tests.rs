//! Each thing that can be wrong with a device, made and seen. What takes a server is played with real processes in
//! `chaos-tests`.

use std::fs::{self, Permissions};
use std::net::UdpSocket;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::process::Command;

use fleetd_actors::agent::record::{AgentRecord, Membership};
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::id::{DeviceId, FleetId};
use fleetd_sync_core::key::SecretKey;
use fleetd_sync_core::time::{ClockFloor, Now, Wall};
use fleetd_sync_transport::clock::BUILD_FLOOR;
use fleetd_sync_transport::identity::CertificateAuthority;

use super::*;
use crate::config::Environment;
use crate::driver::agent::CLOCK_FLOOR_KEY;
use crate::identity_files::{IdentityFiles, IdentityPart, IdentityPlace as _};
use crate::record::{encode_agent, encode_clock_floor, encode_kept};

/// A clock that stands still.
struct Standing(Wall);

impl Clock for Standing {
    fn now(&self) -> Now {
        Now { wall: self.0, ..Now::default() }
    }
}

/// A device on which no agent runs.
struct Device {
    home: tempfile::TempDir,
    servers: Vec<String>,
    now: Wall,
}

impl Device {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        for name in ["data", "run"] {
            fs::DirBuilder::new().mode(0o700).create(home.path().join(name)).unwrap();
        }
        Self { home, servers: Vec::new(), now: Wall(BUILD_FLOOR.0 + 86_400_000) }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.home.path().join(name)
    }

    async fn look(&self) -> Vec<Finding> {
        let config = self.path("agent.toml");
        fs::write(&config, "").unwrap();
        let arguments = ConfigArguments {
            config: Some(config),
            data_directory: Some(self.path("data")),
            run_directory: Some(self.path("run")),
            servers: self.servers.clone(),
            ..ConfigArguments::default()
        };
        let config = Config::read(&arguments, &Environment::new()).unwrap();
        let clock: Arc<dyn Clock> = Arc::new(Standing(self.now));
        look(&config, &Invocation::standalone(false), &clock).await
    }

    async fn finding(&self, check: &str) -> Finding {
        let findings = self.look().await;
        findings.iter().find(|finding| finding.check == check).unwrap_or_else(|| panic!("{findings:#?}")).clone()
    }

    /// A key, and a certificate that was issued at this date for a key.
    fn enrol(&self, issued_at: Wall, other_key: Option<&SecretKey>) {
        let files = IdentityFiles::open(self.path("data/identity")).unwrap();
        let own = SecretKey::from_bytes(files.device_key().unwrap().signing().to_bytes());
        let (fleet, mut entropy) = (FleetId::from_bytes([1; 16]), Entropy::from_seed([2; 32]));
        let authority = CertificateAuthority::new(fleet, &SecretKey::generate(&mut entropy)).unwrap();
        let key = other_key.unwrap_or(&own).public();
        let certificates = authority.issue_device(&key, issued_at, &mut entropy).unwrap().chain;
        let (device, name) = (DeviceId::from_bytes([3; 10]), "brisk-otter".parse().unwrap());
        let membership = Membership::Enrolled { fleet, device, name, certificates };
        let record = AgentRecord { membership, dial_failures: 0, address: None };
        files.store(IdentityPart::Enrolment, &encode_agent(&record)).unwrap();
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn a_device_that_never_ran_is_no_failure_but_for_its_agent() {
    let device = Device::new();
    let findings = device.look().await;
    assert_eq!(finding::failed(&findings), ["agent"], "{findings:#?}");
    let agent = device.finding("agent").await;
    assert_eq!(agent.remedy, "fleetd-agent run");
    for check in ["store", "device key", "server"] {
        assert_eq!(device.finding(check).await.state, State::Warn, "{check}");
    }
    assert!(!device.path("data/identity").exists() && !device.path("data/store").exists(), "it only looks");
}

#[tokio::test]
async fn what_others_can_read_is_named_with_the_command_that_closes_it() {
    let device = Device::new();
    device.enrol(device.now, None);
    assert_eq!(device.finding("key files").await.state, State::Ok);
    set_mode(&device.path("data"), 0o755);
    set_mode(&device.path("data/identity/device-key.a"), 0o644);
    let data = device.finding("data directory").await;
    assert_eq!((data.state, data.remedy), (State::Fail, format!("chmod 700 {}", device.path("data").display())));
    let keys = device.finding("key files").await;
    assert!(keys.state == State::Fail && keys.found.contains("device-key.a has mode 0644"), "{keys:?}");
}

#[tokio::test]
async fn a_clock_in_1970_and_one_behind_what_has_passed_are_told_apart() {
    let mut device = Device::new();
    assert_eq!(device.finding("clock").await.state, State::Ok);
    device.now = Wall(60_000);
    let clock = device.finding("clock").await;
    assert!(clock.state == State::Warn && clock.found.contains("1970-01-01T00:01:00Z"), "{clock:?}");
    assert!(clock.remedy.starts_with("timedatectl"), "{clock:?}");

    device.now = Wall(BUILD_FLOOR.0 + 86_400_000);
    let files = IdentityFiles::open(device.path("data/identity")).unwrap();
    let passed = ClockFloor(Wall(device.now.0 + 60_000));
    let kept = [(CLOCK_FLOOR_KEY.to_vec(), encode_clock_floor(passed))].into();
    files.store(IdentityPart::Floors, &encode_kept(&kept)).unwrap();
    let clock = device.finding("clock").await;
    assert!(clock.state == State::Warn && clock.found.contains("has passed already"), "{clock:?}");
}

#[tokio::test]
async fn a_certificate_is_good_due_over_or_anothers() {
    let mut device = Device::new();
    device.enrol(device.now, None);
    assert_eq!(device.finding("certificate").await.state, State::Ok);
    let issued_at = device.now;
    device.now = issued_at + std::time::Duration::from_secs(300 * 86_400);
    let due = device.finding("certificate").await;
    assert!(due.state == State::Warn && due.found.contains("should have been renewed"), "{due:?}");
    device.now = issued_at + std::time::Duration::from_secs(400 * 86_400);
    let over = device.finding("certificate").await;
    assert!(over.state == State::Warn && over.found.starts_with("it ended at"), "{over:?}");

    device.enrol(device.now, Some(&SecretKey::generate(&mut Entropy::from_seed([9; 32]))));
    let foreign = device.finding("certificate").await;
    assert!(foreign.state == State::Fail && foreign.remedy.contains("enrol anew"), "{foreign:?}");
    for name in ["device-key.a", "device-key.b"] {
        fs::write(device.path("data/identity").join(name), "damaged").unwrap();
    }
    assert_eq!(device.finding("device key").await.state, State::Fail);
}

#[tokio::test]
async fn a_server_that_is_not_reached_says_how_it_is_not() {
    let mut device = Device::new();
    let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    device.servers = vec![free.to_string()];
    let check = format!("server {free}");
    let closed = device.finding(&check).await;
    assert!(closed.state == State::Fail && closed.found.contains("nothing listens"), "{closed:?}");

    // It takes every packet and answers none, as a firewall that drops them.
    let wall = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = wall.local_addr().unwrap();
    device.servers = vec![address.to_string()];
    let blocked = device.finding(&format!("server {address}")).await;
    assert!(blocked.state == State::Fail && blocked.found.contains("UDP is blocked"), "{blocked:?}");

    device.servers = vec!["no.such.name.invalid:4433".to_owned()];
    let unknown = device.finding("server no.such.name.invalid:4433").await;
    assert!(unknown.state == State::Fail && unknown.remedy.starts_with("getent hosts"), "{unknown:?}");
}

#[tokio::test]
async fn a_store_that_is_damaged_or_from_a_newer_program_says_so() {
    let device = Device::new();
    let store = device.path("data/store");
    drop(fleetd_sync_store::disk::DiskStore::open(&store, Profile::Agent).unwrap());
    assert_eq!(device.finding("store").await.state, State::Ok);
    let format = fs::read_to_string(store.join("FORMAT")).unwrap();
    fs::write(store.join("FORMAT"), format.replace('1', "9")).unwrap();
    let newer = device.finding("store").await;
    assert!(newer.state == State::Fail && newer.remedy.contains("newer program"), "{newer:?}");
    fs::write(store.join("FORMAT"), "").unwrap();
    let damaged = device.finding("store").await;
    assert!(damaged.state == State::Fail && damaged.remedy.contains("sets the store aside"), "{damaged:?}");
}

/// A file system of one mebibyte in a folder, where this process may mount one; gone with the guard.
struct Small(std::path::PathBuf);

impl Small {
    fn mount(folder: &Path, options: &str) -> Option<Self> {
        fs::create_dir_all(folder).unwrap();
        let options = format!("size=1m,mode=0700,{options}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "fleetd-test"]).arg(folder).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(folder.to_owned())),
            other => {
                eprintln!("skipped: this process may not mount a small file system: {other:?}");
                None
            }
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _unmounted = Command::new("umount").arg(&self.0).output();
    }
}

#[tokio::test]
async fn a_disk_that_is_full_or_for_reading_only_says_so() {
    let device = Device::new();
    let Some(small) = Small::mount(&device.path("data"), "rw") else { return };
    let full = device.finding("disk").await;
    assert!(full.state == State::Fail && full.remedy.starts_with("du -xh"), "{full:?}");
    drop(small);
    let Some(_small) = Small::mount(&device.path("run"), "ro") else { return };
    let read_only = device.finding("run disk").await;
    assert!(read_only.state == State::Fail && read_only.remedy.starts_with("mount -o remount,rw"), "{read_only:?}");
}

#[test]
fn answers_name_what_failed() {
    let findings = [Finding::ok("clock", "right"), Finding::fail("disk", "full", "df -h")];
    let report = report(&findings);
    assert_eq!(report["failed"], serde_json::json!(["disk"]));
    assert_eq!(report["findings"][1]["state"], "fail");
    assert_eq!(report["findings"][1]["remedy"], "df -h");
}
