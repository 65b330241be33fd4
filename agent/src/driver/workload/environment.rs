//! The environment of a run: what the signed manifest fixes, and what it leaves to the device's configuration.

use std::collections::BTreeMap;
use std::fmt;

use fleetd_sync_core::release::EnvironmentValue;

use crate::config::{ConfiguredVariable, Origin};

/// Something about a workload's environment that its owner should know. It never says a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Remark {
    /// The manifest does not declare the name, so that the program does not get it.
    Undeclared { name: String, origin: Origin },
    /// The manifest fixes the value: what is signed stands.
    Fixed { name: String, origin: Origin },
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
            Self::Unset { name } => {
                write!(f, "{name} is unset: the release leaves it to the agent's configuration, which does not give it")
            }
        }
    }
}

/// Fills the names that a manifest declares, and no others.
pub(super) fn fill(
    declared: &BTreeMap<String, EnvironmentValue>,
    configured: &BTreeMap<String, ConfiguredVariable>,
) -> (Vec<(String, String)>, Vec<Remark>) {
    let (mut filled, mut remarks) = (Vec::new(), Vec::new());
    for (name, value) in declared {
        match (value, configured.get(name)) {
            (EnvironmentValue::Fixed(value), given) => {
                filled.push((name.clone(), value.clone()));
                let fixed = given.map(|given| Remark::Fixed { name: name.clone(), origin: given.origin.clone() });
                remarks.extend(fixed);
            }
            (EnvironmentValue::FromConfig, Some(given)) => filled.push((name.clone(), given.value.reveal().to_owned())),
            (EnvironmentValue::FromConfig, None) => remarks.push(Remark::Unset { name: name.clone() }),
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
        let (filled, remarks) = fill(&declared, &configured);
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(filled, [pair("PORT", "80"), pair("ROAST", "dark")]);
        let said: Vec<_> = remarks.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "PORT (default) is not passed on: the release's manifest fixes its value",
                "SUGAR is unset: the release leaves it to the agent's configuration, which does not give it",
                "LD_PRELOAD (default) is not passed on: the release's manifest does not declare it",
            ]
        );
    }
}
