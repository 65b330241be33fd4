//! A server and its agents, each a process, in a directory that goes with the test.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use std::{fs, io};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::binary;
use crate::process::{Process, within};
use crate::udp_proxy::UdpProxy;

/// Time in which anything that a test waits for should have happened on a slow, shared machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A fleet on this machine.
#[derive(Debug)]
pub struct Cluster {
    directory: TempDir,
    server: Option<Process>,
    api: SocketAddr,
    sync: SocketAddr,
    /// The agents, in the order in which they were added.
    pub agents: Vec<Agent>,
}

/// One agent: its process while it runs, and the link that it dials through.
#[derive(Debug)]
pub struct Agent {
    directory: PathBuf,
    process: Option<Process>,
    /// The agent's only way to the server.
    pub link: UdpProxy,
}

impl Cluster {
    /// Starts a server on free ports.
    ///
    /// # Errors
    /// When the binary cannot be built or the server does not come up.
    pub fn start() -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("fleetd-chaos-").tempdir()?;
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut cluster = Self { directory, server: None, api: nowhere, sync: nowhere, agents: Vec::new() };
        cluster.start_server()?;
        Ok(cluster)
    }

    /// Starts the server, on the ports that it had before if it had any.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_server(&mut self) -> anyhow::Result<()> {
        let announced = self.path("serve.json");
        let mut command = self.command();
        command.args(["--json", "serve", "--data"]).arg(self.path("server"));
        command.args(["--api-address", &self.api.to_string(), "--sync-address", &self.sync.to_string()]);
        command.stdout(fs::File::create(&announced)?).stderr(self.log("server.log")?);
        let mut server = Process::start("fleetd serve", &mut command)?;
        let announcement: Value = within(PATIENCE, "the server to say where it listens", || {
            ensure!(server.is_running()?, "the server ended:\n{}", read(&self.path("server.log")));
            let text = fs::read_to_string(&announced)?;
            Ok(text.lines().next().and_then(|line| serde_json::from_str(line).ok()))
        })?;
        self.api = address(&announcement, "apiAddress")?;
        self.sync = address(&announcement, "syncAddress")?;
        self.server = Some(server);
        Ok(())
    }

    /// Kills the server with SIGKILL.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill_server(&mut self) -> anyhow::Result<()> {
        self.server.take().context("the server does not run")?.kill()
    }

    /// Adds an agent with a token of its own, starts it, and waits until the server knows it.
    ///
    /// # Errors
    /// When it does not enrol in time.
    pub fn add_agent(&mut self) -> anyhow::Result<usize> {
        let token = self.json(&["enroll", "token", "create"])?;
        let token = token["text"].as_str().context("a token was created without its text")?.to_owned();
        let number = self.agents.len();
        let directory = self.path(&format!("agent-{number}"));
        fs::create_dir_all(&directory)?;
        let link = UdpProxy::start(self.sync)?;
        let configuration = format!(
            "data_directory = {:?}\nrun_directory = {:?}\nenrolment_token = {token:?}\nservers = [{:?}]\n",
            directory.join("data"),
            directory.join("run"),
            link.address().to_string(),
        );
        fs::write(directory.join("agent.toml"), configuration)?;
        self.agents.push(Agent { directory, process: None, link });
        let before = self.devices()?.len();
        self.start_agent(number)?;
        within(PATIENCE, "the agent to enrol", || Ok((self.devices()?.len() > before).then_some(())))?;
        Ok(number)
    }

    /// Starts an agent that does not run.
    ///
    /// # Errors
    /// When the operating system does not.
    pub fn start_agent(&mut self, number: usize) -> anyhow::Result<()> {
        let log = self.log(&format!("agent-{number}.log"))?;
        let mut command = self.command();
        let agent = self.agents.get_mut(number).context("there is no such agent")?;
        command.args(["agent", "run", "--config"]).arg(agent.directory.join("agent.toml"));
        command.stdout(Stdio::null()).stderr(log);
        agent.process = Some(Process::start("fleetd agent run", &mut command)?);
        Ok(())
    }

    /// Kills an agent with SIGKILL; its workloads go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill_agent(&mut self, number: usize) -> anyhow::Result<()> {
        let agent = self.agents.get_mut(number).context("there is no such agent")?;
        agent.process.take().context("the agent does not run")?.kill()
    }

    /// Every device that the server knows.
    ///
    /// # Errors
    /// When the command fails.
    pub fn devices(&self) -> anyhow::Result<Vec<Value>> {
        let list = self.json(&["device", "list"])?;
        Ok(list["devices"].as_array().cloned().unwrap_or_default())
    }

    /// Runs a command that should succeed, and returns the object that it prints.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let output = self.run(arguments)?;
        if !output.status.success() {
            bail!("fleetd {} ended with {}:\n{}", arguments.join(" "), output.status, text(&output.stderr));
        }
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("fleetd {} printed no JSON:\n{}", arguments.join(" "), text(&output.stdout)))
    }

    /// Runs a command, whatever comes of it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        Ok(self.command().arg("--json").args(arguments).stdin(Stdio::null()).output()?)
    }

    /// A path in the cluster's directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What the processes wrote, for a failure's report.
    #[must_use]
    pub fn logs(&self) -> String {
        let agents = (0..self.agents.len()).map(|number| format!("agent-{number}.log"));
        let names = std::iter::once("server.log".to_owned()).chain(agents);
        names.map(|name| format!("== {name}\n{}\n", read(&self.path(&name)))).collect()
    }

    fn command(&self) -> Command {
        let program = binary::fleetd().unwrap_or_else(|_| Path::new("fleetd"));
        let mut command = Command::new(program);
        command.env("FLEETD_CONFIG_DIR", self.path("config")).env_remove("FLEETD_CONTEXT").env_remove("FLEETD_TOKEN");
        command
    }

    fn log(&self, name: &str) -> io::Result<fs::File> {
        fs::OpenOptions::new().create(true).append(true).open(self.path(name))
    }
}

impl Agent {
    /// The directory with its sockets, which a reboot empties.
    #[must_use]
    pub fn run_directory(&self) -> PathBuf {
        self.directory.join("run")
    }

    /// The directory with all that it keeps.
    #[must_use]
    pub fn data_directory(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Its configuration file.
    #[must_use]
    pub fn configuration(&self) -> PathBuf {
        self.directory.join("agent.toml")
    }
}

fn address(announcement: &Value, field: &str) -> anyhow::Result<SocketAddr> {
    let text = announcement[field].as_str().with_context(|| format!("the server did not say its {field}"))?;
    text.parse().with_context(|| format!("{field} is no address: {text:?}"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| format!("({error})"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
