//! A value and where it came from.

use std::fmt;
use std::path::PathBuf;

use super::{ConfigError, ShownSetting};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag {
        /// The flag.
        name: String,
    },
    /// The environment.
    Environment {
        /// The variable.
        variable: String,
    },
    /// A credential that systemd handed over.
    Credential {
        /// Its file.
        path: PathBuf,
    },
    /// The configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The key.
        key: String,
    },
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag { name } => write!(f, "flag {name}"),
            Self::Environment { variable } => write!(f, "environment {variable}"),
            Self::Credential { path } => write!(f, "credential {}", path.display()),
            Self::File { path, line, key } => write!(f, "file {}:{line} {key}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A value that knows where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting<T> {
    /// The key, as the file spells it.
    pub key: &'static str,
    /// The value.
    pub value: T,
    /// Where it came from.
    pub origin: Origin,
}

impl<T> Setting<T> {
    pub(super) fn show(&self, value: impl fmt::Display) -> ShownSetting {
        ShownSetting { key: self.key.to_owned(), value: value.to_string(), origin: self.origin.clone() }
    }

    pub(super) fn wrong(&self, expected: &'static str, value: impl fmt::Display) -> ConfigError {
        ConfigError::Value { origin: self.origin.clone(), value: value.to_string(), expected }
    }
}
