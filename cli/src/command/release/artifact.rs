//! Artifacts as they are named on the command line, and what their bytes say.

use std::path::PathBuf;
use std::str::FromStr;

use fleetd_sync_core::name::{ParseNameError, Platform};

use crate::client::upload::{Measured, measure};
use crate::error::CommandError;
use crate::platform::{self, DetectPlatformError, Header};

/// `linux/arm64=./coffee`, or `./coffee`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactArgument {
    /// The platform, where it was named.
    pub platform: Option<Platform>,
    /// The file.
    pub path: PathBuf,
}

impl FromStr for ArtifactArgument {
    type Err = ParseNameError;

    /// Reads the argument. What stands before `=` is a platform only if it looks like one, since a path may have a
    /// `=` too.
    fn from_str(text: &str) -> Result<Self, ParseNameError> {
        match text.split_once('=') {
            Some((platform, path)) if platform == "any" || is_two_parts(platform) => {
                Ok(Self { platform: Some(platform.parse()?), path: PathBuf::from(path) })
            }
            _ => Ok(Self { platform: None, path: PathBuf::from(text) }),
        }
    }
}

fn is_two_parts(text: &str) -> bool {
    text.split_once('/').is_some_and(|(os, arch)| !os.is_empty() && !os.starts_with('.') && !arch.contains('/'))
}

/// Why a file is no artifact.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// Its platform is not known.
    #[error("the platform of the artifact is not known")]
    Detect(#[from] DetectPlatformError),
    /// It is for another platform than was said.
    #[error("{} is a program for {found}, not for {named}", path.display())]
    OtherPlatform {
        /// The file.
        path: PathBuf,
        /// What was said.
        named: Platform,
        /// What its header says.
        found: String,
    },
    /// Two are for one platform.
    #[error("two artifacts are for {platform}: {} and {}", first.display(), second.display())]
    Twice {
        /// The platform.
        platform: Platform,
        /// One file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// It cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl From<ArtifactError> for CommandError {
    fn from(error: ArtifactError) -> Self {
        let (code, next) = match &error {
            ArtifactError::Detect(DetectPlatformError::Read { .. }) | ArtifactError::Read { .. } => {
                ("artifact.unreadable", "")
            }
            ArtifactError::Detect(_) => ("artifact.platform_unknown", "name it: --artifact linux/arm64=PATH"),
            ArtifactError::OtherPlatform { .. } => {
                ("artifact.other_platform", "leave the platform out, or build for it")
            }
            ArtifactError::Twice { .. } => ("artifact.twice", "name one artifact for each platform"),
        };
        let cause = std::error::Error::source(&error).map(crate::error::chain).unwrap_or_default();
        Self::new(code, error.to_string()).cause(cause).next_command(next)
    }
}

/// A file that is an artifact.
#[derive(Clone, Debug)]
pub(super) struct LocalArtifact {
    pub(super) platform: Platform,
    pub(super) path: PathBuf,
    pub(super) measured: Measured,
}

/// Finds out what the named files are.
pub(super) fn inspect(arguments: &[ArtifactArgument]) -> Result<Vec<LocalArtifact>, ArtifactError> {
    let mut artifacts: Vec<LocalArtifact> = Vec::new();
    for ArtifactArgument { platform: named, path } in arguments {
        let platform = match named {
            Some(named) => agree(named, path)?,
            None => platform::detect(path)?,
        };
        if let Some(first) = artifacts.iter().find(|artifact| artifact.platform == platform) {
            return Err(ArtifactError::Twice { platform, first: first.path.clone(), second: path.clone() });
        }
        let measured = measure(path).map_err(|source| ArtifactError::Read { path: path.clone(), source })?;
        artifacts.push(LocalArtifact { platform, path: path.clone(), measured });
    }
    Ok(artifacts)
}

/// Takes the platform that was named, unless the file says clearly that it is for another one.
fn agree(named: &Platform, path: &std::path::Path) -> Result<Platform, ArtifactError> {
    let other = |found: String| ArtifactError::OtherPlatform { path: path.to_owned(), named: named.clone(), found };
    match platform::header_of(path)? {
        // An ELF file for Linux says nothing of its system in its header, so only the machine is compared.
        Header::Program(found) if machine(&found) != machine(named) => Err(other(found.to_string())),
        Header::OtherMachine(number) => Err(other(format!("machine {number}"))),
        Header::Program(_) | Header::Script | Header::Unknown => Ok(named.clone()),
    }
}

fn machine(platform: &Platform) -> Option<&str> {
    platform.as_str().split_once('/').map(|(_, machine)| machine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_an_equals_sign_is_no_platform() {
        let read = |text: &str| text.parse::<ArtifactArgument>().unwrap();
        assert_eq!(read("linux/arm64=./x").platform.unwrap().as_str(), "linux/arm64");
        assert_eq!(read("any=x.sh").platform.unwrap().as_str(), "any");
        for text in ["./x", "./a=b", "out/release/a=b", "x=y"] {
            assert_eq!(read(text), ArtifactArgument { platform: None, path: PathBuf::from(text) });
        }
        assert!("linux/ARM=x".parse::<ArtifactArgument>().is_err());
    }
}
