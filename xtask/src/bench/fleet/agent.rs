//! What a device pays for its agent: the `small` binary, on this machine, with three workloads that it keeps running.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use xshell::cmd;

use super::process::{Process, memory_bytes};
use super::server::{Server, text_at};
use super::{Bench, SOON, Workshop};
use crate::bench::{Peer, Row, Target};
use crate::ci::root;

/// The agent as it is shipped to small flash, relative to the root.
const AGENT: &str = "target/small/fleetd-agent";
/// Its workloads.
const WORKLOADS: [&str; 3] = ["coffee", "tea", "till"];
/// A workload that does nothing, for as long as it may.
const PROGRAM: &str = "#!/bin/sh\nexec sleep 1000000\n";
/// Time after which nothing is left of the installing.
const SETTLED: Duration = Duration::from_secs(60);
/// The clock's speed while writes are counted, and for how long: six hours of the device.
const HASTE: u32 = 60;
const HASTY: Duration = Duration::from_secs(6 * 60);
/// What makes a process's clocks run faster.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
/// The peer of the agent's memory.
const SWUPDATE: &str = "swupdate";

/// `agent_rss`, `agent_shims`, `agent_binary`, `agent_flash_day`.
pub(super) fn rows(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    cmd!(bench.shell, "cargo build --profile small --package fleetd-agent --bin fleetd-agent").run()?;
    let (megabyte, mebibyte) = (1e6, f64::from(1 << 20));
    #[expect(clippy::cast_precision_loss, reason = "a file has fewer than 52 bits of bytes")]
    let size = fs::metadata(root().join(AGENT))?.len() as f64 / mebibyte;
    let server = Server::found(&bench.workshop, "agent")?;
    let device = Device::prepare(&bench.workshop, &server)?;
    let agent = device.run(&[])?;
    server.wait_for_a_device()?;
    install_all(&server)?;
    std::thread::sleep(SETTLED);
    let shims = processes_below(agent.id())?;
    ensure!(shims.len() >= WORKLOADS.len(), "only {} of the workloads run", shims.len());
    let (pss, shims_pss) = (agent.memory_bytes("Pss")?, pss_of_agents(&shims)?);
    agent.end()?;
    let mut memory = Row::new("agent_rss", pss / megabyte, "MB PSS, 3 workloads", Target::AtMost(10.0));
    if bench.with_peers {
        memory.peers.push(match swupdate(bench) {
            Ok((name, bytes)) => Peer::measured(&name, bytes / megabyte),
            Err(error) => Peer::skipped(SWUPDATE, &error),
        });
    }
    let written = device.bytes_written()?;
    Ok(vec![
        memory,
        Row::new("agent_shims", shims_pss / megabyte, "MB PSS, all 3 shims", Target::AtMost(10.0)),
        Row::new("agent_binary", size, "MiB, profile small", Target::AtMost(8.0)),
        Row::new("agent_flash_day", written / megabyte, "MB/day, told from 6 hours", Target::AtMost(1.0)),
    ])
}

/// A device's directory, and how its agent is run.
struct Device {
    directory: PathBuf,
}

impl Drop for Device {
    /// Workloads outlive their agent on purpose; a shim that is killed takes its own along.
    fn drop(&mut self) {
        for shim in processes_below(0).unwrap_or_default() {
            // It may have ended by itself.
            let _ = Command::new("kill").args(["-KILL", &shim.to_string()]).status();
        }
    }
}

impl Device {
    fn prepare(workshop: &Workshop, server: &Server) -> anyhow::Result<Self> {
        let directory = workshop.empty_directory("device")?;
        let (data, run, token) = (directory.join("data"), directory.join("run"), server.token(1)?);
        let configuration = format!("data-directory = {data:?}\nrun-directory = {run:?}\nenroll-token = {token:?}\n");
        fs::write(directory.join("agent.toml"), configuration)?;
        Ok(Self { directory })
    }

    fn run(&self, environment: &[(&str, &str)]) -> anyhow::Result<Process> {
        let mut command = Command::new(root().join(AGENT));
        command.args(["run", "--config"]).arg(self.directory.join("agent.toml"));
        command.envs(environment.iter().copied()).env("FLEETD_LOG", "warn");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Process::start(&mut command, &self.directory.join("agent.log"))
    }

    /// Bytes that the agent has the kernel write in a day in which nothing happens. Its clocks run faster meanwhile,
    /// so that what it writes each hour is seen; its server's do not, which does not know.
    fn bytes_written(&self) -> anyhow::Result<f64> {
        ensure!(Path::new(FAKETIME).exists(), "the day of an agent is played by faketime, which is not installed");
        let speed = format!("+0 x{HASTE}");
        let agent = self.run(&[("LD_PRELOAD", FAKETIME), ("FAKETIME", &speed)])?;
        // What the start writes is no part of the day.
        std::thread::sleep(SETTLED);
        let before = agent.bytes_written()?;
        std::thread::sleep(HASTY);
        let written = agent.bytes_written()? - before;
        agent.end()?;
        Ok(written * 86_400.0 / (HASTY.as_secs_f64() * f64::from(HASTE)))
    }
}

/// Rolls each workload out, and waits until the device is well.
fn install_all(server: &Server) -> anyhow::Result<()> {
    let path = |name: &str| server.path(name).display().to_string();
    let (program, root_key) = (path("program"), server.root_key());
    fs::write(&program, PROGRAM)?;
    for workload in WORKLOADS {
        let (key, public) = (path(&format!("{workload}.key")), path(&format!("{workload}.pub")));
        server.operate(&["key", "create", &key])?;
        server.operate(&[
            "trust",
            "delegate",
            &public,
            "--role",
            "release",
            "--workload",
            workload,
            "--root",
            root_key,
        ])?;
        let (release, artifact) = (format!("{workload}@1.0.0"), format!("any={program}"));
        server.operate(&["release", "push", &release, "--artifact", &artifact, "--key", &key, "--grace", "1s"])?;
        let plan = text_at(&server.operate(&["rollout", "plan", &release, "--all"])?, "/plan/id")?;
        server.operate_to_the_end(&["rollout", "start", &plan, "--wait=10m"])?;
    }
    Ok(())
}

/// The agent's own program in other roles: the shims, which have left its process group but not its name.
fn processes_below(agent: u32) -> anyhow::Result<Vec<u32>> {
    let program = fs::canonicalize(root().join(AGENT))?;
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if id != agent && fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe == program) {
            found.push(id);
        }
    }
    Ok(found)
}

fn pss_of_agents(ids: &[u32]) -> anyhow::Result<f64> {
    ids.iter().map(|id| memory_bytes(*id, "Pss")).sum()
}

/// An idle SWUpdate that polls a server which is not there: what it is called, and the memory of all its processes.
fn swupdate(bench: &Bench) -> anyhow::Result<(String, f64)> {
    let directory = bench.workshop.empty_directory(SWUPDATE)?;
    let format = "${Version}";
    let dpkg = cmd!(bench.shell, "dpkg-query --show --showformat {format} swupdate").quiet().ignore_stderr().read();
    let version = dpkg.context("not installed")?;
    // The distribution's wants to know whose images it may take.
    let certificate = directory.join("images.pem").display().to_string();
    let request = ["-x509", "-days", "30", "-nodes", "-newkey", "rsa:2048", "-subj", "/CN=bench"];
    let purpose = "extendedKeyUsage=emailProtection";
    cmd!(bench.shell, "openssl req {request...} -addext {purpose} -keyout {certificate}.key -out {certificate}")
        .quiet()
        .ignore_stderr()
        .run()?;
    let mut command = Command::new(SWUPDATE);
    command.args(["-k", &certificate, "-u", "-t DEFAULT -u http://127.0.0.1:1 -i bench -p 25"]).current_dir(&directory);
    command.env("TMPDIR", &directory).stdin(Stdio::null()).stdout(Stdio::null());
    let parent = Process::start(&mut command, &directory.join("swupdate.log"))?;
    std::thread::sleep(SOON * 5);
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", parent.id()))?;
    let children: Vec<u32> = children.split_whitespace().filter_map(|id| id.parse().ok()).collect();
    ensure!(!children.is_empty(), "it does not run; see {}", directory.join("swupdate.log").display());
    let bytes = parent.memory_bytes("Pss")? + pss_of_agents(&children)?;
    parent.end()?;
    Ok((format!("{SWUPDATE} {version}, polling a server"), bytes))
}
