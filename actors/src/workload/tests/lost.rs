//! Workloads whose record was lost with the device's store.

use super::*;

#[test]
fn what_failed_before_the_store_was_lost_is_not_tried_again_until_the_attempt_rises() {
    let mut bench = Bench::with("1.0");
    bench.assign(assignment("2.0", 1));
    bench.run_all();
    bench.exit(Exit::Code(1));
    bench.run_all();
    bench.lose_record();
    bench.forget_story();
    bench.assign(assignment("2.0", 1));
    bench.run_all();
    assert!(!bench.story().contains("fetch"), "{}", bench.story());
    assert_eq!(bench.report().phase, Some(Phase::Restored));
    assert_eq!(bench.report().error, Some(Fault::new(FaultKind::Crashed, "code 1")));
    assert_eq!(bench.running().as_deref(), Some("1.0"));

    bench.assign(assignment("2.0", 2));
    bench.run_all();
    assert_eq!(bench.running().as_deref(), Some("2.0"));
}

#[test]
fn the_first_release_that_failed_is_not_tried_again_after_the_store_was_lost() {
    let mut bench = Bench::new();
    bench.assign(assignment("1.0", 1));
    bench.run_all();
    bench.exit(Exit::Code(2));
    bench.run_all();
    // Its folder still calls it the current one.
    assert_eq!(bench.current.as_deref(), Some("1.0"));
    bench.lose_record();
    bench.forget_story();
    bench.assign(assignment("1.0", 1));
    bench.run_all();
    assert!(!bench.story().contains("fetch") && !bench.story().contains("start"), "{}", bench.story());
    assert_eq!((bench.report().phase, bench.running()), (Some(Phase::Failed), None));
}

#[test]
fn a_restore_that_had_begun_is_ended_after_the_store_was_lost() {
    let mut bench = Bench::with("1.0");
    bench.assign(assignment("2.0", 1));
    bench.run_all();
    bench.exit(Exit::Code(1));
    assert!(matches!(
        bench.machine.record().install,
        Some(Install { step: Step::Restore { switched: false, .. }, .. })
    ));
    bench.lose_record();
    bench.run_all();
    assert_eq!(bench.running().as_deref(), Some("1.0"), "with no link and no documents");
    bench.assign(assignment("2.0", 1));
    bench.run_all();
    assert_eq!((bench.report().phase, bench.running().as_deref()), (Some(Phase::Restored), Some("1.0")));
}

#[test]
fn a_release_on_watch_goes_on_proving_itself_after_the_store_was_lost() {
    let mut bench = Bench::with("1.0");
    bench.assign(assignment("2.0", 1));
    bench.run_all();
    assert_eq!(bench.report().phase, Some(Phase::Watch));
    bench.lose_record();
    bench.run_all();
    assert_eq!(bench.report().phase, Some(Phase::Watch), "{}", bench.story());
    assert!(bench.report().is_about(rollout(), 1, release("2.0").digest()));
    bench.exit(Exit::Code(3));
    bench.run_all();
    assert_eq!(bench.running().as_deref(), Some("1.0"), "with no link and no documents it is restored");
    bench.assign(assignment("2.0", 1));
    bench.run_all();
    assert_eq!((bench.report().phase, bench.running().as_deref()), (Some(Phase::Restored), Some("1.0")));
}

#[test]
fn what_failed_is_no_way_back_after_the_store_was_lost() {
    let mut bench = Bench::with("1.0");
    bench.assign(assignment("2.0", 1));
    bench.run_all();
    bench.exit(Exit::Code(1));
    bench.run_all();
    // The folder still holds the release that failed, as the one before the current one.
    bench.staged.insert("2.0".to_owned());
    bench.lose_record();
    assert_eq!(bench.machine.record().previous, None);
}

#[test]
fn what_somebody_stopped_stays_stopped_after_the_store_was_lost() {
    let mut bench = Bench::with("1.0");
    bench.command(Command::Stop);
    bench.run_all();
    bench.lose_record();
    bench.assign(Assignment { restarts: 0, ..assignment("1.0", 1) });
    bench.run_all();
    assert_eq!(bench.running(), None);
    assert!(bench.report().stopped_locally);
}

#[test]
fn a_wish_to_restart_that_was_carried_out_is_not_carried_out_again_after_the_store_was_lost() {
    let mut bench = Bench::with("1.0");
    bench.assign(Assignment { restarts: 1, ..assignment("1.0", 1) });
    bench.run_all();
    bench.lose_record();
    bench.forget_story();
    bench.assign(Assignment { restarts: 1, ..assignment("1.0", 1) });
    bench.run_all();
    assert!(!bench.story().contains("stop"), "{}", bench.story());
}

#[test]
fn what_must_not_run_does_not_run_after_the_store_was_lost() {
    let mut bench = Bench::with("1.0");
    bench.trust(Trust::Stopped);
    bench.run_all();
    assert_eq!(bench.running(), None);
    let (current, floor) = (bench.machine.record().current.clone().unwrap(), bench.machine.record().floor());
    let loaded = Release::load(&current.signed, current.artifact, None).unwrap();
    let record = WorkloadRecord::recovered(Some(loaded), None, floor);
    assert_eq!(record.current.map(|current| current.verdict), Some(Verdict::MustStop));
}

#[test]
fn a_failure_that_the_record_missed_by_a_power_cut_counts() {
    let mut bench = Bench::with("1.0");
    bench.assign(assignment("2.0", 1));
    bench.run_until("stage");
    let before = bench.disk.clone();
    bench.run_all();
    bench.exit(Exit::Code(1));
    let floor = bench.disk.floor();
    let failed = floor.failed.clone();
    assert!(before.failed.is_none() && failed.is_some());
    assert_eq!(before.clone().raised_to(floor.clone()).failed, failed);
    // What has proven itself since is not made a failure by a floor that lags.
    let current = before.current.map(|current| Release { digest: failed.unwrap().manifest, ..current });
    let proven = WorkloadRecord { current, ..WorkloadRecord::default() };
    assert_eq!(proven.raised_to(floor).failed, None);
}
