//! What users of other fleet managers complain of, each as a scenario that comes with the program and shows what happens
//! here. Complaints and scenarios: `docs/rollouts.md`.

use std::ops::ControlFlow;

use fleetd_simulator::run::{Outcome, RunPlan, run};
use fleetd_simulator::scenario::builtin;

const SEEDS: u64 = 4;

/// What came of a scenario, which held all that has to hold, with each of a few seeds.
fn outcomes(name: &str) -> Vec<Outcome> {
    let of_seed = |seed| {
        let plan = RunPlan::drawn(builtin(name).unwrap(), seed);
        let outcome = run(plan, &mut |_| ControlFlow::Continue(())).unwrap();
        let failure = outcome.violation.as_ref().map(ToString::to_string);
        assert_eq!(failure, None, "{name}, seed {seed}");
        outcome
    };
    (1..=SEEDS).map(of_seed).collect()
}

fn reached(outcome: &Outcome, mark: &str) -> u64 {
    outcome.marks.get(mark).copied().unwrap_or(0)
}

#[test]
fn one_offline_device_stalls_nobody_and_follows_when_it_is_back() {
    for outcome in outcomes("one-offline") {
        let marks = &outcome.marks;
        assert_eq!(reached(&outcome, "a rollout succeeded"), 2, "{marks:?}");
        assert_eq!(reached(&outcome, "a rollout's next wave began"), 2, "all three waves: {marks:?}");
        assert!(reached(&outcome, "a device followed after its rollout had ended") > 0, "{marks:?}");
        assert_eq!(reached(&outcome, "a release took the place of another"), 12, "{marks:?}");
    }
}

#[test]
fn a_bricked_device_fails_at_the_deadline_and_its_gate_halts_the_rollout() {
    let mut bricked = 0;
    for outcome in outcomes("bricked") {
        let marks = &outcome.marks;
        // In which wave the device is, the plan draws: it dies of the release only in the first one.
        if reached(&outcome, "a device died while a release was on watch") == 0 {
            continue;
        }
        bricked += 1;
        assert_eq!(reached(&outcome, "a rollout halted before more devices failed"), 1, "{marks:?}");
        assert_eq!(reached(&outcome, "a rollout succeeded"), 1, "the first one alone: {marks:?}");
        assert_eq!(reached(&outcome, "a rollout's next wave began"), 0, "{marks:?}");
        assert_eq!(reached(&outcome, "a release took the place of another"), 7, "{marks:?}");
    }
    assert!(bricked > 1, "of {SEEDS} seeds {bricked} have it in the first wave");
}

#[test]
fn a_device_that_was_away_when_its_rollout_was_aborted_comes_back_and_installs_nothing() {
    for outcome in outcomes("late-stop") {
        let marks = &outcome.marks;
        assert_eq!(reached(&outcome, "a rollout was aborted"), 1, "{marks:?}");
        assert_eq!(reached(&outcome, "a release took the place of another"), 11, "all but the late one: {marks:?}");
        assert_eq!(reached(&outcome, "a device followed after its rollout had ended"), 0, "{marks:?}");
    }
}

#[test]
fn what_devices_restored_without_their_server_counts_as_soon_as_it_hears_of_it() {
    for outcome in outcomes("local-restore") {
        let marks = &outcome.marks;
        assert_eq!(reached(&outcome, "a release was restored"), 4, "{marks:?}");
        assert_eq!(reached(&outcome, "a rollout halted before more devices failed"), 1, "{marks:?}");
        assert_eq!(reached(&outcome, "a rollout's next wave began"), 0, "eight never got it: {marks:?}");
        assert_eq!(reached(&outcome, "a release took the place of another"), 0, "{marks:?}");
    }
}
