//! Asks one probe of a real workload.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

use super::{PROBE_DETAIL_BYTES_MAX, Probe, ProbeKind, ProbeOutcome};

/// Time to read a probe's last words once its processes are gone.
const LISTEN_DEADLINE: Duration = Duration::from_millis(500);

/// How a program that belongs to a workload is run: as the workload itself is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeSurroundings {
    /// The working directory.
    pub directory: std::path::PathBuf,
    /// The environment, whole.
    pub environment: Vec<(String, String)>,
    /// The user and the group, if they are not the agent's own.
    pub user: Option<(u32, u32)>,
}

/// Asks one probe, once, and waits for its answer no longer than it may take.
pub async fn ask(probe: &Probe, surroundings: &ProbeSurroundings) -> ProbeOutcome {
    let answer = async {
        match &probe.kind {
            ProbeKind::Exec { argv } => ask_program(argv, surroundings).await,
            ProbeKind::Tcp { port } => connect(*port).await.map(|_stream| ()),
            ProbeKind::Http { port, path } => ask_http(*port, path).await,
        }
    };
    match timeout(probe.timeout, answer).await {
        Ok(Ok(())) => ProbeOutcome::Good,
        Ok(Err(detail)) => ProbeOutcome::Bad { detail },
        Err(_elapsed) => ProbeOutcome::TimedOut { waited: probe.timeout },
    }
}

/// Kills a probe's process group when the probe is given up.
struct GroupGuard(Option<u32>);

impl Drop for GroupGuard {
    fn drop(&mut self) {
        if let Some(group) = self.0.and_then(|pid| i32::try_from(pid).ok()) {
            // Called before or right after the leader was waited for: no number is given out again that soon.
            let _gone = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
    }
}

async fn ask_program(argv: &[String], surroundings: &ProbeSurroundings) -> Result<(), String> {
    let Some((program, arguments)) = argv.split_first() else { return Err("the probe names no program".to_owned()) };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(&surroundings.directory)
        .env_clear()
        .envs(surroundings.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    if let Some((uid, gid)) = surroundings.user {
        command.uid(uid).gid(gid);
    }
    let mut child = command.spawn().map_err(|error| format!("{program} cannot be executed: {error}"))?;
    let mut group = GroupGuard(child.id());
    let (status, complaint) = match child.stderr.take() {
        Some(stderr) => wait_and_listen(&mut child, stderr, &mut group).await,
        None => (child.wait().await, Vec::new()),
    };
    let status = status.map_err(|error| format!("{program} cannot be waited for: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{status}: {}", shorten(&complaint))) }
}

/// Waits for a probe's end, and keeps the beginning of what it complains about. The rest is read and dropped, so that
/// it never blocks; what it left behind is ended, since that may hold its standard error open.
async fn wait_and_listen(
    child: &mut Child,
    mut stderr: ChildStderr,
    group: &mut GroupGuard,
) -> (io::Result<ExitStatus>, Vec<u8>) {
    let mut complaint = Vec::new();
    let limit = u64::try_from(PROBE_DETAIL_BYTES_MAX).unwrap_or(u64::MAX);
    let status = {
        let mut listen = std::pin::pin!(async {
            (&mut stderr).take(limit).read_to_end(&mut complaint).await?;
            tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await
        });
        let mut at_end = false;
        let status = loop {
            tokio::select! {
                biased;
                status = child.wait() => break status,
                _ = &mut listen, if !at_end => at_end = true,
            }
        };
        drop(GroupGuard(group.0.take()));
        if !at_end {
            // What it said last may still be in the pipe.
            let _held_open = timeout(LISTEN_DEADLINE, listen).await;
        }
        status
    };
    (status, complaint)
}

async fn connect(port: u16) -> Result<TcpStream, String> {
    // A workload may listen on one of them only.
    match TcpStream::connect(("127.0.0.1", port)).await {
        Ok(stream) => Ok(stream),
        Err(first) => TcpStream::connect(("::1", port)).await.map_err(|_second| format!("port {port}: {first}")),
    }
}

async fn ask_http(port: u16, path: &str) -> Result<(), String> {
    if !path.starts_with('/') || path.contains(|character: char| character.is_ascii_control() || character == ' ') {
        return Err(format!("{path:?} is no path of an HTTP request"));
    }
    let mut stream = connect(port).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nUser-Agent: fleetd-agent\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    let failed = |error: io::Error| format!("port {port}: {error}");
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let line = read_status_line(&mut stream).await.map_err(failed)?;
    match parse_status(&line) {
        Some(200..=399) => Ok(()),
        Some(status) => Err(format!("status {status}")),
        None => Err(format!("no HTTP answer: {}", shorten(&line))),
    }
}

async fn read_status_line(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut buffer = [0; PROBE_DETAIL_BYTES_MAX];
    while line.len() < PROBE_DETAIL_BYTES_MAX && !line.contains(&b'\n') {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            break;
        }
        line.extend(buffer.iter().take(length));
    }
    Ok(line)
}

/// Reads the status of `HTTP/1.1 200 OK`.
///
/// # Source
/// RFC 9112, section 4.
pub(crate) fn parse_status(line: &[u8]) -> Option<u16> {
    let line = line.split(|byte| *byte == b'\n').next()?;
    let text = std::str::from_utf8(line).ok()?;
    let (version, rest) = text.split_once(' ')?;
    let status = rest.get(..3).filter(|status| status.bytes().all(|byte| byte.is_ascii_digit()))?;
    let ended = rest.get(3..).is_some_and(|after| after.is_empty() || after.starts_with([' ', '\r']));
    (version.starts_with("HTTP/1.") && ended).then(|| status.parse().ok()).flatten()
}

fn shorten(bytes: &[u8]) -> String {
    let kept: Vec<u8> = bytes.iter().copied().take(PROBE_DETAIL_BYTES_MAX).collect();
    String::from_utf8_lossy(&kept).trim().replace(|character: char| character.is_control(), " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_line_is_read_and_nothing_else_is_taken_for_one() {
        assert_eq!(parse_status(b"HTTP/1.1 204 No Content\r\nServer: x\r\n"), Some(204));
        assert_eq!(parse_status(b"HTTP/1.0 503\r\n"), Some(503));
        for line in
            [&b"SSH-2.0-OpenSSH"[..], b"HTTP/1.1 2000 OK", b"HTTP/1.1 20", b"HTTP/1.1 +20", b"", b"\xff HTTP/1.1 200"]
        {
            assert_eq!(parse_status(line), None, "{line:?}");
        }
    }
}
