//! A manifest's canonical bytes, and what no manifest may say.

use std::collections::BTreeMap;
use std::time::Duration;

use super::probe::{Probe, ProbeCheck, read_ms, read_texts, write_ms};
use super::{Artifact, EnvironmentValue, Manifest};
use crate::codec::{ReadError, Reader, Writer};
use crate::id::{ArtifactDigest, FleetId};
use crate::limit;
use crate::name::{ParseNameError, Platform};

/// The version of the layout below.
const LAYOUT: u8 = 1;

pub(super) const NO_SIGNATURE: ReadError = ReadError::Value { what: "signature", value: 0 };

/// What no manifest may say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidManifest {
    /// Nothing to run.
    #[error("a release needs at least one artifact")]
    NoArtifact,
    /// Too many of something.
    #[error("{count} {what}; there may be {count_max}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many there may be.
        count_max: usize,
    },
    /// Too many bytes.
    #[error("the manifest has {length} bytes; it may have {length_max}")]
    TooLarge {
        /// What it has.
        length: usize,
        /// What it may have.
        length_max: usize,
    },
    /// An artifact of no bytes, or of more than a device holds.
    #[error("the artifact for {platform} has {size_bytes} bytes; it may have 1 to {size_bytes_max}")]
    Size {
        /// Its platform.
        platform: Platform,
        /// What it has.
        size_bytes: u64,
        /// What it may have.
        size_bytes_max: u64,
    },
    /// A text that would not be what it seems: a file outside its folder, a variable with `=` in its name, a NUL.
    #[error("{text:?} cannot be {what}")]
    Text {
        /// What it stands for.
        what: &'static str,
        /// The text.
        text: String,
    },
    /// A duration of zero, above a day, or with a part of a millisecond.
    #[error("{what} is {duration:?}; it needs whole milliseconds, at least 1 and at most a day")]
    Duration {
        /// Which.
        what: &'static str,
        /// What it is.
        duration: Duration,
    },
    /// A probe that could never say well, or never unwell.
    #[error("the probe's {what} is 0")]
    Never {
        /// Which number.
        what: &'static str,
    },
}

/// Why bytes are no release.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadReleaseError {
    /// Larger than any manifest.
    #[error("a manifest has at most {length_max} bytes, not {length}")]
    TooLarge {
        /// What there was.
        length: usize,
        /// What there may be.
        length_max: usize,
    },
    /// Written by a newer version.
    #[error("the manifest has layout {layout}; this version reads {LAYOUT}")]
    Newer {
        /// Its layout.
        layout: u8,
    },
    /// Not canonical.
    #[error("the bytes are no release")]
    Malformed(#[from] ReadError),
    /// Says something that no release may say.
    #[error("the manifest is invalid")]
    Invalid(#[from] InvalidManifest),
}

pub(super) fn encode(manifest: &Manifest) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.u8(LAYOUT).array(manifest.fleet.as_bytes());
    writer.text(manifest.workload.as_str()).text(manifest.version.as_str());
    writer.count(manifest.artifacts.len());
    for (platform, artifact) in &manifest.artifacts {
        writer.text(platform.as_str()).array(artifact.digest.as_bytes());
        writer.varint(artifact.size_bytes).text(&artifact.file_name);
    }
    writer.count(manifest.argv.len());
    for argument in &manifest.argv {
        writer.text(argument);
    }
    writer.count(manifest.environment.len());
    for (name, value) in &manifest.environment {
        writer.text(name);
        match value {
            EnvironmentValue::Fixed(value) => writer.u8(0).text(value),
            EnvironmentValue::FromConfig => writer.u8(1),
        };
    }
    manifest.probe.write(&mut writer);
    match &manifest.user {
        Some(user) => writer.boolean(true).text(user),
        None => writer.boolean(false),
    };
    write_ms(&mut writer, manifest.stop_grace);
    writer.finish()
}

pub(super) fn decode(bytes: &[u8]) -> Result<Manifest, ReadReleaseError> {
    let length_max = limit::MANIFEST_BYTES_MAX;
    if bytes.len() > length_max {
        return Err(ReadReleaseError::TooLarge { length: bytes.len(), length_max });
    }
    let mut reader = Reader::new(bytes);
    let layout = reader.u8("layout")?;
    if layout != LAYOUT {
        return Err(ReadReleaseError::Newer { layout });
    }
    let manifest = Manifest {
        fleet: FleetId::from_bytes(reader.array("fleet")?),
        workload: read_name(&mut reader, "workload")?,
        version: read_name(&mut reader, "version")?,
        artifacts: read_artifacts(&mut reader)?,
        argv: read_texts(&mut reader, "argument")?,
        environment: read_environment(&mut reader)?,
        probe: Probe::read(&mut reader)?,
        user: match reader.boolean("user")? {
            true => Some(reader.text("user", limit::SHORT_NAME_CHARS_MAX)?.to_owned()),
            false => None,
        },
        stop_grace: read_ms(&mut reader, "stop grace")?,
    };
    reader.finish()?;
    check(&manifest)?;
    Ok(manifest)
}

fn read_name<T>(reader: &mut Reader<'_>, what: &'static str) -> Result<T, ReadError>
where
    T: std::str::FromStr<Err = ParseNameError>,
{
    let text = reader.text(what, limit::SHORT_NAME_CHARS_MAX)?;
    text.parse().map_err(|_: ParseNameError| ReadError::Value { what, value: 0 })
}

fn read_artifacts(reader: &mut Reader<'_>) -> Result<BTreeMap<Platform, Artifact>, ReadError> {
    let mut artifacts = BTreeMap::new();
    for _ in 0..reader.count("artifacts", limit::RELEASE_ARTIFACTS_MAX)? {
        let platform: Platform = read_name(reader, "platform")?;
        if artifacts.last_key_value().is_some_and(|(last, _)| *last >= platform) {
            return Err(ReadError::Value { what: "order of platforms", value: 0 });
        }
        let digest = ArtifactDigest::from_bytes(reader.array("artifact digest")?);
        let size_bytes = reader.varint("artifact size")?;
        let file_name = reader.text("file name", limit::SHORT_NAME_CHARS_MAX)?.to_owned();
        artifacts.insert(platform, Artifact { digest, size_bytes, file_name });
    }
    Ok(artifacts)
}

fn read_environment(reader: &mut Reader<'_>) -> Result<BTreeMap<String, EnvironmentValue>, ReadError> {
    let mut environment = BTreeMap::new();
    for _ in 0..reader.count("environment", limit::MANIFEST_ENTRIES_MAX)? {
        let name = reader.text("environment name", limit::SHORT_NAME_CHARS_MAX)?.to_owned();
        if environment.last_key_value().is_some_and(|(last, _)| *last >= name) {
            return Err(ReadError::Value { what: "order of environment names", value: 0 });
        }
        let value = match reader.u8("environment value")? {
            0 => EnvironmentValue::Fixed(reader.text("environment value", limit::MANIFEST_BYTES_MAX)?.to_owned()),
            1 => EnvironmentValue::FromConfig,
            other => return Err(ReadError::Value { what: "environment value", value: u64::from(other) }),
        };
        environment.insert(name, value);
    }
    Ok(environment)
}

pub(super) fn check(manifest: &Manifest) -> Result<(), InvalidManifest> {
    if manifest.artifacts.is_empty() {
        return Err(InvalidManifest::NoArtifact);
    }
    let too_many = |what, count, count_max| Err(InvalidManifest::TooMany { what, count, count_max });
    if manifest.artifacts.len() > limit::RELEASE_ARTIFACTS_MAX {
        return too_many("artifacts", manifest.artifacts.len(), limit::RELEASE_ARTIFACTS_MAX);
    }
    let entries = manifest.argv.len() + manifest.environment.len() + manifest.probe.entries();
    if entries > limit::MANIFEST_ENTRIES_MAX {
        return too_many("arguments, environment names and probe entries", entries, limit::MANIFEST_ENTRIES_MAX);
    }
    for (platform, artifact) in &manifest.artifacts {
        if !(1..=limit::ARTIFACT_BYTES_MAX).contains(&artifact.size_bytes) {
            let (size_bytes, size_bytes_max) = (artifact.size_bytes, limit::ARTIFACT_BYTES_MAX);
            return Err(InvalidManifest::Size { platform: platform.clone(), size_bytes, size_bytes_max });
        }
        check_text("a file name", &artifact.file_name, is_file_name)?;
    }
    for argument in &manifest.argv {
        check_text("an argument", argument, is_plain)?;
    }
    for (name, value) in &manifest.environment {
        check_text("the name of an environment variable", name, is_environment_name)?;
        if let EnvironmentValue::Fixed(value) = value {
            check_text("the value of an environment variable", value, is_plain)?;
        }
    }
    if let Some(user) = &manifest.user {
        check_text("a user", user, is_user)?;
    }
    check_duration("the stop grace", manifest.stop_grace)?;
    check_probe(&manifest.probe)
}

fn check_probe(probe: &Probe) -> Result<(), InvalidManifest> {
    match &probe.check {
        ProbeCheck::Alive | ProbeCheck::Notify => {}
        ProbeCheck::Exec { argv } => {
            let command = argv.first().map_or("", String::as_str);
            check_text("a probe's command", command, |text| !text.is_empty() && is_plain(text))?;
            for argument in argv {
                check_text("a probe's argument", argument, is_plain)?;
            }
        }
        ProbeCheck::Tcp { port } => check_port(*port)?,
        ProbeCheck::Http { port, path } => {
            check_port(*port)?;
            let graphic = |text: &str| text.chars().all(|character| character.is_ascii_graphic());
            check_text("a probe's path", path, |text| text.starts_with('/') && graphic(text))?;
        }
    }
    for (what, duration) in
        [("the probe's interval", probe.interval), ("its timeout", probe.timeout), ("its grace", probe.grace)]
    {
        check_duration(what, duration)?;
    }
    match (probe.successes_min, probe.failures_max) {
        (0, _) => Err(InvalidManifest::Never { what: "number of successes" }),
        (_, 0) => Err(InvalidManifest::Never { what: "number of failures" }),
        _ => Ok(()),
    }
}

const fn check_port(port: u16) -> Result<(), InvalidManifest> {
    if port == 0 { Err(InvalidManifest::Never { what: "port" }) } else { Ok(()) }
}

fn check_text(what: &'static str, text: &str, allowed: impl Fn(&str) -> bool) -> Result<(), InvalidManifest> {
    if allowed(text) { Ok(()) } else { Err(InvalidManifest::Text { what, text: text.to_owned() }) }
}

fn check_duration(what: &'static str, duration: Duration) -> Result<(), InvalidManifest> {
    let whole_ms = duration.subsec_nanos().is_multiple_of(1_000_000);
    if !whole_ms || duration.is_zero() || duration > limit::MANIFEST_DURATION_MAX {
        return Err(InvalidManifest::Duration { what, duration });
    }
    Ok(())
}

pub(crate) fn is_plain(text: &str) -> bool {
    !text.contains('\0')
}

fn is_file_name(text: &str) -> bool {
    let short = (1..=limit::SHORT_NAME_CHARS_MAX).contains(&text.len());
    let plain = text.chars().all(|character| character.is_ascii_alphanumeric() || ".-_+".contains(character));
    short && plain && !text.starts_with(['.', '-'])
}

pub(crate) fn is_environment_name(text: &str) -> bool {
    let short = (1..=limit::SHORT_NAME_CHARS_MAX).contains(&text.len());
    let plain = text.chars().all(|character| character.is_ascii_alphanumeric() || character == '_');
    short && plain && !text.starts_with(|character: char| character.is_ascii_digit())
}

fn is_user(text: &str) -> bool {
    let short = (1..=limit::SHORT_NAME_CHARS_MAX).contains(&text.len());
    short && !text.starts_with('-') && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}
