use fleetd_sync_core::configuration::ConfiguredFile;
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::id::ArtifactDigest;

use super::*;
use crate::disk::OsDisk;
use crate::disk::memory::MemoryDisk;
use crate::install::memory::MemoryInstaller;

const DISK_BYTES: u64 = 64 << 20;

fn coffee() -> WorkloadName {
    "coffee".parse().unwrap()
}

/// Puts an artifact on the disk, durably, and describes its release.
fn release(disk: &impl Disk, data: &Path, version: &str) -> Staging {
    let content = format!("#!/bin/sh\necho {version}\n# {}\n", "-".repeat(400));
    let artifact = ArtifactDigest::of(content.as_bytes());
    let artifact_file = data.join(artifact.to_string());
    disk.write(&artifact_file, content.as_bytes(), FileMode::Private).unwrap();
    disk.sync_file(&artifact_file).unwrap();
    disk.sync_directory(data).unwrap();
    // The second release comes with a configuration.
    let mut files = BTreeMap::new();
    let configuration = (version == "2.0").then(|| {
        let (menu, path) = (b"espresso".as_slice(), data.join("menu"));
        let file = ConfiguredFile { digest: ArtifactDigest::of(menu), size_bytes: 8 };
        disk.write(&path, menu, FileMode::Private).unwrap();
        files.insert(file.digest, path);
        let (values, files) = ([("ROAST".to_owned(), "dark".to_owned())].into(), [("MENU".to_owned(), file)].into());
        Arc::new(Configuration::new(coffee(), "roast-2".parse().unwrap(), values, files).unwrap())
    });
    let of_configuration = configuration.as_ref().map(|configuration| configuration.digest());
    Staging {
        workload: coffee(),
        slot: Slot { version: version.parse().unwrap(), artifact, configuration: of_configuration },
        artifact_file,
        manifest: format!("manifest of {version}").into_bytes(),
        configuration,
        files,
        verdict: b"good".to_vec(),
    }
}

fn memory_release(disk: &MemoryDisk, version: &str) -> Staging {
    release(disk, Path::new("/data"), version)
}

fn current(installer: &impl Installer) -> Option<String> {
    Some(installer.installed(&coffee()).unwrap().current?.slot.version.to_string())
}

fn previous(installer: &impl Installer) -> Option<String> {
    Some(installer.installed(&coffee()).unwrap().previous?.slot.version.to_string())
}

fn upgrade(installer: &impl Installer, staging: &Staging) -> Result<(), String> {
    installer.stage(staging).map_err(|error| error.to_string())?;
    installer.switch(&staging.workload, &staging.slot).map_err(|error| error.to_string())
}

#[test]
fn a_power_cut_at_any_operation_leaves_the_old_release_or_the_new_one() {
    let (mut old_seen, mut new_seen) = (0, 0);
    for cut_at in 0.. {
        let disk = MemoryDisk::new(DISK_BYTES);
        let (one, two) = (memory_release(&disk, "1.0"), memory_release(&disk, "2.0"));
        upgrade(&MemoryInstaller::on(&disk), &one).unwrap();
        disk.fail_after(cut_at);
        let outcome = upgrade(&MemoryInstaller::on(&disk), &two);
        let seed = u8::try_from(cut_at).unwrap();
        disk.cut_power(&mut Entropy::from_seed([seed; 32]));
        let installer = MemoryInstaller::on(&disk);
        let installed = installer.installed(&coffee()).unwrap();
        assert_eq!(installed.damaged, [], "cut at {cut_at}");
        let release = installed.current.expect("a current release survives every cut");
        let version = release.slot.version.to_string();
        match version.as_str() {
            "1.0" => old_seen += 1,
            _ => new_seen += 1,
        }
        assert!(outcome.is_err() || version == "2.0", "a switch that was answered is durable");
        installer.verify(&coffee(), &release.slot).unwrap();
        upgrade(&installer, &two).unwrap();
        assert_eq!((current(&installer), previous(&installer)), (Some("2.0".into()), Some("1.0".into())));
        if outcome.is_ok() {
            break;
        }
    }
    assert!(old_seen > 10 && new_seen > 0, "{old_seen} old, {new_seen} new");
}

#[test]
fn everything_is_synced_before_it_is_revealed() {
    let disk = MemoryDisk::new(DISK_BYTES);
    let staging = memory_release(&disk, "1.0");
    let installer = MemoryInstaller::on(&disk);
    disk.note_operations();
    upgrade(&installer, &staging).unwrap();
    let order: Vec<String> = disk.operations().iter().map(ToString::to_string).collect();
    let folder = staging.slot.folder_name();
    let at = |wanted: String| {
        order.iter().position(|seen| *seen == wanted).unwrap_or_else(|| panic!("no {wanted} in {order:#?}"))
    };
    let home = "/data/workloads/coffee";
    let unfinished = format!("{home}/releases/.unfinished-{folder}");
    let revealed = at(format!("name {home}/releases/{folder}")) + 1;
    for file in ["artifact", "manifest", "verdict"] {
        assert!(at(format!("sync file {unfinished}/{file}")) < revealed, "{file}");
    }
    assert!(at(format!("sync directory {unfinished}")) < revealed);
    let staged = at(format!("sync directory {home}/releases"));
    let link_written = at(format!("name {home}/.unfinished-current"));
    let switched = at(format!("name {home}/current"));
    assert!(revealed <= staged && staged < link_written, "{order:#?}");
    let syncs = |range: &[String]| range.iter().filter(|seen| **seen == format!("sync directory {home}")).count();
    assert_eq!(syncs(&order[link_written..switched]), 1, "the link is durable before it is switched");
    assert_eq!(syncs(&order[switched..]), 1, "the switch is durable before it is answered");
}

#[test]
fn a_switch_keeps_the_previous_release_and_can_go_back() {
    let disk = MemoryDisk::new(DISK_BYTES);
    let installer = MemoryInstaller::on(&disk);
    let (one, two) = (memory_release(&disk, "1.0"), memory_release(&disk, "2.0"));
    upgrade(&installer, &one).unwrap();
    assert_eq!(previous(&installer), None);
    upgrade(&installer, &two).unwrap();
    upgrade(&installer, &two).unwrap();
    assert_eq!((current(&installer), previous(&installer)), (Some("2.0".into()), Some("1.0".into())));
    installer.switch(&coffee(), &one.slot).unwrap();
    assert_eq!((current(&installer), previous(&installer)), (Some("1.0".into()), Some("2.0".into())));
}

#[test]
fn garbage_is_what_nobody_refers_to() {
    let disk = MemoryDisk::new(DISK_BYTES);
    let installer = MemoryInstaller::on(&disk);
    let releases: Vec<Staging> = ["1", "2", "3", "4", "5"].map(|version| memory_release(&disk, version)).into();
    for staging in &releases {
        upgrade(&installer, staging).unwrap();
    }
    let gone = installer.collect_garbage(&coffee(), &[releases[0].slot.clone()]).unwrap();
    assert_eq!(gone, [releases[1].slot.folder_name(), releases[2].slot.folder_name()]);
    let left: Vec<String> =
        installer.installed(&coffee()).unwrap().slots.iter().map(|slot| slot.version.to_string()).collect();
    assert_eq!(left, ["1", "4", "5"]);
}

#[test]
fn a_damaged_release_is_named_not_switched_to_and_replaced() {
    let disk = MemoryDisk::new(DISK_BYTES);
    let installer = MemoryInstaller::on(&disk);
    let (one, two) = (memory_release(&disk, "1.0"), memory_release(&disk, "2.0"));
    upgrade(&installer, &one).unwrap();
    installer.stage(&two).unwrap();
    let folder = installer.releases(&coffee()).join(two.slot.folder_name());
    disk.flip_byte(&folder.join("manifest"), 3);
    let damaged = installer.installed(&coffee()).unwrap().damaged;
    assert_eq!(damaged.len(), 1);
    assert_eq!(damaged[0].cause, "its manifest is not the one that was verified");
    assert!(matches!(installer.switch(&coffee(), &two.slot), Err(SwitchError::NotStaged { .. })));
    assert_eq!(current(&installer).as_deref(), Some("1.0"));
    upgrade(&installer, &two).unwrap();
    assert_eq!(current(&installer).as_deref(), Some("2.0"));
}

#[test]
fn an_artifact_that_flash_has_changed_does_not_verify() {
    let disk = MemoryDisk::new(DISK_BYTES);
    let installer = MemoryInstaller::on(&disk);
    let one = memory_release(&disk, "1.0");
    upgrade(&installer, &one).unwrap();
    installer.verify(&coffee(), &one.slot).unwrap();
    disk.flip_byte(&installer.releases(&coffee()).join(one.slot.folder_name()).join("artifact"), 2);
    assert!(matches!(installer.verify(&coffee(), &one.slot), Err(VerifyReleaseError::Digest { .. })));
}

#[test]
fn what_was_laid_out_and_has_changed_since_is_laid_out_anew() {
    let disk = MemoryDisk::new(DISK_BYTES);
    let installer = MemoryInstaller::on(&disk);
    upgrade(&installer, &memory_release(&disk, "1.0")).unwrap();
    let two = memory_release(&disk, "2.0");
    disk.forbid_hard_links();
    installer.stage(&two).unwrap();
    disk.flip_byte(&installer.releases(&coffee()).join(two.slot.folder_name()).join("artifact"), 2);
    assert!(matches!(installer.verify(&coffee(), &two.slot), Err(VerifyReleaseError::Digest { .. })));
    installer.stage(&two).unwrap();
    installer.verify(&coffee(), &two.slot).unwrap();
}

#[test]
fn a_copy_needs_room_where_a_link_needs_none() {
    let disk = MemoryDisk::new(DISK_BYTES);
    let one = memory_release(&disk, "1.0");
    let installer = MemoryInstaller::on(&disk);
    // Room for the manifest and the verdict next to the artifact, not for a second artifact.
    let artifact_bytes = disk.length(&one.artifact_file).unwrap().unwrap();
    disk.set_capacity(FREE_BYTES_RESERVE + artifact_bytes + 100);
    disk.forbid_hard_links();
    assert!(matches!(installer.stage(&one), Err(StageError::NoSpace { .. })));
    assert_eq!(installer.installed(&coffee()).unwrap().slots, []);
    disk.allow_hard_links();
    upgrade(&installer, &one).unwrap();
}

#[test]
fn a_new_verdict_on_the_running_release_never_leaves_it_without_one() {
    for cut_at in 0.. {
        let disk = MemoryDisk::new(DISK_BYTES);
        let one = memory_release(&disk, "1.0");
        upgrade(&MemoryInstaller::on(&disk), &one).unwrap();
        let again = Staging { verdict: b"retired key".to_vec(), ..one };
        disk.fail_after(cut_at);
        let outcome = MemoryInstaller::on(&disk).stage(&again);
        disk.cut_power(&mut Entropy::from_seed([u8::try_from(cut_at).unwrap(); 32]));
        let verdict = MemoryInstaller::on(&disk).installed(&coffee()).unwrap().current.expect("still whole").verdict;
        assert!(verdict == b"good" || verdict == b"retired key");
        if outcome.is_ok() {
            assert_eq!(verdict, b"retired key");
            break;
        }
    }
}

#[test]
fn a_removed_workload_leaves_nothing() {
    let disk = MemoryDisk::new(DISK_BYTES);
    let installer = MemoryInstaller::on(&disk);
    upgrade(&installer, &memory_release(&disk, "1.0")).unwrap();
    assert_eq!(installer.workloads().unwrap(), [coffee()]);
    installer.remove(&coffee()).unwrap();
    installer.remove(&coffee()).unwrap();
    assert_eq!(installer.workloads().unwrap(), []);
    assert!(disk.list(Path::new("/data/workloads")).unwrap().is_empty());
}

#[test]
fn a_folder_on_a_real_disk_holds_a_program_that_runs() {
    let home = tempfile::tempdir().unwrap();
    let installer = FolderInstaller::new(OsDisk, home.path());
    let staging = release(&OsDisk, home.path(), "1.8.0");
    upgrade(&installer, &staging).unwrap();
    upgrade(&installer, &release(&OsDisk, home.path(), "1.9.0")).unwrap();
    installer.switch(&coffee(), &staging.slot).unwrap();
    let program = home.path().join("workloads/coffee/current/artifact");
    let output = std::process::Command::new(&program).output().unwrap();
    assert_eq!(output.stdout, b"1.8.0\n");
    assert_eq!(installer.collect_garbage(&coffee(), &[]).unwrap(), Vec::<String>::new());
    installer.verify(&coffee(), &staging.slot).unwrap();
    installer.remove(&coffee()).unwrap();
    assert!(!program.exists());
}

#[test]
fn a_configurations_files_lie_with_its_release_and_are_told_from_others() {
    let disk = MemoryDisk::new(DISK_BYTES);
    let installer = MemoryInstaller::on(&disk);
    let staging = memory_release(&disk, "2.0");
    upgrade(&installer, &staging).unwrap();
    let installed = installer.installed(&coffee()).unwrap().current.unwrap();
    assert_eq!((&installed.slot, &installed.configuration), (&staging.slot, &staging.configuration));
    let path = installed.files["MENU"].clone();
    assert_eq!(disk.read(&path).unwrap().as_deref(), Some(b"espresso".as_slice()));
    installer.verify(&coffee(), &staging.slot).unwrap();

    // The same program with no configuration is another slot.
    let bare =
        Staging { slot: Slot { configuration: None, ..staging.slot.clone() }, configuration: None, ..staging.clone() };
    upgrade(&installer, &bare).unwrap();
    let installed = installer.installed(&coffee()).unwrap();
    assert_eq!((installed.current.unwrap().slot, installed.previous.unwrap().slot), (bare.slot, staging.slot.clone()));

    disk.write(&path, b"tampered", FileMode::Private).unwrap();
    let error = installer.verify(&coffee(), &staging.slot).unwrap_err();
    assert!(matches!(error, VerifyReleaseError::Digest { .. }), "{error:?}");
    disk.remove_file(&path).unwrap();
    let damaged = installer.installed(&coffee()).unwrap().damaged;
    assert!(damaged.iter().any(|damaged| damaged.cause.contains("MENU")), "{damaged:?}");
}
