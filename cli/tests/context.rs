//! The file of contexts: who may read it, and what is said when it is wrong.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use fleetd::context::{Context, ContextFile, ContextFileError, SelectContextError};

fn shop() -> Context {
    Context {
        url: "https://fleet.example:4800".to_owned(),
        fleet: "flt_0".to_owned(),
        token: Some("secret".to_owned()),
        ca_certificate_pem: "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n".to_owned(),
    }
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn contexts_survive_the_file_which_is_its_owners_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/contexts.toml");
    let mut file = ContextFile::open_at(&path).unwrap();
    assert_eq!(file.select(None), Err(SelectContextError::None { path: path.clone() }));
    file.put("shop", shop());
    file.put("fleet.example", shop());
    file.make_current("shop").unwrap();
    file.save().unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let mut again = ContextFile::open_at(&path).unwrap();
    assert_eq!(again.select(None), Ok(("shop", &shop())));
    assert_eq!(again.select(Some("fleet.example")), Ok(("fleet.example", &shop())));
    again.remove("shop");
    again.save().unwrap();
    assert_eq!(ContextFile::open_at(&path).unwrap().current(), None);
}

#[test]
fn an_unknown_context_names_those_that_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = ContextFile::open_at(&folder.path().join("contexts.toml")).unwrap();
    file.put("shop", shop());
    let expected = SelectContextError::Unknown { name: "shpo".to_owned(), known: vec!["shop".to_owned()] };
    assert_eq!(file.select(Some("shpo")), Err(expected.clone()));
    assert_eq!(file.make_current("shpo"), Err(expected));
}

#[test]
fn a_file_that_others_can_read_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("contexts.toml");
    std::fs::write(&path, "").unwrap();
    set_mode(&path, 0o640);
    assert!(matches!(ContextFile::open_at(&path), Err(ContextFileError::Permissions { mode: 0o640, .. })));
    set_mode(&path, 0o600);
    assert!(ContextFile::open_at(&path).is_ok());
}

#[test]
fn a_damaged_file_names_line_and_key_and_shows_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("contexts.toml");
    std::fs::write(&path, "current = \"shop\"\n[contexts.shop]\nurl = \"https://a\"\ntokne = \"hunter2\"\n").unwrap();
    set_mode(&path, 0o600);
    let Err(error) = ContextFile::open_at(&path) else { panic!("it was read") };
    let ContextFileError::Malformed { line, .. } = &error else { panic!("{error:?}") };
    let text = error.to_string();
    assert_eq!(*line, 4, "{text}");
    assert!(text.contains("tokne") && !text.contains("hunter2"), "{text}");
}

#[test]
fn a_folder_in_the_files_place_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("contexts.toml");
    std::fs::create_dir(&path).unwrap();
    set_mode(&path, 0o700);
    assert!(matches!(ContextFile::open_at(&path), Err(ContextFileError::Io { verb: "read", .. })));
}
