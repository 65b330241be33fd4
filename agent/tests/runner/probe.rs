//! Probes of real programs and ports.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::Duration;

use fleetd_agent::probe::{Probe, ProbeKind, ProbeOutcome};
use fleetd_agent::runner::{Runner as _, RunnerEventKind};

use crate::device::{DEADLINE, Device, coffee, operation, read_pid, runs, spec, until};

fn ask(device: &Device, kind: ProbeKind, timeout: Duration) -> ProbeOutcome {
    let operation = operation();
    device.runner().probe(operation, &coffee(), Probe { kind, timeout }, device.events());
    device.wait("the probe", |event| match event.kind {
        RunnerEventKind::Probed { outcome } if event.operation == operation => Some(outcome),
        _ => None,
    })
}

fn exec(script: &str) -> ProbeKind {
    ProbeKind::Exec { argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec() }
}

fn detail(outcome: ProbeOutcome) -> String {
    match outcome {
        ProbeOutcome::Bad { detail } => detail,
        other => panic!("{other:?}"),
    }
}

/// Answers one connection with `answer`, after the request has come.
fn serve(answer: &'static str) -> (u16, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut buffer = [0; 1024];
        while !request.ends_with(b"\r\n\r\n") {
            let length = stream.read(&mut buffer).unwrap();
            assert!(length > 0, "the request is whole");
            request.extend_from_slice(&buffer[..length]);
        }
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8(request).unwrap()
    });
    (port, server)
}

#[test]
fn an_exec_probe_runs_as_the_workload_does() {
    let device = Device::new();
    let mut run = spec(&device.data(), "touch up; exec sleep 1000");
    run.environment = vec![("COFFEE".to_owned(), "black".to_owned())];
    device.start(run);
    until("the workload's file", || device.data().join("up").exists());
    assert_eq!(ask(&device, exec("test -e up && test \"$COFFEE\" = black"), DEADLINE), ProbeOutcome::Good);
    let complaint = detail(ask(&device, exec("echo no water >&2; exit 3"), DEADLINE));
    assert_eq!(complaint, "exit status: 3: no water");
    let missing = detail(ask(&device, ProbeKind::Exec { argv: vec!["/not/there".to_owned()] }, DEADLINE));
    assert!(missing.contains("/not/there cannot be executed"), "{missing}");
}

#[test]
fn an_exec_probe_that_hangs_is_killed_with_all_that_it_started() {
    let device = Device::new();
    device.start(spec(&device.data(), "exec sleep 1000"));
    let timeout = Duration::from_millis(500);
    let script = "sleep 1000 & echo $! > child.new; mv child.new child; echo $$ > probe; wait";
    assert_eq!(ask(&device, exec(script), timeout), ProbeOutcome::TimedOut { waited: timeout });
    for file in ["probe", "child"] {
        let pid = read_pid(&device.data().join(file));
        until("the end of the probe", || !runs(pid));
    }
    let talkative = exec("yes | head -c 1000000 >&2; exit 1");
    assert!(!detail(ask(&device, talkative, DEADLINE)).is_empty(), "one that complains much does not hang");
}

#[test]
fn a_cancelled_probe_is_killed_and_never_answers() {
    let device = Device::new();
    device.start(spec(&device.data(), "exec sleep 1000"));
    let cancelled = operation();
    let probe = Probe { kind: exec("echo $$ > probe; exec sleep 1000"), timeout: DEADLINE };
    device.runner().probe(cancelled, &coffee(), probe, device.events());
    let pid = read_pid(&device.data().join("probe"));
    device.runner().cancel(cancelled);
    until("the end of the probe", || !runs(pid));
    let next = operation();
    let probe = Probe { kind: exec("exit 0"), timeout: DEADLINE };
    device.runner().probe(next, &coffee(), probe, device.events());
    let answered =
        device.wait("a probe", |event| matches!(event.kind, RunnerEventKind::Probed { .. }).then_some(event.operation));
    assert_eq!(answered, next);
}

#[test]
fn a_tcp_probe_wants_somebody_to_listen() {
    let device = Device::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    assert_eq!(ask(&device, ProbeKind::Tcp { port }, DEADLINE), ProbeOutcome::Good);
    drop(listener);
    assert!(detail(ask(&device, ProbeKind::Tcp { port }, DEADLINE)).contains("refused"));
}

#[test]
fn an_http_probe_wants_a_good_status() {
    let device = Device::new();
    let get = |port| ProbeKind::Http { port, path: "/healthz?full=1".to_owned() };
    let (port, server) = serve("HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(ask(&device, get(port), DEADLINE), ProbeOutcome::Good);
    let request = server.join().unwrap();
    assert!(request.starts_with("GET /healthz?full=1 HTTP/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("\r\nHost: localhost:{port}\r\n")), "{request}");
    let (port, _server) = serve("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n\r\n");
    assert_eq!(detail(ask(&device, get(port), DEADLINE)), "status 503");
    let (port, _server) = serve("220 mail.example ESMTP\r\n");
    assert_eq!(detail(ask(&device, get(port), DEADLINE)), "no HTTP answer: 220 mail.example ESMTP");
    let smuggled = ProbeKind::Http { port: 1, path: "/ HTTP/1.1\r\nX: y".to_owned() };
    assert!(detail(ask(&device, smuggled, DEADLINE)).contains("is no path"));
}

#[test]
fn an_http_server_that_accepts_and_says_nothing_times_out() {
    let device = Device::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let kind = ProbeKind::Http { port: listener.local_addr().unwrap().port(), path: "/".to_owned() };
    let timeout = Duration::from_millis(100);
    assert_eq!(ask(&device, kind, timeout), ProbeOutcome::TimedOut { waited: timeout });
}
