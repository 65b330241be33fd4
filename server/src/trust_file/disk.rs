//! The copy of trust as a file.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use fleetd_actors::authority::KeptTrust;
use fleetd_sync_core::trust::{Armoured as _, RootChain, RootRecord};

use super::{Encoded, TrustFile, TrustFileError, check_forward, founded};
use crate::keys;

/// The copy of trust as a file.
#[derive(Debug)]
pub struct DiskTrustFile {
    path: PathBuf,
    first: RootRecord,
    writing: Mutex<()>,
}

impl DiskTrustFile {
    pub(crate) fn new(path: PathBuf, first: RootRecord) -> Self {
        Self { path, first, writing: Mutex::new(()) }
    }
}

impl TrustFile for DiskTrustFile {
    fn read(&self) -> Result<KeptTrust, TrustFileError> {
        let Some(Encoded { records, envelopes }) = keys::read(&self.path)? else { return founded(&self.first) };
        let chain = RootChain::load(self.first.body().fleet, records)?;
        Ok(KeptTrust { chain, envelopes: envelopes.into_iter().map(Arc::from).collect() })
    }

    fn write(&self, kept: &KeptTrust) -> Result<(), TrustFileError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        check_forward(&self.read()?.chain, &kept.chain)?;
        Ok(keys::write(&self.path, &Encoded::of(kept).to_armour())?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use fleetd_sync_core::entropy::Entropy;
    use fleetd_sync_core::key::SecretKey;
    use fleetd_sync_core::trust::{Change, Role};

    use super::*;
    use crate::keys::{Keys, OpenKeysError};

    fn keys_in(folder: &tempfile::TempDir) -> Keys {
        Keys::open_or_create(&folder.path().join("keys"), &mut Entropy::from_seed([1; 32])).unwrap()
    }

    /// The chain with one more record, which delegates the key of `seed`.
    fn extended(kept: &KeptTrust, keys: &Keys, seed: u8) -> KeptTrust {
        let key = SecretKey::generate(&mut Entropy::from_seed([seed; 32]));
        let role = Role::Release { workloads: BTreeSet::from(["coffee".parse().unwrap()]) };
        let mut next = kept.clone();
        let record = next.chain.draft_next([Change::Delegate { key: key.public(), role }]).unwrap();
        next.chain.extend(record.sign(keys.root().unwrap())).unwrap();
        next
    }

    #[test]
    fn what_was_written_is_read_again_and_before_that_there_is_the_first_record() {
        let folder = tempfile::tempdir().unwrap();
        let keys = keys_in(&folder);
        let first = keys.trust_file().read().unwrap();
        assert_eq!((first.chain.version(), first.envelopes.len()), (1, 0));
        let mut next = extended(&first, &keys, 2);
        next.envelopes.push(Arc::from(b"as it came".as_slice()));
        keys.trust_file().write(&next).unwrap();
        assert_eq!(keys_in(&folder).trust_file().read().unwrap(), next);
    }

    #[test]
    fn it_only_goes_forward() {
        let folder = tempfile::tempdir().unwrap();
        let keys = keys_in(&folder);
        let file = keys.trust_file();
        let first = file.read().unwrap();
        let (second, rival) = (extended(&first, &keys, 2), extended(&first, &keys, 3));
        file.write(&second).unwrap();
        for backward in [&first, &rival, &extended(&rival, &keys, 4)] {
            assert!(matches!(file.write(backward), Err(TrustFileError::Backward { kept: 2 })));
        }
        assert_eq!(file.read().unwrap(), second);
    }

    #[test]
    fn a_file_that_was_cut_is_found_out() {
        let folder = tempfile::tempdir().unwrap();
        let keys = keys_in(&folder);
        let file = keys.trust_file();
        file.write(&extended(&file.read().unwrap(), &keys, 2)).unwrap();
        let path = folder.path().join("keys/fleet.trust");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, &text[..text.len() / 2]).unwrap();
        assert!(matches!(file.read(), Err(TrustFileError::File(OpenKeysError::Damaged { .. }))));
        let whole = file.write(&file_of(&keys));
        assert!(whole.is_err(), "what cannot be read is not overwritten");
    }

    fn file_of(keys: &Keys) -> KeptTrust {
        founded(keys.first_record()).unwrap()
    }
}
