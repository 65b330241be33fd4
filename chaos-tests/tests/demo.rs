//! The demo as a user starts it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use fleetd_chaos_tests::binary;
use fleetd_chaos_tests::cluster::turn;
use fleetd_chaos_tests::process::{processes_of, within};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// The names of the steps, which scripts read.
const STEPS: [&str; 11] = [
    "serve",
    "enrol",
    "delegate",
    "push-1.0.0",
    "rollout-1.0.0",
    "logs",
    "cut",
    "rollout-1.1.0",
    "converge",
    "rollout-1.2.0",
    "restored",
];
/// Time in which a demo that ends has also cleaned up.
const CLEAN_UP: Duration = Duration::from_secs(30);

/// A demo whose directory lies in one of our own, so that all that it leaves can be found.
struct Demo {
    child: Child,
    directory: tempfile::TempDir,
}

impl Demo {
    fn start() -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("fleetd-stage-").tempdir()?;
        let child = Command::new(binary::fleetd()?)
            .args(["--json", "demo"])
            .env("TMPDIR", directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(directory.path().join("errors"))?)
            .spawn()?;
        Ok(Self { child, directory })
    }

    /// Reads the story; `hear` is told each event.
    fn listen(&mut self, mut hear: impl FnMut(&Path, &Value) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let story = self.child.stdout.take().context("the demo has no standard output")?;
        for line in BufReader::new(story).lines() {
            hear(self.directory.path(), &serde_json::from_str(&line?)?)?;
        }
        Ok(())
    }

    /// Waits for its end, and checks that nothing of it is left; answers with its exit code and its errors.
    fn end(mut self) -> anyhow::Result<(Option<i32>, String)> {
        let status = within(CLEAN_UP, "the demo to end", || Ok(self.child.try_wait()?))?;
        let errors = fs::read_to_string(self.directory.path().join("errors"))?;
        let left = processes_of(self.directory.path());
        ensure!(left.is_empty(), "processes are left: {left:?}\n{errors}");
        let files: Vec<_> = fs::read_dir(self.directory.path())?.flatten().map(|entry| entry.file_name()).collect();
        ensure!(files == ["errors"], "files are left: {files:?}\n{errors}");
        Ok((status.code(), errors))
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // When a test fails half-way, the demo cleans up if it is asked to end, and only then.
        if let (Ok(None), Ok(pid)) = (self.child.try_wait(), i32::try_from(self.child.id())) {
            let _gone = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = self.child.wait();
    }
}

fn is(event: &Value, step: &str, what: &str) -> bool {
    event["step"] == step && event["event"] == what
}

#[test]
fn the_demo_sees_every_step_and_leaves_nothing_behind() {
    let _turn = turn();
    let mut demo = Demo::start().unwrap();
    let mut seen = Vec::new();
    let mut story = String::new();
    demo.listen(|_, event| {
        story.push_str(&format!("{event}\n"));
        if event["event"] == "seen" {
            seen.push(event["step"].as_str().unwrap_or_default().to_owned());
        }
        Ok(())
    })
    .unwrap();
    let (code, errors) = demo.end().unwrap();
    assert_eq!((code, seen), (Some(0), STEPS.map(str::to_owned).to_vec()), "{errors}\n{story}");
}

#[test]
fn a_demo_whose_agent_is_killed_fails_at_the_step_that_it_was_at() {
    let _turn = turn();
    let mut demo = Demo::start().unwrap();
    demo.listen(|directory, event| {
        if is(event, "rollout-1.0.0", "begun") {
            let agents = processes_of(directory);
            let agent = agents.iter().find(|(_, command)| command.contains("agent run") && command.contains("agent-2"));
            let (pid, _) = agent.with_context(|| format!("no second agent among {agents:?}"))?;
            kill(Pid::from_raw(i32::try_from(*pid)?), Signal::SIGKILL)?;
        }
        Ok(())
    })
    .unwrap();
    let (code, errors) = demo.end().unwrap();
    assert_eq!(code, Some(1), "{errors}");
    let error: Value = serde_json::from_str(errors.lines().last().unwrap_or_default()).unwrap();
    assert_eq!(error["error"]["code"], "demo.failed");
    let message = error["error"]["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("demo failed at step rollout-1.0.0: agent-2 "), "{message}");
}

#[test]
fn a_demo_that_is_interrupted_leaves_nothing_behind() {
    let _turn = turn();
    let mut demo = Demo::start().unwrap();
    let pid = Pid::from_raw(i32::try_from(demo.child.id()).unwrap());
    demo.listen(|_, event| {
        // Workloads run by then, and outlive their agents unless they are swept.
        if is(event, "logs", "begun") {
            kill(pid, Signal::SIGINT)?;
        }
        Ok(())
    })
    .unwrap();
    let (code, errors) = demo.end().unwrap();
    assert_eq!(code, Some(130), "{errors}");
}
