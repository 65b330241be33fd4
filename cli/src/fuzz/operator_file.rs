//! Files of an operator: contexts, which hold tokens, keys, and drafts of root records that come from another machine.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::key::SecretKey;
use fleetd_sync_core::trust::{Armoured as _, Change, Role, RootChain, RootRecord};

use super::CASES;
use crate::command::trust::record_file::{self, RecordFile};
use crate::context::{Context, ContextFile, ContextFileError};
use crate::key_file;

/// Stands for a token in inputs. No error may show it, wherever it stands as a value.
const TOKEN: &str = "fat_0cup0of0coffee";

thread_local! {
    static FOLDER: RefCell<tempfile::TempDir> = RefCell::new(tempfile::tempdir().unwrap());
}

fn file(bytes: &[u8]) -> PathBuf {
    FOLDER.with_borrow(|folder| {
        let path = folder.path().join("file.toml");
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    })
}

/// Says whether a token stands in the name of a key, which errors do show.
fn names_it(table: &toml::Table) -> bool {
    table.iter().any(|(key, value)| key.contains(TOKEN) || value.as_table().is_some_and(names_it))
}

fn contexts(bytes: &[u8]) -> bool {
    let path = file(bytes);
    match ContextFile::open_at(&path) {
        Ok(mut contexts) => {
            contexts.save().unwrap();
            let again = ContextFile::open_at(&path).unwrap();
            assert_eq!(again.current(), contexts.current());
            assert!(again.iter().eq(contexts.iter()), "what is written is read again");
            let names: Vec<String> = contexts.iter().map(|(name, _)| name.to_owned()).collect();
            for name in &names {
                contexts.make_current(name).unwrap();
                assert!(contexts.select(None).is_ok());
                contexts.remove(name);
            }
            assert!(contexts.iter().next().is_none() && (names.is_empty() || contexts.current().is_none()));
            true
        }
        Err(error) => {
            let text = String::from_utf8_lossy(bytes);
            if let ContextFileError::Malformed { line, .. } = &error {
                assert!((1..=text.matches('\n').count() + 1).contains(line), "line {line}");
            }
            if text.parse().is_ok_and(|table: toml::Table| !names_it(&table)) {
                assert!(!error.to_string().contains(TOKEN), "{error}");
            }
            false
        }
    }
}

fn records(file: &RecordFile) -> Vec<Vec<u8>> {
    file.chain.records().chain([&file.record]).map(RootRecord::encode).collect()
}

fn draft(bytes: &[u8]) -> bool {
    let path = file(bytes);
    match record_file::read(&path) {
        Ok(draft) => {
            assert!(!record_file::describe(&draft).is_empty());
            record_file::replace(&path, &draft).unwrap();
            assert_eq!(records(&record_file::read(&path).unwrap()), records(&draft), "what is written is read again");
            true
        }
        Err(error) => {
            assert!(!error.message.is_empty() && error.next_command.is_some());
            false
        }
    }
}

fn keys(bytes: &[u8]) -> bool {
    let path = file(bytes);
    let public = key_file::read_public(&path);
    if let Ok(key) = &public {
        assert_eq!(key_file::read_public(&file(key.to_armour().as_bytes())).unwrap(), *key);
    }
    let secret = key_file::read_secret(&file(bytes));
    if let Ok(key) = &secret {
        let path = file(key.to_armour().as_bytes());
        assert_eq!(key_file::read_secret(&path).unwrap().id(), key.id());
    }
    assert!(public.is_err() || secret.is_err(), "a key is public or secret");
    public.is_ok() || secret.is_ok()
}

/// The first byte says what the rest is taken for.
fn check(bytes: &[u8]) -> bool {
    let Some((kind, rest)) = bytes.split_first() else { return false };
    match kind {
        b'c' => contexts(rest),
        b'd' => draft(rest),
        _ => keys(rest),
    }
}

fn written(write: impl FnOnce(&Path)) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    write(&path);
    fs::read(path).unwrap()
}

fn samples() -> Vec<Vec<u8>> {
    let mut entropy = Entropy::from_seed([8; 32]);
    let [root, release] = std::array::from_fn(|_| SecretKey::generate(&mut entropy));
    let record = RootRecord::draft(BTreeSet::from([root.public()]), 1, []).unwrap().sign(&root);
    let chain = RootChain::found(record.body().fleet, record).unwrap();
    let role = Role::Release { workloads: BTreeSet::from(["coffee".parse().unwrap()]) };
    let record = chain.draft_next([Change::Delegate { key: release.public(), role }]).unwrap();
    let draft = written(|path| record_file::create(path, &RecordFile { chain, record }).unwrap());
    let contexts = written(|path| {
        let mut contexts = ContextFile::open_at(path).unwrap();
        for (name, token) in [("shop", Some(TOKEN.to_owned())), ("fleet.example", None)] {
            let ca_certificate_pem = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n".to_owned();
            let url = "https://fleet.example:4800".to_owned();
            contexts.put(name, Context { url, fleet: "flt_0".to_owned(), token, ca_certificate_pem });
        }
        contexts.save().unwrap();
    });
    vec![
        [b"c", contexts.as_slice()].concat(),
        [b"d", draft.as_slice()].concat(),
        [b"k", release.to_armour().as_bytes()].concat(),
        [b"k", release.public().to_armour().as_bytes()].concat(),
    ]
}

#[test]
fn every_sample_of_an_operators_file_is_one() {
    for (index, sample) in samples().iter().enumerate() {
        assert!(check(sample), "sample {index}");
    }
}

#[test]
fn a_token_at_the_wrong_place_is_not_shown() {
    for text in [
        format!("current = \"shop\"\n[contexts]\nshop = \"{TOKEN}\"\n"),
        format!("contexts = \"{TOKEN}\"\n"),
        format!("current = [\"{TOKEN}\"]\n"),
        format!("[contexts.shop]\nurl = 1\ntoken = \"{TOKEN}\"\n"),
    ] {
        let error = ContextFile::open_at(&file(text.as_bytes())).unwrap_err().to_string();
        assert!(!error.contains(TOKEN) && error.contains("expected"), "{error}");
    }
}

#[test]
fn any_file_of_an_operator_is_read_again_as_it_was_written() {
    bolero::check!(name = "operator_file").with_iterations(CASES).for_each(|bytes| {
        check(bytes);
    });
}
