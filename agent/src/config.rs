//! The agent's configuration: one place, in which every value knows where it came from.
//!
//! A value comes from a flag, else from the environment (`FLEETD_AGENT_…`), else from a file that systemd handed over
//! (`$CREDENTIALS_DIRECTORY/enroll-token`), else from the file, else it is the default. `config show --origin` prints
//! exactly what was decided here. With no token the agent is *unconfigured*: it runs what it has, and waits.

mod file;
mod setting;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use fleetd_actors::window::Zone;
use fleetd_sync_core::limit;
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_transport::endpoint::Settings;

pub use file::FileError;
use file::FileValues;
pub use setting::{Origin, Setting};

/// Where the file is looked for, unless `--config` names another.
pub const DEFAULT_FILE: &str = "/etc/fleetd/agent.toml";
/// Where the agent keeps what must survive a reboot.
pub const DEFAULT_DATA_DIRECTORY: &str = "/var/lib/fleetd";
/// Where the agent keeps what must not.
pub const DEFAULT_RUN_DIRECTORY: &str = "/run/fleetd";
/// What the agent logs unless it is told otherwise.
pub const DEFAULT_LOG_LEVEL: &str = "info";
/// The smallest spool: one sealed segment and one that is being written, of each of a few streams.
pub const SPOOL_BYTES_MIN: u64 = 1 << 20;
/// The file's name in systemd's credentials directory.
const CREDENTIAL: &str = "enroll-token";

/// What lies between a device and its server: it decides how often a quiet connection says that it is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Network {
    /// A router or a mobile network that forgets connections: a word each 25 s.
    #[default]
    Nat,
    /// A network of the site's own, which forgets nothing: a word each 300 s.
    Lan,
}

impl Network {
    fn parse(text: &str) -> Result<Self, &'static str> {
        clap::ValueEnum::from_str(text, false).map_err(|_error| <Self as file::FileValue>::EXPECTED)
    }

    /// What the transport does for it.
    #[must_use]
    pub const fn settings(self) -> Settings {
        match self {
            Self::Nat => Settings::nat(),
            Self::Lan => Settings::lan(),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nat => "nat",
            Self::Lan => "lan",
        })
    }
}

/// What the command line may set.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct ConfigArguments {
    /// Reads the configuration from this file [default: /etc/fleetd/agent.toml]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Keeps keys, releases and logs here [default: /var/lib/fleetd]
    #[arg(long, value_name = "PATH", global = true, value_parser = absolute)]
    pub data_directory: Option<PathBuf>,
    /// Keeps sockets and running workloads' files here [default: /run/fleetd]
    #[arg(long, value_name = "PATH", global = true, value_parser = absolute)]
    pub run_directory: Option<PathBuf>,
    /// Enrols with this token; prefer a file, since other users can see a command line
    #[arg(long, value_name = "TOKEN", global = true)]
    pub enroll_token: Option<String>,
    /// Enrols with the token in this file
    #[arg(long, value_name = "FILE", conflicts_with = "enroll_token", global = true)]
    pub enroll_token_file: Option<PathBuf>,
    /// Dials this server address (host:port) in place of those in the token; may be repeated
    #[arg(long = "server", value_name = "ADDRESS", global = true)]
    pub servers: Vec<String>,
    /// What lies between here and the server: behind a router (nat), a quiet connection says each 25 s that it is there,
    /// on a network of the site's own (lan) each 300 s [default: nat]
    #[arg(long, value_enum, value_name = "NETWORK", global = true)]
    pub network: Option<Network>,
    /// Opens maintenance windows by the clock of this time zone [default: the system's]
    #[arg(long, value_name = "ZONE", global = true)]
    pub timezone: Option<Zone>,
    /// What to log: error, warn, info, debug, trace, or a filter [default: info]
    #[arg(long, value_name = "LEVEL", global = true)]
    pub log_level: Option<String>,
    /// Keeps at most this many bytes of unsent logs [default: 67108864]
    #[arg(long, value_name = "BYTES", global = true)]
    pub spool_bytes_max: Option<u64>,
    /// Answers local commands on this socket [default: agent.sock in the run directory]
    #[arg(long, value_name = "PATH", global = true, value_parser = absolute)]
    pub socket: Option<PathBuf>,
}

/// Takes a path of a flag as the shell means it: from where the caller stands. In a file or the environment, which are
/// read from anywhere, a path is absolute.
fn absolute(text: &str) -> Result<PathBuf, String> {
    std::path::absolute(text).map_err(|error| error.to_string())
}

/// A token, or another text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a secret.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself: for the one place that uses it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("set")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("set")
    }
}

/// A value for an environment name that a workload's manifest leaves to the configuration. It may be a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfiguredVariable {
    /// The value.
    pub value: Secret,
    /// Where it came from.
    pub origin: Origin,
}

/// What the configuration gives each workload, by the names of variables.
pub type Environments = BTreeMap<WorkloadName, BTreeMap<String, ConfiguredVariable>>;

/// Everything that the outside may decide, read once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where the agent keeps what must survive a reboot.
    pub data_directory: Setting<PathBuf>,
    /// Where it keeps what must not.
    pub run_directory: Setting<PathBuf>,
    /// With what it enrols, if it has to. `None` leaves a device that never enrolled unconfigured.
    pub enroll_token: Setting<Option<Secret>>,
    /// Addresses to dial besides those of the token and those learned since.
    pub servers: Setting<Vec<String>>,
    /// What lies between it and its servers.
    pub network: Setting<Network>,
    /// By whose clock maintenance windows open; by the system's without one.
    pub timezone: Setting<Option<Zone>>,
    /// What to log.
    pub log_level: Setting<String>,
    /// Bytes of unsent logs that are kept.
    pub spool_bytes_max: Setting<u64>,
    /// The socket of the local API.
    pub socket: Setting<PathBuf>,
    /// What each workload is given besides what its manifest says: only the file gives it.
    pub environments: Environments,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file that was asked for cannot be read. The default one may be missing.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file says something that cannot be meant.
    #[error(transparent)]
    File(#[from] FileError),
    /// A variable or a flag says something that cannot be meant.
    #[error("{origin} is {value:?}, expected {expected}")]
    Value {
        /// Which.
        origin: Origin,
        /// What it says.
        value: String,
        /// What it may say.
        expected: &'static str,
    },
    /// A token and a file with a token, from one and the same place.
    #[error("{first} and {second} are both set; set one of them")]
    TwoTokens {
        /// The one.
        first: Origin,
        /// The other.
        second: Origin,
    },
    /// The file that should hold the token cannot be read, or holds none.
    #[error("the token file {} (from {origin}) cannot be used: {cause}", path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// What named it.
        origin: Origin,
        /// What is wrong with it.
        cause: String,
    },
}

/// The environment as the configuration sees it: handed in, so that a test needs not change its own.
pub type Environment = BTreeMap<String, String>;

/// Takes this process's environment; a variable that is not UTF-8 is not there.
#[must_use]
pub fn process_environment() -> Environment {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Looks values up in the order of their rank.
struct Sources<'a> {
    environment: &'a Environment,
    file: FileValues,
}

impl Config {
    /// Reads the configuration from everywhere it may come from.
    ///
    /// # Errors
    /// As [`ConfigError`] says; each names the file, line and key, or the variable or flag.
    pub fn read(arguments: &ConfigArguments, environment: &Environment) -> Result<Self, ConfigError> {
        let sources = Sources { environment, file: read_file(arguments, environment)? };
        let path = |text: &str| Ok::<_, &'static str>(PathBuf::from(text));
        let run_directory =
            sources.setting("run-directory", arguments.run_directory.clone(), DEFAULT_RUN_DIRECTORY.into(), path)?;
        let default_socket = run_directory.value.join("agent.sock");
        let config = Self {
            data_directory: sources.setting(
                "data-directory",
                arguments.data_directory.clone(),
                DEFAULT_DATA_DIRECTORY.into(),
                path,
            )?,
            enroll_token: sources.token(arguments)?,
            servers: sources.setting(
                "servers",
                (!arguments.servers.is_empty()).then(|| arguments.servers.clone()),
                Vec::new(),
                |text| Ok(text.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()),
            )?,
            network: sources.setting("network", arguments.network, Network::default(), Network::parse)?,
            timezone: sources.setting("timezone", arguments.timezone.clone().map(Some), None, |text| {
                text.parse().map(Some).map_err(|_unknown| <Option<Zone> as file::FileValue>::EXPECTED)
            })?,
            log_level: sources.setting(
                "log-level",
                arguments.log_level.clone(),
                DEFAULT_LOG_LEVEL.to_owned(),
                |text| Ok(text.to_owned()),
            )?,
            spool_bytes_max: sources.setting(
                "spool-bytes-max",
                arguments.spool_bytes_max,
                limit::SPOOL_BYTES_MAX,
                |text| text.parse().map_err(|_error| "a number of bytes"),
            )?,
            socket: sources.setting("socket", arguments.socket.clone(), default_socket, path)?,
            environments: sources.file.environments.clone(),
            run_directory,
        };
        config.check()?;
        Ok(config)
    }

    /// Checks what every origin could get wrong alike.
    fn check(&self) -> Result<(), ConfigError> {
        for directory in [&self.data_directory, &self.run_directory, &self.socket] {
            if !directory.value.is_absolute() {
                return Err(directory.wrong("an absolute path", directory.value.display()));
            }
        }
        if self.spool_bytes_max.value < SPOOL_BYTES_MIN {
            let expected = "at least 1048576 bytes, so that one segment of each stream fits";
            return Err(self.spool_bytes_max.wrong(expected, self.spool_bytes_max.value));
        }
        let wrong_address = self.servers.value.iter().find(|address| !is_address(address));
        match wrong_address {
            Some(address) => Err(self.servers.wrong("host:port, as in fleet.example.com:4433", address)),
            None => Ok(()),
        }
    }

    /// Says whether the device knows nobody to enrol with. An enrolled device does not need a token any more.
    #[must_use]
    pub fn has_token(&self) -> bool {
        self.enroll_token.value.is_some()
    }

    /// Every value as people read it, with its origin, in the order of the file's documentation. No secrets.
    #[must_use]
    pub fn show(&self) -> Vec<ShownSetting> {
        let unset = "unset".to_owned();
        let servers = if self.servers.value.is_empty() { unset.clone() } else { self.servers.value.join(", ") };
        let token = self.enroll_token.value.as_ref().map_or(unset, ToString::to_string);
        let mut shown = vec![
            self.data_directory.show(self.data_directory.value.display()),
            self.run_directory.show(self.run_directory.value.display()),
            self.socket.show(self.socket.value.display()),
            self.enroll_token.show(token),
            self.servers.show(servers),
            self.network.show(self.network.value),
            self.timezone
                .show(self.timezone.value.as_ref().map_or_else(|| "the system's".to_owned(), ToString::to_string)),
            self.log_level.show(&self.log_level.value),
            self.spool_bytes_max.show(self.spool_bytes_max.value),
        ];
        for (workload, variables) in &self.environments {
            shown.extend(variables.iter().map(|(name, variable)| ShownSetting {
                key: format!("workload.{workload}.environment.{name}"),
                value: variable.value.to_string(),
                origin: variable.origin.clone(),
            }));
        }
        shown
    }
}

/// One line of `config show --origin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownSetting {
    /// The key, as the file spells it.
    pub key: String,
    /// The value; of a secret only whether it is set.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
}

fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let bracketed = host.starts_with('[') && host.ends_with(']');
        !host.is_empty() && (bracketed || !host.contains(':')) && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

fn read_file(arguments: &ConfigArguments, environment: &Environment) -> Result<FileValues, ConfigError> {
    let named = arguments.config.clone().or_else(|| environment.get("FLEETD_AGENT_CONFIG").map(PathBuf::from));
    let path = named.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(FileValues::parse(&path, &text)?),
        // Nobody has to write a file; but one that was asked for has to be there.
        Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => Ok(FileValues::default()),
        Err(source) => Err(ConfigError::Unreadable { path, source }),
    }
}

/// The variable of a key: `data-directory` is `FLEETD_AGENT_DATA_DIRECTORY`.
fn variable(key: &str) -> String {
    format!("FLEETD_AGENT_{}", key.to_ascii_uppercase().replace('-', "_"))
}

impl Sources<'_> {
    fn setting<T: file::FileValue>(
        &self,
        key: &'static str,
        flag: Option<T>,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, &'static str>,
    ) -> Result<Setting<T>, ConfigError> {
        if let Some(value) = flag {
            return Ok(Setting { key, value, origin: Origin::Flag { name: flag_of(key) } });
        }
        let variable = variable(key);
        if let Some(text) = self.environment.get(&variable) {
            let origin = Origin::Environment { variable };
            return match parse(text) {
                Ok(value) => Ok(Setting { key, value, origin }),
                Err(expected) => Err(ConfigError::Value { origin, value: text.clone(), expected }),
            };
        }
        match self.file.take(key)? {
            Some((value, origin)) => Ok(Setting { key, value, origin }),
            None => Ok(Setting { key, value: default, origin: Origin::Default }),
        }
    }

    /// Finds the token: at each rank it may be given itself, or as a file that holds it, but not as both.
    fn token(&self, arguments: &ConfigArguments) -> Result<Setting<Option<Secret>>, ConfigError> {
        let found = |secret, origin| Ok(Setting { key: "enroll-token", value: Some(secret), origin });
        if let Some(token) = &arguments.enroll_token {
            return found(Secret::new(token.trim()), Origin::Flag { name: flag_of("enroll-token") });
        }
        if let Some(path) = &arguments.enroll_token_file {
            let origin = Origin::Flag { name: flag_of("enroll-token-file") };
            return found(read_token(path, &origin)?, origin);
        }
        let of_variable = |key| {
            let variable = variable(key);
            self.environment.get(&variable).map(|text| (text.clone(), Origin::Environment { variable }))
        };
        match (of_variable("enroll-token"), of_variable("enroll-token-file")) {
            (Some((_, first)), Some((_, second))) => return Err(ConfigError::TwoTokens { first, second }),
            (Some((token, origin)), None) => return found(Secret::new(token.trim()), origin),
            (None, Some((path, origin))) => return found(read_token(Path::new(&path), &origin)?, origin),
            (None, None) => {}
        }
        if let Some(directory) = self.environment.get("CREDENTIALS_DIRECTORY") {
            let path = Path::new(directory).join(CREDENTIAL);
            if path.exists() {
                let origin = Origin::Credential { path: path.clone() };
                return found(read_token(&path, &origin)?, origin);
            }
        }
        match (self.file.take::<String>("enroll-token")?, self.file.take::<PathBuf>("enroll-token-file")?) {
            (Some((_, first)), Some((_, second))) => Err(ConfigError::TwoTokens { first, second }),
            (Some((token, origin)), None) => found(Secret::new(token.trim()), origin),
            (None, Some((path, origin))) => found(read_token(&path, &origin)?, origin),
            (None, None) => Ok(Setting { key: "enroll-token", value: None, origin: Origin::Default }),
        }
    }
}

fn flag_of(key: &str) -> String {
    match key {
        "servers" => "--server".to_owned(),
        other => format!("--{other}"),
    }
}

fn read_token(path: &Path, origin: &Origin) -> Result<Secret, ConfigError> {
    let wrong = |cause: String| ConfigError::TokenFile { path: path.to_owned(), origin: origin.clone(), cause };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    match text.trim() {
        "" => Err(wrong("it is empty".to_owned())),
        token => Ok(Secret::new(token)),
    }
}

#[cfg(test)]
mod tests;
