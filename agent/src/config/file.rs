//! The configuration file: flat TOML, in which an unknown key is an error and every error names its line.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::Origin;

/// Every key that the file may have.
const KEYS: [&str; 8] = [
    "data-directory",
    "run-directory",
    "socket",
    "enroll-token",
    "enroll-token-file",
    "servers",
    "log-level",
    "spool-bytes-max",
];

/// Why a configuration file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// It is not TOML.
    #[error("{}:{line}: {problem}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What the parser expected.
        problem: String,
    },
    /// A key is not one of ours.
    #[error("{}:{line}: unknown key {key:?}; expected one of {}", path.display(), KEYS.join(", "))]
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
}

impl FileValues {
    /// Reads a file's text; `path` is for its errors.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, FileError> {
        let document = DeTable::parse(text).map_err(|error| FileError::Syntax {
            path: path.to_owned(),
            line: line_of(text, error.span()),
            problem: error.message().to_owned(),
        })?;
        let mut entries = BTreeMap::new();
        for (key, value) in document.get_ref() {
            let line = line_of(text, Some(key.span()));
            let key: &str = key.get_ref();
            if !KEYS.contains(&key) {
                return Err(FileError::UnknownKey { path: path.to_owned(), line, key: key.to_owned() });
            }
            entries.insert(key.to_owned(), (line, EntryValue::of(value.get_ref())));
        }
        Ok(Self { path: path.to_owned(), entries })
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
