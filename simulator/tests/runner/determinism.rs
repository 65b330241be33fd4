//! Where two runs part, to the event.

use std::ops::ControlFlow;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fleetd_simulator::determinism::{first_difference, parted_within};
use fleetd_simulator::fault::{Fault, FaultKind, Target};
use fleetd_simulator::run::{Extras, Outcome, RunPlan, run_with};
use fleetd_simulator::scenario::builtin;
use fleetd_simulator::watch::{Brief, Selection, Watch};

/// A run, and its events of a range.
fn watched(plan: &RunPlan, numbers: RangeInclusive<u64>) -> (Outcome, Vec<Brief>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&events);
    let watch = Watch::new(Selection::Numbers(numbers), move |seen| kept.lock().unwrap().push(seen.brief()));
    let extras = Extras { watch, ..Extras::default() };
    let outcome = run_with(plan.clone(), extras, &mut |_| ControlFlow::Continue(())).unwrap();
    let events = events.lock().unwrap().clone();
    (outcome, events)
}

#[test]
fn the_first_event_that_differs_is_found_through_checkpoints() {
    let plain = RunPlan::drawn(builtin("day").unwrap(), 1);
    let plain = RunPlan { faults: Vec::new(), ..plain };
    let at = Duration::from_secs(40 * 60);
    let fault = Fault { at, on: Target::Device(2), kind: FaultKind::LinkReset, lasting: Duration::ZERO, value: 0 };
    let cut = RunPlan { faults: vec![fault], ..plain.clone() };

    let (one, _) = watched(&plain, 0..=0);
    let (again, _) = watched(&plain, 0..=0);
    assert_eq!(parted_within(&one, &again), None, "a watched run has the trace of any other");
    let (other, _) = watched(&cut, 0..=0);
    let window = parted_within(&one, &other).unwrap();
    assert!(*window.start() > 1, "the first checkpoint is still the same: {window:?}");

    let ((_, one), (_, other)) = (watched(&plain, window.clone()), watched(&cut, window.clone()));
    assert_eq!(one.first().unwrap().number, *window.start());
    let difference = first_difference(&one, &other).unwrap();
    assert!(window.contains(&difference.number));
    let (one, other) = (difference.one.unwrap(), difference.other.unwrap());
    assert!(one.at_ns.min(other.at_ns) > u64::try_from(at.as_nanos()).unwrap(), "{one} {other}");
    assert_ne!(one, other);
}
