use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::sync::Mutex;

use fleetd_sync_core::session::{Grade, ServerSide};
use fleetd_sync_core::trust::{Role, RootRecord};

use super::*;
use crate::clock::{BUILD_FLOOR, SystemClock};
use crate::examine::{self, ClockDuty, Viewpoint};
use crate::identity::{CertificateAuthority, ServerName};
use crate::link::{ListenIdentity, Listener};
use fleetd_sync_core::finding::State;
use fleetd_sync_core::time::Now;

/// A fleet with one server.
struct Fleet {
    chain: RootChain,
    authority: CertificateAuthority,
    server: SecretKey,
}

impl Fleet {
    fn new(seed: u8) -> Self {
        let mut entropy = Entropy::from_seed([seed; 32]);
        let (root, ca) = (SecretKey::generate(&mut entropy), SecretKey::generate(&mut entropy));
        let roles = [(ca.public(), Role::CertificateAuthority)];
        let first = RootRecord::draft(BTreeSet::from([root.public()]), 1, roles).unwrap().sign(&root);
        let fleet = first.body().fleet;
        let chain = RootChain::found(fleet, first).unwrap();
        let authority = CertificateAuthority::new(fleet, &ca).unwrap();
        Self { chain, authority, server: SecretKey::generate(&mut entropy) }
    }

    fn expected(&self) -> Expected {
        Expected { fleet: self.chain.fleet(), chain: None, trust_version_min: 0 }
    }

    /// Serves strangers, whom it shows `chain`.
    fn serve(&self, chain: RootChain) -> (Endpoint, Box<dyn Listener>) {
        let (clock, mut entropy) = (clock(), Entropy::from_seed([9; 32]));
        let names = [ServerName::of_host("localhost")];
        let now = clock.now().wall;
        let issued = self.authority.issue_server(&self.server.public(), &names, now, &mut entropy).unwrap();
        let identity = ListenIdentity {
            certificates: issued.chain,
            key: self.server.clone(),
            authorities: vec![self.authority.certificate().to_vec()],
        };
        let endpoint = Endpoint::new(Handle::current(), Settings::server(), Arc::clone(&clock), entropy);
        let chain = Arc::new(chain);
        let link = endpoint.clone();
        let accept: crate::link::Accept = Arc::new(move |_, _, _| {
            let mut entropy = Entropy::from_seed([8; 32]);
            let replica = Replica::new(chain.fleet(), None, &mut entropy);
            let side = Side::Server(ServerSide { chain: Arc::clone(&chain), grade: Grade::Enroll });
            let opening = Opening { boot: BootId::random(&mut entropy), log_positions: Vec::new(), side };
            let session = Session::open(clock.now().monotonic, opening, &replica, &mut Vec::new());
            let (link, clock, state) = (link.clone(), Arc::clone(&clock), Mutex::new((session, replica)));
            Arc::new(move |connection, event| {
                let LinkEvent::Frame { bytes, .. } = event else { return };
                let (message, mut out) = (frame::decode(&bytes).unwrap().unwrap(), Vec::new());
                let (session, replica) = &mut *state.lock().unwrap();
                session.on_message(clock.now(), message, replica, &mut out);
                for output in out {
                    if let Output::Send(class, message) = output {
                        link.send(connection, class, frame::encode(&message).unwrap()).unwrap();
                    }
                }
            })
        });
        let listener = endpoint.listen("127.0.0.1:0", identity, accept).unwrap();
        (endpoint, listener)
    }
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::default())
}

async fn try_reach(address: &str, expected: Option<&Expected>) -> Reach {
    reach(address, expected, &clock(), &mut Entropy::from_seed([7; 32])).await
}

fn finding(address: &str, reach: &Reach, fleet: FleetId) -> fleetd_sync_core::finding::Finding {
    examine::server("server".to_owned(), address, reach, Some(fleet), Viewpoint::Device)
}

#[tokio::test]
async fn a_server_of_the_fleet_answers_and_proves_it() {
    let fleet = Fleet::new(1);
    let (_endpoint, listener) = fleet.serve(fleet.chain.clone());
    let address = listener.local_address().to_string();
    let Reach::Answered(answered) = try_reach(&address, Some(&fleet.expected())).await else { panic!("no answer") };
    assert!(answered.is_proven && answered.fleet == fleet.chain.fleet());
    assert!(answered.not_after > BUILD_FLOOR);
    let Reach::Answered(unknown) = try_reach(&address, None).await else { panic!("no answer") };
    assert!(!unknown.is_proven && unknown.fleet == fleet.chain.fleet());
}

#[tokio::test]
async fn a_server_of_another_fleet_is_told_from_one_that_claims_ours() {
    let (ours, other) = (Fleet::new(1), Fleet::new(2));
    let (_endpoint, listener) = other.serve(other.chain.clone());
    let address = listener.local_address().to_string();
    let reach = try_reach(&address, Some(&ours.expected())).await;
    assert!(
        matches!(reach, Reach::NotOurs { claimed: Some(claimed), .. } if claimed == other.chain.fleet()),
        "{reach:?}"
    );
    let said = finding(&address, &reach, ours.chain.fleet()).found;
    assert!(
        said.contains(&other.chain.fleet().to_string()) && said.contains(&ours.chain.fleet().to_string()),
        "{said}"
    );

    // It shows our chain, and its certificate is from a CA of its own.
    let (_endpoint, listener) = other.serve(ours.chain.clone());
    let reach = try_reach(&listener.local_address().to_string(), Some(&ours.expected())).await;
    assert!(matches!(reach, Reach::NotOurs { code: CloseCode::Impostor, .. }), "{reach:?}");
}

#[tokio::test]
async fn a_closed_port_a_wall_a_stranger_and_a_wrong_name_are_told_apart() {
    let fleet = Fleet::new(1).chain.fleet();
    let free = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let reach = try_reach(&address, None).await;
    assert!(matches!(reach, Reach::Closed { .. }), "{reach:?}");
    let closed = finding(&address, &reach, fleet);
    assert!(closed.state == State::Fail && closed.remedy.contains("ss -lunp"), "{closed:?}");

    // It takes every packet and answers none, as a firewall that drops them.
    let wall = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = wall.local_addr().unwrap().to_string();
    let reach = try_reach(&address, None).await;
    assert!(matches!(reach, Reach::Silent { .. }), "{reach:?}");
    let silent = finding(&address, &reach, fleet);
    assert!(silent.state == State::Fail && silent.remedy.contains("fleetd doctor --data"), "{silent:?}");

    let stranger = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = stranger.local_addr().unwrap().to_string();
    let answering = async {
        let mut packet = [0; 1500];
        let (_, from) = stranger.recv_from(&mut packet).await.unwrap();
        stranger.send_to(b"who are you?", from).await.unwrap();
        std::future::pending::<()>().await;
    };
    let reach = tokio::select! {
        reach = try_reach(&address, None) => reach,
        () = answering => unreachable!("it waits for ever"),
    };
    assert!(matches!(reach, Reach::Foreign { .. }), "{reach:?}");

    let reach = try_reach("no.such.name.invalid:4433", None).await;
    assert!(matches!(reach, Reach::Unresolved { .. }), "{reach:?}");
    let unresolved = finding("no.such.name.invalid:4433", &reach, fleet);
    assert!(unresolved.remedy.starts_with("getent hosts no.such.name.invalid"), "{unresolved:?}");
}

#[test]
fn dates_are_those_of_the_calendar() {
    for (ms, expected) in [
        (0, "1970-01-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59Z"),
        (951_782_400_000, "2000-02-29T00:00:00Z"),
        (1_793_491_200_000, "2026-11-01T00:00:00Z"),
        (4_107_542_399_000, "2100-02-28T23:59:59Z"),
        (4_107_542_400_000, "2100-03-01T00:00:00Z"),
        (253_402_300_799_000, "9999-12-31T23:59:59Z"),
    ] {
        assert_eq!(examine::date(Wall(ms)), expected);
    }
}

#[test]
fn a_clock_is_judged_by_what_is_known_to_have_passed_and_by_the_servers_certificate() {
    use fleetd_sync_core::time::ClockFloor;
    const DAY_MS: i64 = 86_400_000;
    let at = |wall: Wall| Now { wall, ..Now::default() };
    let state = |wall, floor, servers| examine::clock(at(wall), floor, servers, ClockDuty::Tells).state;
    let today = Wall(BUILD_FLOOR.0 + 400 * DAY_MS);
    assert_eq!(state(today, None, None), State::Ok);
    assert_eq!(state(Wall(5_000), None, None), State::Warn);
    let unset = examine::clock(at(Wall(5_000)), None, None, ClockDuty::Judges);
    assert!(unset.state == State::Fail && unset.remedy.starts_with("timedatectl"), "{unset:?}");
    assert_eq!(state(Wall(BUILD_FLOOR.0 - 1), None, None), State::Warn);
    assert_eq!(state(today, Some(ClockFloor(Wall(today.0 + 1))), None), State::Warn);
    let issued_at = |wall: Wall| Some(wall + identity::SERVER_CERTIFICATE_LIFETIME);
    assert_eq!(state(today, None, issued_at(today)), State::Ok);
    assert_eq!(state(today, None, issued_at(Wall(today.0 + 2 * DAY_MS))), State::Warn);
    assert_eq!(state(today, None, Some(Wall(today.0 - 2 * DAY_MS))), State::Warn);
}

#[test]
fn a_certificate_is_missing_a_keys_own_due_or_over() {
    let (fleet, mut entropy) = (Fleet::new(1), Entropy::from_seed([3; 32]));
    let (key, other) = (SecretKey::generate(&mut entropy), SecretKey::generate(&mut entropy));
    let lifetime = limit::DEVICE_CERTIFICATE_LIFETIME;
    let issued = fleet.authority.issue_device(&key.public(), BUILD_FLOOR, &mut entropy).unwrap().chain;
    let remedies = examine::Remedies { unusable: "enrol again", expired: "connect it" };
    let look = |chain: &[Vec<u8>], key: &SecretKey, after: Duration| {
        let now = Now { wall: BUILD_FLOOR + after, ..Now::default() };
        let finding = examine::certificate(chain, &key.public(), lifetime, now, &remedies);
        (finding.state, finding.remedy)
    };
    let nothing = (State::Ok, String::new());
    assert_eq!(look(&issued, &key, Duration::ZERO), nothing);
    assert_eq!(look(&issued, &key, lifetime * 3 / 4), (State::Warn, "connect it".to_owned()));
    assert_eq!(look(&issued, &key, lifetime * 2), (State::Warn, "connect it".to_owned()));
    assert_eq!(look(&issued, &other, Duration::ZERO), (State::Fail, "enrol again".to_owned()));
    assert_eq!(look(&[], &key, Duration::ZERO), (State::Fail, "enrol again".to_owned()));
    assert_eq!(look(&[b"nothing".to_vec()], &key, Duration::ZERO), (State::Fail, "enrol again".to_owned()));
}
