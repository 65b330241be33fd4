//! The file that says of a release's folder: these bytes were verified, and this was the verdict.

use fleetd_sync_core::id::ArtifactDigest;

use crate::install::Staging;

/// Starts the file; the digit is the layout's version.
const MAGIC: &[u8; 8] = b"FLVERDT1";
/// Starts one that speaks of a configuration, too.
const MAGIC_CONFIGURED: &[u8; 8] = b"FLVERDT2";
/// Bytes of the checksum that ends it.
const CHECKSUM_BYTES: usize = 16;

/// What was verified, and what was said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) artifact: ArtifactDigest,
    pub(crate) artifact_bytes: u64,
    pub(crate) manifest_hash: [u8; 32],
    pub(crate) configuration: Option<ArtifactDigest>,
    /// In the caller's own encoding.
    pub(crate) statement: Vec<u8>,
}

impl Verdict {
    pub(crate) fn of(staging: &Staging, artifact_bytes: u64) -> Self {
        Self {
            artifact: staging.slot.artifact,
            artifact_bytes,
            manifest_hash: *blake3::hash(&staging.manifest).as_bytes(),
            configuration: staging.slot.configuration,
            statement: staging.verdict.clone(),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = if self.configuration.is_some() { MAGIC_CONFIGURED } else { MAGIC }.to_vec();
        bytes.extend_from_slice(self.artifact.as_bytes());
        bytes.extend_from_slice(&self.artifact_bytes.to_le_bytes());
        bytes.extend_from_slice(&self.manifest_hash);
        bytes.extend(self.configuration.iter().flat_map(|configuration| configuration.as_bytes()));
        bytes.extend_from_slice(&self.statement);
        let checksum = blake3::hash(&bytes);
        bytes.extend(checksum.as_bytes().iter().take(CHECKSUM_BYTES));
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
        if !blake3::hash(body).as_bytes().starts_with(checksum) {
            return None;
        }
        let (magic, rest) = body.split_first_chunk::<8>()?;
        let (artifact, rest) = rest.split_first_chunk::<32>()?;
        let (artifact_bytes, rest) = rest.split_first_chunk::<8>()?;
        let (manifest_hash, rest) = rest.split_first_chunk::<32>()?;
        let (configuration, statement) = match magic {
            MAGIC => (None, rest),
            MAGIC_CONFIGURED => {
                let (configuration, statement) = rest.split_first_chunk::<32>()?;
                (Some(ArtifactDigest::from_bytes(*configuration)), statement)
            }
            _ => return None,
        };
        Some(Self {
            artifact: ArtifactDigest::from_bytes(*artifact),
            artifact_bytes: u64::from_le_bytes(*artifact_bytes),
            manifest_hash: *manifest_hash,
            configuration,
            statement: statement.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_survives_its_bytes_and_no_flipped_bit() {
        for configuration in [None, Some(ArtifactDigest::of(b"roast-2"))] {
            let verdict = Verdict {
                artifact: ArtifactDigest::of(b"coffee"),
                artifact_bytes: 6,
                manifest_hash: [7; 32],
                configuration,
                statement: b"signed by key_1".to_vec(),
            };
            let bytes = verdict.encode();
            assert_eq!(Verdict::decode(&bytes), Some(verdict));
            for at in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1;
                assert_eq!(Verdict::decode(&damaged), None, "byte {at}");
                assert_eq!(Verdict::decode(&bytes[..at]), None, "cut at {at}");
            }
        }
    }
}
