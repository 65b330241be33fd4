use fleetd_sync_core::entropy::Entropy;

use super::*;
use crate::artifact_files::memory::MemoryArtifactFiles;
use crate::disk::OsDisk;
use crate::disk::memory::{DiskOperation, MemoryDisk};

const GROUP: usize = limit::ARTIFACT_GROUP_BYTES as usize;

fn artifact(size: usize) -> (ArtifactDigest, Vec<u8>) {
    let mut bytes = vec![0; size];
    Entropy::from_seed([9; 32]).fill(&mut bytes);
    (ArtifactDigest::of(&bytes), bytes)
}

fn group(bytes: &[u8], index: u64) -> &[u8] {
    bytes.chunks(GROUP).nth(usize::try_from(index).unwrap()).unwrap()
}

fn download(files: &impl ArtifactFiles, digest: &ArtifactDigest, bytes: &[u8]) -> Result<PathBuf, String> {
    let held = files.begin(digest, bytes.len() as u64).map_err(|error| error.to_string())?;
    for index in held.missing() {
        files.write_group(digest, index, group(bytes, index)).map_err(|error| error.to_string())?;
    }
    files.finish(digest).map_err(|error| error.to_string())
}

#[test]
fn a_download_cut_at_any_point_resumes_from_groups_that_verify() {
    let (digest, bytes) = artifact(41 * GROUP + 100);
    let seed = [41; 32];
    println!("seed {seed:?}");
    let mut entropy = Entropy::from_seed(seed);
    let (mut resumed_with_groups, mut rewritten) = (0, 0);
    for _cut in 0..50 {
        let disk = MemoryDisk::new(64 << 20);
        let mut cuts = 0;
        loop {
            let files = MemoryArtifactFiles::on(&disk);
            let held = files.held(&digest).unwrap();
            if let Held::Part { groups, .. } = &held {
                resumed_with_groups += u32::from(groups.present() > 0);
                for index in (0..groups.count()).filter(|index| groups.contains(*index)) {
                    let part = files.part_path(&digest);
                    let found = disk.read_at(&part, index * GROUP as u64, group(&bytes, index).len()).unwrap();
                    assert!(found == group(&bytes, index), "marked group {index} does not verify");
                }
                rewritten += groups.missing().count();
            }
            // The third life is left alone, so that each of the 50 ends.
            if cuts < 2 {
                disk.fail_after(entropy.below(70));
            }
            cuts += 1;
            let outcome = download(&files, &digest, &bytes);
            disk.cut_power(&mut entropy);
            if let Ok(path) = outcome {
                assert_eq!(disk.read(&path).unwrap().as_deref(), Some(&bytes[..]), "the name was not durable");
                break;
            }
        }
    }
    assert!(resumed_with_groups > 10, "only {resumed_with_groups} lives found groups: the cuts test nothing");
    assert!(rewritten > 0);
}

#[test]
fn an_artifact_is_synced_before_it_has_its_name() {
    let (digest, bytes) = artifact(GROUP + 1);
    let disk = MemoryDisk::new(64 << 20);
    disk.note_operations();
    let path = download(&MemoryArtifactFiles::on(&disk), &digest, &bytes).unwrap();
    let operations = disk.operations();
    let part = path.with_extension("part");
    let position = |operation: &DiskOperation| operations.iter().rposition(|seen| seen == operation).unwrap();
    let written = position(&DiskOperation::Write(part.clone()));
    let synced = position(&DiskOperation::SyncFile(part));
    let named = position(&DiskOperation::Name(path.clone()));
    let durable = position(&DiskOperation::SyncDirectory(path.parent().unwrap().to_owned()));
    assert!(written < synced && synced < named && named < durable, "{operations:?}");
}

#[test]
fn marks_follow_the_groups_they_vouch_for() {
    let (digest, bytes) = artifact(40 * GROUP);
    let disk = MemoryDisk::new(64 << 20);
    disk.note_operations();
    download(&MemoryArtifactFiles::on(&disk), &digest, &bytes).unwrap();
    let operations = disk.operations();
    let marks: Vec<usize> = operations
        .iter()
        .enumerate()
        .filter(|(_at, operation)| matches!(operation, DiskOperation::Name(path) if path.extension().is_some_and(|extension| extension == "groups")))
        .map(|(at, _operation)| at)
        .collect();
    assert!(marks.len() >= 3, "two checkpoints in 40 groups, and the removal at the end");
    let mut synced = true;
    for operation in operations.iter().take(*marks.last().unwrap()) {
        match operation {
            DiskOperation::Write(path) if path.extension().is_some_and(|extension| extension == "part") => {
                synced = false
            }
            DiskOperation::SyncFile(path) if path.extension().is_some_and(|extension| extension == "part") => {
                synced = true
            }
            DiskOperation::Name(path) if path.extension().is_some_and(|extension| extension == "groups") => {
                assert!(synced, "marks were revealed before their groups were durable");
            }
            _ => {}
        }
    }
}

#[test]
fn an_artifact_larger_than_the_disk_is_refused_before_a_byte_is_written() {
    let (digest, bytes) = artifact(8 * GROUP);
    let disk = MemoryDisk::new(FREE_BYTES_RESERVE + 7 * GROUP as u64);
    let files = MemoryArtifactFiles::on(&disk);
    assert!(matches!(
        files.begin(&digest, bytes.len() as u64),
        Err(BeginArtifactError::NoSpace { needed_bytes, .. }) if needed_bytes == bytes.len() as u64
    ));
    assert!(files.list().unwrap().is_empty());
    disk.set_capacity(64 << 20);
    download(&files, &digest, &bytes).unwrap();
    assert!(matches!(files.begin(&digest, limit::ARTIFACT_BYTES_MAX + 1), Err(BeginArtifactError::TooLarge { .. })));
}

#[test]
fn groups_of_the_wrong_place_or_length_are_refused() {
    let (digest, bytes) = artifact(2 * GROUP + 5);
    let files = MemoryArtifactFiles::on(&MemoryDisk::new(64 << 20));
    assert!(matches!(files.write_group(&digest, 0, &bytes[..GROUP]), Err(WriteGroupError::NotBegun { .. })));
    files.begin(&digest, bytes.len() as u64).unwrap();
    assert!(matches!(files.write_group(&digest, 3, &bytes[..5]), Err(WriteGroupError::Index { count: 3, .. })));
    assert!(matches!(files.write_group(&digest, 2, &bytes[..GROUP]), Err(WriteGroupError::Length { expected: 5, .. })));
    assert!(matches!(files.finish(&digest), Err(FinishArtifactError::Missing { missing: 3, count: 3, .. })));
}

#[test]
fn bytes_that_are_not_the_artifacts_are_thrown_away() {
    let (digest, mut bytes) = artifact(2 * GROUP);
    let disk = MemoryDisk::new(64 << 20);
    let files = MemoryArtifactFiles::on(&disk);
    let (good, flipped) = (bytes.clone(), bytes.len() - 1);
    bytes[flipped] ^= 1;
    files.begin(&digest, bytes.len() as u64).unwrap();
    for index in 0..2 {
        files.write_group(&digest, index, group(&bytes, index)).unwrap();
    }
    assert!(matches!(files.finish(&digest), Err(FinishArtifactError::Digest { .. })));
    assert_eq!(files.held(&digest).unwrap(), Held::Nothing);
    assert!(disk.list(Path::new("/data/artifacts")).unwrap().is_empty());
    download(&files, &digest, &good).unwrap();
}

#[test]
fn the_same_code_keeps_artifacts_on_a_real_disk() {
    let home = tempfile::tempdir().unwrap();
    let (digest, bytes) = artifact(20 * GROUP + 3);
    let open = || DiskArtifactFiles::new(OsDisk, home.path().join("artifacts"));
    let files = open();
    assert_eq!(files.begin(&digest, bytes.len() as u64).unwrap().present(), 0);
    for index in 0..18 {
        files.write_group(&digest, index, group(&bytes, index)).unwrap();
    }
    let files = open();
    assert!(matches!(files.held(&digest).unwrap(), Held::Part { groups, .. } if groups.present() == 16));
    let path = download(&files, &digest, &bytes).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    assert_eq!(open().finish(&digest).unwrap(), path, "finishing twice is finishing once");
    assert_eq!(open().list().unwrap(), [digest]);
    assert_eq!(open().begin(&digest, bytes.len() as u64).unwrap().missing().next(), None);
    open().discard(&digest).unwrap();
    assert_eq!(std::fs::read_dir(home.path().join("artifacts")).unwrap().count(), 0);
}

#[test]
fn an_empty_artifact_is_an_artifact() {
    let disk = MemoryDisk::new(64 << 20);
    let digest = ArtifactDigest::of(b"");
    let path = download(&MemoryArtifactFiles::on(&disk), &digest, b"").unwrap();
    assert_eq!(disk.read(&path).unwrap().as_deref(), Some(&b""[..]));
}
