//! A release with a configuration: one thing to bring in, to watch and to go back from.

use fleetd_sync_core::configuration::pair_digest;

use super::bench::{assignment_with, configuration};
use super::*;

/// A device on which a release with a configuration has proven itself.
fn bench_with(version: &str, name: &str) -> Bench {
    let mut bench = Bench::with(version);
    bench.assign(assignment_with(version, name, 1));
    bench.run_all();
    bench.advance(Duration::from_secs(10));
    assert_eq!(bench.report().phase, Some(Phase::Healthy), "{}", bench.story());
    bench
}

#[test]
fn a_device_that_has_the_release_fetches_only_the_files_of_a_configuration() {
    let mut bench = Bench::with("1.0");
    bench.forget_story();
    bench.assign(assignment_with("1.0", "roast-1", 1));
    bench.run_all();
    bench.advance(Duration::from_secs(10));
    expect![[r#"
        fetch artifact roast-1, 5 bytes
        report: download 1.0+roast-1/1, runs 1.0, running
        stage 1.0+roast-1
        report: stage 1.0+roast-1/1, runs 1.0, running
        switch to 1.0+roast-1
        report: switch 1.0+roast-1/1, runs 1.0, running
        stop
        report: watch 1.0+roast-1/1, runs 1.0, with roast-1, running, before it 1.0
        start 1.0+roast-1
        collect all but 1.0+roast-1, 1.0
        report: healthy 1.0+roast-1/1, runs 1.0, with roast-1, running, before it 1.0
    "#]]
    .assert_eq(&bench.story());
    let pair = pair_digest(release("1.0").digest(), Some(configuration("roast-1").digest()));
    assert!(bench.report().is_about(rollout(), 1, pair));
}

#[test]
fn a_new_release_comes_with_its_configuration_in_one_switch() {
    let mut bench = Bench::with("1.0");
    bench.forget_story();
    bench.assign(assignment_with("2.0", "roast-1", 1));
    bench.run_until("stage");
    expect![[r#"
        fetch manifest 2.0
        report: pending 2.0+roast-1/1, runs 1.0, running
        fetch artifact 2.0, 3 bytes
        report: download 2.0+roast-1/1, runs 1.0, running
        fetch artifact roast-1, 5 bytes
        stage 2.0+roast-1
        report: stage 2.0+roast-1/1, runs 1.0, running
    "#]]
    .assert_eq(&bench.story());
    // Killed between any two of these it is one pair or the other; the store may be lost as well.
    bench.kill_agent();
    bench.assign(assignment_with("2.0", "roast-1", 1));
    bench.run_until("switch");
    bench.lose_record();
    assert_eq!(bench.report().configuration, None);
    bench.assign(assignment_with("2.0", "roast-1", 1));
    bench.run_all();
    bench.lose_record();
    assert_eq!(bench.report().configuration, Some(configuration("roast-1").id()), "{}", bench.story());
    assert_eq!(bench.running().as_deref(), Some("2.0+roast-1"));
}

#[test]
fn a_configuration_with_which_the_program_fails_gives_way_to_the_one_before_it_offline() {
    let mut bench = bench_with("1.0", "roast-1");
    bench.assign(assignment_with("1.0", "roast-2", 1));
    bench.run_all();
    bench.forget_story();
    bench.exit(Exit::Code(1));
    bench.run_all();
    expect![[r#"
        switch to 1.0+roast-1
        report: watch 1.0+roast-2/1 (crashed: code 1), runs 1.0, with roast-2, stopped, before it 1.0, exit code 1
        start 1.0+roast-1
        report: watch 1.0+roast-2/1 (crashed: code 1), runs 1.0, with roast-1, running, exit code 1
        collect all but 1.0+roast-1
        report: restored 1.0+roast-2/1 (crashed: code 1), runs 1.0, with roast-1, running, exit code 1
    "#]]
    .assert_eq(&bench.story());
    // It is the pair that failed: the release with another configuration may be tried, the pair may not.
    bench.forget_story();
    bench.assign(assignment_with("1.0", "roast-2", 1));
    bench.kill_agent();
    bench.assign(assignment_with("1.0", "roast-2", 1));
    bench.run_all();
    assert!(!bench.story().contains("fetch") && !bench.story().contains("switch"), "{}", bench.story());
    assert_eq!(bench.report().phase, Some(Phase::Restored));
    bench.assign(assignment("1.0", 1));
    bench.run_all();
    bench.advance(Duration::from_secs(10));
    assert_eq!((bench.report().phase, bench.running().as_deref()), (Some(Phase::Healthy), Some("1.0")));
}

#[test]
fn the_former_pair_is_switched_back_to_with_nothing_fetched() {
    let mut bench = bench_with("1.0", "roast-1");
    bench.assign(assignment_with("1.0", "roast-2", 1));
    bench.run_all();
    bench.advance(Duration::from_secs(10));
    bench.forget_story();
    bench.assign(assignment_with("1.0", "roast-1", 2));
    bench.run_all();
    assert!(!bench.story().contains("fetch"), "{}", bench.story());
    assert_eq!(bench.running().as_deref(), Some("1.0+roast-1"));
}

#[test]
fn a_configuration_that_fills_what_the_manifest_does_not_leave_open_is_refused_before_anything_is_fetched() {
    let mut bench = Bench::with("1.0");
    bench.forget_story();
    bench.assign(assignment_with("1.0", "odd", 1));
    bench.run_all();
    expect![[r#"
        collect all but 1.0
        report: restored 1.0+odd/1 (config: configuration odd fills SUGAR; the manifest of 1.0 leaves only MENU, ROAST open), runs 1.0, running
    "#]]
    .assert_eq(&bench.story());
}

#[test]
fn what_a_damaged_disk_does_not_give_back_is_fetched_whole() {
    let mut bench = bench_with("1.0", "roast-1");
    bench.assign(assignment_with("1.0", "roast-2", 1));
    bench.run_until("stage");
    let stage = bench.pending.iter().position(|effect| matches!(effect, Effect::Stage { .. })).unwrap();
    let Effect::Stage { operation, .. } = bench.pending.remove(stage) else { unreachable!() };
    bench.forget_story();
    bench.input(Input::Staged { operation, result: Err(StageError::NoArtifact) });
    bench.advance(Duration::from_secs(2));
    bench.run_until("stage");
    let fetched = |name: &str| bench.story().contains(&format!("fetch artifact {name}"));
    assert!(fetched("1.0") && fetched("roast-2"), "{}", bench.story());
}
