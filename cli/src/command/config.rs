//! `config`: what fills the names that the manifests of workloads leave open.

pub mod view;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};
use fleetd_proto::fleetd::configuration::v1::{
    ConfigurationFile, ConfigurationValue, CreateConfigurationRequest, GetConfigurationRequest,
    ListConfigurationsRequest,
};
use fleetd_sync_core::configuration::{Configuration, ConfiguredFile};
use fleetd_sync_core::name::{ConfigurationName, WorkloadName};
use serde_json::json;

use super::{Session, login};
use crate::client::json::json as message_json;
use crate::client::request_id;
use crate::client::upload::{self, Measured, measure};
use crate::error::CommandError;
use crate::output::{Moment, bytes};

/// What fills the names that releases leave open.
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Send a configuration with its files
    Push(Push),
    /// List configurations, the newest first
    List(List),
    /// Show one configuration
    Show(Show),
}

/// `NAME=TEXT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedArgument {
    /// What stands before the first `=`.
    pub name: String,
    /// What stands behind it.
    pub text: String,
}

/// An argument without a `=`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} has no '=': write NAME=…")]
pub struct NamelessError(String);

impl FromStr for NamedArgument {
    type Err = NamelessError;

    fn from_str(text: &str) -> Result<Self, NamelessError> {
        let (name, text) = text.split_once('=').ok_or_else(|| NamelessError(text.to_owned()))?;
        Ok(Self { name: name.to_owned(), text: text.to_owned() })
    }
}

/// Send a configuration with its files.
///
/// It never changes: other content needs another name. A release says with `--env NAME` which names it leaves open, and
/// a rollout of it says with `--config` which configuration fills them. What is in one is no secret: whoever may look at
/// the fleet sees its values.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd config push coffee roast-2 --value ROAST=dark --value SUGAR=none
  fleetd config push coffee roast-2 --value ROAST=dark --file MENU=./menu.json")]
pub struct Push {
    /// The workload
    pub workload: WorkloadName,
    /// What the configuration is to be called
    pub name: ConfigurationName,
    /// The value of an environment variable (repeat for more; 1,024 bytes together)
    #[arg(long = "value", value_name = "NAME=VALUE", required_unless_present = "files")]
    pub values: Vec<NamedArgument>,
    /// A file, and the environment variable that says where it lies on the device (repeat for more)
    #[arg(long = "file", value_name = "NAME=PATH")]
    pub files: Vec<NamedArgument>,
}

/// List configurations, the newest first.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd config list
  fleetd config list coffee --json | jq -r '.configurations[0].name'")]
pub struct List {
    /// Only those of this workload
    #[arg(value_name = "WORKLOAD", default_value = "", hide_default_value = true)]
    pub workload: String,
}

/// Show one configuration.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd config show coffee roast-2")]
pub struct Show {
    /// The workload
    pub workload: WorkloadName,
    /// What the configuration is called
    pub name: ConfigurationName,
}

impl Config {
    /// Runs the command.
    ///
    /// # Errors
    /// When a file cannot be used, or the server cannot be reached or refuses.
    pub async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        match self {
            Self::Push(command) => command.run(session).await,
            Self::List(command) => {
                let request = ListConfigurationsRequest { workload: command.workload, ..Default::default() };
                let found = session.client().await?.all_configurations(request).await?;
                let object = json!({ "configurations": found.iter().map(message_json).collect::<Vec<_>>() });
                session.output.answer(&object, || view::configurations(&found, Moment::now()))
            }
            Self::Show(command) => {
                let (workload, name) = (command.workload.to_string(), command.name.to_string());
                let request = GetConfigurationRequest { workload, name };
                let answer = session.client().await?.get_configuration(request).await?;
                let found = login::need(answer.configuration, "configuration")?;
                session.output.answer(&message_json(&found), || view::configuration(&found, Moment::now()))
            }
        }
    }
}

/// A file that goes with a configuration.
struct LocalFile {
    path: PathBuf,
    measured: Measured,
}

impl Push {
    async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let files = self.measured()?;
        let configuration = self.compose(&files)?;
        let client = session.client().await?;
        for (name, file) in &files {
            upload::upload(&client, &file.path, file.measured, session.output).await?;
            let Measured { digest, size_bytes } = file.measured;
            session.output.note(&format!("{name} {} {} {digest}", file.path.display(), bytes(size_bytes)));
        }
        let value = |(name, value): (&String, &String)| ConfigurationValue { name: name.clone(), value: value.clone() };
        let file = |(name, file): (&String, &ConfiguredFile)| ConfigurationFile {
            name: name.clone(),
            digest: file.digest.to_string(),
            size_bytes: file.size_bytes,
        };
        let request = CreateConfigurationRequest {
            request_id: request_id(),
            workload: configuration.workload().to_string(),
            name: configuration.name().to_string(),
            values: configuration.values().iter().map(value).collect(),
            files: configuration.files().iter().map(file).collect(),
        };
        let answer = client.create_configuration(request).await?;
        let found = login::need(answer.configuration, "configuration")?;
        session.output.answer(&message_json(&found), || {
            let (workload, name) = (&found.workload, &found.name);
            let shown = view::configuration(&found, Moment::now());
            format!("{shown}Next: fleetd rollout plan {workload}@VERSION --config {name} --all\n")
        })
    }

    /// The files with what they hash to, by the names of their variables.
    fn measured(&self) -> Result<BTreeMap<String, LocalFile>, CommandError> {
        let mut files = BTreeMap::new();
        for NamedArgument { name, text } in &self.files {
            let path = PathBuf::from(text);
            let measured = measure(&path).map_err(|error| {
                CommandError::new("configuration.unreadable", format!("the file {} cannot be read", path.display()))
                    .caused_by(&error)
                    .next_command("name a file that is there and that you may read: --file NAME=PATH")
            })?;
            if files.insert(name.clone(), LocalFile { path, measured }).is_some() {
                return Err(twice(name));
            }
        }
        Ok(files)
    }

    /// Puts the configuration together, so that what none may say is found before anything is sent.
    fn compose(&self, files: &BTreeMap<String, LocalFile>) -> Result<Configuration, CommandError> {
        let mut values = BTreeMap::new();
        for NamedArgument { name, text } in &self.values {
            if values.insert(name.clone(), text.clone()).is_some() {
                return Err(twice(name));
            }
        }
        let file = |(name, file): (&String, &LocalFile)| {
            let Measured { digest, size_bytes } = file.measured;
            (name.clone(), ConfiguredFile { digest, size_bytes })
        };
        let files = files.iter().map(file).collect();
        Configuration::new(self.workload.clone(), self.name.clone(), values, files).map_err(|error| {
            CommandError::new("configuration.invalid", "no configuration may say this").caused_by(&error)
        })
    }
}

fn twice(name: &str) -> CommandError {
    CommandError::new("configuration.invalid", "no configuration may say this").cause(format!("{name} is given twice"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_is_cut_at_its_first_equals_sign() {
        let argument: NamedArgument = "ROAST=a=b".parse().unwrap();
        assert_eq!((argument.name.as_str(), argument.text.as_str()), ("ROAST", "a=b"));
        assert!("ROAST".parse::<NamedArgument>().is_err());
    }
}
