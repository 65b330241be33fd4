//! What is written is what is read.

use std::collections::BTreeSet;
use std::time::Duration;

use fleetd_actors::flight::{LEGS_MAX, Mark, STEPS_MAX, Start, Step};
use fleetd_actors::report::{Exit, Fault, FaultKind, Waits};
use fleetd_actors::workload::device_queue::Ahead;
use fleetd_actors::workload::{
    AssignedTerms, Assignment, Child, Command, FetchError, Fetched, Found, Gate, InQueue, Look, RunEvent, RunWish,
    StageError, SwitchError, Target, Vigil, Work, WorkloadRecord,
};
use fleetd_sync_core::configuration::Configuration;
use fleetd_sync_core::entropy::{Entropy, EntropyPosition};
use fleetd_sync_core::envelope::Value;
use fleetd_sync_core::id::{ArtifactDigest, EnvelopeHash, OperationId, RolloutId};
use fleetd_sync_core::key::SecretKey;
use fleetd_sync_core::time::{ClockFloor, ClockQuality, Monotonic, Now, Wall};
use fleetd_sync_core::trust::{Change, Rank, Role, RootChain, RootRecord, Sites, Statement, deny_path, revoke_path};

use super::*;

fn key(name: &str) -> SecretKey {
    SecretKey::generate(&mut Entropy::from_seed([7; 32]).stream(name))
}

fn roster(denied: bool) -> Arc<Roster> {
    let authority = |sites| Role::Authority { rank: Rank::CENTRAL, sites };
    let root = BTreeSet::from([key("root").public()]);
    let first = RootRecord::draft(
        root,
        1,
        [
            (key("central").public(), authority(Sites::All)),
            (key("site").public(), authority(Sites::Only(BTreeSet::from(["lab".parse().unwrap()])))),
            (key("ca").public(), Role::CertificateAuthority),
        ],
    );
    let first = first.unwrap().sign(&key("root"));
    let mut chain = RootChain::found(first.body().fleet, first).unwrap();
    let workloads = BTreeSet::from(["coffee".parse().unwrap()]);
    let release = Change::Delegate { key: key("ci").public(), role: Role::Release { workloads } };
    let second = chain.draft_next([release]).unwrap().sign(&key("root"));
    chain.extend(second).unwrap();
    let said = [(revoke_path(key("ci").id()), "retired"), (deny_path(ArtifactDigest::of(b"2.0")), "it spills")];
    let said = said.map(|(path, word)| (path.parse().unwrap(), Value::Text(word.to_owned())));
    let lane = key("central").id();
    let statements = said.iter().filter(|_| denied).map(|(path, value)| Statement { lane, path, value });
    Arc::new(Roster::new(&chain, statements))
}

fn operation(number: u8) -> OperationId {
    OperationId::from_bytes([number; 8])
}

fn configuration() -> Arc<Configuration> {
    let values = [("ROAST".to_owned(), "dark".to_owned())].into();
    Arc::new(Configuration::new("coffee".parse().unwrap(), "roast-2".parse().unwrap(), values, [].into()).unwrap())
}

fn assignment() -> Assignment {
    let target = Target {
        version: "1.0".parse().unwrap(),
        manifest: ArtifactDigest::of(b"1.0"),
        configuration: Some(configuration()),
        rollout: Some(RolloutId::from_bytes([4; 10])),
        attempt: 2,
    };
    Assignment {
        target: Some(target),
        run: Some(RunWish::Stopped),
        restarts: 3,
        held: true,
        conflict: true,
        remove: true,
        desired_head: Some(EnvelopeHash::from_bytes([5; 16])),
        terms: Some(AssignedTerms::of("veto 60s; zone Asia/Tokyo; window 0 2 * * * 3h")),
    }
}

fn inputs() -> Vec<Input> {
    let operation = operation(1);
    let no_space = FetchError::NoSpace { needed_bytes: 9, free_bytes: 2 };
    let fetched = [
        Ok(Fetched::Manifest(b"signed".to_vec())),
        Ok(Fetched::Artifact),
        Err(no_space),
        Err(FetchError::Unavailable { cause: "gone".to_owned() }),
    ];
    let staged = [
        Ok(()),
        Err(StageError::NoSpace { needed_bytes: 9, free_bytes: 2 }),
        Err(StageError::NoArtifact),
        Err(StageError::Disk { cause: "EIO".to_owned() }),
    ];
    let switched = [
        Ok(()),
        Err(SwitchError::NotStaged { cause: "no folder".to_owned() }),
        Err(SwitchError::Disk { cause: "EIO".to_owned() }),
    ];
    let found = [
        Found::Gone,
        Found::Running { run: operation, pid: 7, ready: true },
        Found::Exited { run: operation, exit: Exit::Signal(9) },
    ];
    let events = [
        RunEvent::Started { pid: 7 },
        RunEvent::StartFailed { cause: "ENOENT".to_owned() },
        RunEvent::AlreadyRunning,
        RunEvent::Ready,
        RunEvent::Exited(Exit::Code(1)),
    ];
    let mut inputs = vec![
        Input::Assigned(Assignment::default()),
        Input::Assigned(assignment()),
        Input::Trust(roster(false)),
        Input::Trust(roster(true)),
        Input::Removed { operation, result: Ok(()) },
        Input::Removed { operation, result: Err("EIO".to_owned()) },
        Input::Probed { operation, outcome: Ok(()) },
        Input::Probed { operation, outcome: Err(String::new()) },
        Input::Assigned(Assignment { terms: Some(AssignedTerms::of("tide high")), ..assignment() }),
        Input::Looked { operation, look: Look::default() },
        Input::Looked { operation, look: Look { is_locked: true, clock_floor: ClockFloor(Wall(-3)) } },
        Input::Queued { operation, ahead: None },
        Input::Queued { operation, ahead: Some(Ahead { first: "tea".parse().unwrap(), before: 2 }) },
        Input::Reset,
    ];
    inputs.extend(fetched.map(|result| Input::Fetched { operation, result }));
    inputs.extend(staged.map(|result| Input::Staged { operation, result }));
    inputs.extend(switched.map(|result| Input::Switched { operation, result }));
    inputs.extend(found.map(|found| Input::Attached { operation, found }));
    inputs.extend(events.map(|event| Input::Run { run: operation, event }));
    let defer = Command::Defer { length: Duration::from_millis(1500), reason: "brewing".to_owned() };
    let commands = [Command::Start, Command::Stop, Command::Restart, defer, Command::Allow];
    inputs.extend(commands.map(|command| Input::Command { operation, command }));
    inputs
}

fn states() -> Vec<Snapshot> {
    let run = operation(2);
    let children = [
        Child::Unknown,
        Child::Attaching { operation: run },
        Child::Down,
        Child::Backoff { until: Monotonic(5) },
        Child::Starting { run },
        Child::Up { run, pid: 7, since: Monotonic(6), ready: true },
        Child::Stopping { run, unwell: true },
    ];
    let state = |child| Snapshot {
        name: "coffee".parse().unwrap(),
        platform: "linux/arm64".parse().unwrap(),
        record: WorkloadRecord { stopped_locally: true, ..WorkloadRecord::default() },
        assignment: Some(assignment()),
        roster: Some(roster(true)),
        work: Work {
            operation: Some(run),
            retry_at: Some(Monotonic(0)),
            failures: 3,
            fault: Some(Fault::new(FaultKind::Fetch, "gone")),
            fetched: 2,
            again: true,
        },
        gate: Gate {
            waits: Some(Waits::Window { opens: Some(Wall(-4)) }),
            deferred_until: Some(Monotonic(0)),
            veto_until: Some(Monotonic(7)),
            queue: InQueue::Asked,
        },
        child,
        vigil: Vigil {
            deadline: Some(Monotonic(0)),
            probe_at: Some(Monotonic(9)),
            probe: Some(run),
            good: 1,
            bad: 2,
            last_bad: "503".to_owned(),
        },
        restart_asked: true,
        is_reported: true,
        is_shown: true,
        entropy: EntropyPosition { seed: [3; 32], drawn_bytes: 99 },
    };
    let mut states: Vec<_> = children.map(state).into();
    let bare =
        Snapshot { roster: None, assignment: None, work: Work::default(), gate: Gate::default(), ..state(Child::Down) };
    states.push(Snapshot { vigil: Vigil::default(), is_reported: false, ..bare });
    states
}

fn flight() -> WorkloadFlight {
    let qualities = [ClockQuality::None, ClockQuality::Floor, ClockQuality::Beacon, ClockQuality::Synced];
    let now = |at: usize| Now {
        monotonic: Monotonic(u64::try_from(at).unwrap()),
        wall: Wall(-i64::try_from(at).unwrap()),
        quality: qualities[at % 4],
    };
    let mark = Mark { phase: "up".into(), records: 1, effects: 2, wakes_at: Some(Monotonic(0)) };
    let marks = [None, Some(mark.clone()), Some(Mark { wakes_at: None, ..mark })];
    let inputs = std::iter::once(None).chain(inputs().into_iter().map(Some));
    let steps: Vec<_> =
        inputs.enumerate().map(|(at, input)| Step { now: now(at), input, mark: marks[at % 3].clone() }).collect();
    let starts = [Start::Loaded, Start::Continued, Start::Resumed];
    let legs = states().into_iter().enumerate().map(|(at, state)| Leg {
        start: starts[at % 3],
        state,
        steps: if at == 0 { steps.clone() } else { Vec::new() },
    });
    WorkloadFlight {
        version: "0.1.0".to_owned(),
        workload: "coffee".parse().unwrap(),
        platform: "linux/arm64".parse().unwrap(),
        legs: legs.collect(),
    }
}

#[test]
fn a_recording_survives_its_bytes() {
    let flight = flight();
    assert_eq!(decode_flight(&encode_flight(&flight)).unwrap(), flight);
}

#[test]
fn a_roster_is_written_once_however_often_it_counts() {
    let once = encode_flight(&flight()).len();
    let mut twice = flight();
    let trusted = twice.legs[0].steps[3].clone();
    twice.legs[0].steps.extend(vec![trusted; 20]);
    assert!(encode_flight(&twice).len() < once + 20 * 40);
}

#[test]
fn more_than_a_recorder_keeps_is_refused_and_so_is_what_is_cut() {
    let mut long = flight();
    long.legs[0].steps = vec![long.legs[0].steps[0].clone(); STEPS_MAX + 1];
    assert!(decode_flight(&encode_flight(&long)).is_err());
    let mut many = flight();
    many.legs = vec![many.legs[1].clone(); LEGS_MAX + 1];
    assert!(decode_flight(&encode_flight(&many)).is_err());
    let (flight, bytes) = (flight(), encode_flight(&flight()));
    for cut in 0..bytes.len() {
        let read = decode_flight(&bytes[..cut]);
        assert!(read.is_err() || read.is_ok_and(|read| read != flight), "cut at {cut}");
    }
}
