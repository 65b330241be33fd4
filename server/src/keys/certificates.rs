//! What others import to believe this server, beside its keys: the CA's certificate for tools, and one for browsers.

use std::path::Path;

use fleetd_sync_core::time::Wall;
use fleetd_sync_transport::identity::{BrowserIdentity, IssueError, ServerName};

use super::{OpenKeysError, check_mode, disk, write};

const AUTHORITY: &str = "ca.crt";
const CERTIFICATE: &str = "browser.crt";
const KEY: &str = "browser.key";

/// Why a server has nothing to import.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// They cannot be kept.
    #[error("the certificates cannot be kept")]
    Keep(#[from] OpenKeysError),
    /// They cannot be made.
    #[error("the certificates cannot be made")]
    Make(#[from] IssueError),
}

/// Writes the CA's certificate, unless it is there.
pub(super) fn publish_authority(directory: &Path, pem: &str) -> Result<(), OpenKeysError> {
    let path = directory.join(AUTHORITY);
    if std::fs::read_to_string(&path).is_ok_and(|written| written == pem) {
        return Ok(());
    }
    write(&path, pem)
}

pub(super) fn open_or_make(directory: &Path, names: &[ServerName], now: Wall) -> Result<BrowserIdentity, PublishError> {
    match read(directory)?.filter(|kept| kept.serves(names, now)) {
        Some(kept) => Ok(kept),
        None => {
            let made = BrowserIdentity::generate(names, now)?;
            // A cut between the two leaves a pair that does not fit, which the next start finds out.
            write(&directory.join(KEY), made.key_pem())?;
            write(&directory.join(CERTIFICATE), made.certificate_pem())?;
            Ok(made)
        }
    }
}

/// Reads what was kept. Nobody misses it if it cannot be read, so that it is then made anew.
fn read(directory: &Path) -> Result<Option<BrowserIdentity>, OpenKeysError> {
    let key_path = directory.join(KEY);
    if !key_path.try_exists().map_err(disk("look for", &key_path))? {
        return Ok(None);
    }
    check_mode(&key_path)?;
    let text = |path: &Path| std::fs::read_to_string(path).ok();
    let kept = text(&directory.join(CERTIFICATE)).zip(text(&key_path));
    Ok(kept.and_then(|(certificate, key)| BrowserIdentity::read(&certificate, &key).ok()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const NOW: Wall = Wall(1_800_000_000_000);

    #[test]
    fn the_authoritys_certificate_is_written_where_it_is_missing_or_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(AUTHORITY);
        for pem in ["one", "one", "another"] {
            publish_authority(folder.path(), pem).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), pem);
        }
    }

    #[test]
    fn it_is_kept_until_it_serves_no_more_or_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let open = |names: &[&str]| {
            let names: Vec<ServerName> = names.iter().map(|name| ServerName::of_host(name)).collect();
            open_or_make(folder.path(), &names, NOW)
        };
        let first = open(&["localhost"]).unwrap();
        assert_eq!(open(&["localhost"]).unwrap().certificate(), first.certificate());
        let second = open(&["localhost", "fleet.example"]).unwrap();
        assert_ne!(second.certificate(), first.certificate());

        let key = folder.path().join(KEY);
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&key, first.key_pem()).unwrap();
        assert_ne!(open(&["localhost"]).unwrap().certificate(), second.certificate(), "they did not fit");
        fs::write(folder.path().join(CERTIFICATE), "damaged").unwrap();
        assert!(open(&["localhost"]).is_ok());
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(open(&["localhost"]), Err(PublishError::Keep(OpenKeysError::TooOpen { .. }))));
    }
}
