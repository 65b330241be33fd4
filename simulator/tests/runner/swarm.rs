//! Runs of scenarios with faults drawn from their seeds.

use std::ops::ControlFlow;

use fleetd_simulator::engine::EngineKind;
use fleetd_simulator::run::{RunPlan, run};
use fleetd_simulator::scenario::{builtin, builtin_names};

fn outcome_of(name: &str, seed: u64) -> fleetd_simulator::run::Outcome {
    let plan = RunPlan::drawn(builtin(name).unwrap(), seed);
    run(plan, &mut |_| ControlFlow::Continue(())).unwrap()
}

#[test]
fn every_scenario_holds_all_invariants_and_converges() {
    for name in builtin_names() {
        for seed in 0..4 {
            let outcome = outcome_of(name, seed);
            let failure = outcome.violation.map(|failure| failure.to_string());
            assert_eq!(failure, None, "fleetd sim run --scenario {name} --seed {seed}");
            println!(
                "{name} {seed}: {} events, {} faults, converged after {:?} ms, marks {:?}",
                outcome.events,
                outcome.faults.len(),
                outcome.converged_after_ms,
                outcome.marks
            );
        }
    }
}

#[test]
fn lines_that_became_durable_just_before_power_failed_may_be_let_go() {
    // The spool's turn is on the medium, and the store had no time to say so.
    let outcome = outcome_of("small", 50_002);
    assert_eq!(outcome.violation.map(|failure| failure.to_string()), None);
}

#[test]
fn a_seed_gives_the_same_run_twice_and_another_seed_another() {
    assert_eq!(outcome_of("calm", 5).trace, outcome_of("calm", 5).trace);
    assert_ne!(outcome_of("calm", 5).trace, outcome_of("calm", 6).trace);
}

#[test]
fn bare_cells_and_ractor_actors_run_alike() {
    for (name, seeds) in [("calm", 0..2), ("day", 0..4)] {
        for seed in seeds {
            let traces = [EngineKind::Direct, EngineKind::Ractor].map(|engine| {
                let plan = RunPlan { engine, ..RunPlan::drawn(builtin(name).unwrap(), seed) };
                let outcome = run(plan, &mut |_| ControlFlow::Continue(())).unwrap();
                (outcome.events, outcome.trace, outcome.coverage)
            });
            assert_eq!(traces[0], traces[1], "fleetd sim check --engines --scenario {name} --seed {seed}");
        }
    }
}
