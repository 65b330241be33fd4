//! What has room in a device's document, and that a stop always has.

use fleetd_sync_core::configuration::Configuration;
use fleetd_sync_core::envelope::{Path, Value};
use fleetd_sync_core::resolve;

use super::super::room::{Writes, assignment_bytes, hold_bytes, missing_bytes, writes};
use super::super::wanted::Wanted;
use super::recovery::Far;
use super::*;
use crate::window::Terms;

/// A configuration that is as large as one may be.
fn large(workload: &WorkloadName) -> Arc<Configuration> {
    let values = [("RECIPE".to_owned(), "x".repeat(limit::CONFIGURATION_VALUES_BYTES_MAX - 6))].into();
    let file = |index: usize| {
        let digest = ArtifactDigest::of(&[u8::try_from(index).unwrap()]);
        (format!("RECIPE_{index:02}"), fleetd_sync_core::configuration::ConfiguredFile { digest, size_bytes: 9 })
    };
    let of = |files: usize| {
        let files = (0..files).map(file).collect();
        Configuration::new(workload.clone(), "large".parse().unwrap(), BTreeMap::clone(&values), files)
    };
    Arc::new((0..).map_while(|files| of(files).ok()).last().unwrap())
}

fn assigned(world: &mut World, workload: &str) -> RolloutAssignment {
    let workload = workload.parse().unwrap();
    let configuration = Some(large(&workload));
    RolloutAssignment { workload, configuration, ..world.assignment("1.0") }
}

fn said(far: &Far, world: &World) -> Wanted {
    let lane = world.device.replica.own_lane().unwrap();
    far.replica.lane_state(DocumentId::Desired(world.device.local), lane).cloned().unwrap_or_default()
}

#[test]
fn a_stop_reaches_a_device_whose_document_has_no_room_for_another_assignment() {
    let mut world = world();
    world.enrol();
    let mut far = Far::new(&mut world);
    world.meet(&mut far);
    let assignments: Vec<_> = (0..7).map(|index| assigned(&mut world, &format!("coffee-{index}"))).collect();
    for assignment in &assignments {
        let (_, effects) = world.step(Input::Assign(assignment.clone()));
        world.deliver(&mut far, &effects);
    }
    let has = |rows: &Wanted, assignment: &RolloutAssignment| {
        wanted::assigned_rollout(rows, &assignment.workload) == Some(assignment.rollout)
    };
    let there = said(&far, &world);
    let fitting = assignments.iter().filter(|assignment| has(&there, assignment)).count();
    assert_eq!(fitting, 5, "as the limit says");
    let late = assignments.last().unwrap();
    let events = world.device.record().unwrap().events.iter();
    let refused = events.filter(|event| event.kind == "unwritable" && event.workload.as_ref() == Some(&late.workload));
    assert_eq!(refused.count(), 1, "it is said once for as long as it is so");

    let first = assignments.first().unwrap();
    let hold = HoldId::random(&mut world.entropy);
    let reason = "x".repeat(limit::REASON_BYTES_MAX);
    let (rollout, workload) = (first.rollout, first.workload.clone());
    let (_, effects) = world.step(Input::Hold { rollout, hold, workload, reason });
    world.deliver(&mut far, &effects);
    assert!(wanted::holds(&said(&far, &world)).any(|(there, ..)| there == hold), "the stop has room");

    let (rollout, workload) = (first.rollout, first.workload.clone());
    let (_, effects) = world.step(Input::Withdraw { rollout, workload });
    world.deliver(&mut far, &effects);
    let there = said(&far, &world);
    let fitting = assignments.iter().filter(|assignment| has(&there, assignment)).count();
    assert!(fitting == 5 && !has(&there, first), "what waited for room has come");
}

#[test]
fn operators_holds_leave_room_for_those_of_rollouts() {
    let mut world = world();
    world.enrol();
    let reason = "x".repeat(limit::REASON_BYTES_MAX);
    let (rollout, hold) = (world.assignment("1.0").rollout, HoldId::random(&mut world.entropy));
    let workload = "coffee".parse().unwrap();
    world.step(Input::Hold { rollout, hold, workload, reason });
    let mut hold = |reason: &str| {
        let hold = HoldId::random(&mut world.entropy);
        world.command(Command::Hold { hold, workload: None, reason: reason.to_owned() }).map(|_| ())
    };
    let placed = (0..20).take_while(|_| hold(&"x".repeat(limit::REASON_BYTES_MAX)).is_ok()).count();
    assert_eq!(placed, 3, "the rollout's takes nothing from them");
    assert!(matches!(hold("smoke, and much of it"), Ok(()) | Err(CommandError::Holds { .. })));
    let rows = &world.device.record().unwrap().wanted;
    assert!(hold_bytes(rows) <= limit::HOLDS_BYTES_RESERVED);
}

#[test]
fn the_room_that_a_plan_reckons_with_is_no_less_than_what_an_assignment_takes() {
    let mut world = world();
    let workload = "coffee".parse().unwrap();
    for configuration in [None, Some(large(&workload))] {
        let mut rows = Wanted::new();
        let assignment = RolloutAssignment { configuration: configuration.clone(), ..world.assignment("1.0") };
        wanted::assign(&mut rows, &assignment);
        let reckoned = assignment_bytes(&workload, configuration.as_deref(), &Terms::default());
        let taken =
            limit::ASSIGNED_BYTES_MAX + missing_bytes(&rows, &"tea".parse().unwrap(), 1 << 20).unwrap() - (1 << 20);
        assert!((taken..taken + 300).contains(&reckoned), "{taken} {reckoned}");
        assert_eq!(missing_bytes(&rows, &workload, limit::ASSIGNED_BYTES_MAX), None, "it takes its own place");
        assert_eq!(missing_bytes(&rows, &"tea".parse().unwrap(), limit::ASSIGNED_BYTES_MAX), Some(taken));
    }
}

#[test]
fn between_two_steps_no_device_is_freer_and_no_workload_half_assigned() {
    let mut world = world();
    let names: Vec<WorkloadName> = (0..24).map(|index| format!("w{index}").parse().unwrap()).collect();
    let larges: Vec<_> = names.iter().map(large).collect();
    let (mut crowded, mut stepped) = (0, 0);
    for _ in 0..300 {
        let mut draw = |of_before: Option<&Wanted>| {
            let mut rows = of_before.cloned().unwrap_or_default();
            // Twice, so that one is also freed and assigned at once.
            for (name, large) in names.iter().zip(&larges).chain(names.iter().zip(&larges)) {
                match world.entropy.below(5) {
                    0 => rows.retain(|path, _| !is_of(path, name)),
                    1 => {
                        wanted::hold(&mut rows, HoldId::random(&mut world.entropy), Some(name), "a gate halted it");
                    }
                    2 => rows.retain(|path, _| {
                        resolve::read_hold_path(path).is_none_or(|(_, held)| held.as_ref() != Some(name))
                    }),
                    draw => {
                        let configuration = (draw == 3).then(|| Arc::clone(large));
                        let assignment = world.assignment("2.0");
                        wanted::assign(
                            &mut rows,
                            &RolloutAssignment { workload: name.clone(), configuration, ..assignment },
                        );
                    }
                }
            }
            rows
        };
        let asked_before = draw(None);
        let before = applied(Wanted::new(), &writes(&asked_before, &Wanted::new()));
        let asked = draw(Some(&asked_before));
        let written = writes(&asked, &before);
        crowded += usize::from(!written.left_out.is_empty());
        stepped += usize::from(written.steps.len() > 1);
        let mut state = before.clone();
        for step in &written.steps {
            assert!(step.len() <= limit::ENVELOPE_OPS_MAX);
            state = wanted::changed(state, step.clone());
            let taken = state.iter().filter(|(path, _)| resolve::read_hold_path(path).is_none());
            let taken: usize = taken.map(|(path, value)| path.as_str().len() + bytes(value) + 16).sum();
            assert!(taken <= limit::ASSIGNED_BYTES_MAX);
            for name in &names {
                let rows = of_workload(&state, name);
                assert!(
                    rows == of_workload(&before, name) || rows == of_workload(&asked, name),
                    "{name} is half assigned"
                );
                let is_freed = is_held(&before, name) && !is_held(&state, name);
                assert!(!is_freed || rows == of_workload(&asked, name), "{name} is free too early");
            }
        }
        if written.left_out.is_empty() {
            assert_eq!(state, asked);
        }
        assert!(wanted::holds(&asked).all(|(hold, ..)| wanted::holds(&state).any(|(there, ..)| there == hold)));
    }
    assert!(crowded > 20 && stepped > 20, "documents that are full, and changes of several steps: {crowded} {stepped}");
}

fn applied(rows: Wanted, written: &Writes) -> Wanted {
    written.steps.iter().fold(rows, |rows, step| wanted::changed(rows, step.clone()))
}

fn is_of(path: &Path, name: &WorkloadName) -> bool {
    resolve::read_workload_path(path) == Some(name.as_str())
}

fn of_workload(rows: &Wanted, name: &WorkloadName) -> Wanted {
    rows.iter().filter(|(path, _)| is_of(path, name)).map(|(path, value)| (path.clone(), value.clone())).collect()
}

fn is_held(rows: &Wanted, name: &WorkloadName) -> bool {
    wanted::holds(rows).any(|(_, held, _)| held.as_ref() == Some(name))
}

fn bytes(value: &Value) -> usize {
    match value {
        Value::Boolean(_) => 1,
        Value::Integer(_) => 9,
        Value::Text(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
    }
}
