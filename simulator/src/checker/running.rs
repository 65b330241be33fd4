//! Invariant 4: a device starts only what was wanted of it: signed, for its platform, and the very bytes.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use fleetd_actors::workload::Release;
use fleetd_agent::disk::Disk as _;
use fleetd_sync_core::id::{ArtifactDigest, OperationId};
use fleetd_sync_core::key::Domain;
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::release::{EnvironmentValue, SignedManifest};

use super::{Broken, Fact, Inspector, Scene, device_number};
use crate::observation::Observation;
use crate::reference::resolve::whole;

/// Looks at each start.
#[derive(Debug, Default)]
pub(super) struct RunningChecker {
    /// Signed manifests whose signatures were found good.
    verified: BTreeSet<ArtifactDigest>,
}

/// One start.
#[derive(Clone, Copy)]
struct Start<'a> {
    node: &'a Arc<str>,
    workload: &'a WorkloadName,
    artifact: ArtifactDigest,
    run: OperationId,
    program: &'a Path,
}

impl RunningChecker {
    fn on_started(&mut self, scene: &Scene<'_>, start: Start<'_>) -> Result<(), Broken> {
        let Start { node, workload, artifact, run, .. } = start;
        let broken = |seen: String| Broken::on(node, format!("it started {workload}, {seen}"));
        let held = scene.ledger.node(node);
        let Some(record) = held.and_then(|held| held.workloads.get(workload)) else {
            return broken("of which it durably remembers nothing".to_owned());
        };
        if record.run.as_ref().is_none_or(|remembered| remembered.operation != run) {
            return broken("and does not durably remember that run".to_owned());
        }
        let Some(current) = record.current.as_ref().filter(|current| current.artifact == artifact) else {
            return broken(format!("artifact {artifact}, which is not its current release"));
        };
        let word = scene.ledger.local(node).and_then(|device| scene.words.of(node, device));
        let is_wanted = word.is_some_and(|word| word.wanted_ever.contains(&(workload.clone(), current.digest)));
        if !is_wanted {
            return broken(format!("release {}, which nobody ever wanted there", current.manifest.version));
        }
        if let Err(why) = self.judge(scene, node, workload, current) {
            return broken(format!("release {}: {why}", current.manifest.version));
        }
        // What goes with a release lies beside its program.
        let files = current.configuration.iter().flat_map(|configuration| configuration.files());
        for (name, file) in files {
            let path = start.program.with_file_name(format!("file-{name}"));
            if bytes_of(scene, node, &path).is_some_and(|bytes| ArtifactDigest::of(&bytes) != file.digest) {
                return broken(format!("and its file {name} is not {}", file.digest));
            }
        }
        match bytes_of(scene, node, start.program) {
            Some(bytes) if ArtifactDigest::of(&bytes) != artifact => {
                broken(format!("and its bytes are not those of {artifact}"))
            }
            _ => Ok(()),
        }
    }

    /// Says why a release may not run, by what the node knows of trust.
    fn judge(
        &mut self,
        scene: &Scene<'_>,
        node: &str,
        workload: &WorkloadName,
        release: &Release,
    ) -> Result<(), String> {
        let Some(trusted) = scene.words.trusted(node) else { return Ok(()) };
        let signed = SignedManifest::decode(&release.signed).map_err(|error| error.to_string())?;
        let manifest = signed.claims();
        let signer = trusted.signers.get(&signed.key()).filter(|signer| signer.workloads.contains(workload));
        let signer = signer.ok_or("its signer was never allowed to sign for it")?;
        if trusted.revoked.get(&signed.key()).is_some_and(|word| word == "stopped") {
            return Err("whoever signed it is revoked, and what it signed is to be stopped".to_owned());
        }
        if manifest.workload != *workload || Some(manifest.fleet) != trusted.fleet {
            return Err("it is of another workload or another fleet".to_owned());
        }
        let platform = device_number(node).and_then(|number| scene.fleet.devices.get(number));
        let platform = platform.map(|device| device.platform.clone());
        let is_for = |(built_for, artifact): (&fleetd_sync_core::name::Platform, _)| {
            let artifact: &fleetd_sync_core::release::Artifact = artifact;
            artifact.digest == release.artifact && platform.as_ref().is_none_or(|own| built_for.runs_on(own))
        };
        if !manifest.artifacts.iter().any(is_for) {
            return Err("its artifact is not the one for this device's platform".to_owned());
        }
        let configuration =
            release.configuration.as_ref().map(|configuration| ArtifactDigest::of(&configuration.encode()));
        if whole(ArtifactDigest::of(&release.signed), configuration) != release.digest {
            return Err("its manifest and its configuration are not those that were wanted".to_owned());
        }
        let is_open = |name: &String| manifest.environment.get(name) == Some(&EnvironmentValue::FromConfig);
        let mut filled =
            release.configuration.iter().flat_map(|found| found.values().keys().chain(found.files().keys()));
        if let Some(name) = filled.find(|name| !is_open(name)) {
            return Err(format!("its configuration fills {name}, which its manifest does not leave open"));
        }
        if self.verified.contains(&release.digest) {
            return Ok(());
        }
        let (bytes, signature) = parts_of(&release.signed).ok_or("its signature cannot be read")?;
        signer.key.verify(Domain::Release, bytes, &signature).map_err(|error| error.to_string())?;
        self.verified.insert(release.digest);
        Ok(())
    }
}

/// What was signed, and the signature: the layout of a signed manifest read once more.
fn parts_of(signed: &[u8]) -> Option<(&[u8], fleetd_sync_core::key::Signature)> {
    let mut reader = fleetd_sync_core::codec::Reader::new(signed);
    let bytes = reader.bytes("manifest", fleetd_sync_core::limit::MANIFEST_BYTES_MAX).ok()?;
    let _ = reader.take("signer", fleetd_sync_core::id::KeyId::LENGTH).ok()?;
    let left = reader.left();
    let signature = reader.take("signature", left).ok()?;
    Some((bytes, fleetd_sync_core::key::Signature::from_slice(signature)?))
}

fn bytes_of(scene: &Scene<'_>, node: &str, program: &Path) -> Option<Vec<u8>> {
    // A release that made way for another while an operator's act was carried out cannot be looked at any more.
    scene.fleet.devices.get(device_number(node)?)?.disk.read(program).ok()?
}

impl Inspector for RunningChecker {
    fn invariant(&self) -> u8 {
        4
    }

    fn name(&self) -> &'static str {
        "running"
    }

    fn learn(&mut self, scene: &Scene<'_>, node: &Arc<str>, fact: Fact<'_>) -> Result<(), Broken> {
        match fact {
            Fact::Seen(Observation::Started { workload, artifact, run, program, .. }) => {
                self.on_started(scene, Start { node, workload, artifact: *artifact, run: *run, program })
            }
            _ => Ok(()),
        }
    }
}
