//! The copy of trust in memory: what outlives a store in a simulation.

use std::sync::{Mutex, PoisonError};

use fleetd_actors::authority::KeptTrust;
use fleetd_sync_core::trust::RootRecord;

use super::{TrustFile, TrustFileError, check_forward, founded};

/// The copy of trust in memory.
#[derive(Debug)]
pub struct MemoryTrustFile {
    kept: Mutex<KeptTrust>,
}

impl MemoryTrustFile {
    /// A copy with nothing but the first record.
    ///
    /// # Errors
    /// [`TrustFileError::First`] when that founds no fleet.
    pub fn new(first: &RootRecord) -> Result<Self, TrustFileError> {
        Ok(Self { kept: Mutex::new(founded(first)?) })
    }

    /// Puts an older copy in its place, as who restores the keys from a backup does.
    pub fn restore(&self, kept: KeptTrust) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = kept;
    }
}

impl TrustFile for MemoryTrustFile {
    fn read(&self) -> Result<KeptTrust, TrustFileError> {
        Ok(self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn write(&self, kept: &KeptTrust) -> Result<(), TrustFileError> {
        let mut present = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        check_forward(&present.chain, &kept.chain)?;
        present.clone_from(kept);
        Ok(())
    }
}
