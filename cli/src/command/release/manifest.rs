//! A manifest from flags, and a signed one to and from the API's message.

use std::collections::BTreeMap;
use std::str::FromStr;

use fleetd_proto::fleetd::release::v1::SignedManifest as SignedManifestMessage;
use fleetd_sync_core::codec::Writer;
use fleetd_sync_core::id::{FleetId, KeyId};
use fleetd_sync_core::key::Signature;
use fleetd_sync_core::release::{
    Artifact, EnvironmentValue, InvalidManifest, Manifest, Probe, ProbeCheck, ReadReleaseError, SignedManifest,
};

use super::Push;
use super::artifact::LocalArtifact;

/// `NAME=VALUE`, or `NAME` for a value from the device's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvironmentArgument {
    /// The variable's name.
    pub name: String,
    /// Where its value comes from.
    pub value: EnvironmentValue,
}

impl FromStr for EnvironmentArgument {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.split_once('=') {
            Some((name, value)) => Self { name: name.to_owned(), value: EnvironmentValue::Fixed(value.to_owned()) },
            None => Self { name: text.to_owned(), value: EnvironmentValue::FromConfig },
        })
    }
}

/// How a device tells that a workload is well, as a flag names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeArgument(pub ProbeCheck);

impl FromStr for ProbeArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is none of alive, notify, tcp:PORT, http:PORT/PATH, exec:COMMAND");
        let port = |port: &str| port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong);
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        Ok(Self(match (kind, rest) {
            ("alive", "") => ProbeCheck::Alive,
            ("notify", "") => ProbeCheck::Notify,
            ("tcp", rest) => ProbeCheck::Tcp { port: port(rest)? },
            ("http", rest) => {
                let (number, path) = rest.split_once('/').unwrap_or((rest, ""));
                ProbeCheck::Http { port: port(number)?, path: format!("/{path}") }
            }
            ("exec", rest) if !rest.trim().is_empty() => {
                ProbeCheck::Exec { argv: rest.split_whitespace().map(str::to_owned).collect() }
            }
            _ => return Err(wrong()),
        }))
    }
}

/// Puts a manifest together.
pub(super) fn compose(push: &Push, fleet: FleetId, artifacts: &[LocalArtifact]) -> Manifest {
    let artifacts = artifacts.iter().map(|artifact| {
        let name = artifact.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let described =
            Artifact { digest: artifact.measured.digest, size_bytes: artifact.measured.size_bytes, file_name: name };
        (artifact.platform.clone(), described)
    });
    let environment: BTreeMap<String, EnvironmentValue> =
        push.environment.iter().map(|argument| (argument.name.clone(), argument.value.clone())).collect();
    Manifest {
        fleet,
        workload: push.release.workload.clone(),
        version: push.release.version.clone(),
        artifacts: artifacts.collect(),
        argv: push.arguments.clone(),
        environment,
        probe: Probe { check: push.probe.0.clone(), grace: push.grace, ..Probe::default() },
        user: push.user.clone(),
        stop_grace: push.stop_grace,
    }
}

/// Gives a signed manifest to a message.
///
/// # Errors
/// [`InvalidManifest`] when it says what no release may; a signed one never does.
pub(super) fn to_message(signed: &SignedManifest) -> Result<SignedManifestMessage, InvalidManifest> {
    let encoded = signed.encode();
    let signature = encoded.last_chunk::<{ Signature::LENGTH }>().map(|bytes| bytes.to_vec()).unwrap_or_default();
    let manifest = signed.claims().encode()?;
    Ok(SignedManifestMessage { manifest, key_id: signed.key().to_string(), signature })
}

/// Why a message holds no signed manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FromMessageError {
    /// The key is no id.
    #[error("the signer's id is none")]
    Key(#[from] fleetd_sync_core::id::ParseIdError),
    /// The signature has another length.
    #[error("the signature has {length} bytes, not {}", Signature::LENGTH)]
    Signature {
        /// What it has.
        length: usize,
    },
    /// The manifest cannot be read.
    #[error("the manifest cannot be read")]
    Read(#[from] ReadReleaseError),
}

/// Takes a signed manifest from a message. Whether its signature counts is not decided here.
pub(super) fn from_message(message: &SignedManifestMessage) -> Result<SignedManifest, FromMessageError> {
    let key: KeyId = message.key_id.parse()?;
    let signature: [u8; Signature::LENGTH] = message
        .signature
        .as_slice()
        .try_into()
        .map_err(|_| FromMessageError::Signature { length: message.signature.len() })?;
    let mut writer = Writer::new();
    writer.bytes(&message.manifest).array(key.as_bytes()).array(&signature);
    Ok(SignedManifest::decode(&writer.finish())?)
}

#[cfg(test)]
mod tests {
    use fleetd_sync_core::entropy::Entropy;
    use fleetd_sync_core::id::ArtifactDigest;
    use fleetd_sync_core::key::SecretKey;
    use fleetd_sync_core::name::Platform;

    use super::*;

    #[test]
    fn a_signed_manifest_survives_its_message() {
        let key = SecretKey::generate(&mut Entropy::from_seed([4; 32]));
        let artifact = Artifact { digest: ArtifactDigest::of(b"x"), size_bytes: 1, file_name: "coffee".to_owned() };
        let manifest = Manifest {
            fleet: FleetId::from_bytes([1; 16]),
            workload: "coffee".parse().unwrap(),
            version: "1.8.0".parse().unwrap(),
            artifacts: BTreeMap::from([(Platform::any(), artifact)]),
            argv: vec!["--port=80".to_owned()],
            environment: BTreeMap::new(),
            probe: Probe::default(),
            user: None,
            stop_grace: std::time::Duration::from_secs(1),
        };
        let signed = manifest.sign(&key).unwrap();
        let mut message = to_message(&signed).unwrap();
        assert_eq!(from_message(&message), Ok(signed));
        message.signature.pop();
        assert_eq!(from_message(&message), Err(FromMessageError::Signature { length: 63 }));
    }

    #[test]
    fn probes_are_read_as_they_are_written() {
        let read = |text: &str| text.parse::<ProbeArgument>().map(|probe| probe.0);
        assert_eq!(read("alive"), Ok(ProbeCheck::Alive));
        assert_eq!(read("notify"), Ok(ProbeCheck::Notify));
        assert_eq!(read("tcp:80"), Ok(ProbeCheck::Tcp { port: 80 }));
        assert_eq!(read("http:80/a/b?c"), Ok(ProbeCheck::Http { port: 80, path: "/a/b?c".to_owned() }));
        assert_eq!(read("http:80"), Ok(ProbeCheck::Http { port: 80, path: "/".to_owned() }));
        assert_eq!(read("exec:/bin/true -v"), Ok(ProbeCheck::Exec { argv: vec!["/bin/true".into(), "-v".into()] }));
        for text in ["", "tcp", "tcp:0", "tcp:70000", "exec:", "exec: ", "alive:1", "ping"] {
            assert!(read(text).is_err(), "{text:?}");
        }
    }
}
