use fleetd_sync_core::time::{ClockFloor, ClockQuality, Wall};

use super::*;
use crate::report::Waits;

/// 2026-12-01T12:00:00Z.
const NOON: Wall = Wall(1_796_126_400_000);
const HOUR: Duration = Duration::from_hours(1);

fn under(terms: &str) -> Assignment {
    Assignment { terms: Some(AssignedTerms::of(terms)), ..assignment("2.0", 1) }
}

/// A device that runs 1.0 and knows that it is noon.
fn bench() -> Bench {
    let mut bench = Bench::with("1.0");
    (bench.now.wall, bench.now.quality) = (NOON, ClockQuality::Floor);
    bench
}

/// Lets time pass, and what falls due in it be done.
fn pass(bench: &mut Bench, span: Duration) {
    bench.run_all();
    let end = bench.now.monotonic + span;
    while let Some(due) = bench.machine.poll_timeout().filter(|due| *due <= end) {
        let step = due.since(bench.now.monotonic);
        bench.now.wall = bench.now.wall + step;
        bench.advance(step);
        bench.run_all();
    }
    let step = end.since(bench.now.monotonic);
    bench.now.wall = bench.now.wall + step;
    bench.advance(step);
    bench.run_all();
}

fn waits(bench: &Bench) -> Option<Waits> {
    assert_eq!(bench.report().waits.is_some(), bench.report().phase == Some(Phase::Wait));
    bench.report().waits
}

#[test]
fn a_device_downloads_before_its_window_and_switches_only_in_it() {
    let mut bench = bench();
    bench.assign(under("veto 0s; zone Asia/Tokyo; window 0 2 * * * 3h"));
    bench.run_all();
    let opens = Some(NOON + 5 * HOUR);
    assert_eq!(waits(&bench), Some(Waits::Window { opens }));
    assert!(bench.story().contains("stage 2.0"));
    pass(&mut bench, 5 * HOUR - Duration::from_secs(1));
    assert_eq!(bench.running().as_deref(), Some("1.0"));
    pass(&mut bench, Duration::from_secs(1));
    assert_eq!((bench.running().as_deref(), waits(&bench)), (Some("2.0"), None));
}

#[test]
fn a_restart_and_a_link_that_is_gone_change_nothing_of_a_window() {
    let mut bench = bench();
    bench.assign(under("veto 0s; zone UTC; window 0 18 * * * 3h"));
    bench.run_all();
    bench.kill_agent();
    bench.hear_trust();
    bench.assign(under("veto 0s; zone UTC; window 0 18 * * * 3h"));
    bench.run_all();
    pass(&mut bench, 5 * HOUR);
    assert_eq!(bench.running().as_deref(), Some("1.0"));
    pass(&mut bench, HOUR);
    assert_eq!(bench.running().as_deref(), Some("2.0"));
}

#[test]
fn a_hold_that_comes_while_it_waits_undoes_the_install() {
    let mut bench = bench();
    let terms = under("veto 0s; zone UTC; window 0 18 * * * 3h");
    bench.assign(terms.clone());
    bench.run_all();
    bench.assign(Assignment { held: true, ..terms });
    bench.run_all();
    pass(&mut bench, 7 * HOUR);
    assert_eq!((bench.running().as_deref(), waits(&bench)), (Some("1.0"), None));
    assert_eq!(bench.report().error, Some(Fault::new(FaultKind::Held, "")));
}

#[test]
fn a_key_that_is_compromised_while_it_waits_admits_nothing() {
    let mut bench = bench();
    bench.assign(under("veto 0s; zone UTC; window 0 18 * * * 3h"));
    bench.run_all();
    bench.trust(Trust::Denied("2.0"));
    bench.run_all();
    pass(&mut bench, 7 * HOUR);
    assert_eq!(bench.running().as_deref(), Some("1.0"));
    assert_eq!(bench.report().error.map(|fault| fault.kind), Some(FaultKind::Denied));
}

#[test]
fn who_does_not_know_the_date_switches_only_where_no_window_is_asked_for() {
    let mut bench = Bench::with("1.0");
    let always_open = under("veto 0s; zone UTC; window 0 0 * * * 24h");
    bench.assign(always_open);
    bench.run_all();
    assert_eq!(waits(&bench), Some(Waits::Clock));
    // The clock is set, but to a date that had passed long ago.
    (bench.now.wall, bench.now.quality) = (NOON, ClockQuality::Floor);
    bench.clock_floor = ClockFloor(NOON + 24 * HOUR);
    pass(&mut bench, Duration::from_secs(60));
    assert_eq!(waits(&bench), Some(Waits::Clock));
    bench.now.wall = NOON + 25 * HOUR;
    pass(&mut bench, Duration::from_secs(60));
    assert_eq!(bench.running().as_deref(), Some("2.0"));

    let mut bench = Bench::with("1.0");
    bench.assign(under("veto 0s"));
    bench.run_all();
    assert_eq!(bench.running().as_deref(), Some("2.0"));
}

#[test]
fn terms_that_an_agent_does_not_understand_forbid_a_switch() {
    let mut bench = bench();
    bench.assign(under("veto 0s; tide high"));
    bench.run_all();
    pass(&mut bench, 24 * HOUR);
    assert_eq!(waits(&bench), Some(Waits::Terms { cause: "\"tide high\" is no part of terms".to_owned() }));
    bench.assign(under("veto 0s"));
    bench.run_all();
    assert_eq!(bench.running().as_deref(), Some("2.0"));
}

#[test]
fn a_deferral_ends_by_itself_by_a_word_or_by_the_rollouts_limit() {
    let defer = |bench: &mut Bench, length: Duration| {
        bench.command(Command::Defer { length, reason: "brewing".to_owned() });
        bench.run_all();
    };
    let mut bench = bench();
    defer(&mut bench, HOUR);
    bench.assign(under("veto 7200s"));
    bench.run_all();
    let told = Waits::Deferred { until: NOON + HOUR, limit: 2 * HOUR, reason: "brewing".to_owned() };
    assert_eq!(waits(&bench), Some(told));
    pass(&mut bench, HOUR);
    assert_eq!(bench.running().as_deref(), Some("2.0"), "by itself");

    let mut bench = self::bench();
    defer(&mut bench, 10 * HOUR);
    bench.assign(under("veto 7200s"));
    pass(&mut bench, 2 * HOUR - Duration::from_secs(1));
    assert_eq!(bench.running().as_deref(), Some("1.0"));
    pass(&mut bench, Duration::from_secs(1));
    assert_eq!(bench.running().as_deref(), Some("2.0"), "by the limit");

    let mut bench = self::bench();
    defer(&mut bench, HOUR);
    bench.assign(under("veto 7200s"));
    bench.run_all();
    bench.command(Command::Allow);
    bench.run_all();
    assert_eq!(bench.running().as_deref(), Some("2.0"), "by a word");

    let mut bench = self::bench();
    defer(&mut bench, HOUR);
    bench.assign(under("veto 0s"));
    bench.run_all();
    assert_eq!(bench.running().as_deref(), Some("2.0"), "a limit of 0 allows none");
}

#[test]
fn a_lock_holds_until_it_is_gone_or_the_limit_is_used_up_also_over_restarts() {
    let mut bench = bench();
    bench.is_locked = true;
    bench.assign(under("veto 3600s"));
    bench.run_all();
    let told = Waits::Locked { limit: HOUR };
    assert_eq!(waits(&bench), Some(told));
    bench.is_locked = false;
    pass(&mut bench, Duration::from_secs(10));
    assert_eq!(bench.running().as_deref(), Some("2.0"));

    let mut bench = self::bench();
    bench.is_locked = true;
    bench.assign(under("veto 3600s"));
    bench.run_all();
    for restart in 1..=12 {
        assert_eq!(bench.running().as_deref(), Some("1.0"), "restart {restart}");
        bench.kill_agent();
        bench.hear_trust();
        bench.assign(under("veto 3600s"));
        bench.run_all();
        pass(&mut bench, Duration::from_secs(1));
    }
    pass(&mut bench, HOUR);
    assert_eq!(bench.running().as_deref(), Some("2.0"), "a device that restarts gains no time");
}

#[test]
fn waiting_for_a_window_uses_nothing_of_the_limit_up() {
    let mut bench = bench();
    bench.is_locked = true;
    bench.assign(under("veto 3600s; zone UTC; window 0 18 * * * 3h"));
    bench.run_all();
    pass(&mut bench, 6 * HOUR + Duration::from_mins(59));
    assert_eq!(bench.running().as_deref(), Some("1.0"));
    pass(&mut bench, Duration::from_mins(1));
    assert_eq!(bench.running().as_deref(), Some("2.0"));
}

#[test]
fn a_lock_counts_for_what_lies_on_the_disk_too_unless_nobody_may_put_it_off() {
    for (terms, runs) in [("veto 3600s", "2.0"), ("veto 0s", "1.0")] {
        let mut bench = bench();
        bench.assign(under("veto 0s"));
        pass(&mut bench, Duration::from_secs(10));
        assert_eq!(bench.running().as_deref(), Some("2.0"));
        bench.is_locked = true;
        bench.forget_story();
        bench.assign(Assignment { terms: Some(AssignedTerms::of(terms)), ..assignment("1.0", 2) });
        bench.run_all();
        assert_eq!(bench.running().as_deref(), Some(runs), "{terms}");
        bench.is_locked = false;
        pass(&mut bench, Duration::from_secs(10));
        assert_eq!(bench.running().as_deref(), Some("1.0"), "{terms}");
        assert!(!bench.story().contains("fetch"), "{}", bench.story());
    }
}

#[test]
fn a_hold_gives_nothing_of_the_limit_back() {
    let mut bench = bench();
    bench.is_locked = true;
    let terms = under("veto 3600s");
    bench.assign(terms.clone());
    pass(&mut bench, Duration::from_mins(30));
    bench.assign(Assignment { held: true, ..terms.clone() });
    pass(&mut bench, Duration::from_mins(1));
    bench.kill_agent();
    bench.hear_trust();
    bench.assign(terms);
    pass(&mut bench, Duration::from_mins(20));
    assert_eq!(bench.running().as_deref(), Some("1.0"));
    pass(&mut bench, Duration::from_mins(11));
    assert_eq!(bench.running().as_deref(), Some("2.0"), "an hour in all, by one rollout");

    let mut bench = self::bench();
    bench.is_locked = true;
    bench.assign(under("veto 3600s"));
    pass(&mut bench, Duration::from_mins(50));
    bench.assign(Assignment { target: None, ..under("veto 3600s") });
    bench.run_all();
    let other = Some(fleetd_sync_core::id::RolloutId::from_bytes([77; 10]));
    let of_another = under("veto 3600s");
    let target = of_another.target.clone().map(|target| Target { rollout: other, ..target });
    bench.assign(Assignment { target, ..of_another });
    pass(&mut bench, Duration::from_mins(59));
    assert_eq!(bench.running().as_deref(), Some("1.0"), "another rollout has a limit of its own");
}

#[test]
fn a_hold_takes_no_more_of_the_limit_than_was_used() {
    let mut bench = bench();
    bench.is_locked = true;
    let terms = under("veto 240s");
    bench.assign(terms.clone());
    pass(&mut bench, Duration::from_mins(1));
    bench.assign(Assignment { held: true, ..terms.clone() });
    pass(&mut bench, Duration::from_mins(10));
    bench.assign(terms);
    pass(&mut bench, Duration::from_secs(179));
    assert_eq!(bench.running().as_deref(), Some("1.0"), "one minute of four was used");
    pass(&mut bench, Duration::from_secs(2));
    assert_eq!(bench.running().as_deref(), Some("2.0"));
}

#[test]
fn who_puts_off_again_has_what_was_left_of_the_limit() {
    let mut bench = bench();
    let terms = under("veto 240s; zone UTC; window 0 12 * * * 1m; window 0 13 * * * 1h");
    bench.is_locked = true;
    bench.assign(terms);
    pass(&mut bench, Duration::from_secs(50));
    assert_eq!(bench.running().as_deref(), Some("1.0"));
    pass(&mut bench, HOUR + Duration::from_secs(100));
    assert_eq!(bench.running().as_deref(), Some("1.0"), "another window, and a minute of four was used");
    pass(&mut bench, Duration::from_mins(1));
    assert_eq!(bench.running().as_deref(), Some("2.0"));
}

#[test]
fn a_workload_waits_for_its_turn_on_the_device_and_keeps_it_until_its_release_has_proven_itself() {
    let tea: WorkloadName = "tea".parse().unwrap();
    let urgent = |number| Priority::new(number).unwrap();
    let mut bench = bench();
    assert_eq!(bench.queue.ask(&tea, urgent(5)), None);
    bench.assign(under("veto 0s; priority 7"));
    bench.run_all();
    assert_eq!(waits(&bench), Some(Waits::Queue { before: 1, first: tea.clone() }));
    assert!(bench.story().contains("stage 2.0"), "it was fetched meanwhile");
    pass(&mut bench, HOUR);
    assert_eq!(bench.running().as_deref(), Some("1.0"));

    // A hold undoes it, and it is in nobody's way.
    let milk = "milk".parse().unwrap();
    bench.assign(Assignment { held: true, ..under("veto 0s; priority 7") });
    bench.run_all();
    bench.queue.leave(&tea);
    assert_eq!(bench.queue.ask(&milk, urgent(0)), None);
    bench.queue.leave(&milk);
    bench.assign(under("veto 0s; priority 7"));
    bench.run_all();
    assert_eq!((bench.report().phase, bench.running().as_deref()), (Some(Phase::Watch), Some("2.0")));
    assert!(bench.queue.ask(&tea, urgent(9)).is_some(), "what is unproven keeps its turn");
    pass(&mut bench, Duration::from_secs(10));
    assert_eq!(bench.report().phase, Some(Phase::Healthy));
    assert_eq!(bench.queue.ask(&tea, urgent(9)), None);
}

#[test]
fn what_is_restored_or_stopped_gives_its_turn_back() {
    let tea = "tea".parse().unwrap();
    let priority = Priority::default();
    let mut bench = bench();
    bench.assign(under("veto 0s"));
    bench.run_all();
    assert!(bench.queue.ask(&tea, priority).is_some());
    bench.kill_agent();
    bench.hear_trust();
    bench.assign(under("veto 0s"));
    bench.run_all();
    assert!(bench.queue.ask(&tea, priority).is_some(), "a restart of the agent changes nothing");
    bench.exit(Exit::Code(1));
    bench.run_all();
    assert_eq!((bench.report().phase, bench.running().as_deref()), (Some(Phase::Restored), Some("1.0")));
    assert_eq!(bench.queue.ask(&tea, priority), None);

    let mut bench = self::bench();
    bench.assign(under("veto 0s"));
    bench.run_all();
    bench.command(Command::Stop);
    bench.run_all();
    assert_eq!(bench.report().phase, Some(Phase::Watch));
    assert_eq!(bench.queue.ask(&tea, priority), None, "a stopped program proves nothing, and keeps nobody waiting");
}
