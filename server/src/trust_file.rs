//! The copy of trust that lies beside the keys: what a server must know again that has lost its store.
//!
//! It holds the whole root chain, so that delegations outlive the store and no second record of one version is taken,
//! and the trust document's envelopes, so that no revocation is forgotten. It is replaced as a whole.

pub mod disk;
#[cfg(test)]
mod fuzz;
pub mod memory;

use fleetd_actors::authority::KeptTrust;
use fleetd_sync_core::codec::{Reader, Writer};
use fleetd_sync_core::limit;
use fleetd_sync_core::trust::{
    Armoured, ExtendError, LoadChainError, ReadArmourError, ReadRecordError, RootChain, RootRecord,
};

use crate::keys::OpenKeysError;

/// The layout of the copy's bytes.
const LAYOUT: u8 = 1;
/// Root records that a copy may hold: a root that is changed daily for ten years.
const RECORDS_MAX: usize = 4096;
/// Envelopes that a copy may hold: every lane's epoch, with the openers below it.
const ENVELOPES_MAX: usize = 1024;

/// Why the copy cannot be read or replaced.
#[derive(Debug, thiserror::Error)]
pub enum TrustFileError {
    /// The file cannot be used.
    #[error("the copy of trust beside the keys cannot be used")]
    File(#[from] OpenKeysError),
    /// Its records are no chain of this fleet.
    #[error("the copy of trust beside the keys holds no chain of this fleet")]
    Chain(#[from] LoadChainError),
    /// The first record founds no fleet.
    #[error("the first root record founds no fleet")]
    First(#[from] ExtendError),
    /// It has what the new one lacks, and only goes forward.
    #[error("the copy of trust beside the keys has root record {kept}, and its successor would not follow from it")]
    Backward {
        /// Its newest version.
        kept: u64,
    },
}

/// Keeps the copy.
pub trait TrustFile: Send + Sync + 'static {
    /// Reads the copy; the first root record alone where there is none yet.
    ///
    /// # Errors
    /// [`TrustFileError`] when there is one, and it is damaged or another fleet's.
    fn read(&self) -> Result<KeptTrust, TrustFileError>;

    /// Replaces the copy, durably.
    ///
    /// # Errors
    /// [`TrustFileError::Backward`] when the chain does not go on where the copy's ends, and what the disk says. The
    /// copy is as it was then.
    fn write(&self, kept: &KeptTrust) -> Result<(), TrustFileError>;
}

/// The chain of a fleet of which nothing but the first record is known.
fn founded(first: &RootRecord) -> Result<KeptTrust, TrustFileError> {
    Ok(KeptTrust { chain: RootChain::found(first.body().fleet, first.clone())?, envelopes: Vec::new() })
}

/// Checks that a chain goes on where another ends.
fn check_forward(before: &RootChain, after: &RootChain) -> Result<(), TrustFileError> {
    let goes_on = before.records().all(|record| after.record(record.body().version) == Some(record));
    if goes_on { Ok(()) } else { Err(TrustFileError::Backward { kept: before.version() }) }
}

/// The copy's records and envelopes, which nobody has judged yet.
struct Encoded {
    records: Vec<Vec<u8>>,
    envelopes: Vec<Vec<u8>>,
}

impl Encoded {
    fn of(kept: &KeptTrust) -> Self {
        let records = kept.chain.records().map(RootRecord::encode).collect();
        Self { records, envelopes: kept.envelopes.iter().map(|envelope| envelope.to_vec()).collect() }
    }
}

impl Armoured for Encoded {
    const LABEL: &'static str = "TRUST";

    fn to_armour_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(LAYOUT);
        for list in [&self.records, &self.envelopes] {
            writer.count(list.len());
            for bytes in list {
                writer.bytes(bytes);
            }
        }
        writer.finish()
    }

    fn from_armour_bytes(bytes: &[u8]) -> Result<Self, ReadArmourError> {
        read_encoded(bytes).map_err(ReadArmourError::Record)
    }
}

fn read_encoded(bytes: &[u8]) -> Result<Encoded, ReadRecordError> {
    let mut reader = Reader::new(bytes);
    match reader.u8("layout")? {
        LAYOUT => {}
        layout => return Err(ReadRecordError::Newer { layout }),
    }
    let records = read_list(&mut reader, RECORDS_MAX, limit::ROOT_RECORD_BYTES_MAX)?;
    let envelopes = read_list(&mut reader, ENVELOPES_MAX, limit::SNAPSHOT_BYTES_MAX)?;
    reader.finish()?;
    Ok(Encoded { records, envelopes })
}

fn read_list(reader: &mut Reader<'_>, count_max: usize, bytes_max: usize) -> Result<Vec<Vec<u8>>, ReadRecordError> {
    let count = reader.count("list", count_max)?;
    (0..count).map(|_| Ok(reader.bytes("entry", bytes_max)?.to_vec())).collect()
}
