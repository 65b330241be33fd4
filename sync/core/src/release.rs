//! Releases: what a developer signs, and what a device checks before a byte of it runs.
//!
//! A [`Manifest`] says everything that a device needs to fetch, start and judge one version of a workload. Signed by
//! a key that the root delegated for that workload it is a [`SignedManifest`], whose digest desired documents hold.
//! Only [`SignedManifest::verify`] turns it into something that may be acted on.

mod layout;
mod probe;

use std::collections::BTreeMap;
use std::time::Duration;

pub use layout::{InvalidManifest, ReadReleaseError};
pub(crate) use layout::{is_environment_name, is_plain};
pub use probe::{Probe, ProbeCheck};

use crate::codec::{Reader, Writer};
use crate::id::{ArtifactDigest, FleetId, KeyId};
use crate::key::{Domain, SecretKey, Signature, VerifyError};
use crate::limit;
use crate::name::{Platform, Version, WorkloadName};
use crate::trust::{Roster, Standing};

/// One platform's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// What they hash to.
    pub digest: ArtifactDigest,
    /// How many there are.
    pub size_bytes: u64,
    /// What the file is called on the device.
    pub file_name: String,
}

/// Where an environment variable's value comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EnvironmentValue {
    /// From the manifest.
    Fixed(String),
    /// From the device's configuration, which may fill the names that the manifest declares and no others.
    FromConfig,
}

/// Everything that a device needs to fetch, start and judge one version of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The fleet: a release of another is worth nothing here.
    pub fleet: FleetId,
    /// The workload.
    pub workload: WorkloadName,
    /// Its version.
    pub version: Version,
    /// The program, for each platform that it was built for.
    pub artifacts: BTreeMap<Platform, Artifact>,
    /// The program's arguments; the program itself is the artifact.
    pub argv: Vec<String>,
    /// The environment variables that it is given.
    pub environment: BTreeMap<String, EnvironmentValue>,
    /// How a device tells that it is well.
    pub probe: Probe,
    /// The user that it runs as; the agent's own when there is none.
    pub user: Option<String>,
    /// Time between TERM and KILL. Whole milliseconds.
    pub stop_grace: Duration,
}

impl Manifest {
    /// The artifact for a platform: its own, or else the one for any.
    #[must_use]
    pub fn artifact_for(&self, platform: &Platform) -> Option<(&Platform, &Artifact)> {
        let own = self.artifacts.get_key_value(platform);
        own.or_else(|| self.artifacts.iter().find(|(built_for, _)| built_for.runs_on(platform)))
    }

    /// The canonical bytes, which a signature covers.
    ///
    /// # Errors
    /// [`InvalidManifest`] names the first thing that no release may say.
    pub fn encode(&self) -> Result<Vec<u8>, InvalidManifest> {
        layout::check(self)?;
        let bytes = layout::encode(self);
        if bytes.len() > limit::MANIFEST_BYTES_MAX {
            return Err(InvalidManifest::TooLarge { length: bytes.len(), length_max: limit::MANIFEST_BYTES_MAX });
        }
        Ok(bytes)
    }

    /// Reads canonical bytes.
    ///
    /// # Errors
    /// [`ReadReleaseError`] when they are too many, of a newer layout, not canonical, or say what no release may.
    pub fn decode(bytes: &[u8]) -> Result<Self, ReadReleaseError> {
        layout::decode(bytes)
    }

    /// Signs the manifest.
    ///
    /// # Errors
    /// [`InvalidManifest`] names the first thing that no release may say.
    pub fn sign(self, key: &SecretKey) -> Result<SignedManifest, InvalidManifest> {
        let bytes = self.encode()?;
        let signature = key.sign(Domain::Release, &bytes);
        Ok(SignedManifest { manifest: self, bytes, key: key.id(), signature })
    }
}

/// What a release is verified for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To be published, planned or installed as something new.
    Install,
    /// To be restored, or started again, where it was installed before.
    Restore,
}

/// Why a release is not acted on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyReleaseError {
    /// It is another fleet's.
    #[error("the release is for fleet {found}, not {expected}")]
    ForeignFleet {
        /// This fleet.
        expected: FleetId,
        /// The release's.
        found: FleetId,
    },
    /// It is another workload's.
    #[error("the release is of workload {found}, not {expected}")]
    WrongWorkload {
        /// The workload that it was offered for.
        expected: WorkloadName,
        /// The release's.
        found: WorkloadName,
    },
    /// The root never let this key sign this workload.
    #[error("{key} was never delegated to sign releases of {workload}")]
    Undelegated {
        /// The key.
        key: KeyId,
        /// The workload.
        workload: WorkloadName,
    },
    /// The key signs no new releases any more.
    #[error("{key} is retired: it admits no new release of {workload}")]
    Retired {
        /// The key.
        key: KeyId,
        /// The workload.
        workload: WorkloadName,
    },
    /// Somebody else may hold the key.
    #[error("{key} is compromised: no release of {workload} that it signed is installed or restored")]
    Compromised {
        /// The key.
        key: KeyId,
        /// The workload.
        workload: WorkloadName,
    },
    /// An authority denied this release.
    #[error("release {release} is denied: {reason}")]
    Denied {
        /// The release.
        release: ArtifactDigest,
        /// Why, for people.
        reason: String,
    },
    /// It was changed after it was signed.
    #[error("the release of {workload} is not what {key} signed")]
    Signature {
        /// The key that it names.
        key: KeyId,
        /// The workload.
        workload: WorkloadName,
        /// What is wrong with it.
        source: VerifyError,
    },
}

/// A release whose signature counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// What was signed.
    pub manifest: Manifest,
    /// The release's digest, by which documents name it.
    pub digest: ArtifactDigest,
    /// Who signed.
    pub key: KeyId,
    /// What the signature is worth.
    pub standing: Standing,
}

/// A manifest and its signature, as they travel and are stored. What it says is a claim until it is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedManifest {
    manifest: Manifest,
    bytes: Vec<u8>,
    key: KeyId,
    signature: Signature,
}

impl SignedManifest {
    /// What the manifest claims, before anybody has checked who says so: for showing, never for acting on.
    #[must_use]
    pub const fn claims(&self) -> &Manifest {
        &self.manifest
    }

    /// The key that claims to have signed.
    #[must_use]
    pub const fn key(&self) -> KeyId {
        self.key
    }

    /// The digest of all its bytes, by which desired documents name the release.
    #[must_use]
    pub fn digest(&self) -> ArtifactDigest {
        ArtifactDigest::of(&self.encode())
    }

    /// The bytes, for the wire and the disk.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.bytes(&self.bytes).array(self.key.as_bytes()).array(self.signature.as_bytes());
        writer.finish()
    }

    /// Reads a signed manifest. Whether its signature counts is not decided here.
    ///
    /// # Errors
    /// Those of [`Manifest::decode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ReadReleaseError> {
        let mut reader = Reader::new(bytes);
        let manifest_bytes = reader.bytes("manifest", limit::MANIFEST_BYTES_MAX)?.to_vec();
        let key = KeyId::from_bytes(reader.array("signer")?);
        let signature = reader.array::<{ Signature::LENGTH }>("signature")?;
        reader.finish()?;
        let signature = Signature::from_slice(&signature).ok_or(layout::NO_SIGNATURE)?;
        Ok(Self { manifest: Manifest::decode(&manifest_bytes)?, bytes: manifest_bytes, key, signature })
    }

    /// Checks that this is a release of `workload` that may be used for `purpose`.
    ///
    /// # Errors
    /// [`VerifyReleaseError`] says why it may not.
    pub fn verify(
        &self,
        workload: &WorkloadName,
        purpose: Purpose,
        roster: &Roster,
    ) -> Result<Verified, VerifyReleaseError> {
        let (key, found) = (self.key, &self.manifest.workload);
        if self.manifest.fleet != roster.fleet() {
            return Err(VerifyReleaseError::ForeignFleet { expected: roster.fleet(), found: self.manifest.fleet });
        }
        if found != workload {
            return Err(VerifyReleaseError::WrongWorkload { expected: workload.clone(), found: found.clone() });
        }
        let workload = workload.clone();
        let Some((public_key, standing)) = roster.release_key(key, &workload) else {
            return Err(VerifyReleaseError::Undelegated { key, workload });
        };
        if let Err(source) = public_key.verify(Domain::Release, &self.bytes, &self.signature) {
            return Err(VerifyReleaseError::Signature { key, workload, source });
        }
        let digest = self.digest();
        match (standing, purpose) {
            (Standing::Compromised | Standing::Stopped, _) => {
                return Err(VerifyReleaseError::Compromised { key, workload });
            }
            (Standing::Retired, Purpose::Install) => return Err(VerifyReleaseError::Retired { key, workload }),
            (Standing::Active, _) | (Standing::Retired, Purpose::Restore) => {}
        }
        if let Some(reason) = roster.denial(digest) {
            return Err(VerifyReleaseError::Denied { release: digest, reason: reason.to_owned() });
        }
        Ok(Verified { manifest: self.manifest.clone(), digest, key, standing })
    }
}
