//! Which scenario is run: a file or one that comes with the program, and what the caller changes of it.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use fleetd_simulator::crypto::Crypto;
use fleetd_simulator::engine::EngineKind;
use fleetd_simulator::run::RunPlan;
use fleetd_simulator::scenario::{ParseScenarioError, Scenario, builtin, builtin_names};

use crate::error::CommandError;
use crate::exit::Exit;

/// Which scenario is run.
#[derive(Args, Clone, Debug)]
pub struct ScenarioFlags {
    /// A scenario file, or the name of one that comes with the program (day, calm)
    #[arg(long, value_name = "FILE|NAME", default_value = "day")]
    pub scenario: String,
    /// Devices, in place of the scenario's
    #[arg(long, value_name = "N")]
    pub devices: Option<u32>,
    /// How long faults and acts happen, in place of the scenario's (`90m`, `24h`)
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
    /// What runs the actors: bare cells (direct), the product's own ractor actors (ractor), or these over the
    /// product's own QUIC (quic)
    #[arg(long, value_name = "ENGINE", default_value_t)]
    pub engine: EngineKind,
    /// What becomes of signatures: Ed25519 (real), or a hash of their size that is counted, for large fleets (counted)
    #[arg(long, value_name = "CRYPTO", default_value_t)]
    pub crypto: Crypto,
}

impl ScenarioFlags {
    /// Reads the scenario.
    ///
    /// # Errors
    /// When there is none, or it says what no scenario may say.
    pub fn load(&self) -> Result<Scenario, CommandError> {
        let mut scenario = read(&self.scenario)?;
        scenario.devices = self.devices.unwrap_or(scenario.devices);
        scenario.sites = scenario.sites.min(scenario.devices.max(1));
        scenario.duration = self.duration.unwrap_or(scenario.duration);
        scenario.check().map_err(|(key, problem)| {
            let message = format!("with these flags, `{key}` of {} {problem}", self.scenario);
            CommandError::new("sim.scenario_range", message).next_command("fleetd sim run --help").exit(Exit::Usage)
        })?;
        Ok(scenario)
    }

    /// The plan of a seed.
    ///
    /// # Errors
    /// Those of [`ScenarioFlags::load`].
    pub fn plan(&self, seed: u64) -> Result<RunPlan, CommandError> {
        Ok(RunPlan { engine: self.engine, crypto: self.crypto, ..RunPlan::drawn(self.load()?, seed) })
    }

    /// The flags as they were given, each with a blank before it.
    #[must_use]
    pub fn given(&self) -> String {
        let mut flags = format!(" --scenario {}", quoted(&self.scenario));
        if let Some(devices) = self.devices {
            flags.push_str(&format!(" --devices {devices}"));
        }
        if let Some(duration) = self.duration {
            flags.push_str(&format!(" --for {}", quoted(&humantime::format_duration(duration).to_string())));
        }
        flags.push_str(&self.means());
        flags
    }

    /// Those of the flags that say what a scenario is run by, each with a blank before it.
    #[must_use]
    pub fn means(&self) -> String {
        let mut flags = String::new();
        if self.engine != EngineKind::Direct {
            flags.push_str(&format!(" --engine {}", self.engine));
        }
        if self.crypto != Crypto::Real {
            flags.push_str(&format!(" --crypto {}", self.crypto));
        }
        flags
    }
}

/// A word of a shell.
pub(in crate::command) fn quoted(word: &str) -> String {
    let is_plain = word.chars().all(|character| character.is_alphanumeric() || "/._-+@:".contains(character));
    if is_plain && !word.is_empty() { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

fn read(name: &str) -> Result<Scenario, CommandError> {
    let path = Path::new(name);
    if !path.exists()
        && let Some(scenario) = builtin(name)
    {
        return Ok(scenario);
    }
    let text = std::fs::read_to_string(path).map_err(|error| {
        let known: Vec<&str> = builtin_names().collect();
        let message = format!(
            "there is no scenario `{name}`: it is neither a file that can be read nor one of {}",
            known.join(", ")
        );
        CommandError::new("sim.scenario_missing", message)
            .caused_by(&error)
            .next_command("fleetd sim run --scenario day")
            .exit(Exit::Usage)
    })?;
    Scenario::parse(&text).map_err(|error| {
        let (message, cause) = told(name, &text, &error);
        CommandError::new("sim.scenario_invalid", message)
            .cause(cause)
            .next_command("fleetd sim run --scenario day")
            .exit(Exit::Usage)
    })
}

/// Says on which line of which file what is wrong, and shows the place.
fn told(name: &str, text: &str, error: &ParseScenarioError) -> (String, String) {
    match error {
        ParseScenarioError::Syntax(error) => {
            let line = error
                .span()
                .and_then(|span| text.get(..span.start))
                .map_or(1, |before| before.matches('\n').count() + 1);
            (format!("{name}, line {line}: {}", error.message()), error.to_string())
        }
        ParseScenarioError::Range { line, key, problem } => {
            let place = if *line > 0 { format!("{name}, line {line}") } else { name.to_owned() };
            let shown = line.checked_sub(1).and_then(|index| text.lines().nth(index)).unwrap_or_default();
            (format!("{place}: `{key}` {problem}"), shown.trim().to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_shell() {
        assert_eq!(quoted("a/b.toml"), "a/b.toml");
        assert_eq!(quoted("1h 30m"), "'1h 30m'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
    }
}
