//! `backup` and `restore`: all that a server keeps, in one file, and a server made of it again.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use fleetd_proto::fleetd::backup::v1::ReadBackupRequest;
use fleetd_server::backup::{RestoreBackupError, restore};
use jiff::Timestamp;
use serde_json::json;

use super::Session;
use crate::error::CommandError;
use crate::exit::Exit;

/// Write all that a server keeps into one file, while it serves
///
/// Store, logs and artifacts are as of one moment. The server's keys are not in the file: keep `DATA/keys` elsewhere, as
/// it is; without them no backup makes a server of this fleet. Needs an admin's token.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd backup --out fleet.backup
  fleetd backup --out /mnt/usb/fleet.backup --json | jq .bytes
  fleetd restore fleet.backup --data ./fleet")]
pub struct Backup {
    /// The file to write; it must not be there yet
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Make the store of a server from a backup
///
/// `DATA/keys` must be there, as it was saved, and no `DATA/store`. Then `fleetd serve --data DATA` goes on: devices
/// bring back what they know that the backup does not. Nothing is written unless the whole backup is good.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd restore fleet.backup --data ./fleet
  fleetd restore /mnt/usb/fleet.backup --data /srv/fleet")]
pub struct Restore {
    /// The file
    #[arg(value_name = "BACKUP")]
    pub backup: PathBuf,
    /// Where the server keeps keys, store and artifacts
    #[arg(long, value_name = "PATH", env = "FLEETD_DATA", hide_env_values = true)]
    pub data: PathBuf,
}

impl Backup {
    /// Runs the command.
    ///
    /// # Errors
    /// When the server does not give all of it, or the file cannot be written: then there is none.
    pub async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let client = session.client().await?;
        let unwritten = |error: &std::io::Error| {
            let message = format!("{} cannot be written", self.out.display());
            CommandError::new("backup.unwritten", message).caused_by(error).next_command("fleetd backup --out FILE")
        };
        let partial = partial(&self.out);
        if self.out.exists() {
            return Err(unwritten(&std::io::ErrorKind::AlreadyExists.into()));
        }
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&partial).map_err(|error| unwritten(&error))?;
        let written = receive(session, &client, &mut file, &unwritten).await;
        let bytes = match written {
            Ok(bytes) => bytes,
            Err(error) => {
                let _ = fs::remove_file(&partial); // What cannot be written may be impossible to remove as well.
                return Err(error);
            }
        };
        fs::rename(&partial, &self.out).map_err(|error| unwritten(&error))?;
        let path = self.out.display().to_string();
        session.output.answer(&json!({ "path": path, "bytes": bytes }), || {
            format!("wrote {path}, {bytes} bytes; the server's keys are not in it: keep its folder `keys` elsewhere")
        })
    }
}

fn partial(out: &Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    out.with_file_name(name)
}

/// Writes what the server gives, durably; gives its bytes.
async fn receive(
    session: &Session<'_>,
    client: &crate::client::FleetClient,
    file: &mut File,
    unwritten: &impl Fn(&std::io::Error) -> CommandError,
) -> Result<u64, CommandError> {
    let mut parts = client.read_backup(ReadBackupRequest {}).await?;
    let live = session.output.live_line();
    let mut bytes = 0_u64;
    while let Some(part) = parts.message().await.map_err(crate::client::CallError::from)? {
        file.write_all(&part.content).map_err(|error| unwritten(&error))?;
        bytes += u64::try_from(part.content.len()).unwrap_or(u64::MAX);
        live.set(&format!("{} written", crate::output::bytes(bytes)), 0, 0);
    }
    drop(live);
    file.sync_all().map_err(|error| unwritten(&error))?;
    Ok(bytes)
}

impl Restore {
    /// Runs the command.
    ///
    /// # Errors
    /// When there is a store already, the keys are not there or another fleet's, or the backup is not whole.
    pub async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let (backup, data) = (self.backup.clone(), self.data.clone());
        let restored = tokio::task::spawn_blocking(move || restore(&backup, &data)).await;
        let restored =
            restored.map_err(|error| CommandError::new("restore.failed", "the work ended early").caused_by(&error))?;
        let (head, contents) = restored.map_err(|error| refusal(&error, &self.data))?;
        let at = Timestamp::from_millisecond(head.written_at_ms).map_or_else(|_| String::new(), |at| at.to_string());
        let data = self.data.display();
        let object = json!({
            "data": data.to_string(), "fleetId": head.fleet_id, "writtenAt": at, "version": head.version,
            "contents": contents,
        });
        session.output.answer(&object, || {
            format!(
                "restored fleet {} as of {at}: {} records, {} log entries, {} artifacts\nfleetd serve --data '{data}'",
                head.fleet_id, contents.records, contents.log_entries, contents.artifacts
            )
        })
    }
}

/// The folder that holds the keys' own may be as new as the machine.
fn restore_keys(keys: &Path) -> String {
    let above = keys.parent().unwrap_or(keys).display().to_string();
    format!("mkdir -p '{above}' && cp -a SAVED-KEYS '{}'", keys.display())
}

fn refusal(error: &RestoreBackupError, data: &Path) -> CommandError {
    let (code, next) = match error {
        RestoreBackupError::File { .. } => ("restore.unreadable", String::new()),
        RestoreBackupError::NoBackup { .. } => ("restore.no_backup", String::new()),
        RestoreBackupError::Newer { .. } => ("restore.newer", String::new()),
        RestoreBackupError::NoKeys { keys } => ("restore.no_keys", restore_keys(keys)),
        RestoreBackupError::Keys(_) => ("restore.keys", String::new()),
        RestoreBackupError::OtherFleet { .. } => ("restore.other_fleet", String::new()),
        RestoreBackupError::Exists { store } => {
            ("restore.exists", format!("mv '{}' '{}.old'", store.display(), store.display()))
        }
        RestoreBackupError::Disk { .. }
        | RestoreBackupError::Artifact(_)
        | RestoreBackupError::Store(_)
        | RestoreBackupError::Audit { .. } => ("restore.failed", format!("df -h '{}'", data.display())),
    };
    let refused = CommandError::new(code, error.to_string()).caused_by_source(error);
    let refused = if next.is_empty() { refused } else { refused.next_command(next) };
    match error {
        RestoreBackupError::Disk { .. }
        | RestoreBackupError::Artifact(_)
        | RestoreBackupError::Store(_)
        | RestoreBackupError::Audit { .. } => refused,
        _ => refused.exit(Exit::Usage),
    }
}
