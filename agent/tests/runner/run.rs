//! What one run does, from its start to its end.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use fleetd_agent::runner::line::{LineEntry, LineSource};
use fleetd_agent::runner::{ExitStatus, Found, RunLimits, Runner as _, RunnerEventKind, StartFailure};

use crate::device::{Device, coffee, helper, operation, read_pid, runs, spec, until};

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(150);

#[test]
fn a_run_tells_its_start_its_lines_and_its_exit_code() {
    let device = Device::new();
    let pid = device.start(spec(&device.data(), "echo out; echo err >&2; pwd; echo $$; printf last; exit 7"));
    assert_eq!(device.wait_for_exit(), ExitStatus::Code(7));
    let (entries, _) = device.read(None);
    let mut lines: Vec<(LineSource, String)> = entries
        .into_iter()
        .map(|entry| match entry {
            LineEntry::Line(line) => (line.source, String::from_utf8(line.bytes).unwrap()),
            LineEntry::Gap { .. } => panic!("nothing was dropped"),
        })
        .collect();
    let at = lines.iter().position(|(source, _)| *source == LineSource::Stderr).unwrap();
    assert_eq!(lines.remove(at).1, "err");
    let stdout: Vec<&str> = lines.iter().map(|(_, line)| line.as_str()).collect();
    assert_eq!(stdout, ["out", device.data().to_str().unwrap(), &pid.to_string(), "last"]);
    assert_eq!(device.runner().workloads(), [coffee()]);
}

#[test]
fn lines_are_told_before_the_end_and_their_numbers_go_on_in_the_next_run() {
    let device = Device::new();
    for run in 1..=2 {
        device.start(spec(&device.data(), "echo one; echo two"));
        let (mut told, mut ended) = (2 * (run - 1), false);
        while !ended {
            device.wait("lines and the end", |event| match event.kind {
                RunnerEventKind::LinesWritten { through } => {
                    assert!(through.sequence > told, "only new lines are told");
                    told = through.sequence;
                    Some(())
                }
                RunnerEventKind::Exited { .. } => {
                    ended = true;
                    Some(())
                }
                _ => None,
            });
        }
        assert_eq!(told, 2 * run);
    }
    assert_eq!(device.lines(), ["one", "two", "one", "two"]);
}

#[test]
fn a_run_inherits_nothing_of_the_agents_environment() {
    let device = Device::new();
    let mut run = spec(&device.data(), "env");
    run.environment = vec![("COFFEE".to_owned(), "black".to_owned())];
    device.start(run);
    device.wait_for_exit();
    let mut names: Vec<String> =
        device.lines().iter().filter_map(|line| Some(line.split_once('=')?.0.to_owned())).collect();
    names.retain(|name| !["PWD", "SHLVL", "_", "OLDPWD"].contains(&name.as_str()));
    names.sort_unstable();
    assert_eq!(names, ["COFFEE", "FLEETD_RUN", "NOTIFY_SOCKET", "PATH"]);
}

#[test]
fn a_program_that_cannot_be_executed_is_told_with_its_cause() {
    let device = Device::new();
    let mut run = spec(&device.data(), "");
    run.program = device.data().join("not-there");
    let failure = device.start_failure(run.clone());
    assert!(matches!(&failure, StartFailure::Execute { cause, .. } if cause.contains("No such file")), "{failure}");
    std::fs::write(&run.program, "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(&run.program, std::fs::Permissions::from_mode(0o644)).unwrap();
    let failure = device.start_failure(run.clone());
    assert!(matches!(&failure, StartFailure::Execute { cause, .. } if cause.contains("denied")), "{failure}");
    run.user = Some("nobody-has-this-name".to_owned());
    let failure = device.start_failure(run);
    assert!(failure.to_string().contains("no user \"nobody-has-this-name\""), "{failure}");
    device.start(spec(&device.data(), "exit 0"));
    assert_eq!(device.wait_for_exit(), ExitStatus::Code(0), "a failed start leaves nothing in the way");
}

#[test]
fn a_run_directory_too_deep_for_a_socket_is_told() {
    let device = Device::new();
    let deep = device.home.path().join("x".repeat(100));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let runner = runtime.block_on(async { crate::device::runner(&deep) });
    runner.start(operation(), spec(&device.data(), "exit 0"), device.events());
    device.wait("the failure", |event| match event.kind {
        RunnerEventKind::StartFailed { failure } => {
            assert!(failure.to_string().contains("use a shorter run directory"), "{failure}");
            Some(())
        }
        _ => None,
    });
}

#[test]
fn a_second_start_is_refused_while_the_first_runs() {
    let mut device = Device::new();
    let pid = device.start(spec(&device.data(), "exec sleep 1000"));
    let refused = |device: &Device| device.start_failure(spec(&device.data(), "exit 0"));
    assert_eq!(refused(&device), StartFailure::AlreadyRunning { workload: coffee() });
    device.restart_agent();
    assert_eq!(refused(&device), StartFailure::AlreadyRunning { workload: coffee() }, "another agent sees it too");
    assert!(runs(pid));
}

#[test]
fn a_stop_ends_one_that_listens_and_kills_one_that_does_not() {
    let device = Device::new();
    let ready = |device: &Device| {
        device.wait("a line", |event| matches!(event.kind, RunnerEventKind::LinesWritten { .. }).then_some(()));
    };
    device.start(spec(&device.data(), "trap 'exit 3' TERM; echo ready; while :; do sleep 0.01; done"));
    ready(&device);
    device.stop(LONG);
    assert_eq!(device.wait_for_exit(), ExitStatus::Code(3));
    let deaf = device.start(spec(&device.data(), "trap '' TERM; echo ready; while :; do sleep 0.01; done"));
    ready(&device);
    device.stop(SHORT);
    assert_eq!(device.wait_for_exit(), ExitStatus::Signal(9));
    assert!(!runs(deaf));
}

#[test]
fn a_stop_right_after_the_start_is_not_missed() {
    let device = Device::new();
    device.runner().start(operation(), spec(&device.data(), "exec sleep 1000"), device.events());
    device.stop(LONG);
    assert_eq!(device.wait_for_exit(), ExitStatus::Signal(15));
}

#[test]
fn everything_that_a_run_started_ends_with_it() {
    let device = Device::new();
    // One child in the group, and one that has left the session and whose parent has ended: a daemon.
    let script = "sleep 1000 & echo $! > child; \
        (setsid sh -c 'echo $$ > daemon.new; mv daemon.new daemon; exec sleep 1000' &) ; exec sleep 1000";
    let main = device.start(spec(&device.data(), script));
    let (child, daemon) = (read_pid(&device.data().join("child")), read_pid(&device.data().join("daemon")));
    assert!(runs(main) && runs(child) && runs(daemon));
    device.stop(SHORT);
    assert_eq!(device.wait_for_exit(), ExitStatus::Signal(15));
    assert!(!runs(main) && !runs(child) && !runs(daemon));
}

#[test]
fn what_a_run_leaves_behind_ends_with_it_without_a_stop() {
    let device = Device::new();
    let script = "(setsid sh -c 'trap \"\" TERM; echo $$ > daemon.new; mv daemon.new daemon; exec sleep 1000' &); \
        while ! test -e daemon; do sleep 0.01; done; exit 4";
    device.start(spec(&device.data(), script));
    let daemon = read_pid(&device.data().join("daemon"));
    assert_eq!(device.wait_for_exit(), ExitStatus::Code(4));
    assert!(!runs(daemon));
}

#[test]
fn a_flood_without_a_reader_stays_bounded_and_leaves_a_marked_gap() {
    let device = Device::new();
    let text = "a line of some forty characters to fill up";
    let mut run = spec(&device.data(), &format!("yes '{text}' | head -c 10000000"));
    run.limits = RunLimits { line_bytes_max: 512 << 10, ..RunLimits::default() };
    device.start(run);
    assert_eq!(device.wait_for_exit(), ExitStatus::Code(0));
    let files = std::fs::read_dir(device.shim_directory().join("lines")).unwrap();
    let kept: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(kept <= 512 << 10, "{kept} bytes are kept");
    let lines = device.lines();
    // The last one is a torn piece.
    let written = 10_000_000_usize.div_ceil(text.len() + 1);
    let gap: usize = lines[0].strip_prefix("gap 1 to ").expect("the first entry is a gap").parse().unwrap();
    assert_eq!(gap + lines.len() - 1, written, "one gap, then every line to the last");
    assert!(lines[1..lines.len() - 1].iter().all(|line| line == text));
}

#[test]
fn what_a_run_says_by_sd_notify_is_told() {
    let device = Device::new();
    device.start(helper(&device.data(), "run::notifies"));
    device.wait("ready", |event| (event.kind == RunnerEventKind::Ready).then_some(()));
    device.wait("a status", |event| match event.kind {
        RunnerEventKind::StatusChanged { text } => {
            assert_eq!(text, "brewing");
            Some(())
        }
        _ => None,
    });
    device.wait("a kick", |event| (event.kind == RunnerEventKind::WatchdogKicked).then_some(()));
    let Found::Running { ready, .. } = device.attach() else { panic!("it runs") };
    assert!(ready);
}

#[test]
#[ignore = "run by another test, as a workload"]
fn notifies() {
    let socket = UnixDatagram::unbound().unwrap();
    let path = std::env::var_os("NOTIFY_SOCKET").expect("run by another test");
    for message in ["READY=1", "STATUS=brewing", "WATCHDOG=1"] {
        socket.send_to(message.as_bytes(), &path).unwrap();
    }
    loop {
        std::thread::park();
    }
}

#[test]
fn a_run_with_a_user_is_that_user_or_does_not_start() {
    let device = Device::new();
    // The way to the notify socket and to the directory must be open to others, as in /run and /var/lib.
    std::fs::set_permissions(device.home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut run = spec(&device.data(), "id -u; id -g; id -G; touch mine; test -w \"$NOTIFY_SOCKET\" && echo reachable");
    run.user = Some("12345:23456".to_owned());
    if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
        device.start(run);
        assert_eq!(device.wait_for_exit(), ExitStatus::Code(0));
        assert_eq!(device.lines(), ["12345", "23456", "23456", "reachable"]);
        assert_eq!(std::fs::metadata(device.data().join("mine")).unwrap().uid(), 12345);
    } else {
        let failure = device.start_failure(run);
        assert!(matches!(failure, StartFailure::Execute { .. }), "{failure}");
    }
}

#[test]
fn limits_hold_for_the_run_and_not_for_its_shim() {
    let device = Device::new();
    let mut run = spec(&device.data(), "ulimit -n; ulimit -v; ulimit -c");
    run.limits.open_files_max = Some(77);
    run.limits.memory_bytes_max = Some(1 << 30);
    device.start(run);
    assert_eq!(device.wait_for_exit(), ExitStatus::Code(0));
    assert_eq!(device.lines(), ["77", "1048576", "0"]);
}

#[test]
fn acknowledged_lines_are_gone_and_the_others_are_not() {
    let device = Device::new();
    let mut run = spec(&device.data(), "i=0; while [ $i -lt 5000 ]; do i=$((i+1)); echo \"line $i\"; done");
    // Segments of 32 KiB, and room for all lines.
    run.limits.line_bytes_max = 512 << 10;
    device.start(run);
    device.wait_for_exit();
    let (_, through) = device.read(None);
    let through = through.unwrap();
    device.runner().acknowledge_lines(&coffee(), through);
    let lines = device.shim_directory().join("lines");
    until("an acknowledged segment going", || {
        std::fs::read_dir(&lines).unwrap().all(|file| file.unwrap().file_name() != "00000000000000000001.lines")
    });
    let (entries, _) = device.read(Some(through));
    let Some(LineEntry::Line(next)) = entries.first() else { panic!("no gap after what was acknowledged") };
    assert_eq!(next.sequence, through.sequence + 1);
}
