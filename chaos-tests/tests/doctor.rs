//! What the doctors of a device and of a server see, when something is broken there for real.

use std::fs::{self, Permissions};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use fleetd_chaos_tests::cluster::{Cluster, PATIENCE, is_online, runs, with_cluster};
use fleetd_chaos_tests::process::{is_alive, within};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::material::brewing;

#[test]
fn a_devices_doctor_sees_a_blocked_port_a_killed_shim_and_an_open_folder() {
    with_cluster(|cluster| {
        cluster.delegate()?;
        cluster.push("1.0.0", &brewing("1.0.0"), &["--grace", "1s"])?;
        let number = cluster.add_agent()?;
        cluster.roll_out("1.0.0")?;
        cluster.until_device(number, "it to run 1.0.0", |device| runs(device, "1.0.0"))?;
        let agent = cluster.agent(number)?;
        let (server, data) = (format!("server {}", agent.link.address()), agent.data_directory());
        let run_file = agent.run_directory().join("shims/coffee/run.json");

        let well = Doctor::of_device(cluster, number)?;
        ensure!(well.failed()?.is_empty() && well.exit == Some(0), "{:#}", well.answer);
        ensure!(well.found(&server)?.contains("proved to be of flt_"), "{:#}", well.answer);
        for check in ["clock", "certificate", "device key", "key files", "shim coffee", "workload coffee"] {
            ensure!(well.state(check)? == "ok", "{check}: {:#}", well.answer);
        }

        cluster.agent(number)?.link.cut();
        let blocked = Doctor::of_device(cluster, number)?;
        ensure!(blocked.state(&server)? == "fail" && blocked.exit == Some(1), "{:#}", blocked.answer);
        ensure!(blocked.found(&server)?.contains("UDP is blocked on the way"), "{:#}", blocked.answer);
        cluster.agent(number)?.link.heal();

        cluster.kill_agent(number)?;
        let shim = serde_json::from_slice::<Value>(&fs::read(run_file)?)?["shim"]["pid"].as_i64();
        let shim = Pid::from_raw(i32::try_from(shim.context("the run has no shim")?)?);
        kill(shim, Signal::SIGKILL)?;
        within(PATIENCE, "the shim to be gone", || Ok((!is_alive(shim.as_raw().unsigned_abs())).then_some(())))?;
        fs::set_permissions(&data, Permissions::from_mode(0o755))?;
        let broken = Doctor::of_device(cluster, number)?;
        ensure!(broken.state("shim coffee")? == "warn", "{:#}", broken.answer);
        ensure!(broken.found("shim coffee")?.contains("was killed"), "{:#}", broken.answer);
        ensure!(broken.failed()? == ["data directory", "agent"], "{:#}", broken.answer);
        ensure!(broken.remedy("data directory")? == format!("chmod 700 {}", data.display()), "{:#}", broken.answer);
        ensure!(broken.state("store")? == "ok" && broken.state(&server)? == "ok", "{:#}", broken.answer);

        cluster.start_agent(number)?;
        cluster.until_device(number, "it to be back", |device| is_online(device) && runs(device, "1.0.0"))?;
        let healed = within(PATIENCE, "the device to be well again", || {
            let doctor = Doctor::of_device(cluster, number)?;
            Ok((doctor.exit == Some(0)).then_some(doctor))
        })?;
        ensure!(healed.state("data directory")? == "ok", "{:#}", healed.answer);
        Ok(())
    });
}

#[test]
fn a_servers_doctor_sees_lost_bytes_open_keys_and_a_taken_port_also_when_no_server_comes_up() {
    with_cluster(|cluster| {
        cluster.delegate()?;
        cluster.push("1.0.0", &brewing("1.0.0"), &[])?;
        let data = cluster.path("server");

        let well = Doctor::run(cluster, &["doctor", "--server"])?;
        ensure!(well.exit == Some(0) && well.found("sync address")?.contains("proved to be of"), "{:#}", well.answer);
        for check in ["server: root key", "server: backup"] {
            ensure!(well.state(check)? == "warn", "{check}: {:#}", well.answer);
        }
        fs::rename(data.join("keys/root.key"), cluster.path("root.key"))?;
        cluster.json(&["backup", "--out", &cluster.path("fleet.backup").display().to_string()])?;
        let better = Doctor::run(cluster, &["doctor", "--server"])?;
        for check in ["root key", "backup", "artifacts", "ca", "trust", "certificate", "clock", "disk", "store"] {
            ensure!(better.state(&format!("server: {check}"))? == "ok", "{check}: {:#}", better.answer);
        }

        for file in fs::read_dir(data.join("artifacts"))? {
            fs::remove_file(file?.path())?;
        }
        fs::set_permissions(data.join("keys/ca.key"), Permissions::from_mode(0o644))?;
        let broken = Doctor::run(cluster, &["doctor", "--server"])?;
        ensure!(broken.failed()? == ["server: key files", "server: artifacts"], "{:#}", broken.answer);
        ensure!(broken.found("server: artifacts")?.contains("coffee 1.0.0"), "{:#}", broken.answer);
        ensure!(broken.found("server: key files")?.contains("ca.key has mode 0644"), "{:#}", broken.answer);

        fs::set_permissions(data.join("keys/ca.key"), Permissions::from_mode(0o600))?;
        cluster.kill_server()?;
        check_folder(cluster, &data)
    });
}

/// Looks at the folder of a server that does not run, and breaks it further.
fn check_folder(cluster: &Cluster, data: &Path) -> anyhow::Result<()> {
    let announced: Value = serde_json::from_slice(&fs::read(cluster.path("serve.json"))?)?;
    let address = |name: &str| announced[name].as_str().map(str::to_owned).context("the server named no address");
    let (api, sync, folder) = (address("apiAddress")?, address("syncAddress")?, data.display().to_string());
    let look = || Doctor::run(cluster, &["doctor", "--data", &folder, "--api-address", &api, "--sync-address", &sync]);
    let port = |address: &str| address.parse::<SocketAddr>().map(|address| address.port());
    let udp = format!("UDP {}", port(&sync)?);

    let down = look()?;
    ensure!(down.state(&udp)? == "warn" && down.found(&udp)?.contains("nothing listens"), "{:#}", down.answer);
    ensure!(down.state("store")? == "ok" && down.failed()? == ["artifacts"], "{:#}", down.answer);

    let taken = UdpSocket::bind(&sync)?;
    let _other = std::net::TcpListener::bind(&api)?;
    let walled = look()?;
    ensure!(walled.failed()? == ["artifacts", &udp, &format!("TCP {}", port(&api)?)], "{:#}", walled.answer);
    ensure!(walled.found(&udp)?.contains("nothing came back"), "{:#}", walled.answer);
    drop(taken);

    let format = data.join("store/FORMAT");
    fs::write(&format, fs::read_to_string(&format)?.replace('1', "9"))?;
    fs::rename(data.join("keys/authority.key"), cluster.path("authority.key"))?;
    let worse = look()?;
    ensure!(worse.remedy("store")?.contains("newer program"), "{:#}", worse.answer);
    ensure!(worse.found("fleet")?.contains("authority.key is missing"), "{:#}", worse.answer);
    ensure!(worse.exit == Some(1), "{:#}", worse.answer);
    Ok(())
}

/// What a doctor said.
struct Doctor {
    exit: Option<i32>,
    answer: Value,
}

impl Doctor {
    fn of_device(cluster: &mut Cluster, number: usize) -> anyhow::Result<Self> {
        let configuration = cluster.agent(number)?.configuration().display().to_string();
        Self::run(cluster, &["agent", "doctor", "--config", &configuration])
    }

    fn run(cluster: &Cluster, arguments: &[&str]) -> anyhow::Result<Self> {
        let output = cluster.run(arguments)?;
        let answer = serde_json::from_slice(&output.stdout);
        let answer = answer.with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        Ok(Self { exit: output.status.code(), answer })
    }

    fn finding(&self, check: &str) -> anyhow::Result<&Value> {
        let findings = self.answer["findings"].as_array().context("there are no findings")?;
        let found = findings.iter().find(|finding| finding["check"] == check);
        found.with_context(|| format!("nothing is said of {check:?}: {:#}", self.answer))
    }

    fn word(&self, check: &str, field: &str) -> anyhow::Result<String> {
        Ok(self.finding(check)?[field].as_str().context("a finding lacks a word")?.to_owned())
    }

    fn state(&self, check: &str) -> anyhow::Result<String> {
        self.word(check, "state")
    }

    fn found(&self, check: &str) -> anyhow::Result<String> {
        self.word(check, "found")
    }

    fn remedy(&self, check: &str) -> anyhow::Result<String> {
        self.word(check, "remedy")
    }

    fn failed(&self) -> anyhow::Result<Vec<&str>> {
        let failed = self.answer["failed"].as_array().context("it is not said what failed")?;
        failed.iter().map(|check| check.as_str().context("a check has no name")).collect()
    }
}
