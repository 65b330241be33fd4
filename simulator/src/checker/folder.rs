//! Invariant 11: whenever a device's power or process ends, `current` names a whole release: the old one or the new.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fleetd_agent::disk::Disk;
use fleetd_agent::disk::memory::DATA_DIRECTORY;
use fleetd_sync_core::id::ArtifactDigest;
use fleetd_sync_core::release::SignedManifest;

use super::{Broken, Fact, Inspector, Scene, device_number};

/// Looks at a device's folders when it dies and when it starts.
#[derive(Debug)]
pub(super) struct FolderChecker;

/// Says what is wrong with what `current` of a workload's folder names; a folder without one is fine.
fn look(disk: &dyn Disk, workload: &Path) -> Result<(), String> {
    let Ok(Some(target)) = disk.read_link(&workload.join("current")) else { return Ok(()) };
    let release: PathBuf = workload.join(&target);
    let read = |name: &str| match disk.read(&release.join(name)) {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(format!("{} has no {name}", target.display())),
        Err(error) => Err(error.to_string()),
    };
    let (artifact, manifest) = (read("artifact")?, read("manifest")?);
    let signed = SignedManifest::decode(&manifest).map_err(|error| format!("its manifest: {error}"))?;
    let digest = ArtifactDigest::of(&artifact);
    if signed.claims().artifacts.values().all(|artifact| artifact.digest != digest) {
        return Err(format!("{} holds bytes that no one signed", target.display()));
    }
    Ok(())
}

impl Inspector for FolderChecker {
    fn invariant(&self) -> u8 {
        11
    }

    fn name(&self) -> &'static str {
        "folder"
    }

    fn learn(&mut self, scene: &Scene<'_>, node: &Arc<str>, fact: Fact<'_>) -> Result<(), Broken> {
        if !matches!(fact, Fact::Died | Fact::Opened) {
            return Ok(());
        }
        let device = device_number(node).and_then(|number| scene.fleet.devices.get(number));
        let Some(device) = device else { return Ok(()) };
        let workloads = Path::new(DATA_DIRECTORY).join("workloads");
        for name in device.disk.list(&workloads).unwrap_or_default() {
            if let Err(why) = look(&device.disk, &workloads.join(&name)) {
                return Broken::on(node, format!("the current release of {name} is not whole: {why}"));
            }
        }
        Ok(())
    }
}
