//! Orders over the whole fleet: what stops a rollout from outside.

use super::*;
use crate::orders::Standstill;

fn standstill(number: u8) -> Option<Standstill> {
    let hold = HoldId::from_bytes([number; HoldId::LENGTH]);
    Some(Standstill { hold, reason: format!("order {number} stands"), lift: format!("lift {number}") })
}

fn asks(bench: &Bench) -> usize {
    bench.effects.iter().filter(|effect| matches!(effect, Effect::AskOrders { .. })).count()
}

#[test]
fn a_rollout_asks_what_stands_when_it_starts_and_after_each_load() {
    let mut bench = Bench::of_three();
    assert_eq!(asks(&bench), 1);
    bench.restart();
    assert_eq!(asks(&bench), 1);
    bench.wake();
    assert_eq!(asks(&bench), 1, "and never again");
}

#[test]
fn an_order_stops_a_rollout_and_its_end_lets_it_go_on() {
    let mut bench = Bench::of_three();
    bench.confirm();
    bench.input(Input::Ordered(standstill(1)));
    assert_eq!(bench.phase(), RolloutPhase::Paused);
    assert_eq!(bench.machine.header().unwrap().reason, "order 1 stands");
    let held = bench.effects.iter().filter(|effect| matches!(effect, Effect::Hold { .. })).count();
    assert_eq!(held, 3);
    bench.resume();
    assert!(bench.story().contains("Err(Ordered"), "nobody resumes it while the order stands");
    bench.restart();
    bench.input(Input::Ordered(standstill(1)));
    assert_eq!(bench.phase(), RolloutPhase::Paused, "a restart makes no difference");
    bench.input(Input::Ordered(None));
    assert_eq!(bench.phase(), RolloutPhase::Running);
    bench.confirm();
    bench.confirm();
    (1..=3).for_each(|index| bench.report(index, Phase::Healthy));
    assert_eq!(bench.phase(), RolloutPhase::Succeeded);
}

#[test]
fn one_order_after_the_other_keeps_it_stopped() {
    let mut bench = Bench::of_three();
    bench.input(Input::Ordered(standstill(1)));
    bench.input(Input::Ordered(standstill(2)));
    assert_eq!(bench.machine.header().unwrap().reason, "order 2 stands");
    bench.input(Input::Ordered(None));
    assert_eq!(bench.phase(), RolloutPhase::Running);
}

#[test]
fn what_somebody_paused_or_what_halted_stays_stopped_when_an_order_ends() {
    let mut paused_before = Bench::of_three();
    paused_before.pause();
    paused_before.input(Input::Ordered(standstill(1)));
    paused_before.input(Input::Ordered(None));
    assert_eq!(paused_before.phase(), RolloutPhase::Paused);
    let mut paused_meanwhile = Bench::of_three();
    paused_meanwhile.input(Input::Ordered(standstill(1)));
    paused_meanwhile.pause();
    paused_meanwhile.input(Input::Ordered(None));
    assert_eq!(paused_meanwhile.phase(), RolloutPhase::Paused);
    let mut halted = Bench::of_three();
    halted.report(1, Phase::Switch);
    halted.input(Input::Ordered(standstill(1)));
    halted.report(1, Phase::Restored);
    assert_eq!(
        halted.phase(),
        RolloutPhase::Halted,
        "what was switched to comes to its end, and that may be a bad one"
    );
    halted.resume();
    assert_eq!(halted.phase(), RolloutPhase::Halted);
    halted.input(Input::Ordered(None));
    assert_eq!(halted.phase(), RolloutPhase::Halted);
    halted.resume();
    assert_eq!(halted.phase(), RolloutPhase::Running);
}

#[test]
fn whoever_resumes_a_pause_hears_of_an_order_that_came_meanwhile() {
    let mut bench = Bench::of_three();
    bench.pause();
    bench.input(Input::Ordered(standstill(1)));
    bench.story();
    bench.resume();
    assert_eq!(asks(&bench), 1);
    bench.input(Input::Ordered(standstill(1)));
    assert_eq!(bench.phase(), RolloutPhase::Paused);
}
