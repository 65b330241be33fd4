//! The environment of a run: what the signed manifest fixes, and what it leaves open. That is filled by the configuration
//! which came with the release, and else by the agent's own.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use fleetd_sync_core::configuration::Configuration;
use fleetd_sync_core::name::ConfigurationName;
use fleetd_sync_core::release::EnvironmentValue;

use crate::config::{ConfiguredVariable, Origin};

/// Something about a workload's environment that its owner should know. It never says a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Remark {
    /// The manifest does not declare the name, so that the program does not get it.
    Undeclared { name: String, origin: Origin },
    /// The manifest fixes the value: what is signed stands.
    Fixed { name: String, origin: Origin },
    /// The configuration that came with the release gives it: what was rolled out is what runs.
    RolledOut { name: String, origin: Origin, configuration: ConfigurationName },
    /// The manifest leaves the value to the configuration, which has none: the program runs without it.
    Unset { name: String },
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Undeclared { name, origin } => {
                write!(f, "{name} ({origin}) is not passed on: the release's manifest does not declare it")
            }
            Self::Fixed { name, origin } => {
                write!(f, "{name} ({origin}) is not passed on: the release's manifest fixes its value")
            }
            Self::RolledOut { name, origin, configuration } => {
                write!(f, "{name} ({origin}) is not passed on: configuration {configuration} gives it")
            }
            Self::Unset { name } => {
                write!(f, "{name} is unset: the release leaves it to configurations, and none gives it")
            }
        }
    }
}

/// What came with the release.
pub(super) struct Given<'a> {
    pub(super) configuration: Option<&'a Configuration>,
    /// Where its files lie, by the names of their variables.
    pub(super) files: &'a BTreeMap<String, PathBuf>,
}

impl Given<'_> {
    fn value(&self, name: &str) -> Option<String> {
        let file = || self.files.get(name).map(|path| path.display().to_string());
        self.configuration?.values().get(name).cloned().or_else(file)
    }
}

/// Fills the names that a manifest declares, and no others.
pub(super) fn fill(
    declared: &BTreeMap<String, EnvironmentValue>,
    given: &Given<'_>,
    configured: &BTreeMap<String, ConfiguredVariable>,
) -> (Vec<(String, String)>, Vec<Remark>) {
    let (mut filled, mut remarks) = (Vec::new(), Vec::new());
    for (name, value) in declared {
        let own = configured.get(name);
        let origin = own.map(|own| own.origin.clone());
        match (value, given.value(name), own) {
            (EnvironmentValue::Fixed(value), _, _) => {
                filled.push((name.clone(), value.clone()));
                remarks.extend(origin.map(|origin| Remark::Fixed { name: name.clone(), origin }));
            }
            (EnvironmentValue::FromConfig, Some(value), _) => {
                filled.push((name.clone(), value));
                let configuration = given.configuration.map(|configuration| configuration.name().clone());
                remarks.extend(origin.zip(configuration).map(|(origin, configuration)| Remark::RolledOut {
                    name: name.clone(),
                    origin,
                    configuration,
                }));
            }
            (EnvironmentValue::FromConfig, None, Some(own)) => {
                filled.push((name.clone(), own.value.reveal().to_owned()))
            }
            (EnvironmentValue::FromConfig, None, None) => remarks.push(Remark::Unset { name: name.clone() }),
        }
    }
    let undeclared = configured.iter().filter(|(name, _)| !declared.contains_key(*name));
    remarks.extend(
        undeclared.map(|(name, given)| Remark::Undeclared { name: name.clone(), origin: given.origin.clone() }),
    );
    (filled, remarks)
}

#[cfg(test)]
mod tests {
    use fleetd_sync_core::configuration::ConfiguredFile;
    use fleetd_sync_core::id::ArtifactDigest;

    use super::*;
    use crate::config::Secret;

    fn given(value: &str) -> ConfiguredVariable {
        ConfiguredVariable { value: Secret::new(value), origin: Origin::Default }
    }

    #[test]
    fn only_declared_names_are_filled_and_what_is_signed_stands() {
        let declared = BTreeMap::from([
            ("ROAST".to_owned(), EnvironmentValue::FromConfig),
            ("SUGAR".to_owned(), EnvironmentValue::FromConfig),
            ("PORT".to_owned(), EnvironmentValue::Fixed("80".to_owned())),
        ]);
        let configured = BTreeMap::from([
            ("ROAST".to_owned(), given("dark")),
            ("PORT".to_owned(), given("81")),
            ("LD_PRELOAD".to_owned(), given("/tmp/evil.so")),
        ]);
        let nothing = Given { configuration: None, files: &BTreeMap::new() };
        let (filled, remarks) = fill(&declared, &nothing, &configured);
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(filled, [pair("PORT", "80"), pair("ROAST", "dark")]);
        let said: Vec<_> = remarks.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "PORT (default) is not passed on: the release's manifest fixes its value",
                "SUGAR is unset: the release leaves it to configurations, and none gives it",
                "LD_PRELOAD (default) is not passed on: the release's manifest does not declare it",
            ]
        );
    }

    #[test]
    fn what_came_with_the_release_goes_before_what_the_agent_was_given_and_not_before_what_is_signed() {
        let open = ["MENU", "ROAST", "SUGAR"].map(|name| (name.to_owned(), EnvironmentValue::FromConfig));
        let fixed = ("PORT".to_owned(), EnvironmentValue::Fixed("80".to_owned()));
        let declared = open.into_iter().chain([fixed]).collect();
        let configured = ["ROAST", "SUGAR"].map(|name| (name.to_owned(), given("own"))).into();
        let values = [("ROAST", "dark"), ("PORT", "81"), ("LD_PRELOAD", "evil.so")];
        let values = values.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let file = ConfiguredFile { digest: ArtifactDigest::of(b"menu"), size_bytes: 4 };
        let files = [("MENU".to_owned(), file)].into();
        let configuration =
            Configuration::new("coffee".parse().unwrap(), "roast-2".parse().unwrap(), values, files).unwrap();
        let files = [("MENU".to_owned(), PathBuf::from("/data/file-MENU"))].into();
        let (filled, remarks) =
            fill(&declared, &Given { configuration: Some(&configuration), files: &files }, &configured);
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let expected =
            [pair("MENU", "/data/file-MENU"), pair("PORT", "80"), pair("ROAST", "dark"), pair("SUGAR", "own")];
        assert_eq!(filled, expected);
        let said: Vec<_> = remarks.iter().map(ToString::to_string).collect();
        assert_eq!(said, ["ROAST (default) is not passed on: configuration roast-2 gives it"]);
    }
}
