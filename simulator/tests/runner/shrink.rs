//! A failing run becomes as small as it can.

use std::sync::Arc;
use std::time::Duration;

use fleetd_actors::rollout::status::RolloutPhase;
use fleetd_server::record;
use fleetd_simulator::checker::{Broken, Checker, Violation};
use fleetd_simulator::fault::{FaultKind, Target};
use fleetd_simulator::mark::Marks;
use fleetd_simulator::observation::Observation;
use fleetd_simulator::run::{Failure, RunPlan};
use fleetd_simulator::scenario::{Scenario, builtin};
use fleetd_simulator::shrink::{InProcess, shrink};
use fleetd_sync_core::commit::{Mutation, Space};
use fleetd_sync_core::time::Monotonic;

/// Holds nothing of the design: it fails when device-3 goes down once a rollout has begun.
#[derive(Default)]
struct Planted {
    is_rolling_out: bool,
}

impl Checker for Planted {
    fn invariant(&self) -> u8 {
        0
    }

    fn name(&self) -> &'static str {
        "planted"
    }

    fn observe(&mut self, _at: Monotonic, observation: &Observation, _marks: &Marks) -> Result<(), Broken> {
        match observation {
            Observation::Answered { batch, is_durable: true, .. } => {
                for mutation in &batch.mutations {
                    if let Mutation::Put { space: Space::Rollout, value, .. } = mutation {
                        let header = record::rollout::decode_header(value).unwrap();
                        self.is_rolling_out |= header.phase == RolloutPhase::Running;
                    }
                }
                Ok(())
            }
            Observation::Died { node } if &**node == "device-3" && self.is_rolling_out => {
                Err(Broken { node: Arc::clone(node), seen: "it went down after a rollout began".to_owned() })
            }
            _ => Ok(()),
        }
    }
}

fn planted() -> Vec<Box<dyn Checker>> {
    vec![Box::new(Planted::default())]
}

/// A run in which the planted checker fails, so that there is something to shrink.
fn failing(scenario: &Scenario, trials: &InProcess<'_>) -> (RunPlan, Failure) {
    let seeds = (0..50).map(|seed| RunPlan::drawn(scenario.clone(), seed));
    let mut failing = seeds.filter_map(|plan| {
        let failure = trials.outcome(plan.clone()).unwrap().violation?;
        Some((plan, failure))
    });
    failing.next().unwrap()
}

#[test]
fn a_failing_run_shrinks_to_the_one_fault_the_one_act_and_the_devices_that_it_needs() {
    let mut scenario = Scenario { devices: 12, ..builtin("day").unwrap() };
    scenario.swarm.get_mut(&FaultKind::PowerCut).unwrap().per_day = [200, 400];
    let original = Violation { invariant: 0, checker: "planted".to_owned(), node: String::new(), seen: String::new() };
    let mut trials = InProcess { original, checkers: Box::new(planted) };
    let (plan, failure) = failing(&scenario, &trials);
    assert!(plan.faults.len() > 10, "there is something to take away: {}", plan.faults.len());

    let shrunk = shrink(plan, failure, &mut trials);
    assert!(!shrunk.is_partial);
    let minimal = shrunk.scenario();
    assert_eq!(minimal.faults.len(), 1, "{:?}", minimal.faults);
    assert_eq!(minimal.faults[0].on, Target::Device(3));
    assert_eq!(minimal.acts.len(), 1, "{:?}", minimal.acts);
    assert_eq!((minimal.devices, minimal.sites), (4, 1), "device-3 is the fourth");
    assert!(minimal.duration <= Duration::from_secs(120), "{:?}", minimal.duration);
    assert!(shrunk.tried < 150, "{}", shrunk.tried);

    let written = Scenario::parse(&minimal.to_toml().unwrap()).unwrap();
    let again = trials.outcome(RunPlan::drawn(written, shrunk.plan.seed)).unwrap();
    assert_eq!(again.violation.unwrap().violation.checker, "planted", "the written file fails as the run did");
}
