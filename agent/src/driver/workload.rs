//! Carries out what a workload decided: its folder, its run, and what it tells.

mod environment;
mod run;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use fleetd_actors::address::Address;
use fleetd_actors::driver::Driver;
use fleetd_actors::flight::Recorded as _;
use fleetd_actors::spawn::LoadActorError;
use fleetd_actors::workload::{
    Effect, Input, Look, Release, Slot, StageError, Step, SwitchError, Workload, WorkloadFloor, WorkloadRecord,
};
use fleetd_sync_core::commit::{Mutation, Space};
use fleetd_sync_core::id::ArtifactDigest;
use fleetd_sync_core::machine::Turn;
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::time::Now;
use fleetd_sync_store::state_store::ReadError;

use super::Surroundings;
use crate::artifact_files::Held;
use crate::cause::cause_of;
use crate::disk::DiskError;
use crate::install::{self, StagedRelease, Staging, VerifyReleaseError};
use crate::record::{WorkloadRecorder, decode_workload, decode_workload_floor, encode_workload, encode_workload_floor};
use crate::runner::RunnerEvents;

/// Carries out what a workload decided.
pub(crate) struct WorkloadDriver {
    name: WorkloadName,
    surroundings: Arc<Surroundings>,
    address: Address<Input>,
    events: RunnerEvents,
    /// What was last stored as the workload's floor.
    floor: WorkloadFloor,
    recorder: Arc<WorkloadRecorder>,
}

/// Takes a workload up from its record, or from its folder when there is no record.
pub(crate) fn load(
    surroundings: &Arc<Surroundings>,
    name: &WorkloadName,
    address: &Address<Input>,
) -> Result<(Workload, WorkloadDriver), LoadActorError> {
    let exchange = surroundings.exchange().ok_or_else(|| LoadActorError { cause: "the node has ended".to_owned() })?;
    let floor = read_floor(surroundings, name)?;
    let record = read_record(surroundings, name, floor.clone())?;
    exchange.workload_loaded(name, address, artifacts_of(&record));
    let is_at_work = record.install.as_ref().is_some_and(|install| !install.step.is_reversible());
    surroundings.queue().take_up(name, is_at_work);
    let entropy = surroundings.entropy(name.as_str());
    let workload = Workload::new(name.clone(), surroundings.options.platform.clone(), record, entropy);
    let recorder = surroundings.flights.of(name);
    recorder.loaded(workload.snapshot());
    let events = run::events(address.clone(), Arc::clone(surroundings));
    let driver = WorkloadDriver {
        name: name.clone(),
        surroundings: Arc::clone(surroundings),
        address: address.clone(),
        events,
        floor,
        recorder,
    };
    Ok((workload, driver))
}

/// The workload's key in [`Space::Floor`].
fn floor_key(name: &WorkloadName) -> Vec<u8> {
    format!("workload/{name}").into_bytes()
}

fn read_floor(surroundings: &Surroundings, name: &WorkloadName) -> Result<WorkloadFloor, LoadActorError> {
    let stored = surroundings.seams.store.get(Space::Floor, &floor_key(name));
    let stored = stored.map_err(|error| LoadActorError { cause: error.to_string() })?;
    match stored.map(|stored| decode_workload_floor(&stored.value)).transpose() {
        Ok(floor) => Ok(floor.unwrap_or_default()),
        Err(error) => {
            tracing::warn!(workload = %name, error = cause_of(&error), "what was noted of the workload is damaged");
            Ok(WorkloadFloor::default())
        }
    }
}

fn read_record(
    surroundings: &Surroundings,
    name: &WorkloadName,
    floor: WorkloadFloor,
) -> Result<WorkloadRecord, LoadActorError> {
    let damage = match surroundings.seams.store.get(Space::Workload, name.as_str().as_bytes()) {
        Ok(None) => None,
        Ok(Some(stored)) => match decode_workload(&stored.value) {
            Ok(record) => return Ok(record.raised_to(floor)),
            Err(error) => Some(cause_of(&error)),
        },
        Err(error @ ReadError::Damaged { .. }) => Some(error.to_string()),
        Err(error @ ReadError::Failed { .. }) => return Err(LoadActorError { cause: error.to_string() }),
    };
    if let Some(cause) = damage {
        tracing::warn!(workload = %name, cause, "the workload's record is damaged; its folder is taken instead");
    }
    recover_record(surroundings, name, floor)
}

/// Makes a record of what the workload's folder holds, and of its floor.
fn recover_record(
    surroundings: &Surroundings,
    name: &WorkloadName,
    floor: WorkloadFloor,
) -> Result<WorkloadRecord, LoadActorError> {
    let installed = surroundings.seams.installer.installed(name);
    let installed = installed.map_err(|error| LoadActorError { cause: cause_of(&error) })?;
    for damaged in &installed.damaged {
        tracing::warn!(workload = %name, folder = damaged.folder, cause = damaged.cause, "a release is damaged");
    }
    let release =
        |staged: StagedRelease| match Release::load(&staged.manifest, staged.slot.artifact, staged.configuration) {
            Ok(release) => Some(release),
            Err(error) => {
                tracing::warn!(workload = %name, error = cause_of(&error), "an installed release cannot be taken up");
                None
            }
        };
    Ok(WorkloadRecord::recovered(installed.current.and_then(release), installed.previous.and_then(release), floor))
}

/// The artifacts that the workload has yet to install.
fn artifacts_of(record: &WorkloadRecord) -> BTreeSet<ArtifactDigest> {
    let step = record.install.as_ref().map(|install| &install.step);
    match step {
        Some(Step::Download(release) | Step::Verify(release) | Step::Stage(release)) => {
            release.contents().into_iter().map(|(digest, _)| digest).collect()
        }
        _ => BTreeSet::new(),
    }
}

impl Driver<Workload> for WorkloadDriver {
    fn store(&mut self, record: WorkloadRecord, mutations: &mut Vec<Mutation>) {
        let floor = record.floor();
        if floor != self.floor {
            let (space, key) = (Space::Floor, floor_key(&self.name));
            mutations.push(if floor == WorkloadFloor::default() {
                Mutation::Delete { space, key }
            } else {
                Mutation::Put { space, key, value: encode_workload_floor(&floor) }
            });
            self.floor = floor;
        }
        let key = self.name.as_str().as_bytes().to_vec();
        mutations.push(Mutation::Put { space: Space::Workload, key, value: encode_workload(&record) });
    }

    fn witness_step(&mut self, now: Now, input: Option<&Input>) {
        self.recorder.step(now, input);
    }

    fn witness_turn(&mut self, machine: &Workload, turn: &Turn<WorkloadRecord, Effect>) {
        self.recorder.witness(machine, turn);
    }

    fn start(&mut self, _now: Now, effect: Effect) {
        let Some(exchange) = self.surroundings.exchange() else { return };
        let runner = &self.surroundings.seams.runner;
        match effect {
            Effect::Fetch { operation, digest, wanted } => exchange.fetch(operation, &self.name, digest, wanted),
            Effect::Cancel { operation } => {
                exchange.cancel_fetch(operation);
                runner.cancel(operation);
            }
            Effect::Stage { operation, release } => self.run_blocking(move |surroundings, name| Input::Staged {
                operation,
                result: stage(surroundings, name, &release),
            }),
            Effect::Look { operation } => self.run_blocking(move |surroundings, name| Input::Looked {
                operation,
                look: Look { is_locked: is_locked(surroundings, name), clock_floor: surroundings.clock_floor() },
            }),
            Effect::Queue { operation, priority } => {
                let ahead = self.surroundings.queue().ask(&self.name, priority);
                self.address.send(Input::Queued { operation, ahead });
            }
            Effect::LeaveQueue => self.surroundings.queue().leave(&self.name),
            Effect::Switch { operation, to } => self.run_blocking(move |surroundings, name| Input::Switched {
                operation,
                result: switch(surroundings, name, to),
            }),
            Effect::Start { operation, program } => self.start_run(operation, program),
            Effect::Stop { grace } => runner.stop(&self.name, grace),
            Effect::Attach { operation } => runner.attach(operation, &self.name, Arc::clone(&self.events)),
            Effect::Probe { operation, check, timeout } => self.probe(operation, check, timeout),
            Effect::Report(report) => exchange.report(&self.name, report),
            Effect::Show(status) => self.surroundings.board.show_workload(&self.name, status),
            Effect::Collect { keep } => {
                exchange.needs_artifacts(&self.name, BTreeSet::new());
                let name = self.name.clone();
                self.surroundings.run_blocking(move |surroundings| collect(surroundings, &name, keep));
            }
            Effect::Remove { operation } => self.run_blocking(move |surroundings, name| {
                let result = surroundings.seams.installer.remove(name).map_err(|error| cause_of(&error));
                Input::Removed { operation, result }
            }),
            Effect::Done { operation } => self.surroundings.board.command_done(operation),
        }
    }
}

impl WorkloadDriver {
    /// Does something that waits for the disk; what comes of it is an input.
    fn run_blocking(&self, job: impl FnOnce(&Surroundings, &WorkloadName) -> Input + Send + 'static) {
        let (name, address) = (self.name.clone(), self.address.clone());
        self.surroundings.run_blocking(move |surroundings| address.send(job(surroundings, &name)));
    }
}

fn slot(slot: Slot) -> install::Slot {
    install::Slot { version: slot.version, artifact: slot.artifact, configuration: slot.configuration }
}

/// Lays a release out from its artifact's file. The bytes are read back: what will run is what was signed.
fn stage(surroundings: &Surroundings, workload: &WorkloadName, release: &Release) -> Result<(), StageError> {
    let seams = &surroundings.seams;
    let disk = |error: &dyn std::error::Error| StageError::Disk { cause: cause_of(error) };
    let mut found = BTreeMap::new();
    for (digest, _) in release.contents() {
        let path = locate(surroundings, workload, digest).map_err(|error| disk(&error))?;
        found.insert(digest, path.ok_or(StageError::NoArtifact)?);
    }
    let artifact_file = found.get(&release.artifact).cloned().ok_or(StageError::NoArtifact)?;
    let slot = slot(release.slot());
    let staging = Staging {
        workload: workload.clone(),
        slot: slot.clone(),
        artifact_file,
        manifest: release.signed.to_vec(),
        configuration: release.configuration.clone(),
        files: found,
        verdict: format!("verified {}", release.digest).into_bytes(),
    };
    seams.installer.stage(&staging).map_err(|error| match error {
        install::StageError::NoSpace { needed_bytes, free_bytes, .. } => {
            StageError::NoSpace { needed_bytes, free_bytes }
        }
        install::StageError::NoArtifact { .. } => StageError::NoArtifact,
        install::StageError::Disk(error) => disk(&error),
    })?;
    match seams.installer.verify(workload, &slot) {
        Ok(()) => Ok(()),
        Err(error @ VerifyReleaseError::Digest { expected, .. }) => {
            tracing::warn!(%workload, %error, "the disk does not give back what it was given");
            seams.files.discard(&expected).map_err(|error| disk(&error))?;
            Err(StageError::NoArtifact)
        }
        Err(error) => Err(disk(&error)),
    }
}

/// Where the bytes of an artifact lie: among those that were fetched, or in a release of the workload.
fn locate(
    surroundings: &Surroundings,
    workload: &WorkloadName,
    digest: ArtifactDigest,
) -> Result<Option<PathBuf>, DiskError> {
    if let Held::Whole { path, .. } = surroundings.seams.files.held(&digest)? {
        return Ok(Some(path));
    }
    let installed = surroundings.seams.installer.installed(workload)?;
    let in_release = |staged: StagedRelease| {
        let files = staged.configuration.iter().flat_map(|configuration| configuration.files());
        let mut files = files.filter(|(_, file)| file.digest == digest).filter_map(|(name, _)| staged.files.get(name));
        files.next().cloned().or_else(|| (staged.slot.artifact == digest).then_some(staged.program))
    };
    Ok([installed.current, installed.previous].into_iter().flatten().find_map(in_release))
}

/// Says whether the workload asks not to be updated. What cannot be looked at holds nobody up.
fn is_locked(surroundings: &Surroundings, workload: &WorkloadName) -> bool {
    surroundings.seams.installer.is_update_locked(workload).unwrap_or_else(|error| {
        tracing::warn!(%workload, error = cause_of(&error), "the workload's update lock cannot be looked at");
        false
    })
}

fn switch(surroundings: &Surroundings, workload: &WorkloadName, to: Slot) -> Result<(), SwitchError> {
    surroundings.seams.installer.switch(workload, &slot(to)).map_err(|error| match &error {
        install::SwitchError::NotStaged { .. } => SwitchError::NotStaged { cause: cause_of(&error) },
        install::SwitchError::Disk(_) => SwitchError::Disk { cause: cause_of(&error) },
    })
}

/// Removes the releases that the workload does not keep, and the artifacts that no workload has to install.
fn collect(surroundings: &Surroundings, workload: &WorkloadName, keep: Vec<Slot>) {
    let Some(exchange) = surroundings.exchange() else { return };
    let keep: Vec<_> = keep.into_iter().map(slot).collect();
    if let Err(error) = surroundings.seams.installer.collect_garbage(workload, &keep) {
        tracing::warn!(%workload, error = cause_of(&error), "releases that nobody needs were not removed");
    }
    let files = &surroundings.seams.files;
    let discarded = files.list().and_then(|artifacts| {
        artifacts
            .iter()
            .filter(|artifact| !exchange.is_needed(artifact))
            .try_for_each(|artifact| files.discard(artifact))
    });
    if let Err(error) = discarded {
        tracing::warn!(error = cause_of(&error), "artifacts that nobody needs were not removed");
    }
}
