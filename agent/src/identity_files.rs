//! Who this device is, outside the database: its key, the root chain, the trust document, the floors and its enrolment.
//!
//! Each lies in a checksummed A/B file of its own in `DATA/identity`, so that neither a power cut nor a lost database
//! makes the device a stranger. The directory is 0700 and the files are 0600. What they hold is in the caller's own
//! encoding, but for the key, which is made here, on the device, and never leaves it.
//!
//! [`IdentityPlace`] is the seam before the parts: [`memory`] has the simulator's twin.

pub mod memory;

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _};
use fleetd_sync_store::ab_file::{AbFile, LoadAbFileError, StoreAbFileError};

/// Something that the device keeps of its identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IdentityPart {
    /// The root records, from the first on.
    RootChain,
    /// The trust document's envelopes: what authorities revoked and denied.
    TrustDocument,
    /// What the device must not fall below: its trust version, and what it may not forget of its workloads.
    Floors,
    /// What the server gave at enrolment: certificate, CA, addresses, device id and name.
    Enrolment,
}

impl IdentityPart {
    /// Every part, in the order of their names.
    pub const ALL: [Self; 4] = [Self::RootChain, Self::TrustDocument, Self::Floors, Self::Enrolment];

    const fn file_name(self) -> &'static str {
        match self {
            Self::RootChain => "root-chain",
            Self::TrustDocument => "trust-document",
            Self::Floors => "floors",
            Self::Enrolment => "enrolment",
        }
    }
}

/// Why identity files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenIdentityError {
    /// The directory cannot be created or closed to others.
    #[error("{} cannot be made private", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// Why the device's key cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DeviceKeyError {
    /// Both copies are damaged, or the disk failed. No other key is made in its place: that would be another device.
    #[error("the device's key cannot be read")]
    Load(#[from] LoadAbFileError),
    /// The file is whole and holds no Ed25519 key.
    #[error("{} holds no Ed25519 key in PKCS#8", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The operating system gives no randomness to make one from.
    #[error("a key cannot be made: {cause}")]
    Entropy {
        /// What it said.
        cause: String,
    },
    /// The new key cannot be stored.
    #[error("the device's new key cannot be stored")]
    Store(#[from] StoreAbFileError),
}

/// Where the parts of an identity are kept.
pub trait IdentityPlace: Send + Sync + 'static {
    /// Reads a part; `None` when it has never been stored.
    ///
    /// # Errors
    /// When both copies are damaged, or the disk fails.
    fn load(&self, part: IdentityPart) -> Result<Option<Vec<u8>>, LoadAbFileError>;

    /// Stores a part durably; until that is done the one before it stands.
    ///
    /// # Errors
    /// When it is too large, or the disk fails.
    fn store(&self, part: IdentityPart, bytes: &[u8]) -> Result<(), StoreAbFileError>;
}

/// The files of a device's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityFiles {
    directory: PathBuf,
}

/// A device's key as its file holds it: PKCS#8, in DER.
#[derive(Clone, PartialEq, Eq)]
pub struct DeviceKey {
    pkcs8: Vec<u8>,
    signing: SigningKey,
}

impl std::fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DeviceKey")
    }
}

impl DeviceKey {
    /// The key, to sign with.
    #[must_use]
    pub fn signing(&self) -> &SigningKey {
        &self.signing
    }

    /// The key as TLS wants it.
    #[must_use]
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }
}

impl IdentityFiles {
    /// Opens the directory, created if it is not there and closed to everybody else.
    ///
    /// # Errors
    /// [`OpenIdentityError::Directory`] when that is not possible.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self, OpenIdentityError> {
        let directory = directory.into();
        let prepare = || {
            DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
            fs::set_permissions(&directory, Permissions::from_mode(0o700))?;
            match directory.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
                _ => Ok(()),
            }
        };
        prepare().map_err(|source| OpenIdentityError::Directory { path: directory.clone(), source })?;
        Ok(Self { directory })
    }

    /// Names the directory, to look into it: nothing is created or closed.
    #[must_use]
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn key_path(&self) -> PathBuf {
        self.directory.join("device-key")
    }

    /// Reads the device's key, or makes it if the device has none yet.
    ///
    /// # Errors
    /// As [`DeviceKeyError`] says. A damaged key is never replaced.
    pub fn device_key(&self) -> Result<DeviceKey, DeviceKeyError> {
        if let Some(key) = self.stored_device_key()? {
            return Ok(key);
        }
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| DeviceKeyError::Entropy { cause: error.to_string() })?;
        let signing = SigningKey::from_bytes(&secret);
        let document = signing.to_pkcs8_der().map_err(|error| DeviceKeyError::Entropy { cause: error.to_string() })?;
        let pkcs8 = document.as_bytes().to_vec();
        AbFile::new(self.key_path()).store(&pkcs8)?;
        Ok(DeviceKey { pkcs8, signing })
    }

    /// Reads the device's key; `None` when it has never had one.
    ///
    /// # Errors
    /// [`DeviceKeyError::Load`] and [`DeviceKeyError::NoKey`].
    pub fn stored_device_key(&self) -> Result<Option<DeviceKey>, DeviceKeyError> {
        let Some(pkcs8) = AbFile::new(self.key_path()).read()? else { return Ok(None) };
        let signing =
            SigningKey::from_pkcs8_der(&pkcs8).map_err(|_error| DeviceKeyError::NoKey { path: self.key_path() })?;
        Ok(Some(DeviceKey { pkcs8, signing }))
    }
}

impl IdentityPlace for IdentityFiles {
    fn load(&self, part: IdentityPart) -> Result<Option<Vec<u8>>, LoadAbFileError> {
        AbFile::new(self.directory.join(part.file_name())).read()
    }

    fn store(&self, part: IdentityPart, bytes: &[u8]) -> Result<(), StoreAbFileError> {
        AbFile::new(self.directory.join(part.file_name())).store(bytes)
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::Signer as _;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_device_keeps_the_key_that_it_made() {
        let home = tempfile::tempdir().unwrap();
        let open = || IdentityFiles::open(home.path().join("identity")).unwrap();
        assert_eq!(open().stored_device_key().unwrap(), None);
        let key = open().device_key().unwrap();
        let again = open().device_key().unwrap();
        assert_eq!(key, again);
        let signature = key.signing().sign(b"coffee");
        again.signing().verifying_key().verify_strict(b"coffee", &signature).unwrap();
        assert_eq!(format!("{key:?}"), "DeviceKey", "a key is never printed");
        let other = tempfile::tempdir().unwrap();
        assert_ne!(IdentityFiles::open(other.path()).unwrap().device_key().unwrap(), key);
    }

    #[test]
    fn nobody_else_can_look_at_an_identity() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("identity");
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
        let files = IdentityFiles::open(&directory).unwrap();
        files.device_key().unwrap();
        files.store(IdentityPart::Enrolment, b"certificate").unwrap();
        assert_eq!(mode(&directory), 0o700);
        let entries: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(entries.len() >= 4);
        assert!(entries.iter().all(|path| mode(path) == 0o600), "{entries:?}");
    }

    #[test]
    fn parts_are_kept_apart_and_a_torn_write_leaves_the_one_before() {
        let home = tempfile::tempdir().unwrap();
        let files = IdentityFiles::open(home.path()).unwrap();
        for part in IdentityPart::ALL {
            assert_eq!(files.load(part).unwrap(), None);
            files.store(part, format!("{part:?} 1").as_bytes()).unwrap();
        }
        files.store(IdentityPart::Floors, b"Floors 2").unwrap();
        let newest = ["floors.a", "floors.b"].map(|name| home.path().join(name)).into_iter();
        let newest = newest.max_by_key(|path| contains(&fs::read(path).unwrap(), b"Floors 2")).unwrap();
        fs::write(&newest, b"torn").unwrap();
        assert_eq!(files.load(IdentityPart::Floors).unwrap().as_deref(), Some(&b"Floors 1"[..]));
        assert_eq!(files.load(IdentityPart::RootChain).unwrap().as_deref(), Some(&b"RootChain 1"[..]));
    }

    #[test]
    fn a_damaged_key_is_an_error_and_never_another_key() {
        let home = tempfile::tempdir().unwrap();
        let files = IdentityFiles::open(home.path()).unwrap();
        files.device_key().unwrap();
        for name in ["device-key.a", "device-key.b"] {
            fs::write(home.path().join(name), b"damaged").unwrap();
        }
        assert!(matches!(files.device_key(), Err(DeviceKeyError::Load(_))));
        AbFile::load(home.path().join("device-key")).unwrap_err();
    }

    fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
        bytes.windows(wanted.len()).any(|window| window == wanted)
    }
}
