//! What must be there before an agent starts: directories, the store, and the device's identity.

use std::fs::{self, DirBuilder, Permissions};
use std::io::IsTerminal as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use fleetd_sync_core::enrolment::EnrolmentToken;
use fleetd_sync_core::key::SecretKey;
use fleetd_sync_store::disk::{self, DiskStore, Profile};
use fleetd_sync_store::open_error::{OpenStoreError, open_or_put_aside};
use fleetd_sync_transport::endpoint::verify_server;
use fleetd_sync_transport::identity::signing_request;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::super::Invocation;
use super::super::answer::CommandError;
use crate::cause::cause_of;
use crate::config::Config;
use crate::identity_files::{IdentityFiles, IdentityPart, IdentityPlace as _};
use crate::node::DeviceIdentity;

/// The store's folder in the data directory.
pub(crate) const STORE_DIRECTORY: &str = "store";

/// Writes events to standard error, as the configuration asks for them.
pub(super) fn start_tracing(config: &Config) -> Result<(), CommandError> {
    let level = &config.log_level;
    // The database tells at length how it opens its files; a filter of its own brings that back.
    let filter: Result<Targets, _> = format!("fjall=warn,lsm_tree=warn,{}", level.value).parse();
    let filter = filter.map_err(|error| {
        let message = format!("log-level {:?} from {} is no filter", level.value, level.origin);
        CommandError::new("agent.config", message)
            .caused_by(&error)
            .next_command("use error, warn, info, debug or trace")
    })?;
    let events = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer(std::io::stderr);
    // A log that cannot be written must end nobody: telling of it on standard error again would be a panic.
    let events = events.log_internal_errors(false);
    let started = events.with_ansi(std::io::stderr().is_terminal()).finish().with(filter).try_init();
    // A program around this one may have started it already.
    let _ = started;
    Ok(())
}

/// Makes the directories, closed to everybody else.
pub(super) fn directories(config: &Config) -> Result<(), CommandError> {
    for setting in [&config.data_directory, &config.run_directory] {
        let path = &setting.value;
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        let closed = made.and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o700)));
        closed.map_err(|error| {
            let message =
                format!("{} cannot be made private ({} from {})", path.display(), setting.key, setting.origin);
            let advice = format!("run as root, or give another --{}", setting.key);
            CommandError::new("agent.directory", message).caused_by(&error).next_command(advice)
        })?;
    }
    Ok(())
}

pub(super) fn identity_files(config: &Config) -> Result<IdentityFiles, CommandError> {
    IdentityFiles::open(config.data_directory.value.join("identity"))
        .map_err(|error| CommandError::new("agent.directory", "there is no place for a key").caused_by(&error))
}

/// Reads the token. A device that is enrolled needs none, and runs with a bad one too.
pub(super) fn token(config: &Config, files: &IdentityFiles) -> Result<Option<EnrolmentToken>, CommandError> {
    let setting = &config.enroll_token;
    let Some(secret) = &setting.value else { return Ok(None) };
    match secret.reveal().parse() {
        Ok(token) => Ok(Some(token)),
        Err(error) if matches!(files.load(IdentityPart::Enrolment), Ok(Some(_))) => {
            tracing::error!(origin = %setting.origin, error = cause_of(&error), "the enrolment token is not one");
            Ok(None)
        }
        Err(error) => {
            let message = format!("the enrolment token (from {}) is not one", setting.origin);
            let advice = "fleetd enroll token create";
            Err(CommandError::new("agent.token", message).caused_by(&error).next_command(advice))
        }
    }
}

/// Takes up the device's key, which is made here when the device first starts.
pub(super) fn identity(files: &IdentityFiles) -> Result<DeviceIdentity, CommandError> {
    let key = files.device_key().map_err(|error| {
        let advice =
            format!("restore {} from a backup, or remove it: that is a new device", files.directory().display());
        CommandError::new("agent.key", "the device's key cannot be used").caused_by(&error).next_command(advice)
    })?;
    // The sealing key is the same key on the other curve: one file less to lose. Nothing is sealed to it yet.
    let sealing_key = key.signing().verifying_key().to_montgomery().to_bytes();
    let key = SecretKey::from_bytes(key.signing().to_bytes());
    let csr = signing_request(&key)
        .map_err(|error| CommandError::new("agent.key", "the device's key cannot sign").caused_by(&error))?;
    Ok(DeviceIdentity { key, csr, sealing_key, verify: verify_server })
}

/// Opens the store. One that is damaged is set aside: documents come again from the server, and workloads boot from
/// their folders.
pub(super) fn store(config: &Config, invocation: &Invocation) -> Result<DiskStore, CommandError> {
    let path = config.data_directory.value.join(STORE_DIRECTORY);
    let put_aside = |error: &OpenStoreError| {
        tracing::error!(error = cause_of(error), "the store is damaged and is set aside");
        let aside = disk::quarantine(&path).map_err(StoreRefusal::Aside)?;
        tracing::warn!(aside = %aside.display(), "an empty store begins; the server sends what is missing");
        Ok(aside)
    };
    let opened = open_or_put_aside(|| DiskStore::open(&path, Profile::Agent), put_aside);
    opened.map(|(store, _)| store).map_err(|refused| match refused {
        StoreRefusal::Open(error) => refusal(&path, &error, invocation),
        StoreRefusal::Aside(error) => {
            CommandError::new("agent.store", "the damaged store cannot be set aside").caused_by(&error)
        }
    })
}

/// Why there is no store.
enum StoreRefusal {
    Open(OpenStoreError),
    Aside(std::io::Error),
}

impl From<OpenStoreError> for StoreRefusal {
    fn from(error: OpenStoreError) -> Self {
        Self::Open(error)
    }
}

fn refusal(path: &Path, error: &OpenStoreError, invocation: &Invocation) -> CommandError {
    let (code, advice) = match error {
        OpenStoreError::Locked { .. } => ("agent.store_locked", format!("{} status", invocation.program)),
        OpenStoreError::Newer { .. } => ("agent.store_newer", "run the newer program that wrote it".to_owned()),
        OpenStoreError::Permission { .. } => ("agent.store_permission", format!("ls -ld {}", path.display())),
        OpenStoreError::Damaged { .. } | OpenStoreError::Io { .. } => {
            ("agent.store", format!("{} doctor", invocation.program))
        }
    };
    CommandError::new(code, "the store cannot be opened").caused_by(error).next_command(advice)
}
