//! The server's keys on disk, in a directory of their own, apart from the store.
//!
//! ```text
//! keys/root.key        signs root records; needed only for that, and better kept elsewhere
//! keys/ca.key          issues certificates
//! keys/authority.key   writes desired state and revocations
//! keys/server.key      the server's own, in its certificate
//! keys/fleet.root      the first root record, which names the fleet
//! keys/fleet.trust     the whole root chain and all revocations, replaced with each: see [`crate::trust_file`]
//! keys/ca.crt          the CA's certificate, for tools that are not ours; follows from its key
//! keys/browser.crt     for users of browsers to import, with its key beside it; made anew if it is lost
//! ```
//! The first start makes the keys, and the record after them. A start that was cut off is completed by the next
//! one with the keys that are already there; no key is ever overwritten. There is none here that could sign a release.

mod certificates;

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::id::{FleetId, KeyId};
use fleetd_sync_core::key::{PublicKey, SecretKey};
use fleetd_sync_core::time::Wall;
use fleetd_sync_core::trust::{
    Armoured, DraftError, ExtendError, Rank, ReadArmourError, Role, RootChain, RootRecord, Roster, Sites, read_armour,
};
use fleetd_sync_transport::identity::{BrowserIdentity, CertificateAuthority, IssueError, ServerName};
use fleetd_sync_transport::link::ListenIdentity;

pub use self::certificates::PublishError;
use crate::trust_file::disk::DiskTrustFile;

const ROOT: &str = "root.key";
const CERTIFICATE_AUTHORITY: &str = "ca.key";
const AUTHORITY: &str = "authority.key";
const SERVER: &str = "server.key";
const RECORD: &str = "fleet.root";
const TRUST: &str = "fleet.trust";
const LOCK: &str = ".lock";

/// Why the server's keys cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenKeysError {
    /// The disk refused.
    #[error("cannot {action} {path}")]
    Disk {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Another process is opening the same directory.
    #[error("another process is opening {path}")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// Others may read it.
    #[error("{path} has mode {mode:03o}, and keys are for their owner alone; run chmod go-rwx on it")]
    TooOpen {
        /// The file or directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A file does not hold what it should.
    #[error("{path} cannot be read; restore it from a backup")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ReadArmourError,
    },
    /// A key of an existing fleet is gone.
    #[error("{path} is missing; restore it from a backup, since a new key would not be the fleet's")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// There are keys, and neither the record that names their fleet nor the root key that could make it again.
    #[error("{path} is missing, and without the root key it cannot be made again; restore it from a backup")]
    RecordLost {
        /// The record's file.
        path: PathBuf,
    },
    /// The record is not a fleet's first.
    #[error("{path} does not found a fleet; restore it from a backup")]
    Record {
        /// The record's file.
        path: PathBuf,
        /// Why not.
        source: ExtendError,
    },
    /// The first record could not be drafted.
    #[error("the first root record could not be made")]
    Draft(#[from] DraftError),
}

/// Why a key file could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// There is a file already, and a key is never overwritten.
    #[error("{path} exists already")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The disk refused, others may read the file, or it holds no key.
    #[error("the key file cannot be used")]
    File(#[from] OpenKeysError),
}

/// What became of the root key that the first start made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootKey {
    /// It lies with the server's keys: whoever takes the server takes the fleet.
    Here,
    /// It lies there, and the root has other keys by now.
    Spent,
    /// Somebody moved it away.
    Away,
}

/// Why keys do not fit what the root says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} in {file} is not {role} in root record {version}; delegate it or restore the key that is")]
pub struct RoleError {
    /// The key.
    pub key: KeyId,
    /// Its file's name.
    pub file: &'static str,
    /// The role that it needs.
    pub role: &'static str,
    /// The newest record's version.
    pub version: u64,
}

/// The server's keys.
#[derive(Debug)]
pub struct Keys {
    directory: PathBuf,
    created: bool,
    first: RootRecord,
    root: Option<SecretKey>,
    certificate_authority: SecretKey,
    authority: SecretKey,
    server: SecretKey,
}

impl Keys {
    /// Opens the keys in `directory`, and makes them and the fleet at the first start.
    ///
    /// # Errors
    /// [`OpenKeysError`] when the directory cannot be used, others may read it, or something in it is missing or
    /// damaged. Nothing that is there is changed then.
    pub fn open_or_create(directory: &Path, entropy: &mut Entropy) -> Result<Self, OpenKeysError> {
        make_directory(directory)?;
        let lock = lock(directory)?;
        let record_path = directory.join(RECORD);
        let keys = match read::<RootRecord>(&record_path)? {
            Some(first) => Self::open(directory, first),
            None => Self::create(directory, entropy),
        };
        drop(lock);
        keys
    }

    /// The fleet of the keys in `directory`; `None` when there are none. Nothing is made.
    ///
    /// # Errors
    /// [`OpenKeysError`] when what is there cannot be read.
    pub fn fleet_in(directory: &Path) -> Result<Option<FleetId>, OpenKeysError> {
        Ok(read::<RootRecord>(&directory.join(RECORD))?.map(|first| first.body().fleet))
    }

    /// The keys in `directory`; `None` when there is no fleet. Nothing is made.
    ///
    /// # Errors
    /// [`OpenKeysError`] when something is missing, damaged, or open to others.
    pub fn read(directory: &Path) -> Result<Option<Self>, OpenKeysError> {
        read::<RootRecord>(&directory.join(RECORD))?.map(|first| Self::open(directory, first)).transpose()
    }

    fn open(directory: &Path, first: RootRecord) -> Result<Self, OpenKeysError> {
        let path = directory.join(RECORD);
        RootChain::found(first.body().fleet, first.clone()).map_err(|source| OpenKeysError::Record { path, source })?;
        let needed = |name| {
            let path = directory.join(name);
            read::<SecretKey>(&path)?.ok_or(OpenKeysError::Missing { path })
        };
        Ok(Self {
            directory: directory.to_owned(),
            created: false,
            first,
            root: read(&directory.join(ROOT))?,
            certificate_authority: needed(CERTIFICATE_AUTHORITY)?,
            authority: needed(AUTHORITY)?,
            server: needed(SERVER)?,
        })
    }

    fn create(directory: &Path, entropy: &mut Entropy) -> Result<Self, OpenKeysError> {
        // The root key is written first: where it is missing and another is there, this is no first start.
        if read::<SecretKey>(&directory.join(ROOT))?.is_none() {
            for name in [CERTIFICATE_AUTHORITY, AUTHORITY, SERVER] {
                if read::<SecretKey>(&directory.join(name))?.is_some() {
                    return Err(OpenKeysError::RecordLost { path: directory.join(RECORD) });
                }
            }
        }
        let mut made = |name| {
            let path = directory.join(name);
            if let Some(key) = read::<SecretKey>(&path)? {
                return Ok(key);
            }
            let key = SecretKey::generate(entropy);
            write(&path, &key.to_armour())?;
            Ok::<_, OpenKeysError>(key)
        };
        let root = made(ROOT)?;
        let (certificate_authority, authority, server) =
            (made(CERTIFICATE_AUTHORITY)?, made(AUTHORITY)?, made(SERVER)?);
        let delegations = [
            (certificate_authority.public(), Role::CertificateAuthority),
            (authority.public(), Role::Authority { rank: Rank::CENTRAL, sites: Sites::All }),
        ];
        let first = RootRecord::draft(BTreeSet::from([root.public()]), 1, delegations)?.sign(&root);
        write(&directory.join(RECORD), &first.to_armour())?;
        Ok(Self {
            directory: directory.to_owned(),
            created: true,
            first,
            root: Some(root),
            certificate_authority,
            authority,
            server,
        })
    }

    /// Says whether this start made the fleet.
    #[must_use]
    pub const fn is_new_fleet(&self) -> bool {
        self.created
    }

    /// The fleet.
    #[must_use]
    pub fn fleet(&self) -> FleetId {
        self.first.body().fleet
    }

    /// The fleet's first root record.
    #[must_use]
    pub const fn first_record(&self) -> &RootRecord {
        &self.first
    }

    /// The copy of trust that lies beside the keys.
    #[must_use]
    pub fn trust_file(&self) -> DiskTrustFile {
        DiskTrustFile::new(self.directory.join(TRUST), self.first.clone())
    }

    /// The root's key, unless it was moved away, as it should be.
    #[must_use]
    pub const fn root(&self) -> Option<&SecretKey> {
        self.root.as_ref()
    }

    /// What became of the root's key, as the root says now.
    #[must_use]
    pub fn root_standing(&self, chain: &RootChain) -> RootKey {
        match &self.root {
            Some(key) if chain.newest().body().keys.contains(&key.public()) => RootKey::Here,
            Some(_) => RootKey::Spent,
            None => RootKey::Away,
        }
    }

    /// Where the root's key lies, or lay.
    #[must_use]
    pub fn root_path(&self) -> PathBuf {
        self.directory.join(ROOT)
    }

    /// The key with which this server writes desired state and revocations.
    #[must_use]
    pub const fn authority(&self) -> &SecretKey {
        &self.authority
    }

    /// The id of the server's own key, which its certificate names.
    #[must_use]
    pub fn server_id(&self) -> KeyId {
        self.server.id()
    }

    /// The fleet's CA.
    ///
    /// # Errors
    /// [`IssueError`] when its key cannot sign.
    pub fn certificate_authority(&self) -> Result<CertificateAuthority, IssueError> {
        CertificateAuthority::new(self.fleet(), &self.certificate_authority)
    }

    /// Issues the server's own certificate anew, and says as whom the server listens. The server
    /// believes devices of its own CA; a caller whose root chain names older CAs adds their certificates.
    ///
    /// # Errors
    /// [`IssueError`] when a name is none, or the certificate cannot be made.
    pub fn listen_identity(
        &self,
        names: &[ServerName],
        now: Wall,
        entropy: &mut Entropy,
    ) -> Result<ListenIdentity, IssueError> {
        let authority = self.certificate_authority()?;
        let issued = authority.issue_server(&self.server.public(), names, now, entropy)?;
        Ok(ListenIdentity {
            certificates: issued.chain,
            key: self.server.clone(),
            authorities: vec![authority.certificate().to_vec()],
        })
    }

    /// Writes what others import to believe this server, and says as whom it meets browsers: as what it kept, or made
    /// anew if that serves no more. No fleet knows that key, and nothing is lost with it but that users import another
    /// certificate.
    ///
    /// # Errors
    /// [`PublishError`] when a certificate cannot be made or written.
    pub fn publish(&self, names: &[ServerName], now: Wall) -> Result<BrowserIdentity, PublishError> {
        certificates::publish_authority(&self.directory, &self.certificate_authority()?.certificate_pem())?;
        certificates::open_or_make(&self.directory, names, now)
    }

    /// Checks that the root still gives these keys the roles that the server uses them in.
    ///
    /// # Errors
    /// [`RoleError`] names the first that it does not.
    pub fn check_roles(&self, roster: &Roster) -> Result<(), RoleError> {
        let error = |key: PublicKey, file, role| RoleError { key: key.id(), file, role, version: roster.version() };
        let certificate_authority = self.certificate_authority.public();
        if !roster.certificate_authorities().any(|key| key == certificate_authority) {
            return Err(error(certificate_authority, CERTIFICATE_AUTHORITY, "the ca"));
        }
        match roster.authority(self.authority.id()) {
            Some(_) => Ok(()),
            None => Err(error(self.authority.public(), AUTHORITY, "an authority")),
        }
    }
}

/// Writes a secret key to a new file that only its owner can read.
///
/// # Errors
/// [`KeyFileError::Exists`] when there is a file already, and what the disk says.
pub fn write_key_file(path: &Path, key: &SecretKey) -> Result<(), KeyFileError> {
    if path.try_exists().map_err(disk("look for", path))? {
        return Err(KeyFileError::Exists { path: path.to_owned() });
    }
    Ok(write(path, &key.to_armour())?)
}

/// Reads a secret key from a file that only its owner can read.
///
/// # Errors
/// [`KeyFileError::File`] when it is missing, damaged, or open to others.
pub fn read_key_file(path: &Path) -> Result<SecretKey, KeyFileError> {
    Ok(read(path)?.ok_or_else(|| OpenKeysError::Missing { path: path.to_owned() })?)
}

fn disk(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenKeysError {
    let path = path.to_owned();
    move |source| OpenKeysError::Disk { action, path, source }
}

fn make_directory(directory: &Path) -> Result<(), OpenKeysError> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(disk("make", directory))?;
    check_mode(directory)
}

fn check_mode(path: &Path) -> Result<(), OpenKeysError> {
    let mode = fs::metadata(path).map_err(disk("look at", path))?.permissions().mode() & 0o777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(OpenKeysError::TooOpen { path: path.to_owned(), mode }) }
}

/// Holds the directory until the file is dropped; the operating system lets go of it if this process dies.
fn lock(directory: &Path) -> Result<File, OpenKeysError> {
    let path = directory.join(LOCK);
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = file.map_err(disk("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(OpenKeysError::InUse { path: directory.to_owned() }),
        Err(fs::TryLockError::Error(source)) => Err(disk("lock", &path)(source)),
    }
}

pub(crate) fn read<T: Armoured>(path: &Path) -> Result<Option<T>, OpenKeysError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(disk("read", path)(error)),
    };
    check_mode(path)?;
    let damaged = |source| OpenKeysError::Damaged { path: path.to_owned(), source };
    read_armour(&String::from_utf8_lossy(&text)).map(Some).map_err(damaged)
}

/// Writes a file that is either wholly there after a power cut or not at all.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), OpenKeysError> {
    let beside = path.with_added_extension("new");
    // What a cut-off start left there may have another mode.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(disk("remove", &beside)(error)),
        _ => {}
    }
    let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&beside);
    let mut file = file.map_err(disk("make", &beside))?;
    file.write_all(text.as_bytes()).map_err(disk("write", &beside))?;
    file.sync_all().map_err(disk("sync", &beside))?;
    fs::rename(&beside, path).map_err(disk("rename", &beside))?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let opened = File::open(directory).map_err(disk("open", directory))?;
    opened.sync_all().map_err(disk("sync", directory))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const ALL: [&str; 5] = [ROOT, CERTIFICATE_AUTHORITY, AUTHORITY, SERVER, RECORD];

    fn place() -> (TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let keys = folder.path().join("keys");
        (folder, keys)
    }

    fn start(path: &Path, seed: u8) -> Result<Keys, OpenKeysError> {
        Keys::open_or_create(path, &mut Entropy::from_seed([seed; 32]))
    }

    #[test]
    fn the_first_start_makes_a_fleet_and_later_ones_open_it() {
        let (_folder, path) = place();
        let first = start(&path, 1).unwrap();
        assert!(first.is_new_fleet() && first.root().is_some());
        let again = start(&path, 2).unwrap();
        assert!(!again.is_new_fleet());
        assert_eq!((again.fleet(), again.server_id()), (first.fleet(), first.server_id()));
        let chain = RootChain::found(again.fleet(), again.first_record().clone()).unwrap();
        let roster = Roster::new(&chain, []);
        assert_eq!(again.check_roles(&roster), Ok(()));
        let elsewhere = start(&place().1, 3).unwrap();
        assert!(matches!(elsewhere.check_roles(&roster), Err(RoleError { file: CERTIFICATE_AUTHORITY, .. })));
    }

    #[test]
    fn keys_are_for_their_owner_alone() {
        let (_folder, path) = place();
        start(&path, 1).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        for name in ALL {
            assert_eq!(mode(&path.join(name)), 0o600, "{name}");
        }
        fs::set_permissions(path.join(AUTHORITY), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(start(&path, 1), Err(OpenKeysError::TooOpen { mode: 0o640, .. })));
    }

    #[test]
    fn a_first_start_that_was_cut_off_is_completed_with_the_keys_that_are_there() {
        for written in 0..ALL.len() {
            let (_folder, path) = place();
            start(&path, 1).unwrap();
            let kept: Vec<_> = ALL[..written].iter().map(|name| fs::read(path.join(name)).unwrap()).collect();
            for name in &ALL[written..] {
                fs::remove_file(path.join(name)).unwrap();
            }
            // The power went while the next file was being written.
            fs::write(path.join(format!("{}.new", ALL[written])), "-----BEGIN FLEE").unwrap();
            let completed = start(&path, 2).unwrap();
            assert!(completed.is_new_fleet());
            for (name, bytes) in ALL.iter().zip(kept) {
                assert_eq!(fs::read(path.join(name)).unwrap(), bytes, "{name} after {written} files");
            }
            assert_eq!(start(&path, 3).unwrap().fleet(), completed.fleet());
        }
    }

    #[test]
    fn a_fleet_starts_without_its_root_key_and_not_without_another() {
        let (_folder, path) = place();
        let fleet = start(&path, 1).unwrap().fleet();
        fs::remove_file(path.join(ROOT)).unwrap();
        let keys = start(&path, 2).unwrap();
        assert!(keys.root().is_none() && keys.fleet() == fleet);
        for name in [CERTIFICATE_AUTHORITY, AUTHORITY, SERVER] {
            let (from, away) = (path.join(name), path.join("away"));
            fs::rename(&from, &away).unwrap();
            assert!(matches!(start(&path, 2), Err(OpenKeysError::Missing { path }) if path == from), "{name}");
            fs::rename(&away, &from).unwrap();
        }
        fs::remove_file(path.join(RECORD)).unwrap();
        assert!(matches!(start(&path, 2), Err(OpenKeysError::RecordLost { .. })));
        assert!(!path.join(ROOT).exists() && !path.join(RECORD).exists());
    }

    #[test]
    fn a_damaged_file_is_named_and_left_alone() {
        for name in ALL {
            let (_folder, path) = place();
            start(&path, 1).unwrap();
            let file = path.join(name);
            let cut = fs::read_to_string(&file).unwrap()[..60].to_owned();
            fs::write(&file, &cut).unwrap();
            assert!(matches!(start(&path, 2), Err(OpenKeysError::Damaged { path, .. }) if path == file), "{name}");
            assert_eq!(fs::read_to_string(&file).unwrap(), cut);
        }
    }

    #[test]
    fn two_processes_do_not_make_one_fleet_twice() {
        let (_folder, path) = place();
        make_directory(&path).unwrap();
        let held = lock(&path).unwrap();
        assert!(matches!(start(&path, 1), Err(OpenKeysError::InUse { .. })));
        drop(held);
        assert!(start(&path, 1).is_ok());
    }

    #[test]
    fn the_server_listens_with_a_certificate_of_the_fleets_ca() {
        let (_folder, path) = place();
        let keys = start(&path, 1).unwrap();
        let names = [ServerName::of_host("localhost"), ServerName::of_host("::1")];
        let identity = keys.listen_identity(&names, Wall(0), &mut Entropy::from_seed([9; 32])).unwrap();
        let authority = keys.certificate_authority().unwrap();
        let believed = fleetd_sync_transport::identity::verify_server_leaf(
            &identity.certificates[0],
            [authority.key()],
            keys.fleet(),
        );
        assert_eq!(believed, Ok(keys.server_id()));
        assert!(fleetd_sync_transport::identity::server_tls(&identity).is_ok());
    }

    #[test]
    fn a_key_file_is_never_overwritten() {
        let (folder, _) = place();
        let path = folder.path().join("ci.key");
        let key = SecretKey::generate(&mut Entropy::from_seed([4; 32]));
        write_key_file(&path, &key).unwrap();
        assert_eq!(read_key_file(&path).unwrap().id(), key.id());
        let other = SecretKey::generate(&mut Entropy::from_seed([5; 32]));
        assert!(matches!(write_key_file(&path, &other), Err(KeyFileError::Exists { .. })));
        assert_eq!(read_key_file(&path).unwrap().id(), key.id());
        let missing = read_key_file(&folder.path().join("none"));
        assert!(matches!(missing, Err(KeyFileError::File(OpenKeysError::Missing { .. }))));
    }
}
