//! Stores that earlier programs wrote, kept here as they were: this program must open each.
//!
//! An image is a zstd file of (path length, path, content length, content); a folder's path ends with a slash, and
//! the zeros behind a journal are left out. To keep one of the present format: `FLEETD_KEEP_STORE_IMAGE=1 cargo test -p fleetd-sync-store old_images`.

use std::fs;
use std::path::{Path, PathBuf};

use fleetd_sync_core::commit::Revision;
use fleetd_sync_store::disk::{DiskStore, Profile};
use fleetd_sync_store::state_store::{LogPart, StateStore, commit_and_wait};

use crate::material::{append, delete, forget, put, sequences, turn, value};

fn image_path(format: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/images/format-{format}.zst"))
}

fn pack(root: &Path, folder: &Path, image: &mut Vec<u8>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let mut name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        let mut content = Vec::new();
        if path.is_dir() {
            name.push('/');
        } else {
            content = fs::read(&path).unwrap();
        }
        if name.ends_with(".jnl") {
            content.truncate(content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
        }
        for part in [name.as_bytes(), &content] {
            image.extend_from_slice(&u32::try_from(part.len()).unwrap().to_le_bytes());
            image.extend_from_slice(part);
        }
        if path.is_dir() {
            pack(root, &path, image);
        }
    }
}

fn unpack(image: &[u8], root: &Path) {
    fs::create_dir(root).unwrap();
    let mut rest = image;
    let mut take = || {
        let (length, behind) = rest.split_first_chunk::<4>()?;
        let (part, behind) = behind.split_at(u32::from_le_bytes(*length) as usize);
        rest = behind;
        Some(part)
    };
    while let (Some(name), Some(content)) = (take(), take()) {
        let name = std::str::from_utf8(name).unwrap();
        if name.ends_with('/') {
            fs::create_dir_all(root.join(name)).unwrap();
        } else {
            fs::write(root.join(name), content).unwrap();
        }
    }
}

/// Writes what every image holds.
fn fill(path: &Path) {
    let store = DiskStore::open(path, Profile::Agent).unwrap();
    let turns = [
        vec![put("kept", "first"), put("removed", "x"), append("log", 1, &[b'a'; 20 << 10])],
        vec![put("kept", "second"), delete("removed"), append("log", 2, b"two"), append("other", 7, b"seven")],
        vec![append("log", 3, b"three"), forget("log", 1)],
    ];
    for mutations in turns {
        commit_and_wait(&store, turn("a", mutations)).unwrap();
    }
}

#[test]
fn an_image_of_format_1_opens_with_all_it_held() {
    let folder = tempfile::tempdir().unwrap();
    if std::env::var_os("FLEETD_KEEP_STORE_IMAGE").is_some() {
        let filled = folder.path().join("filled");
        fill(&filled);
        let mut image = Vec::new();
        pack(&filled, &filled, &mut image);
        fs::create_dir_all(image_path(1).parent().unwrap()).unwrap();
        fs::write(image_path(1), zstd::bulk::compress(&image, 19).unwrap()).unwrap();
    }
    let image = zstd::stream::decode_all(fs::File::open(image_path(1)).unwrap()).unwrap();
    let path = folder.path().join("store");
    unpack(&image, &path);
    let store = DiskStore::open(&path, Profile::Agent).unwrap();
    assert_eq!(store.revision(), Revision(3));
    assert_eq!((value(&store, "kept").as_deref(), value(&store, "removed")), (Some("second"), None));
    assert_eq!((sequences(&store, "log"), sequences(&store, "other")), (vec![2, 3], vec![7]));
    let three = LogPart::Entry { sequence: 3, entry: b"three".to_vec() };
    assert_eq!(store.read_log("log", 3, 100), Ok(vec![three]));
    commit_and_wait(&store, turn("a", vec![append("log", 4, b"four")])).unwrap();
    assert_eq!(sequences(&store, "log"), [2, 3, 4]);
}
