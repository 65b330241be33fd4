use std::collections::BTreeMap;

use fleetd_actors::flight::{Extent, LEGS_MAX, Recorded as _};
use fleetd_actors::report::{Exit, Fault, FaultKind, Phase, RunState, Waits};
use fleetd_actors::rollout::Rollout;
use fleetd_actors::rollout::plan::{PlannedDevice, PlannedRelease, Verdict};
use fleetd_actors::rollout::strategy::{Place, Strategy};
use fleetd_actors::targeting::Targets;
use fleetd_sync_core::commit::Revision;
use fleetd_sync_core::configuration::ConfigurationId;
use fleetd_sync_core::id::{ArtifactDigest, DeviceId, EnvelopeHash, PlanId};
use fleetd_sync_core::machine::{Machine as _, Turn};

use super::*;

const ROLLOUT: RolloutId = RolloutId::from_bytes([1; 10]);

fn device(index: u8) -> LocalId {
    LocalId::from_bytes([index; 16])
}

fn plan(devices: u8) -> Plan {
    let planned = |index: u8| PlannedDevice {
        zone: None,
        supersedes: None,
        local: device(index),
        device: DeviceId::from_bytes([index; 10]),
        name: format!("otter-{index}").parse().unwrap(),
        site: String::new(),
        place: Some(Place { wave: 0, order: u32::from(index) }),
        verdict: Verdict::Install,
        artifact: None,
        offline_since: None,
        revision: Revision(7),
    };
    let release = PlannedRelease {
        workload: "coffee".parse().unwrap(),
        version: "1.8.0".parse().unwrap(),
        manifest: ArtifactDigest::of(b"manifest"),
        artifacts: BTreeMap::new(),
        configuration: None,
    };
    Plan {
        id: PlanId::from_bytes([2; 10]),
        release,
        attempt: 1,
        strategy: Strategy::default(),
        targets: Targets::All,
        rollback: None,
        undecided: vec![],
        devices: (1..=devices).map(planned).collect(),
    }
}

fn report(phase: Phase) -> WorkloadReport {
    WorkloadReport {
        release: Some("1.7.0".parse().unwrap()),
        configuration: ConfigurationId::from_text(&format!("roast-1 {}", ArtifactDigest::of(b"roast-1"))),
        phase: Some(phase),
        rollout: Some(ROLLOUT),
        attempt: 1,
        digest: Some(ArtifactDigest::of(b"manifest")),
        desired: Some(EnvelopeHash::from_bytes([6; 16])),
        run: Some(RunState::Running),
        error: Some(Fault::new(FaultKind::Crashed, "code 3: it is odd")),
        restarts: 2,
        previous: Some("1.6.0".parse().unwrap()),
        exit: Some(Exit::Code(3)),
        stopped_locally: true,
        waits: Some(Waits::Window { opens: Some(Wall(7)) }),
    }
}

/// A rollout that takes every kind of input, as the server records it.
fn flight() -> RolloutFlight {
    let mut machine = Rollout::new(ROLLOUT);
    let recorder = RolloutRecorder::default();
    recorder.loaded(machine.snapshot());
    let operation = OperationId::from_bytes([4; 8]);
    let inputs = [
        Input::Start { operation, caller: "acc_ada".to_owned(), plan: Arc::new(plan(4)) },
        Input::Pause { operation, reason: "ada".to_owned() },
        Input::DeviceHeld { device: device(1), hold: HoldId::from_bytes([3; 10]) },
        Input::Resume { operation },
        Input::DeviceLifted { device: device(1), is_held: true },
        Input::Approve { operation, wave: Some(1) },
        Input::DeviceAssigned { device: device(1) },
        Input::DeviceAcknowledged { device: device(1), assigned: Some((ROLLOUT, 1)) },
        Input::DeviceAcknowledged { device: device(2), assigned: None },
        Input::DeviceReported { device: device(1), report: Box::new(report(Phase::Download)) },
        Input::DeviceReported { device: device(2), report: Box::default() },
        Input::DevicePresence { device: device(3), offline_since: Some(Wall(1_800_000_000_123)) },
        Input::DevicePresence { device: device(3), offline_since: None },
        Input::DeviceSuperseded { device: device(2), by: RolloutId::from_bytes([9; 10]) },
        Input::DeviceGone { device: device(4) },
        Input::DeviceReported { device: device(1), report: Box::new(report(Phase::Restored)) },
        Input::Abort { operation, reason: "ada".to_owned() },
        Input::TakeBack { operation, reason: "ada".to_owned() },
        Input::Supersede {
            operation,
            by: RolloutId::from_bytes([8; 10]),
            devices: Arc::new([LocalId::from_bytes([1; 16])].into()),
        },
        Input::DeviceWithdrawn { device: device(3) },
    ];
    // Timers between them, until more legs than one are full.
    for (at, input) in (0_u64..90).zip(inputs.into_iter().map(Some).chain(std::iter::repeat(None))) {
        let now = Now { monotonic: Monotonic(at * 1_000_000_000), wall: Wall(77), quality: ClockQuality::Floor };
        let mut turn = Turn::new();
        recorder.step(now, input.as_ref());
        match input {
            Some(input) => machine.handle(now, input, &mut turn),
            None => machine.handle_timeout(now, &mut turn),
        }
        recorder.witness(&machine, &turn);
    }
    RolloutFlight { version: "0.1.0".to_owned(), rollout: ROLLOUT, legs: recorder.legs() }
}

#[test]
fn a_recording_survives_its_bytes() {
    let flight = flight();
    assert_eq!(flight.legs.len(), 2, "a leg that begins with a state of a rollout that was started");
    assert!(flight.legs[1].state.run.as_ref().is_some_and(|run| run.devices.len() == 4));
    assert_eq!(decode_flight(&encode_flight(&flight)), Ok(flight));
}

#[test]
fn a_plan_is_written_once_however_often_it_is_named() {
    let (once, mut more) = (encode_flight(&flight()).len(), flight());
    let state = more.legs[1].clone();
    more.legs.push(Leg { steps: Vec::new(), ..state });
    let leg = encode_flight(&more).len() - once;
    assert!(leg < plan(4).to_text().len() + 400, "{leg}");
    let text = plan(4).to_text();
    let line = text.lines().next().unwrap();
    let bytes = encode_flight(&more);
    assert_eq!(bytes.windows(text.len()).filter(|window| *window == text.as_bytes()).count(), 1, "{line}");
}

#[test]
fn what_no_recorder_wrote_is_refused_and_so_is_what_is_cut() {
    let mut long = flight();
    let step = long.legs[0].steps[3].clone();
    long.legs[0].steps = vec![step; extent_max().steps_max + 1];
    assert!(decode_flight(&encode_flight(&long)).is_err());
    let mut many = flight();
    many.legs = vec![Leg { steps: Vec::new(), ..many.legs[1].clone() }; LEGS_MAX + 1];
    assert!(decode_flight(&encode_flight(&many)).is_err());
    // A machine would not survive a state with other devices than its plan's.
    let mut foreign = flight();
    drop(foreign.legs[1].state.run.as_mut().unwrap().devices.pop_first());
    assert!(decode_flight(&encode_flight(&foreign)).is_err());
    let (flight, bytes) = (flight(), encode_flight(&flight()));
    for cut in 0..bytes.len() {
        let read = decode_flight(&bytes[..cut]);
        assert!(read.is_err() || read.is_ok_and(|read| read != flight), "cut at {cut}");
    }
}

#[test]
fn more_devices_make_longer_legs_and_never_more_than_a_reader_takes() {
    let extent = |devices: u8| {
        let mut machine = Rollout::new(ROLLOUT);
        let (operation, plan) = (OperationId::from_bytes([4; 8]), Arc::new(plan(devices)));
        machine.handle(Now::default(), Input::Start { operation, caller: String::new(), plan }, &mut Turn::new());
        machine.extent()
    };
    assert_eq!(extent(3), Extent::default());
    let large = extent(200);
    assert!(large.leg_steps == 200 && large.steps_max <= extent_max().steps_max, "{large:?}");
}
