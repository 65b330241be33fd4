//! Artifacts as they are named on the command line, and what their bytes say.

use std::path::{Path, PathBuf};
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
    #[error("the platform of {} is not known", path.display())]
    Detect {
        /// The file.
        path: PathBuf,
        /// Why.
        source: DetectPlatformError,
    },
    /// What was said is no platform that a device has.
    #[error("no device has the platform {named}, which is named for {}", path.display())]
    UnknownPlatform {
        /// The file.
        path: PathBuf,
        /// What was said.
        named: Platform,
        /// What could have been.
        source: KnownPlatforms,
    },
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
    #[error("the artifact {} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// The platforms that there are, as the cause of an error.
#[derive(Debug, thiserror::Error)]
#[error("known are {}", platform::known().collect::<Vec<_>>().join(", "))]
pub struct KnownPlatforms;

impl From<ArtifactError> for CommandError {
    fn from(error: ArtifactError) -> Self {
        let (code, next) = match &error {
            ArtifactError::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                ("artifact.unreadable", "build it first, or name the file that it is in: --artifact [PLATFORM=]PATH")
            }
            ArtifactError::Read { .. } => ("artifact.unreadable", "name a file that you may read"),
            ArtifactError::Detect { .. } => ("artifact.platform_unknown", "name it: --artifact linux/arm64=PATH"),
            ArtifactError::UnknownPlatform { .. } => {
                ("artifact.platform_unknown", "name one of these, or leave it out: the file's header may say it")
            }
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
            None => platform::detect(path).map_err(|error| of_file(path, error))?,
        };
        if let Some(first) = artifacts.iter().find(|artifact| artifact.platform == platform) {
            return Err(ArtifactError::Twice { platform, first: first.path.clone(), second: path.clone() });
        }
        let measured = measure(path).map_err(|source| ArtifactError::Read { path: path.clone(), source })?;
        artifacts.push(LocalArtifact { platform, path: path.clone(), measured });
    }
    Ok(artifacts)
}

/// Says of which file an error is: one that cannot be read has nothing to do with platforms.
fn of_file(path: &Path, error: DetectPlatformError) -> ArtifactError {
    match error {
        DetectPlatformError::Read { path, source } => ArtifactError::Read { path, source },
        source => ArtifactError::Detect { path: path.to_owned(), source },
    }
}

/// Takes the platform that was named, if devices have it and the file does not say clearly that it is for another one.
fn agree(named: &Platform, path: &Path) -> Result<Platform, ArtifactError> {
    if platform::known().all(|known| known != named.as_str()) {
        let known = KnownPlatforms;
        return Err(ArtifactError::UnknownPlatform { path: path.to_owned(), named: named.clone(), source: known });
    }
    let other = |found: String| ArtifactError::OtherPlatform { path: path.to_owned(), named: named.clone(), found };
    match platform::header_of(path).map_err(|error| of_file(path, error))? {
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

    fn refused(text: &str) -> CommandError {
        inspect(&[text.parse().unwrap()]).unwrap_err().into()
    }

    #[test]
    fn a_platform_that_no_device_has_is_refused_with_those_that_there_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("coffee.sh");
        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        for platform in ["bogus/x", "linux/arm65", "linux/x86_64"] {
            let error = refused(&format!("{platform}={}", path.display()));
            assert_eq!(error.code, "artifact.platform_unknown");
            assert!(error.message.contains(platform), "{error:?}");
            let cause = error.cause.unwrap().to_string();
            assert!(cause.contains("any, linux/386, linux/amd64") && cause.contains("linux/riscv64"), "{cause}");
        }
        for platform in ["any", "linux/arm64"] {
            let argument = format!("{platform}={}", path.display()).parse().unwrap();
            assert_eq!(inspect(&[argument]).unwrap()[0].platform.as_str(), platform);
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named_in_the_headline_with_what_to_do() {
        for text in ["./no/such/coffee", "linux/arm64=./no/such/coffee"] {
            let error = refused(text);
            assert_eq!(error.code, "artifact.unreadable");
            assert!(error.message.contains("./no/such/coffee"), "{}", error.message);
            assert!(error.cause.unwrap().to_string().contains("No such file"));
            assert!(error.next_command.unwrap().contains("--artifact"));
        }
    }

    #[test]
    fn a_program_for_another_platform_than_was_named_is_refused() {
        let program = std::env::current_exe().unwrap();
        let here = platform::detect(&program).unwrap();
        let other = if here.as_str() == "linux/s390x" { "linux/arm64" } else { "linux/s390x" };
        let error = refused(&format!("{other}={}", program.display()));
        assert_eq!(error.code, "artifact.other_platform");
        assert!(error.message.contains(here.as_str()) && error.message.contains(other), "{}", error.message);
    }
}
