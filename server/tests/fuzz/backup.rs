//! A whole backup file, as `fleetd restore` is given it: from anywhere, and written by anybody.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use fleetd_server::artifact_store::disk::DiskArtifactStore;
use fleetd_server::artifact_store::{ArtifactStore as _, Held};
use fleetd_server::backup::{Contents, Head, RestoreBackupError, Sources, restore, write};
use fleetd_server::history::History;
use fleetd_server::keys::Keys;
use fleetd_server::record::backup::encode_piece;
use fleetd_sync_core::codec::{Reader, Writer};
use fleetd_sync_core::commit::{ActorKey, Batch, Commit as _, Mutation, Space};
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::id::{ArtifactDigest, FleetId};
use fleetd_sync_core::time::Wall;
use fleetd_sync_store::copy::{CopyStore as _, Piece};
use fleetd_sync_store::disk::{DiskStore, Profile};
use fleetd_sync_store::memory::MemoryStore;

use super::CASES_SLOW;

/// Bytes of one name, key, value or part of an input.
const PART_BYTES_MAX: usize = 16 << 10;
/// Bytes of a tar's block.
const BLOCK_BYTES: usize = 512;
/// Where a tar's header has its size and its checksum.
const SIZE: std::ops::Range<usize> = 124..136;
const CHECKSUM: std::ops::Range<usize> = 148..156;
/// Records that the note of the restore is: its entry, where the log stands, the name of the store's history, and the store's
/// own revision.
const NOTE_RECORDS: u64 = 4;

thread_local! {
    static GROUND: Ground = Ground::new();
}

/// A data directory that has keys and nothing else. They are the same in every run: inputs name their fleet.
struct Ground {
    folder: tempfile::TempDir,
    fleet: FleetId,
}

impl Ground {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        fs::create_dir(&data).expect("a data directory");
        let keys = data.join("keys");
        Keys::open_or_create(&keys, &mut Entropy::from_seed([5; 32])).expect("keys");
        let fleet = Keys::fleet_in(&keys).expect("readable keys").expect("a fleet");
        Self { folder, fleet }
    }

    /// Restores a file, and says what it had if it was whole; nothing of it is left behind.
    fn restore(&self, file: &[u8], is_ours: bool) -> Result<Contents, RestoreBackupError> {
        let (path, data) = (self.folder.path().join("backup"), self.folder.path().join("data"));
        fs::write(&path, file).expect("a file");
        let restored = restore(&path, &data);
        match &restored {
            Ok((_, contents)) => {
                assert_eq!(names(&data), BTreeSet::from(["artifacts", "keys", "store"].map(str::to_owned)));
                self.check(contents, &data, is_ours);
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                assert_eq!(names(&data), BTreeSet::from(["keys".to_owned()]), "nothing is left of {error}");
            }
        }
        for part in ["store", "artifacts"] {
            if data.join(part).exists() {
                fs::remove_dir_all(data.join(part)).expect("a folder that can be emptied");
            }
        }
        restored.map(|(_, contents)| contents)
    }

    /// A restored server has what its backup counts, and can be backed up and restored again.
    fn check(&self, contents: &Contents, data: &Path, is_ours: bool) {
        let artifacts = DiskArtifactStore::open(&data.join("artifacts")).expect("artifacts");
        let list = artifacts.list().expect("a list");
        let mut files = BTreeSet::new();
        let mut bytes = 0;
        for digest in &list {
            let Ok(Held::Whole { size_bytes }) = artifacts.held(*digest) else { panic!("{digest} is not whole") };
            let content = artifacts.read(*digest, 0, usize::MAX).expect("an artifact");
            assert_eq!(ArtifactDigest::of(&content), *digest);
            bytes += size_bytes;
            files.extend([digest.to_string(), format!("{digest}.groups")]);
        }
        assert_eq!(names(&data.join("artifacts")), files);
        let found = (u64::try_from(list.len()).expect("few"), bytes);
        assert_eq!(found, (contents.artifacts, contents.artifact_bytes), "what it counts is there");

        let store = DiskStore::open(&data.join("store"), Profile::Server).expect("the store was opened before");
        let sources = Sources { fleet: self.fleet, at: Wall(2), store: &store, artifacts: &artifacts };
        let mut again = Vec::new();
        let written = write(&mut again, sources).expect("a backup of what was restored");
        assert!(written.log_entries <= contents.log_entries && written.records <= contents.records + NOTE_RECORDS);
        if is_ours {
            assert_eq!(written.log_entries, contents.log_entries);
            assert!(written.records >= contents.records);
        }
        let history = History::of(&store).expect("a name");
        drop(store);
        let (path, second) = (self.folder.path().join("again"), self.folder.path().join("second"));
        fs::write(&path, again).expect("a file");
        fs::create_dir_all(&second).expect("a folder");
        fs::rename(data.join("keys"), second.join("keys")).expect("keys that move");
        let restored = restore(&path, &second);
        if restored.is_ok() {
            let store = DiskStore::open(&second.join("store"), Profile::Server).expect("the store was opened before");
            assert_ne!(History::of(&store).expect("a name"), history, "what comes now is another history");
        }
        fs::rename(second.join("keys"), data.join("keys")).expect("keys that move back");
        fs::remove_dir_all(&second).expect("a folder that can be emptied");
        assert_eq!(restored.expect("a backup of a restored server is one").1, written);
    }
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

fn compressed(tar: &[u8]) -> Vec<u8> {
    zstd::encode_all(tar, 1).expect("zstd")
}

/// A part of a tar: its header is right, but for its kind.
fn append(tar: &mut Vec<u8>, kind: u8, name: &[u8], body: &[u8]) {
    let mut header = tar::Header::new_gnu();
    let name = name.get(..100).unwrap_or(name);
    header.as_old_mut().name.iter_mut().zip(name).for_each(|(into, byte)| *into = *byte);
    header.set_size(u64::try_from(body.len()).expect("few bytes"));
    header.set_mode(0o600);
    header.as_old_mut().linkflag = [kind];
    header.set_cksum();
    tar.extend_from_slice(header.as_bytes());
    tar.extend_from_slice(body);
    tar.resize(tar.len().next_multiple_of(BLOCK_BYTES), 0);
}

/// A tar whose headers' checksums are right, wherever the sizes before them say that a header is.
fn with_checksums(tar: &[u8]) -> Vec<u8> {
    let (mut tar, mut at) = (tar.to_vec(), 0);
    while let Some(header) = tar.get_mut(at..).and_then(|rest| rest.get_mut(..BLOCK_BYTES)) {
        let digits =
            header[SIZE].iter().skip_while(|byte| **byte == b' ').take_while(|byte| (b'0'..b'8').contains(byte));
        let size = digits.fold(0_usize, |size, digit| size.saturating_mul(8) + usize::from(digit - b'0'));
        if header.iter().any(|byte| *byte != 0) {
            header[CHECKSUM].fill(b' ');
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        let Some(next) = size.checked_next_multiple_of(BLOCK_BYTES).and_then(|size| size.checked_add(at + BLOCK_BYTES))
        else {
            break;
        };
        at = next;
    }
    tar
}

/// A file that is put together of what the input names, in its order, and whether it is one that a server would write.
fn file(bytes: &[u8], fleet: FleetId) -> Option<(Vec<u8>, bool)> {
    let mut reader = Reader::new(bytes);
    let (mut tar, mut order) = (Vec::new(), Vec::new());
    let (mut contents, mut artifacts) = (Contents::default(), BTreeSet::new());
    let store = MemoryStore::immediate();
    let mut next = 1;
    while let Ok(kind) = reader.u8("kind") {
        let mut part = || reader.bytes("part", PART_BYTES_MAX);
        match kind {
            b'h' => {
                let head = Head { format: 1, fleet_id: fleet.to_string(), written_at_ms: 1, version: "1".to_owned() };
                append(&mut tar, 0, b"backup.json", &serde_json::to_vec(&head).expect("JSON"));
            }
            b'r' => {
                let (key, value) = (part().ok()?.to_vec(), part().ok()?.to_vec());
                let (space, key) = key.split_first()?;
                let space = *Space::ALL.get(usize::from(*space))?;
                commit(&store, Mutation::Put { space, key: key.to_vec(), value });
            }
            b'l' => {
                let entry = part().ok()?.to_vec();
                commit(&store, Mutation::Append { log: "log".to_owned(), sequence: next, entry });
                next += 1;
            }
            b's' => append(&mut tar, 0, b"store/00000001", &pieces(&store, &mut contents)),
            b'z' => append(&mut tar, 0, b"store/end", &[]),
            b'a' => {
                let body = part().ok()?;
                let digest = ArtifactDigest::of(body);
                append(&mut tar, 0, format!("artifacts/{digest}").as_bytes(), body);
                contents.artifacts += 1;
                contents.artifact_bytes += u64::try_from(body.len()).expect("few bytes");
                // One that comes twice is not one that a server writes.
                order.extend((!artifacts.insert(digest)).then_some(b'p'));
            }
            b'e' => append(&mut tar, 0, b"end.json", &serde_json::to_vec(&contents).expect("JSON")),
            kind => {
                let (name, body) = (part().ok()?, part().ok()?);
                append(&mut tar, kind, name, body);
            }
        }
        order.push(kind);
    }
    tar.extend_from_slice(&[0; 2 * BLOCK_BYTES]);
    order.retain(|kind| !matches!(kind, b'r' | b'l'));
    let is_ours = order.strip_prefix(b"hsz").and_then(|rest| rest.strip_suffix(b"e"));
    Some((compressed(&tar), is_ours.is_some_and(|artifacts| artifacts.iter().all(|kind| *kind == b'a'))))
}

fn commit(store: &MemoryStore, mutation: Mutation) {
    store.submit(Batch { actor: ActorKey::only("fuzz"), mutations: vec![mutation] }, Box::new(|_| ()));
}

fn pieces(store: &MemoryStore, contents: &mut Contents) -> Vec<u8> {
    let mut pieces = Vec::new();
    let copied = store.copy(&mut |piece| {
        match &piece {
            Piece::Record { .. } => contents.records += 1,
            Piece::Entry { .. } => contents.log_entries += 1,
        }
        encode_piece(piece, &mut pieces);
        std::ops::ControlFlow::Continue(())
    });
    copied.expect("a store in memory can be copied");
    pieces
}

/// The first byte says what the rest is taken for. Gives what was restored.
fn check(bytes: &[u8]) -> Option<Contents> {
    let (kind, rest) = bytes.split_first()?;
    GROUND.with(|ground| match kind {
        0 => ground.restore(rest, false).ok(),
        1 => ground.restore(&compressed(&with_checksums(rest)), false).ok(),
        _ => {
            let (file, is_ours) = file(rest, ground.fleet)?;
            let restored = ground.restore(&file, is_ours);
            // Only what lies in the store may be wrong with a file that a server would write.
            restored.ok()
        }
    })
}

fn samples() -> Vec<Vec<u8>> {
    let mut ours = Writer::new();
    ours.u8(2).u8(b'h').u8(b'r').bytes(&[2, 1, 2]).bytes(b"three").u8(b'l').bytes(b"one").u8(b'l').bytes(&[7; 900]);
    ours.u8(b's').u8(b'z').u8(b'a').bytes(b"coffee").u8(b'a').bytes(&[]).u8(b'e');
    let mut empty = Writer::new();
    empty.u8(2).u8(b'h').u8(b'r').bytes(&[2, 1]).bytes(b"").u8(b's').u8(b'z').u8(b'e');
    let (ours, empty) = (ours.finish(), empty.finish());
    let fleet = GROUND.with(|ground| ground.fleet);
    let (file, _) = file(&empty[1..], fleet).expect("a file");
    let tar = zstd::decode_all(file.as_slice()).expect("a tar");
    vec![ours, empty, [[0].as_slice(), &file].concat(), [[1].as_slice(), &tar].concat()]
}

#[test]
fn every_sample_of_a_backup_is_restored() {
    let found: Vec<Option<Contents>> = samples().iter().map(|sample| check(sample)).collect();
    let first = found[0].expect("the first sample is whole");
    assert_eq!((first.log_entries, first.artifacts, first.artifact_bytes), (2, 2, 6));
    assert!(first.records > 2);
    assert!(found.iter().all(Option::is_some), "{found:?}");
}

#[test]
fn a_backup_with_an_artifact_twice_or_an_entry_that_no_log_has_is_refused() {
    let mut twice = Writer::new();
    twice.u8(2).u8(b'h').u8(b'r').bytes(&[2, 1]).bytes(b"").u8(b's').u8(b'z');
    twice.u8(b'a').bytes(b"coffee").u8(b'a').bytes(b"coffee").u8(b'e');
    assert_eq!(check(&twice.finish()), None);
}

#[test]
fn a_part_of_a_backup_that_is_no_plain_file_is_refused() {
    // The name of the part that follows, as long as somebody likes: it would be read whole.
    for (kind, name) in [(b'L', b"backup.json".as_slice()), (b'x', b"20 path=backup.json\n")] {
        let mut parts = Writer::new();
        parts.u8(2).u8(kind).bytes(b"name").bytes(name).u8(b'h').u8(b'r').bytes(&[2, 1]).bytes(b"");
        parts.u8(b's').u8(b'z').u8(b'e');
        assert_eq!(check(&parts.finish()), None, "{}", char::from(kind));
    }
}

#[test]
fn any_file_is_restored_whole_or_leaves_nothing() {
    bolero::check!(name = "backup").with_iterations(CASES_SLOW).for_each(|bytes| {
        check(bytes);
    });
}
