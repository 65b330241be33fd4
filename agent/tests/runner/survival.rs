//! What survives whom.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use fleetd_agent::runner::line::{LineEntry, LinePosition};
use fleetd_agent::runner::{ExitStatus, Found, RunnerEventKind};

use crate::device::{Device, StandIn, kill, read_pid, runs, spec, until};

fn shim_pid(device: &Device) -> u32 {
    let record = std::fs::read_to_string(device.shim_directory().join("run.json")).unwrap();
    let (_, rest) = record.split_once("\"pid\":").unwrap();
    rest.split([',', '}']).next().unwrap().parse().unwrap()
}

#[test]
fn a_killed_agent_leaves_its_run_and_the_next_one_takes_it_up() {
    let device = Device::new();
    let agent = StandIn::start(&device, "echo $$ > pid; echo before; while ! test -e go; do sleep 0.01; done; exit 7");
    let pid = read_pid(&device.data().join("pid"));
    agent.kill();
    let Found::Running { pid: found, ready: false, .. } = device.attach() else { panic!("it runs") };
    assert_eq!(found, pid);
    assert!(runs(pid));
    std::fs::write(device.data().join("go"), "").unwrap();
    assert_eq!(device.wait_for_exit(), ExitStatus::Code(7));
    assert_eq!(device.lines(), ["before"]);
}

#[test]
fn an_exit_that_nobody_saw_is_kept() {
    let device = Device::new();
    let agent = StandIn::start(&device, "echo $$ > pid; while ! test -e go; do sleep 0.01; done; echo last; exit 7");
    let pid = read_pid(&device.data().join("pid"));
    agent.kill();
    std::fs::write(device.data().join("go"), "").unwrap();
    until("the end", || !runs(pid));
    // The shim may still be writing it down.
    if let Found::Running { .. } = device.attach() {
        assert_eq!(device.wait_for_exit(), ExitStatus::Code(7));
    }
    assert!(matches!(device.attach(), Found::Exited { status: ExitStatus::Code(7), .. }));
    assert!(matches!(device.attach(), Found::Exited { status: ExitStatus::Code(7), .. }), "and stays so");
    assert_eq!(device.lines(), ["last"]);
}

/// Reads some lines more.
fn read_on(device: &Device, position: Option<LinePosition>, texts: &mut Vec<String>) -> Option<LinePosition> {
    let (entries, through) = device.read(position);
    texts.extend(entries.into_iter().map(|entry| match entry {
        LineEntry::Line(line) => String::from_utf8(line.bytes).unwrap(),
        LineEntry::Gap { first, last } => panic!("lines {first} to {last} are missing"),
    }));
    through
}

#[test]
fn lines_are_neither_lost_nor_doubled_over_twenty_agents() {
    let mut device = Device::new();
    let script = "i=0; while ! test -e go; do for n in 1 2 3 4 5; do i=$((i+1)); echo \"line $i\"; done; sleep 0.0005; done; echo \"last $i\"";
    let agent = StandIn::start(&device, script);
    agent.kill();
    let (mut position, mut texts, mut pids) = (None, Vec::new(), Vec::new());
    for life in 0..20 {
        if life == 19 {
            std::fs::write(device.data().join("go"), "").unwrap();
        }
        match device.attach() {
            Found::Running { pid, .. } => pids.push(pid),
            Found::Exited { .. } => {}
            Found::Gone => panic!("life {life}"),
        }
        let wanted = if life == 19 { 0 } else { 100 * (life + 1) };
        until("a hundred lines more", || {
            position = read_on(&device, position, &mut texts);
            texts.len() >= wanted
        });
        device.restart_agent();
    }
    until("the end", || matches!(device.attach(), Found::Exited { .. }));
    while texts.last().is_none_or(|text| !text.starts_with("last")) {
        position = read_on(&device, position, &mut texts);
    }
    assert!(pids.len() >= 19 && pids.iter().all(|pid| *pid == pids[0]), "one process all along: {pids:?}");
    let count = texts.len() - 1;
    assert!(count > 500, "only {count} lines: the test shows nothing");
    for (index, text) in texts.iter().take(count).enumerate() {
        assert_eq!(*text, format!("line {}", index + 1));
    }
    assert_eq!(texts[count], format!("last {count}"));
}

#[test]
fn a_stop_is_carried_out_though_the_agent_dies() {
    let mut device = Device::new();
    let pid = device.start(spec(&device.data(), "trap ': > asked' TERM; echo ready; while :; do sleep 0.01; done"));
    device.wait("a line", |event| matches!(event.kind, RunnerEventKind::LinesWritten { .. }).then_some(()));
    // A run whose agent knows nothing of it: the stop goes to the shim and is the shim's from then on.
    device.restart_agent();
    device.stop(Duration::from_millis(300));
    until("the stop's arrival", || device.data().join("asked").exists());
    device.restart_agent();
    until("the kill", || !runs(pid));
    until("its record", || matches!(device.attach(), Found::Exited { status: ExitStatus::Signal(9), .. }));
}

#[test]
fn a_shim_that_says_nothing_is_alive_and_so_is_its_run() {
    let device = Device::new();
    let agent = StandIn::start(&device, "echo $$ > pid; exec sleep 1000");
    let pid = read_pid(&device.data().join("pid"));
    agent.kill();
    let signal = |name: &str| {
        let status = Command::new("kill").args([name, &shim_pid(&device).to_string()]).status().unwrap();
        assert!(status.success());
    };
    signal("-STOP");
    assert!(matches!(device.attach(), Found::Running { pid: found, .. } if found == pid));
    assert!(runs(pid));
    signal("-CONT");
    device.stop(Duration::from_secs(20));
    assert_eq!(device.wait_for_exit(), ExitStatus::Signal(15));
}

#[test]
fn a_killed_shim_takes_its_run_with_it() {
    let device = Device::new();
    let script = "(setsid sh -c 'echo $$ > daemon.new; mv daemon.new daemon; exec sleep 1000' &); exec sleep 1000";
    let pid = device.start(spec(&device.data(), script));
    let daemon = read_pid(&device.data().join("daemon"));
    kill(shim_pid(&device));
    assert_eq!(device.wait_for_exit(), ExitStatus::Lost);
    until("the end of the process", || !runs(pid));
    assert!(!runs(daemon), "what it left behind was found by the run's id");
    assert!(matches!(device.attach(), Found::Exited { status: ExitStatus::Lost, .. }));
    device.start(spec(&device.data(), "exit 0"));
    assert_eq!(device.wait_for_exit(), ExitStatus::Code(0));
}

#[test]
fn a_killed_shim_takes_its_process_along_though_no_agent_looks() {
    let device = Device::new();
    let agent = StandIn::start(&device, "echo $$ > pid; exec sleep 1000");
    let pid = read_pid(&device.data().join("pid"));
    agent.kill();
    kill(shim_pid(&device));
    until("the end of the process", || !runs(pid));
}

#[test]
fn an_emptied_run_directory_is_a_reboot() {
    let device = Device::new();
    let pid = device.start(spec(&device.data(), "exec sleep 1000"));
    kill(shim_pid(&device));
    device.wait_for_exit();
    until("the end of the process", || !runs(pid));
    std::fs::remove_dir_all(device.run_directory()).unwrap();
    assert_eq!(device.attach(), Found::Gone);
    device.start(spec(&device.data(), "echo again"));
    assert_eq!(device.wait_for_exit(), ExitStatus::Code(0));
    assert_eq!(device.lines(), ["again"]);
}

#[test]
fn a_recycled_pid_and_a_record_of_another_boot_are_not_taken_for_a_run() {
    let device = Device::new();
    device.start(spec(&device.data(), "exit 0"));
    device.wait_for_exit();
    let path = device.shim_directory().join("run.json");
    let record = std::fs::read_to_string(&path).unwrap();
    let (head, _) = record.split_once("\"exit\":").unwrap();
    // The pids are this test's own, which is alive, but was started at another time.
    let own = std::process::id();
    let (run_and_boot, _) = head.split_once("\"shim\":").unwrap();
    let forged = format!(
        "{run_and_boot}\"shim\":{{\"pid\":{own},\"start_ticks\":1}},\"child\":{{\"pid\":{own},\"start_ticks\":1}},\"exit\":null}}"
    );
    std::fs::write(&path, &forged).unwrap();
    assert!(matches!(device.attach(), Found::Exited { status: ExitStatus::Lost, .. }));
    assert!(Path::new(&format!("/proc/{own}")).exists());
    let (_, boot) = forged.split_once("\"boot\":\"").unwrap();
    let (boot, _) = boot.split_once('"').unwrap();
    std::fs::write(&path, forged.replace(boot, "boot_00000000000000000000000000")).unwrap();
    assert_eq!(device.attach(), Found::Gone);
    std::fs::write(&path, "not a record").unwrap();
    assert_eq!(device.attach(), Found::Gone);
}
