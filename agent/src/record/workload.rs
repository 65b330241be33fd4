//! A workload's record.

use std::sync::Arc;
use std::time::Duration;

use fleetd_actors::report::{Exit, Fault, FaultKind};
use fleetd_actors::workload::{
    Deferral, Failed, Install, Release, Removal, Run, Step, Target, Verdict, WorkloadFloor, WorkloadRecord,
};
use fleetd_proto::fleetd::record::v1 as stored;
use fleetd_sync_core::configuration::Configuration;
use fleetd_sync_core::id::{ArtifactDigest, OperationId, RolloutId};
use fleetd_sync_core::time::Wall;
use prost::Message as _;

use super::{DecodeRecordError, fixed, named, optional, required};

/// Writes a workload's record.
#[must_use]
pub fn encode_workload(record: &WorkloadRecord) -> Vec<u8> {
    workload(record).encode_to_vec()
}

pub(super) fn workload(record: &WorkloadRecord) -> stored::WorkloadRecord {
    let removal = match record.removal {
        Removal::None => stored::Removal::Unspecified,
        Removal::Removing => stored::Removal::Removing,
        Removal::Removed => stored::Removal::Removed,
    };
    stored::WorkloadRecord {
        current: record.current.as_ref().map(release),
        previous: record.previous.as_ref().map(release),
        failed: record.failed.as_ref().map(failed),
        install: record.install.as_ref().map(install),
        stopped_locally: record.stopped_locally,
        stopped_remotely: record.stopped_remotely,
        restarts_done: record.restarts_done,
        crashes: record.crashes,
        restarts: record.restarts,
        exit: record.exit.map(exit),
        run: record.run.as_ref().map(run),
        removal: removal.into(),
        deferral: record.deferral.as_ref().map(deferral),
        veto_used: Some(record.veto_used).filter(|used| !used.is_zero()).and_then(|used| used.try_into().ok()),
        veto_manifest_digest: record.veto_of.map(|(manifest, _)| manifest.as_bytes().to_vec()).unwrap_or_default(),
        veto_rollout_id: record.veto_of.and_then(|(_, rollout)| Some(rollout?.as_bytes().to_vec())).unwrap_or_default(),
    }
}

/// Writes what must not be forgotten of a workload.
#[must_use]
pub fn encode_workload_floor(floor: &WorkloadFloor) -> Vec<u8> {
    let barred = floor.barred.iter().map(|(manifest, barred)| stored::BarredReleaseRecord {
        manifest_digest: manifest.as_bytes().to_vec(),
        verdict: verdict(*barred).into(),
    });
    let message = stored::WorkloadFloorRecord {
        failed: floor.failed.as_ref().map(failed),
        unproven: floor.unproven.as_ref().map(target),
        barred: barred.collect(),
        stopped_locally: floor.stopped_locally,
        stopped_remotely: floor.stopped_remotely,
        restarts_done: floor.restarts_done,
    };
    message.encode_to_vec()
}

fn deferral(deferral: &Deferral) -> stored::DeferralRecord {
    stored::DeferralRecord {
        length: prost_types::Duration::try_from(deferral.length).ok(),
        until_ms: deferral.until.0,
        reason: deferral.reason.clone(),
    }
}

fn read_deferral(message: stored::DeferralRecord) -> Deferral {
    let length = message.length.and_then(|length| length.try_into().ok()).unwrap_or(Duration::ZERO);
    Deferral { length, until: Wall(message.until_ms), reason: message.reason }
}

fn failed(failed: &Failed) -> stored::FailedReleaseRecord {
    stored::FailedReleaseRecord {
        manifest_digest: failed.manifest.as_bytes().to_vec(),
        attempt: failed.attempt,
        fault: Some(fault(&failed.fault)),
        tried_rollout_id: failed.rollout.map(|rollout| rollout.as_bytes().to_vec()).unwrap_or_default(),
    }
}

const fn verdict(verdict: Verdict) -> stored::ReleaseVerdict {
    match verdict {
        Verdict::Good => stored::ReleaseVerdict::Unspecified,
        Verdict::Unrestorable => stored::ReleaseVerdict::Unrestorable,
        Verdict::MustStop => stored::ReleaseVerdict::MustStop,
    }
}

fn release(release: &Release) -> stored::InstalledReleaseRecord {
    stored::InstalledReleaseRecord {
        artifact_digest: release.artifact.as_bytes().to_vec(),
        rollout_id: rollout(release.rollout),
        attempt: release.attempt,
        healthy: release.healthy,
        verdict: verdict(release.verdict).into(),
        manifest: release.signed.to_vec(),
        configuration: configuration(release.configuration.as_deref()),
    }
}

pub(super) fn target(target: &Target) -> stored::TargetRecord {
    stored::TargetRecord {
        version: target.version.to_string(),
        manifest_digest: target.manifest.as_bytes().to_vec(),
        rollout_id: rollout(target.rollout),
        attempt: target.attempt,
        configuration: configuration(target.configuration.as_deref()),
    }
}

fn configuration(configuration: Option<&Configuration>) -> Vec<u8> {
    configuration.map(Configuration::encode).unwrap_or_default()
}

fn install(install: &Install) -> stored::InstallRecord {
    let mut message =
        stored::InstallRecord { target: Some(target(&install.target)), ..stored::InstallRecord::default() };
    let (step, of) = match &install.step {
        Step::Pending => (stored::InstallStep::Unspecified, None),
        Step::Download(release) => (stored::InstallStep::Download, Some(release)),
        Step::Verify(release) => (stored::InstallStep::Verify, Some(release)),
        Step::Stage(release) => (stored::InstallStep::Stage, Some(release)),
        Step::Wait(release) => (stored::InstallStep::Wait, Some(release)),
        Step::Switch(release) => (stored::InstallStep::Switch, Some(release)),
        Step::Watch { reboots } => {
            message.reboots = *reboots;
            (stored::InstallStep::Watch, None)
        }
        Step::Restore { fault: why, switched } => {
            message.fault = Some(fault(why));
            message.switched = *switched;
            (stored::InstallStep::Restore, None)
        }
    };
    message.set_step(step);
    message.release = of.map(release);
    message
}

fn run(run: &Run) -> stored::RunRecord {
    stored::RunRecord {
        operation_id: run.operation.as_bytes().to_vec(),
        manifest_digest: run.manifest.map(|manifest| manifest.as_bytes().to_vec()).unwrap_or_default(),
        stop_grace: prost_types::Duration::try_from(run.stop_grace).ok(),
        stopping: run.stopping,
    }
}

pub(super) fn exit(exit: Exit) -> stored::ExitRecord {
    let kind = match exit {
        Exit::Code(code) => stored::exit_record::Kind::Code(code),
        Exit::Signal(signal) => stored::exit_record::Kind::Signal(signal),
        Exit::Lost => stored::exit_record::Kind::Lost(true),
    };
    stored::ExitRecord { kind: Some(kind) }
}

pub(super) fn fault(fault: &Fault) -> stored::FaultRecord {
    stored::FaultRecord { kind: fault.kind.as_str().to_owned(), detail: fault.detail.clone() }
}

fn rollout(rollout: Option<RolloutId>) -> Vec<u8> {
    rollout.map(|rollout| rollout.as_bytes().to_vec()).unwrap_or_default()
}

/// Reads a workload's record.
///
/// # Errors
/// [`DecodeRecordError`] when the bytes are no such record.
pub fn decode_workload(bytes: &[u8]) -> Result<WorkloadRecord, DecodeRecordError> {
    read_workload(stored::WorkloadRecord::decode(bytes)?)
}

pub(super) fn read_workload(message: stored::WorkloadRecord) -> Result<WorkloadRecord, DecodeRecordError> {
    let removal = match message.removal() {
        stored::Removal::Unspecified => Removal::None,
        stored::Removal::Removing => Removal::Removing,
        stored::Removal::Removed => Removal::Removed,
    };
    Ok(WorkloadRecord {
        install: message.install.map(read_install).transpose()?,
        current: message.current.as_ref().map(|current| read_release("current", current)).transpose()?,
        previous: message.previous.as_ref().map(|previous| read_release("previous", previous)).transpose()?,
        failed: message.failed.map(read_failed).transpose()?,
        run: message.run.as_ref().map(read_run).transpose()?,
        stopped_locally: message.stopped_locally,
        stopped_remotely: message.stopped_remotely,
        restarts_done: message.restarts_done,
        restarts: message.restarts,
        crashes: message.crashes,
        exit: message.exit.map(read_exit).transpose()?,
        removal,
        deferral: message.deferral.map(read_deferral),
        veto_used: message.veto_used.and_then(|used| used.try_into().ok()).unwrap_or(Duration::ZERO),
        veto_of: match message.veto_manifest_digest.as_slice() {
            [] => None,
            digest => {
                let manifest = ArtifactDigest::from_bytes(fixed("veto_manifest_digest", digest)?);
                Some((manifest, read_rollout("veto_rollout_id", &message.veto_rollout_id)?))
            }
        },
    })
}

fn read_release(field: &'static str, message: &stored::InstalledReleaseRecord) -> Result<Release, DecodeRecordError> {
    let artifact = ArtifactDigest::from_bytes(fixed("release.artifact_digest", &message.artifact_digest)?);
    let mut release = Release::load(&message.manifest, artifact, read_configuration(field, &message.configuration)?)
        .map_err(|source| DecodeRecordError::Release { field, source })?;
    release.rollout = read_rollout("release.rollout_id", &message.rollout_id)?;
    release.attempt = message.attempt;
    release.healthy = message.healthy;
    release.verdict = read_verdict(message.verdict());
    Ok(release)
}

/// Reads what must not be forgotten of a workload.
///
/// # Errors
/// [`DecodeRecordError`] when the bytes are no such record.
pub fn decode_workload_floor(bytes: &[u8]) -> Result<WorkloadFloor, DecodeRecordError> {
    let message = stored::WorkloadFloorRecord::decode(bytes)?;
    let barred = message.barred.iter().map(|barred| {
        let manifest = ArtifactDigest::from_bytes(fixed("barred.manifest_digest", &barred.manifest_digest)?);
        Ok((manifest, read_verdict(barred.verdict())))
    });
    Ok(WorkloadFloor {
        barred: barred.collect::<Result<_, DecodeRecordError>>()?,
        failed: message.failed.map(read_failed).transpose()?,
        unproven: message.unproven.map(|target| read_target("unproven", target)).transpose()?,
        stopped_locally: message.stopped_locally,
        stopped_remotely: message.stopped_remotely,
        restarts_done: message.restarts_done,
    })
}

const fn read_verdict(verdict: stored::ReleaseVerdict) -> Verdict {
    match verdict {
        stored::ReleaseVerdict::Unspecified => Verdict::Good,
        stored::ReleaseVerdict::Unrestorable => Verdict::Unrestorable,
        stored::ReleaseVerdict::MustStop => Verdict::MustStop,
    }
}

fn read_install(message: stored::InstallRecord) -> Result<Install, DecodeRecordError> {
    let step = message.step();
    let of = || read_release("install.release", required("install.release", message.release.as_ref())?);
    let step = match step {
        stored::InstallStep::Unspecified => Step::Pending,
        stored::InstallStep::Download => Step::Download(of()?),
        stored::InstallStep::Verify => Step::Verify(of()?),
        stored::InstallStep::Stage => Step::Stage(of()?),
        stored::InstallStep::Wait => Step::Wait(of()?),
        stored::InstallStep::Switch => Step::Switch(of()?),
        stored::InstallStep::Watch => Step::Watch { reboots: message.reboots },
        stored::InstallStep::Restore => Step::Restore {
            fault: read_fault(required("install.fault", message.fault.as_ref())?),
            switched: message.switched,
        },
    };
    let target = read_target("install.target", required("install.target", message.target)?)?;
    Ok(Install { target, step })
}

pub(super) fn read_target(field: &'static str, target: stored::TargetRecord) -> Result<Target, DecodeRecordError> {
    Ok(Target {
        version: named(field, &target.version)?,
        manifest: ArtifactDigest::from_bytes(fixed(field, &target.manifest_digest)?),
        rollout: read_rollout(field, &target.rollout_id)?,
        attempt: target.attempt,
        configuration: read_configuration(field, &target.configuration)?,
    })
}

fn read_configuration(field: &'static str, bytes: &[u8]) -> Result<Option<Arc<Configuration>>, DecodeRecordError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let read = Configuration::decode(bytes).map_err(|source| DecodeRecordError::Configuration { field, source })?;
    Ok(Some(Arc::new(read)))
}

fn read_failed(message: stored::FailedReleaseRecord) -> Result<Failed, DecodeRecordError> {
    Ok(Failed {
        manifest: ArtifactDigest::from_bytes(fixed("failed.manifest_digest", &message.manifest_digest)?),
        attempt: message.attempt,
        rollout: read_rollout("failed.tried_rollout_id", &message.tried_rollout_id)?,
        fault: read_fault(&required("failed.fault", message.fault)?),
    })
}

fn read_run(message: &stored::RunRecord) -> Result<Run, DecodeRecordError> {
    Ok(Run {
        operation: OperationId::from_bytes(fixed("run.operation_id", &message.operation_id)?),
        manifest: optional("run.manifest_digest", &message.manifest_digest)?.map(ArtifactDigest::from_bytes),
        stop_grace: message.stop_grace.and_then(|grace| grace.try_into().ok()).unwrap_or(Duration::ZERO),
        stopping: message.stopping,
    })
}

pub(super) fn read_exit(message: stored::ExitRecord) -> Result<Exit, DecodeRecordError> {
    Ok(match required("exit.kind", message.kind)? {
        stored::exit_record::Kind::Code(code) => Exit::Code(code),
        stored::exit_record::Kind::Signal(signal) => Exit::Signal(signal),
        stored::exit_record::Kind::Lost(_) => Exit::Lost,
    })
}

pub(super) fn read_fault(message: &stored::FaultRecord) -> Fault {
    Fault { kind: FaultKind::from_word(&message.kind), detail: message.detail.clone() }
}

fn read_rollout(field: &'static str, bytes: &[u8]) -> Result<Option<RolloutId>, DecodeRecordError> {
    Ok(optional(field, bytes)?.map(RolloutId::from_bytes))
}

#[cfg(test)]
mod tests {
    use fleetd_sync_core::entropy::Entropy;
    use fleetd_sync_core::id::FleetId;
    use fleetd_sync_core::key::SecretKey;
    use fleetd_sync_core::name::Platform;
    use fleetd_sync_core::release::{Artifact, Manifest, Probe};

    use super::*;

    fn signed_release(version: &str) -> Release {
        let digest = ArtifactDigest::of(version.as_bytes());
        let artifact = Artifact { digest, size_bytes: 9, file_name: "coffee".to_owned() };
        let manifest = Manifest {
            fleet: FleetId::from_bytes([1; 16]),
            workload: "coffee".parse().unwrap(),
            version: version.parse().unwrap(),
            artifacts: [(Platform::any(), artifact)].into(),
            argv: vec!["--hot".to_owned()],
            environment: [].into(),
            probe: Probe::default(),
            user: None,
            stop_grace: Duration::from_secs(5),
        };
        let key = SecretKey::generate(&mut Entropy::from_seed([2; 32]));
        let configuration = (version != "1").then(|| {
            let values = [("ROAST".to_owned(), version.to_owned())].into();
            let name = format!("roast-{version}").parse().unwrap();
            Arc::new(Configuration::new("coffee".parse().unwrap(), name, values, [].into()).unwrap())
        });
        Release::load(&manifest.sign(&key).unwrap().encode(), digest, configuration).unwrap()
    }

    fn records() -> Vec<WorkloadRecord> {
        let next = signed_release("2");
        let target = Target {
            version: "2".parse().unwrap(),
            manifest: ArtifactDigest::of(&next.signed),
            configuration: next.configuration.clone(),
            rollout: Some(RolloutId::from_bytes([3; 10])),
            attempt: 4,
        };
        let fault = Fault::new(FaultKind::Probe, "not ready within 10 s");
        let steps = [
            Step::Pending,
            Step::Download(next.clone()),
            Step::Verify(next.clone()),
            Step::Stage(next.clone()),
            Step::Wait(next.clone()),
            Step::Switch(next.clone()),
            Step::Watch { reboots: 2 },
            Step::Restore { fault: fault.clone(), switched: false },
            Step::Restore { fault: fault.clone(), switched: true },
        ];
        let installs = steps.map(|step| Some(Install { target: target.clone(), step }));
        let exits = [None, Some(Exit::Code(-1)), Some(Exit::Code(0)), Some(Exit::Signal(9)), Some(Exit::Lost)];
        let verdicts = [Verdict::Good, Verdict::Unrestorable, Verdict::MustStop];
        let removals = [Removal::None, Removal::Removing, Removal::Removed];
        let full = |install, at: usize| WorkloadRecord {
            install,
            current: Some(Release {
                verdict: verdicts[at % 3],
                healthy: at.is_multiple_of(2),
                attempt: 7,
                ..signed_release("1")
            }),
            previous: Some(Release { rollout: Some(RolloutId::from_bytes([5; 10])), ..signed_release("0") }),
            failed: Some(Failed {
                manifest: next.digest,
                attempt: 3,
                rollout: Some(RolloutId::from_bytes([8; 10])),
                fault: fault.clone(),
            }),
            run: Some(Run {
                operation: OperationId::from_bytes([6; 8]),
                manifest: (at.is_multiple_of(2)).then_some(next.digest),
                stop_grace: Duration::from_millis(1500),
                stopping: at % 2 == 1,
            }),
            stopped_locally: true,
            stopped_remotely: at.is_multiple_of(2),
            restarts_done: 8,
            restarts: 9,
            crashes: 10,
            exit: exits[at % 5],
            removal: removals[at % 3],
            deferral: (at.is_multiple_of(2)).then(|| Deferral {
                length: Duration::from_millis(2500),
                until: Wall(-7),
                reason: "brewing".to_owned(),
            }),
            veto_used: Duration::from_secs(3 * u64::try_from(at).unwrap()),
            veto_of: (at.is_multiple_of(2))
                .then(|| (next.digest, at.is_multiple_of(4).then_some(RolloutId::from_bytes([9; 10])))),
        };
        let full = installs.into_iter().enumerate().map(|(at, install)| full(install, at));
        std::iter::once(WorkloadRecord::default()).chain(full).collect()
    }

    #[test]
    fn a_workloads_record_survives_its_bytes() {
        for record in records() {
            assert_eq!(decode_workload(&encode_workload(&record)).unwrap(), record);
        }
    }

    #[test]
    fn what_must_not_be_forgotten_of_a_workload_survives_its_bytes() {
        for record in records() {
            let mut floor = record.floor();
            assert_eq!(decode_workload_floor(&encode_workload_floor(&floor)).unwrap(), floor);
            floor.unproven = record.install.map(|install| install.target);
            assert_eq!(decode_workload_floor(&encode_workload_floor(&floor)).unwrap(), floor);
        }
        assert!(encode_workload_floor(&WorkloadFloor::default()).is_empty());
    }

    #[test]
    fn a_record_cut_at_any_byte_is_another_record_or_none() {
        let record = records().remove(2);
        let bytes = encode_workload(&record);
        for cut in 0..bytes.len() {
            let read = decode_workload(&bytes[..cut]);
            assert!(read.is_err() || read.is_ok_and(|read| read != record), "cut at {cut}");
        }
    }
}
