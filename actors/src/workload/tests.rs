//! Stepping a workload by hand, then at random.

mod at_random;
mod bench;
mod configuration;
mod lost;
mod timing;

use std::time::Duration;

use expect_test::expect;
use fleetd_sync_core::release::{Probe, ProbeCheck};

use super::*;
use crate::report::Exit;
use bench::{Bench, Trust, assignment, release, rollout};

#[test]
fn a_release_comes_in_step_by_step_and_proves_itself() {
    let mut bench = Bench::new();
    bench.assign(assignment("1.0", 1));
    bench.run_all();
    bench.advance(Duration::from_secs(10));
    expect![[r#"
        attach
        fetch manifest 1.0
        attached: gone
        report: pending 1.0/1
        fetch artifact 1.0, 3 bytes
        report: download 1.0/1
        stage 1.0
        report: stage 1.0/1
        switch to 1.0
        report: switch 1.0/1
        start 1.0
        report: watch 1.0/1, runs 1.0, running
        collect all but 1.0
        report: healthy 1.0/1, runs 1.0, running
    "#]]
    .assert_eq(&bench.story());
    assert_eq!(bench.running().as_deref(), Some("1.0"));
}

#[test]
fn the_machines_state_can_be_told_before_each_turn_of_an_install() {
    let mut bench = Bench::new();
    bench.assign(assignment("1.0", 1));
    bench.run_all();
    let turns = bench.snapshots;
    bench.exit(Exit::Code(1));
    bench.run_all();
    assert!(turns >= 8 && bench.snapshots > turns, "{turns}, then {}", bench.snapshots);
}

#[test]
fn a_release_that_crashes_is_replaced_by_the_one_before_it_at_once() {
    let mut bench = Bench::with("1.0");
    bench.forget_story();
    bench.assign(assignment("2.0", 1));
    bench.run_all();
    bench.exit(Exit::Code(1));
    bench.run_all();
    expect![[r#"
        fetch manifest 2.0
        report: pending 2.0/1, runs 1.0, running
        fetch artifact 2.0, 3 bytes
        report: download 2.0/1, runs 1.0, running
        stage 2.0
        report: stage 2.0/1, runs 1.0, running
        switch to 2.0
        report: switch 2.0/1, runs 1.0, running
        stop
        report: watch 2.0/1, runs 2.0, running, before it 1.0
        start 2.0
        switch to 1.0
        report: watch 2.0/1 (crashed: code 1), runs 2.0, stopped, before it 1.0, exit code 1
        start 1.0
        report: watch 2.0/1 (crashed: code 1), runs 1.0, running, exit code 1
        collect all but 1.0
        report: restored 2.0/1 (crashed: code 1), runs 1.0, running, exit code 1
    "#]]
    .assert_eq(&bench.story());
    assert_eq!(bench.running().as_deref(), Some("1.0"));
}

#[test]
fn what_failed_is_tried_again_only_when_the_attempt_rises() {
    let mut bench = Bench::with("1.0");
    bench.assign(assignment("2.0", 1));
    bench.run_all();
    bench.exit(Exit::Signal(11));
    bench.run_all();
    bench.forget_story();
    bench.assign(assignment("2.0", 1));
    bench.kill_agent();
    bench.assign(assignment("2.0", 1));
    bench.run_all();
    assert_eq!(bench.report().phase, Some(Phase::Restored));
    assert_eq!(bench.report().error, Some(Fault::new(FaultKind::Crashed, "signal 11")));
    assert!(!bench.story().contains("fetch"), "{}", bench.story());

    bench.assign(assignment("2.0", 2));
    bench.run_all();
    bench.advance(Duration::from_secs(10));
    assert_eq!(bench.report().phase, Some(Phase::Healthy));
    assert!(bench.report().is_about(rollout(), 2, release("2.0").digest()));
}

#[test]
fn the_first_release_fails_with_nothing_to_restore() {
    let mut bench = Bench::new();
    bench.assign(assignment("1.0", 1));
    bench.run_all();
    bench.exit(Exit::Code(2));
    bench.run_all();
    assert_eq!(bench.report().phase, Some(Phase::Failed));
    assert_eq!(bench.running(), None);
    bench.kill_agent();
    bench.assign(assignment("1.0", 1));
    bench.run_all();
    assert_eq!((bench.report().phase, bench.running()), (Some(Phase::Failed), None));
}

#[test]
fn a_new_try_is_not_blamed_for_the_restarts_of_the_one_before_it() {
    let mut bench = Bench::new();
    bench.assign(assignment("1.0", 1));
    bench.run_all();
    for _ in 0..2 {
        bench.reboot();
        bench.hear_trust();
        bench.run_all();
    }
    bench.reboot();
    bench.hear_trust();
    bench.assign(assignment("1.0", 2));
    bench.run_all();
    bench.advance(Duration::from_secs(10));
    assert_eq!(bench.report().phase, Some(Phase::Healthy));
}

/// The folder is at the new release by then, and the record still at the old one.
#[test]
fn a_power_cut_in_the_middle_of_a_switch_lets_only_the_new_release_start() {
    let mut bench = Bench::with("1.0");
    bench.assign(assignment("2.0", 1));
    bench.run_until("switch to 2.0");
    bench.current = Some("2.0".to_owned());
    bench.reboot();
    bench.hear_trust();
    let attach = bench.pending.iter().position(|effect| matches!(effect, Effect::Attach { .. })).unwrap();
    bench.answer(attach);
    assert_eq!(bench.running(), None, "nobody knows yet which one is current");
    bench.run_all();
    assert_eq!(bench.running().as_deref(), Some("2.0"));
}

#[test]
fn a_hold_before_the_switch_undoes_the_install() {
    for stop_at in ["fetch manifest", "fetch artifact", "stage"] {
        let mut bench = Bench::with("1.0");
        bench.assign(assignment("2.0", 1));
        bench.run_until(stop_at);
        bench.forget_story();
        bench.assign(Assignment { held: true, ..assignment("2.0", 1) });
        bench.run_all();
        assert_eq!(bench.report().error, Some(Fault::new(FaultKind::Held, "")), "held at {stop_at}");
        assert_eq!(bench.running().as_deref(), Some("1.0"));
        assert!(bench.story().starts_with("cancel"), "{}", bench.story());
        assert!(!bench.story().contains("switch"), "{}", bench.story());

        bench.assign(assignment("2.0", 1));
        bench.run_all();
        bench.advance(Duration::from_secs(10));
        assert_eq!(bench.report().phase, Some(Phase::Healthy));
        assert_eq!(bench.running().as_deref(), Some("2.0"));
    }
}

#[test]
fn a_hold_that_came_while_the_agent_was_dead_is_heard_before_anything_is_installed() {
    let mut bench = Bench::with("1.0");
    bench.assign(assignment("2.0", 1));
    bench.run_until("stage");
    bench.kill_agent();
    bench.run_all();
    bench.forget_story();
    bench.assign(Assignment { held: true, ..assignment("2.0", 1) });
    bench.run_all();
    assert!(!bench.story().contains("stage"), "{}", bench.story());
    assert_eq!(bench.report().error, Some(Fault::new(FaultKind::Held, "")));
}

#[test]
fn a_conflict_keeps_what_runs_and_says_so() {
    let mut bench = Bench::with("1.0");
    bench.assign(Assignment { conflict: true, ..assignment("2.0", 1) });
    bench.run_all();
    assert_eq!(bench.report().error, Some(Fault::new(FaultKind::Conflict, "")));
    assert_eq!(bench.running().as_deref(), Some("1.0"));
}

#[test]
fn a_try_that_was_taken_back_too_late_still_says_how_it_ended() {
    let mut bench = Bench::with("1.0");
    bench.assign(assignment("2.0", 1));
    bench.run_all();
    assert_eq!(bench.report().phase, Some(Phase::Watch));
    bench.assign(Assignment::default());
    bench.run_all();
    bench.exit(Exit::Code(1));
    bench.run_all();
    let digest = release("2.0").digest();
    let is_restored = |report: &WorkloadReport| {
        report.phase == Some(Phase::Restored) && report.is_about(rollout(), 1, digest) && report.error.is_some()
    };
    assert!(bench.told().is_some_and(is_restored), "{:?}", bench.told());
    assert_eq!(bench.running().as_deref(), Some("1.0"));
    bench.kill_agent();
    bench.assign(Assignment::default());
    bench.run_all();
    assert!(is_restored(&bench.report()), "and says so after a restart: {:?}", bench.report());

    bench.assign(assignment("3.0", 1));
    bench.run_all();
    bench.advance(Duration::from_secs(10));
    bench.assign(Assignment::default());
    bench.run_all();
    let report = bench.report();
    assert_eq!((report.phase, report.digest), (Some(Phase::Healthy), Some(release("3.0").digest())));
}

#[test]
fn absence_never_uninstalls_and_removal_does() {
    let mut bench = Bench::with("1.0");
    bench.assign(Assignment::default());
    bench.run_all();
    assert_eq!(bench.running().as_deref(), Some("1.0"));
    bench.assign(Assignment { remove: true, held: true, ..Assignment::default() });
    bench.run_all();
    assert_eq!(bench.running().as_deref(), Some("1.0"), "a hold keeps it");
    bench.forget_story();
    bench.assign(Assignment { remove: true, ..Assignment::default() });
    bench.run_all();
    assert_eq!(bench.running(), None);
    assert_eq!(bench.report().phase, Some(Phase::Removed));
    bench.assign(assignment("1.0", 2));
    bench.run_all();
    assert_eq!(bench.running().as_deref(), Some("1.0"));
}

#[test]
fn a_restarted_agent_takes_up_the_run_and_starts_no_second_one() {
    let mut bench = Bench::with("1.0");
    bench.forget_story();
    bench.kill_agent();
    bench.assign(assignment("1.0", 1));
    bench.run_all();
    expect![[r#"
        attach
        attached: running
        report: healthy 1.0/1, runs 1.0, running
    "#]]
    .assert_eq(&bench.story());
}

#[test]
fn a_reboot_without_a_link_starts_what_ran_and_leaves_stopped_what_was_stopped() {
    let mut bench = Bench::with("1.0");
    bench.reboot();
    bench.run_all();
    assert_eq!(bench.running().as_deref(), Some("1.0"), "no document and no root was heard");

    bench.command(Command::Stop);
    bench.run_all();
    assert!(bench.report().stopped_locally);
    assert_eq!(bench.running(), None);
    bench.reboot();
    bench.assign(assignment("1.0", 1));
    bench.run_all();
    assert_eq!(bench.running(), None);
    assert_eq!(bench.report().run, Some(RunState::Stopped));
    bench.command(Command::Start);
    bench.run_all();
    assert_eq!(bench.running().as_deref(), Some("1.0"));

    bench.assign(Assignment { run: Some(RunWish::Stopped), ..assignment("1.0", 1) });
    bench.run_all();
    bench.reboot();
    bench.run_all();
    assert_eq!(bench.running(), None, "an operator's stop survives as well");
}

#[test]
fn wishes_to_restart_are_carried_out_once() {
    let mut bench = Bench::with("1.0");
    bench.forget_story();
    let wish = Assignment { restarts: 1, ..assignment("1.0", 1) };
    for _ in 0..2 {
        bench.assign(wish.clone());
        bench.run_all();
        bench.kill_agent();
    }
    bench.assign(wish);
    bench.run_all();
    assert_eq!(bench.story().lines().filter(|line| line.starts_with("start")).count(), 1, "{}", bench.story());
    assert_eq!(bench.report().restarts, 0, "only its own crashes are counted");
}

#[test]
fn a_healthy_program_that_keeps_crashing_is_started_ever_more_slowly() {
    let mut bench = Bench::with("1.0");
    let mut waits = Vec::new();
    for _ in 0..12 {
        bench.exit(Exit::Code(1));
        waits.push(bench.wait_for_start());
    }
    assert!(waits.iter().all(|wait| *wait <= Duration::from_mins(5)), "{waits:?}");
    assert!(waits.iter().max() > Some(&Duration::from_secs(8)), "{waits:?}");
    assert_eq!(bench.report().restarts, 12);
    bench.exit(Exit::Code(1));
    assert_eq!(bench.report().run, Some(RunState::CrashLoop));
    bench.input(Input::Reset);
    bench.run_all();
    assert_eq!(bench.running().as_deref(), Some("1.0"), "a reset ends the pause");
    bench.advance(Duration::from_mins(11));
    bench.exit(Exit::Code(1));
    assert_eq!(bench.report().run, Some(RunState::Backoff), "after a good run the pauses begin anew");
}

#[test]
fn readiness_must_be_said_in_time_where_the_manifest_asks_for_it() {
    let notify = Probe { check: ProbeCheck::Notify, ..Probe::default() };
    for says_ready in [true, false] {
        let mut bench = Bench::with("1.0");
        bench.assign_with("2.0", &notify);
        bench.run_all();
        bench.advance(Duration::from_secs(9));
        if says_ready {
            bench.ready();
        }
        bench.advance(Duration::from_secs(1));
        bench.run_all();
        let expected = if says_ready { "2.0" } else { "1.0" };
        assert_eq!(bench.running().as_deref(), Some(expected));
        if !says_ready {
            assert_eq!(bench.report().error, Some(Fault::new(FaultKind::Probe, "not ready within 10 s")));
        }
    }
}

#[test]
fn a_probe_must_succeed_within_the_grace_time_and_may_fail_before() {
    let tcp = Probe { check: ProbeCheck::Tcp { port: 80 }, successes_min: 2, ..Probe::default() };
    for (answers, healthy) in [([false, true, true], true), ([false, true, false], false)] {
        let mut bench = Bench::with("1.0");
        bench.assign_with("2.0", &tcp);
        bench.run_all();
        for answer in answers {
            bench.advance(Duration::from_millis(2500));
            bench.probed(answer);
        }
        bench.advance(Duration::from_millis(2500));
        bench.run_all();
        assert_eq!(bench.running().as_deref(), Some(if healthy { "2.0" } else { "1.0" }), "{answers:?}");
    }
}

#[test]
fn a_healthy_program_whose_probe_fails_is_started_anew() {
    let tcp = Probe { check: ProbeCheck::Tcp { port: 80 }, failures_max: 2, ..Probe::default() };
    let mut bench = Bench::new();
    bench.assign_with("1.0", &tcp);
    bench.run_all();
    bench.advance(Duration::from_millis(2500));
    bench.probed(true);
    assert_eq!(bench.report().phase, Some(Phase::Healthy));
    for _ in 0..2 {
        bench.advance(Duration::from_secs(5));
        bench.probed(false);
    }
    bench.run_all();
    assert_eq!(bench.report().run, Some(RunState::Backoff));
    assert_eq!(bench.report().restarts, 1);
    bench.wait_for_start();
    assert_eq!(bench.running().as_deref(), Some("1.0"));
}

#[test]
fn a_device_that_restarts_again_and_again_under_a_new_release_goes_back() {
    let mut bench = Bench::with("1.0");
    bench.assign(assignment("2.0", 1));
    bench.run_all();
    for reboots in 1..=3 {
        assert_eq!(bench.running().as_deref(), Some("2.0"), "before restart {reboots}");
        bench.reboot();
        bench.run_all();
    }
    assert_eq!(bench.running().as_deref(), Some("1.0"));
    bench.assign(assignment("2.0", 1));
    bench.run_all();
    assert_eq!(bench.report().phase, Some(Phase::Restored));
}

#[test]
fn nothing_is_run_that_the_roster_does_not_admit() {
    let cases = [
        (Trust::Other, FaultKind::Signature),
        (Trust::Retired, FaultKind::Retired),
        (Trust::Compromised, FaultKind::Compromised),
        (Trust::Denied("2.0"), FaultKind::Denied),
    ];
    for (trust, kind) in cases {
        let mut bench = Bench::with("1.0");
        bench.trust(trust);
        bench.assign(assignment("2.0", 1));
        bench.run_all();
        assert_eq!(bench.report().error.map(|error| error.kind), Some(kind));
        assert_eq!(bench.report().phase, Some(Phase::Restored));
        assert_eq!(bench.running().as_deref(), Some("1.0"), "what runs goes on");
    }
}

#[test]
fn a_key_that_is_revoked_during_the_download_admits_nothing() {
    let mut bench = Bench::with("1.0");
    bench.assign(assignment("2.0", 1));
    bench.run_until("fetch artifact");
    bench.trust(Trust::Retired);
    bench.run_all();
    assert_eq!(bench.report().error.map(|error| error.kind), Some(FaultKind::Retired));
    assert_eq!(bench.running().as_deref(), Some("1.0"));
}

#[test]
fn a_compromised_key_admits_no_restore_and_a_retired_one_does() {
    for (trust, restored) in [(Trust::Retired, Some("1.0")), (Trust::Compromised, None)] {
        let mut bench = Bench::with("1.0");
        bench.assign(assignment("2.0", 1));
        bench.run_all();
        bench.trust(trust);
        // The verdict is kept, so that it counts before the root chain was read.
        bench.kill_agent_before_trust();
        bench.run_all();
        bench.exit(Exit::Code(1));
        bench.run_all();
        assert_eq!(bench.running().as_deref(), restored);
    }
}

#[test]
fn what_must_stop_is_stopped_and_stays_so() {
    let mut bench = Bench::with("1.0");
    bench.trust(Trust::Stopped);
    bench.run_all();
    assert_eq!(bench.running(), None);
    assert_eq!(bench.report().error.map(|error| error.kind), Some(FaultKind::Compromised));
    bench.reboot();
    bench.run_all();
    assert_eq!(bench.running(), None);
}

#[test]
fn tampered_and_misnamed_manifests_and_foreign_platforms_are_refused() {
    let mut bench = Bench::with("1.0");
    bench.tamper("2.0");
    bench.assign(assignment("2.0", 1));
    bench.run_all();
    assert_eq!(bench.report().error.map(|error| error.kind), Some(FaultKind::Manifest));

    let mut misnamed = assignment("2.0", 1);
    misnamed.target.as_mut().unwrap().version = "9.9".parse().unwrap();
    let mut bench = Bench::with("1.0");
    bench.assign(misnamed);
    bench.run_all();
    assert_eq!(bench.report().error.map(|error| error.kind), Some(FaultKind::Manifest));

    let mut bench = Bench::on_platform("linux/riscv64");
    bench.assign(assignment("1.0", 1));
    bench.run_all();
    assert_eq!(
        bench.report().error,
        Some(Fault::new(FaultKind::Platform, "this device is linux/riscv64; the release is for linux/arm64"))
    );
    assert!(!bench.story().contains("fetch artifact"), "{}", bench.story());
}

#[test]
fn an_artifact_that_does_not_fit_ends_the_try_and_one_that_is_not_to_be_had_does_not() {
    let mut bench = Bench::with("1.0");
    bench.assign(assignment("2.0", 1));
    bench.run_until("fetch artifact");
    bench.fetch_fails(FetchError::Unavailable { cause: "the server has no artifact".to_owned() });
    assert_eq!(bench.report().phase, Some(Phase::Download));
    assert_eq!(bench.report().error, Some(Fault::new(FaultKind::Fetch, "the server has no artifact")));
    bench.advance(Duration::from_secs(1));
    bench.fetch_fails(FetchError::NoSpace { needed_bytes: 9, free_bytes: 3 });
    let error = bench.report().error;
    assert_eq!(error, Some(Fault::new(FaultKind::NoSpace, "it needs 9 bytes and 3 are free")));
    assert_eq!(bench.report().phase, Some(Phase::Restored));
    assert_eq!(bench.running().as_deref(), Some("1.0"));
}

#[test]
fn a_rollout_of_what_runs_already_is_healthy_without_a_restart() {
    let mut bench = Bench::with("1.0");
    bench.forget_story();
    bench.assign(assignment("1.0", 5));
    bench.run_all();
    expect![[r#"
        report: healthy 1.0/5, runs 1.0, running
    "#]]
    .assert_eq(&bench.story());
}

#[test]
fn answers_to_unknown_operations_are_ignored() {
    let mut bench = Bench::with("1.0");
    bench.forget_story();
    let operation = OperationId::from_bytes([9; 8]);
    for input in [
        Input::Fetched { operation, result: Ok(Fetched::Artifact) },
        Input::Staged { operation, result: Ok(()) },
        Input::Switched { operation, result: Ok(()) },
        Input::Removed { operation, result: Ok(()) },
        Input::Attached { operation, found: Found::Gone },
        Input::Run { run: operation, event: RunEvent::Exited(Exit::Code(1)) },
        Input::Probed { operation, outcome: Ok(()) },
    ] {
        bench.input(input);
    }
    assert_eq!(bench.story(), "");
    assert_eq!(bench.running().as_deref(), Some("1.0"));
}

#[test]
fn a_workload_whose_record_was_lost_runs_on_from_its_folder() {
    let mut bench = Bench::with("1.0");
    bench.lose_record();
    bench.assign(assignment("1.0", 1));
    bench.forget_story();
    bench.run_all();
    assert!(!bench.story().contains("start") && !bench.story().contains("stop"), "{}", bench.story());
    assert_eq!(bench.running().as_deref(), Some("1.0"));
    assert!(bench.report().is_about(rollout(), 1, release("1.0").digest()));
}

#[test]
fn what_ran_before_is_gone_back_to_from_the_disk_alone() {
    let mut bench = Bench::with("1.0");
    bench.assign(assignment("2.0", 1));
    bench.run_all();
    bench.advance(Duration::from_secs(10));
    bench.forget_story();
    bench.assign(assignment("1.0", 2));
    bench.run_all();
    bench.advance(Duration::from_secs(10));
    assert_eq!((bench.report().phase, bench.running().as_deref()), (Some(Phase::Healthy), Some("1.0")));
    assert!(bench.report().is_about(rollout(), 2, release("1.0").digest()));
    let is_work = |line: &str| line.starts_with("fetch") || line.starts_with("stage");
    assert!(!bench.story().lines().any(is_work), "{}", bench.story());

    bench.forget_story();
    bench.assign(assignment("2.0", 2));
    bench.run_all();
    bench.advance(Duration::from_secs(10));
    assert_eq!(bench.running().as_deref(), Some("2.0"), "and forward again");
    assert!(!bench.story().contains("fetch"), "{}", bench.story());
}

#[test]
fn what_ran_before_and_is_gone_from_the_disk_is_fetched() {
    let mut bench = Bench::with("1.0");
    bench.assign(assignment("2.0", 1));
    bench.run_all();
    bench.advance(Duration::from_secs(10));
    bench.staged.remove("1.0");
    bench.forget_story();
    bench.assign(assignment("1.0", 2));
    bench.run_all();
    bench.advance(Duration::from_secs(10));
    assert_eq!((bench.report().phase, bench.running().as_deref()), (Some(Phase::Healthy), Some("1.0")));
    assert!(bench.story().contains("fetch artifact 1.0"), "{}", bench.story());
}

#[test]
fn nobody_goes_back_to_a_release_that_is_denied() {
    let mut bench = Bench::with("1.0");
    bench.assign(assignment("2.0", 1));
    bench.run_all();
    bench.advance(Duration::from_secs(10));
    bench.trust(Trust::Denied("1.0"));
    bench.run_all();
    bench.assign(assignment("1.0", 2));
    bench.run_all();
    assert_eq!(bench.running().as_deref(), Some("2.0"));
}
