//! The twin of the identity's files, in memory: each part is stored whole or not at all, as an A/B file does it.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fleetd_sync_store::ab_file::{LoadAbFileError, StoreAbFileError};

use super::{IdentityPart, IdentityPlace};

/// What is stored of an identity, as a backup of the whole device would copy it.
pub type IdentityImage = BTreeMap<IdentityPart, Vec<u8>>;

/// The parts of an identity in memory. Clones are the same files.
#[derive(Clone, Debug, Default)]
pub struct MemoryIdentityFiles {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    parts: IdentityImage,
    fault: Option<io::ErrorKind>,
}

impl MemoryIdentityFiles {
    /// A copy of what is stored.
    #[must_use]
    pub fn image(&self) -> IdentityImage {
        self.state().parts.clone()
    }

    /// Puts a copy in place of what is stored. Do so while no store is open on it.
    pub fn restore(&self, image: IdentityImage) {
        self.state().parts = image;
    }

    /// Makes each write fail like this from now on, or none any more.
    pub fn fail_with(&self, fault: Option<io::ErrorKind>) {
        self.state().fault = fault;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one step, so a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IdentityPlace for MemoryIdentityFiles {
    fn load(&self, part: IdentityPart) -> Result<Option<Vec<u8>>, LoadAbFileError> {
        Ok(self.state().parts.get(&part).cloned())
    }

    fn store(&self, part: IdentityPart, bytes: &[u8]) -> Result<(), StoreAbFileError> {
        let mut state = self.state();
        if let Some(kind) = state.fault {
            return Err(StoreAbFileError::Io { path: PathBuf::from("memory"), source: kind.into() });
        }
        state.parts.insert(part, bytes.to_vec());
        Ok(())
    }
}
