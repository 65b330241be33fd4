//! A server and its agents, each a process, in a directory that goes with the test.

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fs, io};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::binary;
use crate::process::{Process, kill_all_of, processes_of, within};
use crate::udp_proxy::UdpProxy;

/// Time in which anything that a test waits for should have happened on a slow, shared machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The label by which the tests tell devices apart.
const PLACE: &str = "place";

/// Waits until no other test of this process runs: two cores carry one fleet at a time.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    // A test that failed has dropped what it had.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a test on a fleet of its own, and shows what the processes wrote if it fails.
///
/// # Panics
/// When the test fails, or leaves a process behind.
pub fn with_cluster(test: impl FnOnce(&mut Cluster) -> anyhow::Result<()>) {
    let _turn = turn();
    let mut cluster = match Cluster::start() {
        Ok(cluster) => cluster,
        Err(error) => panic!("the cluster did not start: {error:#}"),
    };
    if let Err(error) = test(&mut cluster) {
        panic!("{error:#}\n{}", cluster.logs());
    }
}

/// A fleet on this machine.
#[derive(Debug)]
pub struct Cluster {
    directory: TempDir,
    server: Option<Process>,
    api: SocketAddr,
    sync: SocketAddr,
    root_key_path: String,
    says_everything: bool,
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

impl Drop for Cluster {
    fn drop(&mut self) {
        self.agents.clear();
        self.server = None;
        // What is left are workloads, which outlive their agents on purpose.
        if let Err(error) = kill_all_of(self.directory.path(), PATIENCE)
            && !std::thread::panicking()
        {
            panic!("{error:#}: {:?}", processes_of(self.directory.path()));
        }
    }
}

impl Cluster {
    /// Starts a server on free ports.
    ///
    /// # Errors
    /// When the binary cannot be built or the server does not come up.
    pub fn start() -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("fleetd-chaos-").tempdir()?;
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut cluster = Self {
            directory,
            server: None,
            api: nowhere,
            sync: nowhere,
            root_key_path: String::new(),
            says_everything: false,
            agents: Vec::new(),
        };
        cluster.start_server()?;
        Ok(cluster)
    }

    /// Starts the server, on the ports that it had before if it had any.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_server(&mut self) -> anyhow::Result<()> {
        binary::fleetd()?;
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
        self.root_key_path =
            announcement["rootKeyPath"].as_str().context("the server did not say its rootKeyPath")?.to_owned();
        self.server = Some(server);
        Ok(())
    }

    /// Where the first start put the root's key.
    #[must_use]
    pub fn root_key_path(&self) -> &str {
        &self.root_key_path
    }

    /// Has every process that starts from now on write down all that it can.
    pub const fn log_everything(&mut self) {
        self.says_everything = true;
    }

    /// Kills the server with SIGKILL.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill_server(&mut self) -> anyhow::Result<()> {
        self.server.take().context("the server does not run")?.kill()
    }

    /// Makes an enrolment token. `arguments` are those of `enroll token create`.
    ///
    /// # Errors
    /// When the command fails.
    pub fn token(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let token = self.json(&[&["enroll", "token", "create"], arguments].concat())?;
        Ok(token["text"].as_str().context("a token was created without its text")?.to_owned())
    }

    /// Adds an agent with a token of its own, starts it, and waits until it is online.
    ///
    /// # Errors
    /// When it does not enrol in time.
    pub fn add_agent(&mut self) -> anyhow::Result<usize> {
        let label = format!("{PLACE}={}", self.agents.len());
        let token = self.token(&["--label", &label])?;
        let number = self.prepare_agent(&token)?;
        self.start_agent(number)?;
        self.until_device(number, "it to be online", is_online)?;
        Ok(number)
    }

    /// Adds an agent with this token, and does not start it.
    ///
    /// # Errors
    /// When its files cannot be written.
    pub fn prepare_agent(&mut self, token: &str) -> anyhow::Result<usize> {
        let number = self.agents.len();
        let directory = self.path(&format!("agent-{number}"));
        fs::create_dir_all(&directory)?;
        let link = UdpProxy::start(self.sync)?;
        let configuration = format!(
            "data-directory = {:?}\nrun-directory = {:?}\nenroll-token = {token:?}\nservers = [{:?}]\n",
            directory.join("data"),
            directory.join("run"),
            link.address().to_string(),
        );
        fs::write(directory.join("agent.toml"), configuration)?;
        self.agents.push(Agent { directory, process: None, link });
        Ok(number)
    }

    /// Starts an agent that does not run.
    ///
    /// # Errors
    /// When the operating system does not.
    pub fn start_agent(&mut self, number: usize) -> anyhow::Result<()> {
        let log = self.log(&format!("agent-{number}.log"))?;
        self.start_agent_with_log(number, log.into())
    }

    /// The same, with another place for what it logs.
    ///
    /// # Errors
    /// When the operating system does not.
    pub fn start_agent_with_log(&mut self, number: usize, log: Stdio) -> anyhow::Result<()> {
        let command = self.command();
        self.start_agent_as(number, command, log)
    }

    /// The same, with an agent that sees a write fail which goes over a limit, instead of being ended by a signal.
    /// Its log comes through a pipe, which has no limit.
    ///
    /// # Errors
    /// When the operating system does not.
    pub fn start_agent_without_file_size_signal(&mut self, number: usize) -> anyhow::Result<()> {
        let fleetd = self.command();
        let mut command = self.command_of(Path::new("/bin/sh"));
        command.args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"]).arg(fleetd.get_program());
        let (mut said, log) = io::pipe()?;
        let mut file = self.log(&format!("agent-{number}.log"))?;
        // It ends with the agent, whose end of the pipe is the only one.
        std::thread::spawn(move || io::copy(&mut said, &mut file));
        self.start_agent_as(number, command, log.into())
    }

    fn start_agent_as(&mut self, number: usize, mut command: Command, log: Stdio) -> anyhow::Result<()> {
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

    /// An agent.
    ///
    /// # Errors
    /// When there is none of this number.
    pub fn agent(&mut self, number: usize) -> anyhow::Result<&mut Agent> {
        self.agents.get_mut(number).context("there is no such agent")
    }

    /// Looks at the device of an agent until it is as it should be.
    ///
    /// # Errors
    /// When it is not in time; the error shows it as it was last seen.
    pub fn until_device(&self, number: usize, awaited: &str, is_so: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let mut last = Value::Null;
        let number = number.to_string();
        let seen = within(PATIENCE, &format!("{awaited} (agent {number})"), || {
            let devices = self.devices()?;
            last = devices.into_iter().find(|device| device["labels"][PLACE] == *number).unwrap_or_default();
            Ok(is_so(&last).then(|| last.clone()))
        });
        seen.with_context(|| format!("last seen: {last:#}"))
    }

    /// The device of an agent.
    ///
    /// # Errors
    /// When the server does not know it.
    pub fn device(&self, number: usize) -> anyhow::Result<Value> {
        self.until_device(number, "the server to know it", |device| !device.is_null())
    }

    /// Looks at a rollout until it is as it should be.
    ///
    /// # Errors
    /// When it is not in time; the error shows it as it was last seen.
    pub fn until_rollout(&self, rollout: &str, awaited: &str, is_so: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let mut last = Value::Null;
        let seen = within(PATIENCE, awaited, || {
            let output = self.run(&["rollout", "show", rollout])?;
            last = serde_json::from_slice(&output.stdout).unwrap_or_default();
            Ok(is_so(&last).then(|| last.clone()))
        });
        seen.with_context(|| format!("last seen: {last:#}"))
    }

    /// Makes a key that root lets sign releases of `coffee`.
    ///
    /// # Errors
    /// When a command fails.
    pub fn delegate(&self) -> anyhow::Result<()> {
        let (key, public) = (self.text("release.key"), self.text("release.pub"));
        self.json(&["key", "create", &key])?;
        let root = self.root_key_path.clone();
        self.json(&["trust", "delegate", &public, "--role", "release", "--workload", WORKLOAD, "--root", &root])?;
        Ok(())
    }

    /// Signs and sends a version of `coffee`. `arguments` are further ones of `release push`.
    ///
    /// # Errors
    /// When the command fails.
    pub fn push(&self, version: &str, program: &[u8], arguments: &[&str]) -> anyhow::Result<()> {
        let path = self.text(&format!("{WORKLOAD}-{version}"));
        fs::write(&path, program)?;
        let (release, key) = (format!("{WORKLOAD}@{version}"), self.text("release.key"));
        let push = ["release", "push", release.as_str(), "--artifact", path.as_str(), "--key", key.as_str()];
        self.json(&[&push, arguments].concat())?;
        Ok(())
    }

    /// Plans to bring a version of `coffee` to every device, and starts that; answers with the rollout's id.
    ///
    /// # Errors
    /// When a command fails.
    pub fn roll_out(&self, version: &str) -> anyhow::Result<String> {
        let plan = self.json(&["rollout", "plan", &format!("{WORKLOAD}@{version}"), "--all"])?;
        let plan = plan["plan"]["id"].as_str().context("a plan without an id")?.to_owned();
        let rollout = self.json(&["rollout", "start", &plan])?;
        Ok(rollout["id"].as_str().context("a rollout without an id")?.to_owned())
    }

    /// Every line of `coffee` that the server has of an agent's device, in its order. A gap is an error.
    ///
    /// # Errors
    /// When the command fails, or lines are missing.
    pub fn lines(&self, number: usize) -> anyhow::Result<Vec<String>> {
        let device = self.device(number)?;
        let name = device["name"].as_str().context("a device without a name")?;
        let output = self.run(&["logs", &format!("{name}/{WORKLOAD}")])?;
        ensure!(output.status.success(), "fleetd logs: {}", text(&output.stderr));
        let mut lines = Vec::new();
        for entry in text(&output.stdout).lines() {
            let entry: Value = serde_json::from_str(entry)?;
            ensure!(entry.get("gap").is_none_or(Value::is_null), "lines are missing: {entry}");
            let is_preview = entry["line"]["preview"].as_bool().unwrap_or_default();
            if let (false, Some(line)) = (is_preview, entry["line"]["line"].as_str()) {
                lines.push(line.to_owned());
            }
        }
        Ok(lines)
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

    /// Starts a command that speaks to people, with its streams piped.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, arguments: &[&str]) -> anyhow::Result<Child> {
        let mut command = self.command();
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(command.spawn()?)
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

    /// A path in the cluster's directory, as text.
    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// What an agent wrote to its standard error so far.
    #[must_use]
    pub fn log_of(&self, number: usize) -> String {
        read(&self.path(&format!("agent-{number}.log")))
    }

    /// A command of `fleetd` that knows nothing of the caller's own fleets.
    #[must_use]
    pub fn command(&self) -> Command {
        // `start` has built it.
        self.command_of(binary::fleetd().unwrap_or_else(|_| Path::new("fleetd")))
    }

    fn command_of(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name != "FLEETD_LOG" && name.to_string_lossy().starts_with("FLEETD_") {
                command.env_remove(name);
            }
        }
        command.env("FLEETD_CONFIG_DIR", self.path("config"));
        if self.says_everything {
            command.env("FLEETD_LOG", "trace");
        }
        command
    }

    fn log(&self, name: &str) -> io::Result<fs::File> {
        fs::OpenOptions::new().create(true).append(true).open(self.path(name))
    }
}

/// The workload that the tests ship.
pub const WORKLOAD: &str = "coffee";

/// Whether a device can be reached.
#[must_use]
pub fn is_online(device: &Value) -> bool {
    device["presence"] == "PRESENCE_ONLINE"
}

/// The tests' workload on a device; null where there is none.
#[must_use]
pub fn workload(device: &Value) -> &Value {
    let workloads = device["workloads"].as_array().map(Vec::as_slice).unwrap_or_default();
    workloads.iter().find(|workload| workload["name"] == WORKLOAD).unwrap_or(&Value::Null)
}

/// Whether a device runs a version of the workload, and has proven it.
#[must_use]
pub fn runs(device: &Value, version: &str) -> bool {
    let workload = workload(device);
    workload["actualRelease"] == version
        && workload["phase"] == "WORKLOAD_PHASE_HEALTHY"
        && workload["runState"] == "RUN_STATE_RUNNING"
}

impl Agent {
    /// The process, while it runs.
    ///
    /// # Errors
    /// When it was not started.
    pub fn process(&mut self) -> anyhow::Result<&mut Process> {
        self.process.as_mut().context("the agent does not run")
    }

    /// The directory with all that it has.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The directory in which its workload runs.
    #[must_use]
    pub fn workload_directory(&self) -> PathBuf {
        self.data_directory().join("workloads").join(WORKLOAD).join("data")
    }

    /// Whether it answers on its socket.
    #[must_use]
    pub fn answers(&self) -> bool {
        UnixStream::connect(self.run_directory().join("agent.sock")).is_ok()
    }

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
