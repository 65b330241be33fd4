//! Rollouts that go wave by wave while the server dies.

use std::ops::ControlFlow;

use fleetd_simulator::run::{Outcome, RunPlan, run};
use fleetd_simulator::scenario::Scenario;

/// Twenty devices, three waves, and a server that dies at its N-th call to its seams after the start.
fn dies_at(call: u64) -> Outcome {
    let scenario = format!(
        "name = \"dying\"\ndevices = 20\nduration = \"10m\"\ndeadline = \"10m\"\n\
         [[act]]\nat = \"10s\"\nroll_out = \"1.0.0\"\n\
         [act.strategy]\nwaves = [\"2\", \"25%\", \"rest\"]\nbake = \"30s\"\ndeadline = \"5m\"\n\
         [[fault]]\nat = \"9s\"\non = \"server\"\nkind = \"crash\"\nlasting = \"3m\"\nvalue = {call}\n"
    );
    let plan = RunPlan::drawn(Scenario::parse(&scenario).unwrap(), call);
    run(plan, &mut |_| ControlFlow::Continue(())).unwrap()
}

/// The calls at which the server can die in the middle of such a rollout; each so many of them are looked at.
fn goes_on_after_each(step: u64) -> u64 {
    let mut died = 0;
    for call in (1..).step_by(usize::try_from(step).unwrap()) {
        let outcome = dies_at(call);
        let failure = outcome.violation.map(|failure| failure.to_string());
        assert_eq!(failure, None, "the server died at call {call}");
        let reached = |mark: &str| outcome.marks.get(mark).copied().unwrap_or(0);
        assert_eq!(reached("a rollout succeeded"), 1, "the server died at call {call}: {:?}", outcome.marks);
        assert_eq!(reached("a rollout's next wave began"), 2, "the server died at call {call}");
        assert_eq!(reached("a release proved itself"), 20, "the server died at call {call}");
        let has_died = reached("the server died in the middle of a rollout") > 0;
        died += u64::from(has_died);
        // Before the rollout it may die, too; once it does not any more, the rollout was over by then.
        if !has_died && died > 0 {
            break;
        }
    }
    died
}

#[test]
fn a_rollout_goes_on_wherever_the_server_dies_in_it_and_tells_nobody_twice() {
    let died = goes_on_after_each(31);
    assert!(died >= 5, "it died {died} times in the middle of the rollout");
}

#[test]
#[ignore = "every call, which takes minutes"]
fn a_rollout_goes_on_at_whichever_call_the_server_dies_in_it() {
    println!("the server died at {} calls in the middle of the rollout", goes_on_after_each(1));
}
