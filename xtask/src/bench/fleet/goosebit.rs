//! goosebit, an update server of the same kind: devices check in by HTTP, find their update and report what came of it.

use std::process::{Command, Stdio};
use std::time::Duration;

use super::process::{Clients, Process};
use super::{Bench, SOON};
use crate::ci::root;
use crate::python;

/// What it is called where packages are.
pub(super) const PACKAGE: &str = "goosebit";
/// Its packages, each at one version, and where they are installed; relative to the root.
const REQUIREMENTS: &str = "xtask/src/bench/fleet/goosebit-requirements.txt";
const ENVIRONMENT: &str = "target/bench-python";
/// Its devices, relative to the root.
const SCRIPT: &str = "xtask/src/bench/fleet/goosebit_devices.py";
/// Devices that are measured: each costs as much as the one before.
const DEVICES: u32 = 500;
/// Where it listens.
const PORT: &str = "48053";

/// Processor time of the server for one device.
pub(super) struct PerDevice {
    /// First contact: a check-in that makes the device known, and what it says of itself.
    pub(super) register: f64,
    /// A check-in when there is nothing new.
    pub(super) check_in: f64,
    /// An update from the check-in that finds it to the one after it.
    pub(super) update: f64,
}

/// Measures it, and says which version it was.
pub(super) fn measure(bench: &Bench, artifact_bytes: usize) -> anyhow::Result<(String, PerDevice)> {
    python::prepare_environment(&bench.shell, ENVIRONMENT, REQUIREMENTS)?;
    let directory = bench.workshop.empty_directory(PACKAGE)?;
    let python = || {
        let mut command = Command::new(root().join(ENVIRONMENT).join("bin/python"));
        command.current_dir(&directory).env("GOOSEBIT_DB_URI", "sqlite://goosebit.sqlite");
        command.env("GOOSEBIT_ARTIFACTS_DIR", directory.join("artifacts")).stdout(Stdio::null());
        command
    };
    let mut found = python();
    found.arg(root().join(SCRIPT)).args(["found", "--artifact", "release.swu", "--bytes", &artifact_bytes.to_string()]);
    anyhow::ensure!(found.status()?.success(), "its database could not be made");
    let mut serve = python();
    serve.args(["-m", "uvicorn", "goosebit:app", "--port", PORT, "--log-level", "error", "--no-access-log"]);
    let server = Process::start(&mut serve, &directory.join("server.log"))?;
    wait_for_port()?;
    let mut devices = python();
    devices.arg(root().join(SCRIPT)).args(["devices", "--port", PORT]);
    let mut devices = Clients::start(&mut devices, &directory.join("devices.log"))?;
    let mut pay = |command: &str| -> anyhow::Result<f64> {
        let before = server.cpu_seconds()?;
        let done = devices.ask(&format!("{command} {DEVICES}"))?.live;
        anyhow::ensure!(done == DEVICES, "`{command}` was done by {done} of {DEVICES} devices");
        Ok((server.cpu_seconds()? - before) / f64::from(DEVICES))
    };
    let register = pay("register")?;
    let update = pay("update")?;
    let check_in = pay("poll")?;
    let version = include_str!("goosebit-requirements.txt").lines().find_map(|line| line.strip_prefix("goosebit=="));
    Ok((format!("{PACKAGE} {}, plain HTTP", version.unwrap_or("?")), PerDevice { register, check_in, update }))
}

fn wait_for_port() -> anyhow::Result<()> {
    for _ in 0..30 {
        if std::net::TcpStream::connect(format!("127.0.0.1:{PORT}")).is_ok() {
            return Ok(());
        }
        std::thread::sleep(SOON);
    }
    anyhow::bail!("it does not listen after {:?}", Duration::from_secs(60))
}
