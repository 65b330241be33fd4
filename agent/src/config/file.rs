//! The configuration file: flat TOML but for what workloads are given, in which an unknown key is an error and every
//! error names its line and its key.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use fleetd_actors::window::Zone;
use fleetd_sync_core::name::WorkloadName;

use super::{ConfiguredVariable, Environments, Network, Origin, Secret};

/// The table of what workloads are given.
const WORKLOAD: &str = "workload";
/// In a workload's table: the values of the environment names that its manifest leaves to the configuration.
const ENVIRONMENT: &str = "environment";

/// Every key that the file may have.
const KEYS: [&str; 10] = [
    "data-directory",
    "run-directory",
    "socket",
    "enroll-token",
    "enroll-token-file",
    "servers",
    "network",
    "timezone",
    "log-level",
    "spool-bytes-max",
];

/// Why a configuration file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// It is not TOML.
    #[error("{}:{line}: {}{problem}", path.display(), key.as_ref().map(|key| format!("{key}: ")).unwrap_or_default())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The key whose value could not be read; `None` where no key stands before it.
        key: Option<String>,
        /// What the parser expected.
        problem: String,
    },
    /// A key is not one of ours.
    #[error(
        "{}:{line}: unknown key {key:?}; expected one of {}, or a table [workload.NAME.environment]",
        path.display(), KEYS.join(", ")
    )]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The key.
        key: String,
    },
    /// A value is of another type. The value is not told, for it may be a secret at the wrong place.
    #[error("{}:{line}: {key} is {found}, expected {expected}", path.display())]
    Type {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The key.
        key: String,
        /// The type of what is there.
        found: &'static str,
        /// What should be there.
        expected: &'static str,
    },
}

/// A key and its value, as the parser gives them.
type Entry<'a> = (&'a Spanned<Cow<'a, str>>, &'a Spanned<DeValue<'a>>);

/// A type that a value in the file may have.
pub(super) trait FileValue: Sized {
    /// What to write in the file.
    const EXPECTED: &'static str;

    fn from_entry(value: &EntryValue) -> Option<Self>;
}

/// A value as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum EntryValue {
    Text(String),
    Number(u64),
    List(Vec<String>),
    /// Of a type that no key takes.
    Other(&'static str),
}

impl EntryValue {
    fn of(value: &DeValue<'_>) -> Self {
        match value {
            DeValue::String(text) => Self::Text(text.to_string()),
            DeValue::Integer(number) => match u64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => Self::Number(number),
                Err(_error) => Self::Other("a number out of range"),
            },
            DeValue::Float(_) => Self::Other("a number with a fraction"),
            DeValue::Boolean(_) => Self::Other("true or false"),
            DeValue::Datetime(_) => Self::Other("a date"),
            DeValue::Array(values) => values
                .iter()
                .map(|value| value.get_ref().as_str().map(str::to_owned))
                .collect::<Option<_>>()
                .map_or(Self::Other("a list with something else than texts"), Self::List),
            DeValue::Table(_) => Self::Other("a table"),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Number(_) => "a number",
            Self::List(_) => "a list",
            Self::Other(kind) => kind,
        }
    }
}

impl FileValue for String {
    const EXPECTED: &'static str = "a text in quotes";

    fn from_entry(value: &EntryValue) -> Option<Self> {
        if let EntryValue::Text(text) = value { Some(text.clone()) } else { None }
    }
}

impl FileValue for PathBuf {
    const EXPECTED: &'static str = "a path in quotes";

    fn from_entry(value: &EntryValue) -> Option<Self> {
        String::from_entry(value).map(Self::from)
    }
}

impl FileValue for Network {
    const EXPECTED: &'static str = "\"nat\" or \"lan\"";

    fn from_entry(value: &EntryValue) -> Option<Self> {
        String::from_entry(value).and_then(|text| Self::parse(&text).ok())
    }
}

impl FileValue for Option<Zone> {
    const EXPECTED: &'static str = "a time zone in quotes, as in \"Europe/Berlin\"";

    fn from_entry(value: &EntryValue) -> Option<Self> {
        String::from_entry(value).and_then(|text| text.parse().ok()).map(Some)
    }
}

impl FileValue for u64 {
    const EXPECTED: &'static str = "a number of bytes without quotes";

    fn from_entry(value: &EntryValue) -> Option<Self> {
        if let EntryValue::Number(number) = value { Some(*number) } else { None }
    }
}

impl FileValue for Vec<String> {
    const EXPECTED: &'static str = "a list of texts, as in [\"fleet.example.com:4433\"]";

    fn from_entry(value: &EntryValue) -> Option<Self> {
        if let EntryValue::List(texts) = value { Some(texts.clone()) } else { None }
    }
}

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FileValues {
    path: PathBuf,
    entries: BTreeMap<String, (usize, EntryValue)>,
    pub(super) environments: Environments,
}

impl FileValues {
    /// Reads a file's text; `path` is for its errors.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, FileError> {
        let document = DeTable::parse(text).map_err(|error| FileError::Syntax {
            path: path.to_owned(),
            line: line_of(text, error.span()),
            key: key_before(text, error.span()),
            problem: error.message().to_owned(),
        })?;
        let mut values = Self { path: path.to_owned(), ..Self::default() };
        for (key, value) in document.get_ref() {
            let line = line_of(text, Some(key.span()));
            let key: &str = key.get_ref();
            if key == WORKLOAD {
                values.take_workloads(text, line, value.get_ref())?;
            } else if KEYS.contains(&key) {
                values.entries.insert(key.to_owned(), (line, EntryValue::of(value.get_ref())));
            } else {
                return Err(values.unknown(line, key.to_owned()));
            }
        }
        Ok(values)
    }

    /// Reads `[workload.NAME.environment]` of every workload.
    fn take_workloads(&mut self, text: &str, line: usize, value: &DeValue<'_>) -> Result<(), FileError> {
        for (name, value) in self.table(line, WORKLOAD, value)? {
            let line = line_of(text, Some(name.span()));
            let key = format!("{WORKLOAD}.{}", name.get_ref());
            let Ok(workload) = name.get_ref().parse::<WorkloadName>() else {
                return Err(self.wrong(line, key, "no workload's name", "lower-case letters, digits and hyphens"));
            };
            for (part, value) in self.table(line, &key, value.get_ref())? {
                let line = line_of(text, Some(part.span()));
                let key = format!("{key}.{}", part.get_ref());
                if part.get_ref() != ENVIRONMENT {
                    return Err(self.unknown(line, key));
                }
                for (variable, value) in self.table(line, &key, value.get_ref())? {
                    let line = line_of(text, Some(variable.span()));
                    let key = format!("{key}.{}", variable.get_ref());
                    let value = EntryValue::of(value.get_ref());
                    let Some(text) = String::from_entry(&value).filter(|text| !text.contains('\0')) else {
                        return Err(self.wrong(line, key, value.kind(), String::EXPECTED));
                    };
                    let origin = Origin::File { path: self.path.clone(), line, key };
                    let variables = self.environments.entry(workload.clone()).or_default();
                    let value = ConfiguredVariable { value: Secret::new(text), origin };
                    variables.insert(variable.get_ref().to_string(), value);
                }
            }
        }
        Ok(())
    }

    fn table<'a>(&self, line: usize, key: &str, value: &'a DeValue<'a>) -> Result<Vec<Entry<'a>>, FileError> {
        match value {
            DeValue::Table(table) => Ok(table.iter().collect()),
            other => Err(self.wrong(line, key.to_owned(), EntryValue::of(other).kind(), "a table")),
        }
    }

    fn unknown(&self, line: usize, key: String) -> FileError {
        FileError::UnknownKey { path: self.path.clone(), line, key }
    }

    fn wrong(&self, line: usize, key: String, found: &'static str, expected: &'static str) -> FileError {
        FileError::Type { path: self.path.clone(), line, key, found, expected }
    }

    /// Returns a key's value, and where it stands.
    pub(super) fn take<T: FileValue>(&self, key: &str) -> Result<Option<(T, Origin)>, FileError> {
        let Some((line, value)) = self.entries.get(key) else { return Ok(None) };
        let (path, line, key) = (self.path.clone(), *line, key.to_owned());
        match T::from_entry(value) {
            Some(taken) => Ok(Some((taken, Origin::File { path, line, key }))),
            None => Err(FileError::Type { path, line, key, found: value.kind(), expected: T::EXPECTED }),
        }
    }
}

/// Counts lines up to a place in a text; a place that is not known is the first line.
fn line_of(text: &str, span: Option<Range<usize>>) -> usize {
    let before = text.get(..span.map_or(0, |span| span.start)).unwrap_or(text);
    before.matches('\n').count() + 1
}

/// The key that a value before a place in a text belongs to, with its table: that of the last line up to there which
/// has one. A value may go over several lines.
fn key_before(text: &str, span: Option<Range<usize>>) -> Option<String> {
    let is_bare =
        |key: &str| !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    let (mut table, mut key) = ("", None);
    for line in text.lines().take(line_of(text, span)) {
        let header = line.trim().strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(name, _)| name.trim());
        if let Some(header) = header.filter(|header| is_bare(header)) {
            (table, key) = (header, None);
        } else if let Some(name) = line.split_once('=').map(|(name, _)| name.trim()).filter(|name| is_bare(name)) {
            key = Some(if table.is_empty() { name.to_owned() } else { format!("{table}.{name}") });
        }
    }
    key
}
