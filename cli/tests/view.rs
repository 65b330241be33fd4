//! What people read of plans, rollouts, devices and logs.

use expect_test::expect;
use fleetd::client::api::common::v1::WorkloadPhase;
use fleetd::client::api::device::v1::{self as device_v1, Device, DeviceWorkload};
use fleetd::client::api::log::v1::read_logs_response::Entry;
use fleetd::client::api::log::v1::{LogGap, LogGapReason, LogLine, ReadLogsResponse};
use fleetd::client::api::rollout::v1::wave_size::Size;
use fleetd::client::api::rollout::v1::{
    BlockedReason, Plan, PlanCounts, PlanWave, PlannedDevice, Rollout, RolloutCounts, RolloutDevice,
    RolloutDeviceState, RolloutState, Strategy, Verdict, WaveSize,
};
use fleetd::client::json::json;
use fleetd::command::rollout::diff::{self, WholePlan};
use fleetd::command::{device, logs, rollout};
use fleetd::output::{Moment, table};
use prost_types::Timestamp;

/// 2026-03-10T12:00:00Z.
const NOW_SECONDS: i64 = 1_773_144_000;
const DAY_SECONDS: i64 = 86_400;

fn now() -> Moment {
    Moment::from_parts(Some((NOW_SECONDS, 0)))
}

fn ago(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds: NOW_SECONDS - seconds, nanos: 0 })
}

#[test]
fn two_plans_differ_in_what_they_do_and_how() {
    let device = |name: &str, wave, verdict: Verdict| PlannedDevice {
        name: name.to_owned(),
        local_id: name.to_owned(),
        from_version: "1.7.2".to_owned(),
        reason: if verdict == Verdict::Blocked { "held: trade fair".to_owned() } else { String::new() },
        verdict: verdict.into(),
        wave,
        ..PlannedDevice::default()
    };
    let plan = |version: &str, waves: &[u32]| Plan {
        workload: "coffee".to_owned(),
        version: version.to_owned(),
        strategy: Some(Strategy {
            waves: waves.iter().map(|count| WaveSize { size: Some(Size::Count(*count)) }).collect(),
            ..Strategy::default()
        }),
        waves: vec![PlanWave::default(); waves.len()],
        ..Plan::default()
    };
    let one = WholePlan {
        plan: plan("1.8.0", &[1, 2]),
        devices: vec![device("brisk-otter", 1, Verdict::Update), device("calm-fox", 2, Verdict::Update)],
    };
    let other = WholePlan {
        plan: plan("1.8.0", &[3]),
        devices: vec![device("calm-fox", 0, Verdict::Blocked), device("sly-crow", 1, Verdict::Install)],
    };
    expect![[r#"
        WHAT         pln_a                          pln_b
        waves        1, 2                           3
        brisk-otter  update 1.7.2 -> 1.8.0, wave 1  -
        calm-fox     update 1.7.2 -> 1.8.0, wave 2  blocked: held: trade fair
        sly-crow     -                              install 1.8.0
    "#]]
    .assert_eq(&diff::show("pln_a", "pln_b", &diff::differences(&one, &other)));
    expect![[r#"
        pln_a and pln_a do the same.
    "#]]
    .assert_eq(&diff::show("pln_a", "pln_a", &diff::differences(&one, &one)));
}

#[test]
fn a_plan_shows_what_it_would_do_and_to_whom_not() {
    let plan = Plan {
        id: "pln_9d".to_owned(),
        workload: "coffee".to_owned(),
        version: "1.8.0".to_owned(),
        attempt: 1,
        counts: Some(PlanCounts { matched: 4, update: 1, install: 1, unchanged: 1, blocked: 1, offline: 1 }),
        traffic_bytes: 3 << 20,
        ..Plan::default()
    };
    let devices = [
        PlannedDevice {
            name: "sly-crow".to_owned(),
            verdict: Verdict::Blocked.into(),
            blocked_reason: BlockedReason::Platform.into(),
            reason: "no artifact for linux/riscv64".to_owned(),
            ..PlannedDevice::default()
        },
        PlannedDevice {
            name: "brisk-otter".to_owned(),
            verdict: Verdict::Update.into(),
            from_version: "1.7.2".to_owned(),
            offline_since: ago(9 * DAY_SECONDS),
            ..PlannedDevice::default()
        },
        PlannedDevice { name: "calm-fox".to_owned(), verdict: Verdict::Install.into(), ..PlannedDevice::default() },
    ];
    expect![[r#"
        coffee 1.8.0: 4 matched   ~ 1 update   + 1 install   = 1 unchanged   ! 1 blocked   (1 offline, follows later)
        blocked
          sly-crow             platform: no artifact for linux/riscv64
        update
          brisk-otter          1.7.2 -> 1.8.0  offline for 9 d, follows later
        install
          calm-fox             1.8.0
        traffic 3.00 MiB in all
        Plan pln_9d (attempt 1) is saved.
    "#]]
    .assert_eq(&rollout::view::plan(&plan, &devices, now()));
}

#[test]
fn a_plan_says_what_a_start_would_come_to() {
    let outlook = |update, unchanged, blocked| {
        let counts = PlanCounts { matched: 2, update, unchanged, blocked, ..PlanCounts::default() };
        let plan = Plan { version: "1.8.0".to_owned(), counts: Some(counts), ..Plan::default() };
        assert_eq!(rollout::view::is_blocked(&plan), update == 0 && blocked > 0);
        rollout::view::outlook(&plan, "pln_9d")
    };
    expect![[r#"
        Start it: fleetd rollout start pln_9d
        Nothing would change: each device runs 1.8.0 already. Started, it is done at once: fleetd rollout start pln_9d
        It cannot be started: no device would get 1.8.0, and each that lacks it is blocked, as is said above.
        It cannot be started: no device would get 1.8.0, and each that lacks it is blocked, as is said above.
    "#]]
    .assert_eq(&[outlook(1, 0, 1), outlook(0, 2, 0), outlook(0, 0, 2), outlook(0, 1, 1)].concat());
}

#[test]
fn a_rollout_counts_its_devices_and_says_why() {
    let message = Rollout {
        id: "rol_41".to_owned(),
        workload: "coffee".to_owned(),
        version: "1.8.0".to_owned(),
        plan_id: "pln_9d".to_owned(),
        attempt: 2,
        state: RolloutState::Running.into(),
        created_at: ago(60),
        counts: Some(RolloutCounts { waiting: 1, installing: 1, healthy: 1, offline: 1, ..RolloutCounts::default() }),
        ..Rollout::default()
    };
    let devices = [
        RolloutDevice {
            name: "brisk-otter".to_owned(),
            state: RolloutDeviceState::Installing.into(),
            phase: WorkloadPhase::Download.into(),
            changed_at: ago(5),
            fetched_bytes: 61,
            size_bytes: 100,
            ..RolloutDevice::default()
        },
        RolloutDevice {
            name: "calm-fox".to_owned(),
            state: RolloutDeviceState::Waiting.into(),
            offline_since: ago(7200),
            ..RolloutDevice::default()
        },
    ];
    expect![[r#"
        rol_41 coffee 1.8.0 running: 1/3 healthy, 1 installing, 1 offline
        plan pln_9d, attempt 2, started 2026-03-10T11:59:00Z, ended -

        DEVICE       STATE       PHASE          SINCE    WHY
        brisk-otter  installing  download 61 %  5 s ago  -
        calm-fox     waiting     -              -        offline for 2 h
    "#]]
    .assert_eq(&rollout::view::rollout(&message, &devices, now()));
}

#[test]
fn a_device_shows_what_it_runs_and_should_run() {
    let workload = DeviceWorkload {
        name: "coffee".to_owned(),
        desired_release: "1.8.0".to_owned(),
        actual_release: "1.7.2".to_owned(),
        phase: WorkloadPhase::Download.into(),
        fetched_bytes: 1,
        size_bytes: 4,
        ..DeviceWorkload::default()
    };
    let message = Device {
        name: "brisk-otter".to_owned(),
        id: "dev_3k".to_owned(),
        labels: [("shop".to_owned(), "7".to_owned())].into(),
        state: device_v1::DeviceState::Enrolled.into(),
        presence: device_v1::Presence::Offline.into(),
        last_heard_at: ago(3 * DAY_SECONDS),
        workloads: vec![workload],
        ..Device::default()
    };
    expect![[r#"
        NAME         STATE        PLATFORM  WORKLOADS                            LABELS  ID
        brisk-otter  offline 3 d  -         coffee 1.7.2 -> 1.8.0 download 25 %  shop=7  dev_3k
    "#]]
    .assert_eq(&device::view::devices(&[message], now()));
}

#[test]
fn log_lines_cannot_steer_the_terminal_and_gaps_are_shown() {
    let line = LogLine {
        device_name: "brisk-otter".to_owned(),
        workload: "coffee".to_owned(),
        time: ago(0),
        line: "brew\u{1b}[2J\ting".to_owned(),
        ..LogLine::default()
    };
    let line = ReadLogsResponse { entry: Some(Entry::Line(line)), ..ReadLogsResponse::default() };
    assert_eq!(logs::render(&line).unwrap(), "2026-03-10T12:00:00Z brisk-otter/coffee brew\u{fffd}[2J\ting");
    let gap = LogGap {
        device_name: "brisk-otter".to_owned(),
        workload: "coffee".to_owned(),
        sequence_first: 5,
        sequence_last: 9,
        reason: LogGapReason::SpoolFull.into(),
        ..LogGap::default()
    };
    let gap = ReadLogsResponse { entry: Some(Entry::Gap(gap)), ..ReadLogsResponse::default() };
    assert_eq!(logs::render(&gap).unwrap(), "--- brisk-otter/coffee: 5 lines are missing (spool full) ---");
}

#[test]
fn json_has_the_apis_names_and_times_also_for_empty_fields() {
    let plan = Plan { id: "pln_9d".to_owned(), created_at: ago(0), traffic_bytes: 7, ..Plan::default() };
    let value = json(&plan);
    assert_eq!(value["createdAt"], "2026-03-10T12:00:00Z");
    assert_eq!(value["trafficBytes"], "7", "64 bits are text, as protobuf's JSON has them");
    assert_eq!(value["documentDigest"], "");
}

#[test]
fn a_cell_stays_on_its_line() {
    let text = table(["A", "B"], [["x\ny".to_owned(), "\u{1b}[31m".to_owned()]]);
    assert_eq!(text, "A    B\nx y   [31m\n");
}

#[test]
fn times_are_told_in_the_unit_that_says_most() {
    for (seconds, expected) in [(0, "now"), (45, "45 s ago"), (600, "10 min ago"), (7200, "2 h ago"), (-7200, "in 2 h")]
    {
        let at = Moment::from_parts(Some((NOW_SECONDS - seconds, 0)));
        assert_eq!(at.relative(now()), expected);
    }
    assert_eq!(Moment::from_parts(None).relative(now()), "-");
}
