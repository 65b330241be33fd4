//! The real server, in a process and a directory of its own, and the operator's commands on it.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::process::{Clients, Process};
use super::{DEVICES, FLEETD, PATIENCE, SOON, Workshop};
use crate::ci::root;

/// Time in which a server must have said where it listens.
const UP_WITHIN: Duration = Duration::from_secs(30);
/// Where the operator's commands keep their login.
const CONFIGURATION: &str = "operator";

/// A server of a fleet of its own.
pub(super) struct Server {
    directory: PathBuf,
    process: Option<Process>,
    /// The ports that it has at each start; none before the first.
    addresses: Option<(String, String)>,
    root_key: String,
}

impl Server {
    /// Founds a fleet below the workshop, and serves it.
    pub(super) fn found(workshop: &Workshop, name: &str) -> anyhow::Result<Self> {
        let directory = workshop.empty_directory(name)?;
        let mut server = Self { directory, process: None, addresses: None, root_key: String::new() };
        server.start()?;
        Ok(server)
    }

    fn start(&mut self) -> anyhow::Result<()> {
        let announced = self.directory.join("serve.json");
        let nowhere = || ("127.0.0.1:0".to_owned(), "127.0.0.1:0".to_owned());
        let (api, sync) = self.addresses.clone().unwrap_or_else(nowhere);
        let mut command = self.command();
        command.args(["--json", "serve", "--api-address", &api, "--sync-address", &sync, "--data"]);
        command.arg(self.directory.join("data")).stdin(Stdio::null()).stdout(File::create(&announced)?);
        self.process = Some(Process::start(&mut command, &self.directory.join("server.log"))?);
        let begin = Instant::now();
        let said: Value = loop {
            let text = fs::read_to_string(&announced)?;
            if let Some(said) = text.lines().next().and_then(|line| serde_json::from_str(line).ok()) {
                break said;
            }
            ensure!(begin.elapsed() < UP_WITHIN, "the server did not come up; see {}", self.directory.display());
            std::thread::sleep(Duration::from_millis(50));
        };
        self.addresses = Some((text_at(&said, "/apiAddress")?, text_at(&said, "/syncAddress")?));
        self.root_key = text_at(&said, "/rootKeyPath")?;
        Ok(())
    }

    /// Ends the process and starts a new one on the same data: what the last one's memory was used for is gone.
    pub(super) fn restart(&mut self) -> anyhow::Result<()> {
        self.process.take().context("the server does not run")?.end()?;
        self.start()
    }

    /// Kills the process, as a power cut does, and starts a new one on the same data. Returns the processor time, in
    /// seconds, that the killed one had taken.
    pub(super) fn kill_and_start(&mut self) -> anyhow::Result<f64> {
        let process = self.process.take().context("the server does not run")?;
        let paid = process.cpu_seconds()?;
        drop(process);
        self.start()?;
        Ok(paid)
    }

    pub(super) fn process(&self) -> anyhow::Result<&Process> {
        self.process.as_ref().context("the server does not run")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(root().join(FLEETD));
        // What the caller has set for fleets of their own is not for this one.
        let own =
            std::env::vars_os().map(|(name, _)| name).filter(|name| name.to_string_lossy().starts_with("FLEETD_"));
        own.for_each(|name| _ = command.env_remove(name));
        command.env("FLEETD_CONFIG_DIR", self.directory.join(CONFIGURATION)).env("FLEETD_LOG", "warn");
        command
    }

    /// A path beside the server's data.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Where the secret key of its root is.
    pub(super) fn root_key(&self) -> &str {
        &self.root_key
    }

    /// Runs an operator's command, and returns the object that it prints.
    pub(super) fn operate(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let printed = self.operate_to_the_end(arguments)?;
        serde_json::from_slice(&printed).with_context(|| format!("fleetd {} printed no object", arguments.join(" ")))
    }

    /// Runs an operator's command that may print much, until it ends.
    pub(super) fn operate_to_the_end(&self, arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
        let output = self.command().arg("--json").args(arguments).stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "fleetd {} failed:\n{said}", arguments.join(" "));
        Ok(output.stdout)
    }

    /// Runs an operator's command, and returns the processor time that it took itself, in seconds, and what it prints.
    pub(super) fn operate_and_pay(&self, arguments: &[&str]) -> anyhow::Result<(f64, Value)> {
        let command = self.command();
        let mut shell = Command::new("bash");
        shell.args(["-c", r#"TIMEFORMAT='%U %S'; time "$0" "$@" 2>"$STDERR""#]).arg(command.get_program());
        shell.arg("--json").args(arguments).env("STDERR", self.directory.join("operator.log")).stdin(Stdio::null());
        command.get_envs().for_each(|(name, value)| match value {
            Some(value) => _ = shell.env(name, value),
            None => _ = shell.env_remove(name),
        });
        let output = shell.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "fleetd {} failed; see {}", arguments.join(" "), self.directory.display());
        let paid = said.split_whitespace().map(str::parse::<f64>).sum::<Result<f64, _>>();
        let paid = paid.with_context(|| format!("bash told no times: {said}"))?;
        Ok((paid, serde_json::from_slice(&output.stdout).context("read what the command printed")?))
    }

    /// A token with which so many devices may enrol, and wait for nobody.
    pub(super) fn token(&self, uses: u32) -> anyhow::Result<String> {
        let uses = uses.to_string();
        let token = self.operate(&["enroll", "token", "create", "--uses", &uses, "--approval", "false"])?;
        text_at(&token, "/text")
    }

    /// Waits until a device is online that came by itself.
    pub(super) fn wait_for_a_device(&self) -> anyhow::Result<()> {
        let begin = Instant::now();
        loop {
            let list = self.operate(&["device", "list"])?;
            if list.pointer("/devices/0/presence").and_then(Value::as_str) == Some("PRESENCE_ONLINE") {
                return Ok(());
            }
            ensure!(begin.elapsed() < PATIENCE, "no device came: {list}");
            std::thread::sleep(SOON);
        }
    }

    /// Devices in a process of their own, none of which runs yet.
    pub(super) fn devices(&self, name: &str, count: u32, flags: &[&str]) -> anyhow::Result<Clients> {
        let token = self.token(count)?;
        let mut command = Command::new(root().join(DEVICES));
        command.args(["--token", &token]).args(flags);
        Clients::start(&mut command, &self.directory.join(format!("{name}.log")))
    }
}

/// The text at a path in what a command has printed.
pub(super) fn text_at(printed: &Value, path: &str) -> anyhow::Result<String> {
    let text = printed.pointer(path).and_then(Value::as_str);
    Ok(text.with_context(|| format!("a command printed no text at {path}: {printed}"))?.to_owned())
}
