//! Configurations: what fills the names that a release's manifest leaves open.
//!
//! A [`Configuration`] is a small version of its own: values by the names of environment variables, and files, each by
//! the name of the variable that says where it lies. It travels inside desired documents, whose envelopes are signed,
//! beside the release that it goes with. Both together have one digest, that of [`pair_digest`]: what a device has, has
//! tried in vain, or is to have is compared by that.

use std::collections::BTreeMap;
use std::fmt;

use crate::codec::{ReadError, Reader, Writer};
use crate::id::ArtifactDigest;
use crate::limit;
use crate::name::{ConfigurationName, ParseNameError, WorkloadName};
use crate::release::{EnvironmentValue, Manifest, is_environment_name, is_plain};

/// The version of the layout of a configuration's bytes.
const LAYOUT: u8 = 1;
/// Starts what the digest of a release with a configuration is taken of.
const PAIR_TAG: &[u8] = b"fleetd/pair/1\0";

/// The digest of what a device is to have of a workload: that of the signed manifest alone, or else one over it and its
/// configuration.
#[must_use]
pub fn pair_digest(manifest: ArtifactDigest, configuration: Option<ArtifactDigest>) -> ArtifactDigest {
    match configuration {
        None => manifest,
        Some(configuration) => {
            let parts = [PAIR_TAG, manifest.as_bytes().as_slice(), configuration.as_bytes().as_slice()];
            ArtifactDigest::of(&parts.concat())
        }
    }
}

/// A configuration's file: an artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfiguredFile {
    /// What it hashes to.
    pub digest: ArtifactDigest,
    /// How many bytes it has.
    pub size_bytes: u64,
}

/// What says which configuration something is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigurationId {
    /// Its name.
    pub name: ConfigurationName,
    /// The digest of its bytes.
    pub digest: ArtifactDigest,
}

impl fmt::Display for ConfigurationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.digest)
    }
}

impl ConfigurationId {
    /// Reads what [`fmt::Display`] writes.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let (name, digest) = text.split_once(' ')?;
        Some(Self { name: name.parse().ok()?, digest: digest.parse().ok()? })
    }
}

/// What no configuration may say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfiguration {
    /// It fills nothing.
    #[error("a configuration needs at least one value or file")]
    Empty,
    /// Its values are too large.
    #[error("the values have {length} bytes together; they may have {length_max}: what is larger goes into a file")]
    Values {
        /// What they have.
        length: usize,
        /// What they may have.
        length_max: usize,
    },
    /// It is too large with its names and the digests of its files.
    #[error("the configuration has {length} bytes with its names and its files' digests; it may have {length_max}")]
    TooLarge {
        /// What it has.
        length: usize,
        /// What it may have.
        length_max: usize,
    },
    /// One name for a value and a file.
    #[error("{name} is given as a value and as a file")]
    Twice {
        /// The name.
        name: String,
    },
    /// No environment variable is called that.
    #[error("{name:?} cannot be the name of an environment variable")]
    Name {
        /// The name.
        name: String,
    },
    /// No environment variable has such a value.
    #[error("the value of {name} has a NUL")]
    Nul {
        /// The name.
        name: String,
    },
    /// A file of no bytes, or of more than a device holds.
    #[error("the file of {name} has {size_bytes} bytes; it may have 1 to {size_bytes_max}")]
    Size {
        /// The name.
        name: String,
        /// What it has.
        size_bytes: u64,
        /// What it may have.
        size_bytes_max: u64,
    },
}

/// Why bytes are no configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadConfigurationError {
    /// Larger than any.
    #[error("a configuration has at most {length_max} bytes, not {length}")]
    TooLarge {
        /// What there was.
        length: usize,
        /// What there may be.
        length_max: usize,
    },
    /// Written by a newer version.
    #[error("the configuration has layout {layout}; this version reads {LAYOUT}")]
    Newer {
        /// Its layout.
        layout: u8,
    },
    /// Not canonical.
    #[error("the bytes are no configuration")]
    Malformed(#[from] ReadError),
    /// Says something that no configuration may say.
    #[error("the configuration is invalid")]
    Invalid(#[from] InvalidConfiguration),
}

/// A configuration does not fit a release: it fills names that the manifest does not leave open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("configuration {configuration} fills {}; {}", Listed(names), Open { release, open })]
pub struct UndeclaredError {
    /// The configuration.
    pub configuration: ConfigurationName,
    /// The release's version.
    pub release: String,
    /// The names, sorted.
    pub names: Vec<String>,
    /// The names that the manifest leaves open, sorted.
    pub open: Vec<String>,
}

struct Listed<'a>(&'a [String]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

struct Open<'a> {
    release: &'a str,
    open: &'a [String],
}

impl fmt::Display for Open<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { release, open } = self;
        if open.is_empty() {
            write!(f, "the manifest of {release} leaves no name open")
        } else {
            write!(f, "the manifest of {release} leaves only {} open", open.join(", "))
        }
    }
}

/// A version of what fills the names that a workload's manifest leaves open. It never changes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Configuration {
    workload: WorkloadName,
    name: ConfigurationName,
    values: BTreeMap<String, String>,
    files: BTreeMap<String, ConfiguredFile>,
    /// Of its encoding: it is compared far more often than it is made.
    digest: ArtifactDigest,
}

impl Configuration {
    /// Makes a configuration.
    ///
    /// # Errors
    /// [`InvalidConfiguration`] names the first thing that none may say.
    pub fn new(
        workload: WorkloadName,
        name: ConfigurationName,
        values: BTreeMap<String, String>,
        files: BTreeMap<String, ConfiguredFile>,
    ) -> Result<Self, InvalidConfiguration> {
        let digest = ArtifactDigest::from_bytes([0; ArtifactDigest::LENGTH]);
        let made = Self { workload, name, values, files, digest };
        made.check()?;
        Ok(Self { digest: ArtifactDigest::of(&made.encode()), ..made })
    }

    /// Whose it is.
    #[must_use]
    pub const fn workload(&self) -> &WorkloadName {
        &self.workload
    }

    /// What it is called.
    #[must_use]
    pub const fn name(&self) -> &ConfigurationName {
        &self.name
    }

    /// Its values, by the names of their variables.
    #[must_use]
    pub const fn values(&self) -> &BTreeMap<String, String> {
        &self.values
    }

    /// Its files, by the names of the variables that say where they lie.
    #[must_use]
    pub const fn files(&self) -> &BTreeMap<String, ConfiguredFile> {
        &self.files
    }

    /// The one encoding that it has.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(LAYOUT).text(self.workload.as_str()).text(self.name.as_str());
        writer.count(self.values.len());
        for (name, value) in &self.values {
            writer.text(name).text(value);
        }
        writer.count(self.files.len());
        for (name, file) in &self.files {
            writer.text(name).array(file.digest.as_bytes()).varint(file.size_bytes);
        }
        writer.finish()
    }

    /// Reads the encoding.
    ///
    /// # Errors
    /// [`ReadConfigurationError`] when there are too many bytes, of a newer layout, not canonical, or when they say what
    /// no configuration may.
    pub fn decode(bytes: &[u8]) -> Result<Self, ReadConfigurationError> {
        let length_max = limit::CONFIGURATION_BYTES_MAX;
        if bytes.len() > length_max {
            return Err(ReadConfigurationError::TooLarge { length: bytes.len(), length_max });
        }
        let mut reader = Reader::new(bytes);
        let layout = reader.u8("layout")?;
        if layout != LAYOUT {
            return Err(ReadConfigurationError::Newer { layout });
        }
        let workload = read_name(&mut reader, "workload")?;
        let name = read_name(&mut reader, "name")?;
        let value =
            |reader: &mut Reader<'_>| Ok(reader.text("value", limit::CONFIGURATION_VALUES_BYTES_MAX)?.to_owned());
        let values = read_named(&mut reader, value)?;
        let file = |reader: &mut Reader<'_>| {
            let digest = ArtifactDigest::from_bytes(reader.array("file digest")?);
            Ok(ConfiguredFile { digest, size_bytes: reader.varint("file size")? })
        };
        let files = read_named(&mut reader, file)?;
        reader.finish()?;
        Ok(Self::new(workload, name, values, files)?)
    }

    /// The digest of the encoding.
    #[must_use]
    pub const fn digest(&self) -> ArtifactDigest {
        self.digest
    }

    /// Its name and its digest.
    #[must_use]
    pub fn id(&self) -> ConfigurationId {
        ConfigurationId { name: self.name.clone(), digest: self.digest }
    }

    /// Checks that it fills only what a manifest leaves open.
    ///
    /// # Errors
    /// [`UndeclaredError`] names all that it may not fill.
    pub fn check_fits(&self, manifest: &Manifest) -> Result<(), UndeclaredError> {
        let is_open = |name: &String| manifest.environment.get(name) == Some(&EnvironmentValue::FromConfig);
        let mut names: Vec<_> = self.values.keys().chain(self.files.keys()).filter(|name| !is_open(name)).collect();
        if names.is_empty() {
            return Ok(());
        }
        names.sort();
        Err(UndeclaredError {
            configuration: self.name.clone(),
            release: manifest.version.to_string(),
            names: names.into_iter().cloned().collect(),
            open: manifest.environment.keys().filter(|name| is_open(name)).cloned().collect(),
        })
    }

    fn check(&self) -> Result<(), InvalidConfiguration> {
        if self.values.is_empty() && self.files.is_empty() {
            return Err(InvalidConfiguration::Empty);
        }
        if let Some(name) = self.values.keys().chain(self.files.keys()).find(|name| !is_environment_name(name)) {
            return Err(InvalidConfiguration::Name { name: name.clone() });
        }
        if let Some(name) = self.values.keys().find(|name| self.files.contains_key(*name)) {
            return Err(InvalidConfiguration::Twice { name: name.clone() });
        }
        if let Some((name, _)) = self.values.iter().find(|(_, value)| !is_plain(value)) {
            return Err(InvalidConfiguration::Nul { name: name.clone() });
        }
        let (length, length_max) = (self.values.values().map(String::len).sum(), limit::CONFIGURATION_VALUES_BYTES_MAX);
        if length > length_max {
            return Err(InvalidConfiguration::Values { length, length_max });
        }
        let size_bytes_max = limit::ARTIFACT_BYTES_MAX;
        if let Some((name, file)) = self.files.iter().find(|(_, file)| !(1..=size_bytes_max).contains(&file.size_bytes))
        {
            let (name, size_bytes) = (name.clone(), file.size_bytes);
            return Err(InvalidConfiguration::Size { name, size_bytes, size_bytes_max });
        }
        let (length, length_max) = (self.encode().len(), limit::CONFIGURATION_BYTES_MAX);
        if length > length_max {
            return Err(InvalidConfiguration::TooLarge { length, length_max });
        }
        Ok(())
    }
}

fn read_name<T>(reader: &mut Reader<'_>, what: &'static str) -> Result<T, ReadError>
where
    T: std::str::FromStr<Err = ParseNameError>,
{
    let text = reader.text(what, limit::SHORT_NAME_CHARS_MAX)?;
    text.parse().map_err(|_: ParseNameError| ReadError::Value { what, value: 0 })
}

/// Reads entries by their names, which must be in order.
fn read_named<T>(
    reader: &mut Reader<'_>,
    mut read: impl FnMut(&mut Reader<'_>) -> Result<T, ReadError>,
) -> Result<BTreeMap<String, T>, ReadError> {
    let mut entries = BTreeMap::new();
    for _ in 0..reader.count("entries", limit::MANIFEST_ENTRIES_MAX)? {
        let name = reader.text("environment name", limit::SHORT_NAME_CHARS_MAX)?.to_owned();
        if entries.last_key_value().is_some_and(|(last, _)| *last >= name) {
            return Err(ReadError::Value { what: "order of environment names", value: 0 });
        }
        entries.insert(name, read(reader)?);
    }
    Ok(entries)
}
