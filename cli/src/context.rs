//! The servers that an operator knows, by name: where each is, which fleet it serves, and the credential for it.
//!
//! They lie in `contexts.toml` below `$FLEETD_CONFIG_DIR`, or else below `fleetd` in the XDG configuration folder. The
//! file holds tokens, so it is written for its owner only and not read when others could have read it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy as _;
use serde::{Deserialize, Serialize};

use crate::error::CommandError;
use crate::exit::Exit;

/// The environment variable that names the folder of the file.
pub const CONFIG_DIR_VARIABLE: &str = "FLEETD_CONFIG_DIR";
/// The environment variable that holds a token, which then stands in for the context's own.
pub const TOKEN_VARIABLE: &str = "FLEETD_TOKEN";

/// Rights that nobody but the file's owner may have on it.
const MODE_OF_OTHERS: u32 = 0o077;

/// One server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// Where its API is (`https://fleet.example:4800`).
    pub url: String,
    /// The fleet that it must serve (`flt_…`).
    pub fleet: String,
    /// The credential, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The certificate of the fleet's CA, which the server's own must come from.
    pub ca_certificate_pem: String,
}

/// What the file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    current: Option<String>,
    #[serde(default)]
    contexts: BTreeMap<String, Context>,
}

/// Why the contexts cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ContextFileError {
    /// There is no home folder to look in.
    #[error("there is no folder for configuration: set {CONFIG_DIR_VARIABLE}")]
    NoFolder,
    /// The operating system refuses.
    #[error("{} cannot be {verb}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        verb: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Others could have read or changed it.
    #[error("{} has mode {mode:03o}: others can read or change the tokens in it", path.display())]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is not what it should be.
    #[error("{} line {line}: {message}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong there; it names the key and never shows its value.
        message: String,
    },
    /// It could not be put in words.
    #[error("the contexts cannot be written as TOML")]
    Encode(#[from] toml::ser::Error),
}

impl From<ContextFileError> for CommandError {
    fn from(error: ContextFileError) -> Self {
        let (code, next) = match &error {
            ContextFileError::NoFolder => ("context.no_folder", String::new()),
            ContextFileError::Io { .. } => ("context.unreadable", String::new()),
            ContextFileError::Permissions { path, .. } => {
                ("context.permissions", format!("chmod 600 '{}'", path.display()))
            }
            ContextFileError::Malformed { path, .. } => {
                ("context.malformed", format!("edit {}, or remove it and run `fleetd login URL`", path.display()))
            }
            ContextFileError::Encode(_) => ("context.encode", String::new()),
        };
        let cause = std::error::Error::source(&error).map(crate::error::chain).unwrap_or_default();
        Self::new(code, error.to_string()).cause(cause).next_command(next)
    }
}

/// A parser's message, less the value that it shows where another was expected: that may be a token at a wrong place.
fn without_value(message: &str) -> String {
    let shows_value = ["invalid type: ", "invalid value: "].iter().any(|start| message.starts_with(start));
    match message.rsplit_once(", expected ") {
        Some((_, expected)) if shows_value => format!("expected {expected}"),
        _ => message.to_owned(),
    }
}

/// The contexts of one operator.
#[derive(Clone, Debug)]
pub struct ContextFile {
    path: PathBuf,
    content: Content,
}

impl ContextFile {
    /// Reads the operator's own file. One that is not there holds nothing.
    ///
    /// # Errors
    /// [`ContextFileError`] when it is there and cannot be used.
    pub fn open() -> Result<Self, ContextFileError> {
        let folder = match std::env::var_os(CONFIG_DIR_VARIABLE) {
            Some(folder) => PathBuf::from(folder),
            None => {
                let base = etcetera::base_strategy::Xdg::new().map_err(|_| ContextFileError::NoFolder)?;
                base.config_dir().join("fleetd")
            }
        };
        Self::open_at(&folder.join("contexts.toml"))
    }

    /// Reads the file at `path`.
    ///
    /// # Errors
    /// Those of [`ContextFile::open`].
    pub fn open_at(path: &Path) -> Result<Self, ContextFileError> {
        let io = |source| ContextFileError::Io { path: path.to_owned(), verb: "read", source };
        let content = match std::fs::metadata(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Content::default(),
            Err(error) => return Err(io(error)),
            Ok(metadata) => {
                let mode = metadata.permissions().mode() & 0o777;
                if mode & MODE_OF_OTHERS != 0 {
                    return Err(ContextFileError::Permissions { path: path.to_owned(), mode });
                }
                let text = std::fs::read_to_string(path).map_err(io)?;
                toml::from_str(&text).map_err(|error| {
                    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
                    let line = before.matches('\n').count() + 1;
                    ContextFileError::Malformed { path: path.to_owned(), line, message: without_value(error.message()) }
                })?
            }
        };
        Ok(Self { path: path.to_owned(), content })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The context that commands use when none is named.
    #[must_use]
    pub fn current(&self) -> Option<&str> {
        self.content.current.as_deref()
    }

    /// All contexts, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Context)> {
        self.content.contexts.iter().map(|(name, context)| (name.as_str(), context))
    }

    /// Finds the context that was asked for, or else the current one.
    ///
    /// # Errors
    /// [`SelectContextError`] when there is no such context.
    pub fn select(&self, asked: Option<&str>) -> Result<(&str, &Context), SelectContextError> {
        let name = asked.or(self.current());
        let Some(name) = name else { return Err(SelectContextError::None { path: self.path.clone() }) };
        let found = self.content.contexts.get_key_value(name);
        found.map(|(name, context)| (name.as_str(), context)).ok_or_else(|| SelectContextError::Unknown {
            name: name.to_owned(),
            known: self.content.contexts.keys().cloned().collect(),
        })
    }

    /// Keeps a context and makes it the current one.
    pub fn put(&mut self, name: &str, context: Context) {
        self.content.contexts.insert(name.to_owned(), context);
        self.content.current = Some(name.to_owned());
    }

    /// Makes a context the current one.
    ///
    /// # Errors
    /// [`SelectContextError::Unknown`] when there is no such context.
    pub fn make_current(&mut self, name: &str) -> Result<(), SelectContextError> {
        let name = self.select(Some(name))?.0.to_owned();
        self.content.current = Some(name);
        Ok(())
    }

    /// Forgets a context.
    pub fn remove(&mut self, name: &str) {
        self.content.contexts.remove(name);
        if self.content.current.as_deref() == Some(name) {
            self.content.current = None;
        }
    }

    /// Writes the file anew, whole or not at all.
    ///
    /// # Errors
    /// [`ContextFileError::Io`] and [`ContextFileError::Encode`].
    pub fn save(&self) -> Result<(), ContextFileError> {
        let text = toml::to_string_pretty(&self.content)?;
        let new = self.path.with_extension("toml.new");
        let write = || -> std::io::Result<()> {
            if let Some(folder) = self.path.parent() {
                std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            }
            // A file that was left behind may have other rights than the one that is made here.
            match std::fs::remove_file(&new) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&new, &self.path)
        };
        write().map_err(|source| ContextFileError::Io { path: self.path.clone(), verb: "written", source })
    }
}

/// Why there is no context to use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectContextError {
    /// There is none of that name.
    #[error("there is no context {name:?}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// None was named, and none is current.
    #[error("not logged in to any server")]
    None {
        /// The file that names none.
        path: PathBuf,
    },
}

impl From<SelectContextError> for CommandError {
    fn from(error: SelectContextError) -> Self {
        let message = error.to_string();
        match error {
            SelectContextError::Unknown { known, .. } => Self::new("context.unknown", message)
                .cause(match known.as_slice() {
                    [] => "there are no contexts yet".to_owned(),
                    known => format!("there are: {}", known.join(", ")),
                })
                .next_command("fleetd context list"),
            SelectContextError::None { path } => Self::new("context.none", message)
                .cause(format!("{} names no current context", path.display()))
                .next_command("fleetd login URL --fleet flt_…")
                .exit(Exit::Unauthenticated),
        }
    }
}
