//! A root record on its way to be signed, as a file.
//!
//! The machines that hold the root's keys have no network, and should believe nobody. So the file holds the whole chain
//! and then the draft: whoever signs sees what would change, of which fleet, and that it follows from what was signed
//! before.

use std::io::Write as _;
use std::path::Path;

use fleetd_sync_core::id::KeyId;
use fleetd_sync_core::key::PublicKey;
use fleetd_sync_core::limit;
use fleetd_sync_core::trust::{
    Armoured as _, Delegation, ReadArmourError, RootBody, RootChain, RootRecord, SignatureCount, SignerCount,
    read_all_armour,
};
use serde_json::json;

use crate::command::Session;
use crate::error::CommandError;

/// Bytes of a file that is read: the longest chain that is likely in a fleet's life, in base 64.
const FILE_BYTES_MAX: u64 = 64 * 2 * limit::ROOT_RECORD_BYTES_MAX as u64;

/// A root record on its way to be signed, and the chain that it follows.
#[derive(Clone, Debug)]
pub struct RecordFile {
    /// The chain.
    pub chain: RootChain,
    /// The record that would follow.
    pub record: RootRecord,
}

/// Writes a file that is not there yet.
///
/// # Errors
/// When it is, or cannot be written.
pub fn create(path: &Path, file: &RecordFile) -> Result<(), CommandError> {
    if path.symlink_metadata().is_ok() {
        return Err(CommandError::new("trust.draft_exists", format!("{} is there already", path.display()))
            .cause("it may hold signatures that somebody has given")
            .next_command("choose another name, or move the file away"));
    }
    replace(path, file)
}

/// Writes a file, whole or not at all: what others have signed is not lost by a full disk.
///
/// # Errors
/// When it cannot be written.
pub fn replace(path: &Path, file: &RecordFile) -> Result<(), CommandError> {
    let mut text = format!(
        "Root record {} of {}, to be signed: fleetd trust sign FILE --root KEY\n\n",
        file.record.body().version,
        file.chain.fleet(),
    );
    for record in file.chain.records().chain([&file.record]) {
        text.push_str(&record.to_armour());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || {
        let mut new = tempfile::NamedTempFile::new_in(folder)?;
        new.write_all(text.as_bytes())?;
        new.as_file().sync_all()?;
        new.persist(path).map(|_| ()).map_err(|error| error.error)
    };
    write().map_err(|error| {
        CommandError::new("trust.draft_unwritten", format!("{} cannot be written", path.display()))
            .caused_by(&error)
            .next_command("name a file in a folder that you may write to")
    })
}

/// Reads a file. Its chain follows from its first record; whether that is the fleet that is meant, people compare.
///
/// # Errors
/// When it cannot be read, or holds something else.
pub fn read(path: &Path) -> Result<RecordFile, CommandError> {
    let io = |error: std::io::Error| {
        CommandError::new("trust.draft_unreadable", format!("{} cannot be read", path.display()))
            .caused_by(&error)
            .next_command("name the file that --draft wrote")
    };
    let malformed = |cause: &dyn std::error::Error| {
        CommandError::new("trust.draft_malformed", format!("{} holds no draft of a root record", path.display()))
            .caused_by(cause)
            .next_command("have it written again with --draft")
    };
    let length = std::fs::metadata(path).map_err(io)?.len();
    if length > FILE_BYTES_MAX {
        return Err(malformed(&ReadArmourError::Missing { label: RootRecord::LABEL }));
    }
    let text = String::from_utf8_lossy(&std::fs::read(path).map_err(io)?).into_owned();
    let mut records: Vec<RootRecord> = read_all_armour(&text).map_err(|error| malformed(&error))?;
    let missing = || malformed(&ReadArmourError::Missing { label: RootRecord::LABEL });
    let record = records.pop().ok_or_else(missing)?;
    let fleet = records.first().ok_or_else(missing)?.body().fleet;
    let chain = RootChain::load(fleet, records.iter().map(RootRecord::encode)).map_err(|error| malformed(&error))?;
    Ok(RecordFile { chain, record })
}

/// Says how far a draft is, and what it would change.
pub(super) fn show(session: &Session<'_>, path: &Path, file: &RecordFile) -> Result<(), CommandError> {
    let count = file.chain.count_signatures(&file.record);
    let missing = missing(&count);
    let object = json!({
        "path": path.display().to_string(),
        "fleetId": file.chain.fleet().to_string(),
        "version": file.record.body().version,
        "changes": changes(file.chain.newest().body(), file.record.body()),
        "signedBy": file.record.signers().map(|key| key.to_string()).collect::<Vec<_>>(),
        "missing": missing,
    });
    session.output.answer(&object, || {
        let next = match &missing {
            Some(missing) => format!("{missing}\nnext: fleetd trust sign '{}' --root KEY", path.display()),
            None => format!("enough keys have signed\nnext: fleetd trust submit '{}'", path.display()),
        };
        format!("{}\n{next}", describe(file))
    })
}

/// What a draft says, for whoever is to sign it.
#[must_use]
pub fn describe(file: &RecordFile) -> String {
    let mut text = format!("root record {} of fleet {}\n", file.record.body().version, file.chain.fleet());
    for change in changes(file.chain.newest().body(), file.record.body()) {
        text.push_str(&format!("  {change}\n"));
    }
    let signers = key_list(file.record.signers());
    text.push_str(&format!("signed by {}", if signers.is_empty() { "nobody yet" } else { &signers }));
    text
}

/// What differs from one record to the next, a sentence each.
fn changes(before: &RootBody, after: &RootBody) -> Vec<String> {
    let mut changes = Vec::new();
    if before.keys != after.keys || before.threshold != after.threshold {
        let root = |body: &RootBody| format!("{} of {}", body.threshold, key_list(body.keys.iter().map(PublicKey::id)));
        changes.push(format!("the root is {}; it was {}", root(after), root(before)));
    }
    for (key, delegation) in &after.delegations {
        match before.delegations.get(key) {
            Some(former) if former.role == delegation.role => {}
            Some(former) => changes.push(format!("{key} is {}; it was {}", words(delegation), words(former))),
            None => changes.push(format!("{key} is {}; it was nothing", words(delegation))),
        }
    }
    let withdrawn = before.delegations.iter().filter(|(key, _)| !after.delegations.contains_key(key));
    changes.extend(withdrawn.map(|(key, former)| format!("{key} is nothing any more; it was {}", words(former))));
    let revoked = after.revocations.iter().filter(|(key, kind)| before.revocations.get(key) != Some(kind));
    changes.extend(revoked.map(|(key, kind)| format!("{key} is revoked for ever: {kind}")));
    if changes.is_empty() {
        changes.push("nothing changes".to_owned());
    }
    changes
}

fn words(delegation: &Delegation) -> String {
    delegation.role.to_string()
}

/// Who must sign yet; `None` when enough have.
pub(super) fn missing(count: &SignatureCount) -> Option<String> {
    let lacks = |signers: &SignerCount, whose: &str| {
        let lacking = usize::from(signers.threshold).saturating_sub(signers.signed.len());
        let could = key_list(signers.unsigned.iter().copied());
        (lacking > 0).then(|| format!("{lacking} more of the {whose} must sign: {could}"))
    };
    let all: Vec<String> = if count.own == count.former {
        lacks(&count.own, "root's keys").into_iter().collect()
    } else {
        let both = [lacks(&count.former, "present root's keys"), lacks(&count.own, "new root's keys")];
        both.into_iter().flatten().collect()
    };
    (!all.is_empty()).then(|| all.join("; "))
}

/// Why a record does not follow a chain.
pub(super) fn unfit(chain: &RootChain, record: &RootRecord, cause: &str) -> CommandError {
    let (version, newest) = (record.body().version, chain.version());
    CommandError::new("trust.draft_stale", format!("root record {version} does not follow root record {newest}"))
        .cause(cause)
        .next_command("draft it again on what the root says now: --draft next.record")
}

/// Keys in a sentence.
pub(super) fn key_list(keys: impl Iterator<Item = KeyId>) -> String {
    keys.map(|key| key.to_string()).collect::<Vec<_>>().join(", ")
}
