//! What a workload machine remembers across restarts, and the values that pass between it and its driver.

use std::sync::Arc;
use std::time::Duration;

use fleetd_sync_core::configuration::{Configuration, pair_digest};
use fleetd_sync_core::id::{ArtifactDigest, EnvelopeHash, OperationId, RolloutId};
use fleetd_sync_core::name::Version;
use fleetd_sync_core::release::{Manifest, ReadReleaseError, SignedManifest};
use fleetd_sync_core::time::Wall;

use super::gate::AssignedTerms;
use crate::report::{Exit, Fault};

/// A release that a device should have, as one try of one rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its version.
    pub version: Version,
    /// The digest of its signed manifest.
    pub manifest: ArtifactDigest,
    /// What goes with it, if something does.
    pub configuration: Option<Arc<Configuration>>,
    /// The rollout that assigned it.
    pub rollout: Option<RolloutId>,
    /// The try: a release that failed is tried again only when this rises.
    pub attempt: u32,
}

impl Target {
    /// What it is compared by: the digest of the release, or of it and its configuration.
    #[must_use]
    pub fn digest(&self) -> ArtifactDigest {
        pair_digest(self.manifest, self.configuration.as_ref().map(|configuration| configuration.digest()))
    }
}

/// Whether a workload should run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunWish {
    /// It should.
    Running,
    /// An operator stopped it.
    Stopped,
}

/// What the device's documents say of one workload. The default says nothing, and changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// The release that it should have. Without one, what runs goes on: absence never uninstalls.
    pub target: Option<Target>,
    /// Whether it should run; `None` leaves that as it is.
    pub run: Option<RunWish>,
    /// Rises with each wish of an operator to start it anew.
    pub restarts: u64,
    /// A hold is in force: nothing is installed or removed.
    pub held: bool,
    /// Authorities of equal rank disagree: nothing is installed or removed.
    pub conflict: bool,
    /// It should be taken off the device, with its data.
    pub remove: bool,
    /// When the device may switch to the release; without them whenever it can.
    pub terms: Option<AssignedTerms>,
    /// The desired lane's head that said so. Hand over a new head only when something else of this value changed:
    /// it is reported, and each report is a signed change.
    pub desired_head: Option<EnvelopeHash>,
}

impl Assignment {
    pub(super) const fn is_blocked(&self) -> bool {
        self.held || self.conflict
    }
}

/// Where a release lies in the workload's folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    /// The version.
    pub version: Version,
    /// The artifact for this device's platform.
    pub artifact: ArtifactDigest,
    /// The digest of the configuration that lies with it, if one does.
    pub configuration: Option<ArtifactDigest>,
}

/// What the signature of an installed release is worth, as it was last judged; kept so that it counts before the
/// root chain has been read, and offline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It may run and be restored.
    #[default]
    Good,
    /// It may go on running, and is never restored.
    Unrestorable,
    /// It must not run.
    MustStop,
}

/// A release whose signature was found good for this device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// What was signed.
    pub manifest: Arc<Manifest>,
    /// The signed manifest's bytes.
    pub signed: Arc<[u8]>,
    /// What it is compared by: their digest, or that of both them and the configuration.
    pub digest: ArtifactDigest,
    /// What goes with it, if something does.
    pub configuration: Option<Arc<Configuration>>,
    /// The artifact for this device's platform.
    pub artifact: ArtifactDigest,
    /// The artifact's size.
    pub size_bytes: u64,
    /// The rollout that last assigned it.
    pub rollout: Option<RolloutId>,
    /// The try of that rollout.
    pub attempt: u32,
    /// Whether it has proven itself on this device.
    pub healthy: bool,
    /// What its signature is worth.
    pub verdict: Verdict,
}

/// Why a stored release cannot be taken up again.
#[derive(Debug, thiserror::Error)]
pub enum LoadReleaseError {
    /// Its manifest cannot be read.
    #[error("the stored manifest is unreadable")]
    Unreadable(#[from] ReadReleaseError),
    /// Its manifest does not name the artifact that was installed.
    #[error("the manifest of {version} does not name artifact {artifact}")]
    NoArtifact {
        /// The release's version.
        version: Version,
        /// What was installed.
        artifact: ArtifactDigest,
    },
}

impl Release {
    /// Takes up a release that was verified before: from the store, or from the workload's folder.
    ///
    /// # Errors
    /// [`LoadReleaseError`] when the manifest is damaged or is another one's.
    pub fn load(
        signed: &[u8],
        artifact: ArtifactDigest,
        configuration: Option<Arc<Configuration>>,
    ) -> Result<Self, LoadReleaseError> {
        let of_configuration = configuration.as_ref().map(|configuration| configuration.digest());
        let manifest = SignedManifest::decode(signed)?.claims().clone();
        let Some(found) = manifest.artifacts.values().find(|found| found.digest == artifact) else {
            return Err(LoadReleaseError::NoArtifact { version: manifest.version, artifact });
        };
        Ok(Self {
            artifact,
            size_bytes: found.size_bytes,
            manifest: Arc::new(manifest),
            signed: signed.into(),
            digest: pair_digest(ArtifactDigest::of(signed), of_configuration),
            configuration,
            rollout: None,
            attempt: 0,
            healthy: true,
            verdict: Verdict::Good,
        })
    }

    /// Where it lies.
    #[must_use]
    pub fn slot(&self) -> Slot {
        Slot {
            version: self.manifest.version.clone(),
            artifact: self.artifact,
            configuration: self.configuration.as_ref().map(|configuration| configuration.digest()),
        }
    }

    /// All that has to be on the device before it can be laid out, each with its size: the program, then the files of its
    /// configuration.
    #[must_use]
    pub fn contents(&self) -> Vec<(ArtifactDigest, u64)> {
        let files = self.configuration.iter().flat_map(|configuration| configuration.files().values());
        let mut contents = vec![(self.artifact, self.size_bytes)];
        for file in files {
            if contents.iter().all(|(digest, _)| *digest != file.digest) {
                contents.push((file.digest, file.size_bytes));
            }
        }
        contents
    }

    pub(super) fn target(&self) -> Target {
        Target {
            version: self.manifest.version.clone(),
            manifest: ArtifactDigest::of(&self.signed),
            configuration: self.configuration.clone(),
            rollout: self.rollout,
            attempt: self.attempt,
        }
    }
}

/// How far an install has come. Each step but the last two names the release that is being brought in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Its manifest is not here yet.
    Pending,
    /// Its artifact, and the files of its configuration, are being fetched.
    Download(Release),
    /// Its signature is judged again: much may have happened during the download.
    Verify(Release),
    /// It is laid out beside the release that runs.
    Stage(Release),
    /// It is laid out, and waits for a time at which it may be made the current one.
    Wait(Release),
    /// It is made the current one.
    Switch(Release),
    /// It is the current one, and has yet to prove itself.
    Watch {
        /// How often the device restarted meanwhile.
        reboots: u32,
    },
    /// It failed; the previous one takes its place.
    Restore {
        /// Why.
        fault: Fault,
        /// Whether the previous one is current again, and only has to be started.
        switched: bool,
    },
}

impl Step {
    /// Says whether it can be taken back: nothing was switched yet.
    #[must_use]
    pub const fn is_reversible(&self) -> bool {
        matches!(self, Self::Pending | Self::Download(_) | Self::Verify(_) | Self::Stage(_) | Self::Wait(_))
    }

    pub(super) const fn release(&self) -> Option<&Release> {
        match self {
            Self::Download(release)
            | Self::Verify(release)
            | Self::Stage(release)
            | Self::Wait(release)
            | Self::Switch(release) => Some(release),
            Self::Pending | Self::Watch { .. } | Self::Restore { .. } => None,
        }
    }
}

/// A release on its way in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Install {
    /// What is brought in.
    pub target: Target,
    /// How far.
    pub step: Step,
}

/// The release that failed here last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// What failed, as [`Target::digest`] has it.
    pub manifest: ArtifactDigest,
    /// The try that failed; no try up to it is made again.
    pub attempt: u32,
    /// The rollout whose try it was, as long as nothing has proven itself since: it is told how that ended, even when
    /// it took its assignment back meanwhile.
    pub rollout: Option<RolloutId>,
    /// Why.
    pub fault: Fault,
}

/// A run whose process may be alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The operation that started it, which is also its name.
    pub operation: OperationId,
    /// What it runs, as [`Target::digest`] has it; `None` for a run that nobody remembers.
    pub manifest: Option<ArtifactDigest>,
    /// Time that it has between TERM and KILL.
    pub stop_grace: Duration,
    /// It was asked to end, so that its end is no crash.
    pub stopping: bool,
}

/// Somebody at the device does not want its release to change for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deferral {
    /// For how long, from when it was said.
    pub length: Duration,
    /// Until when that is, by the device's clock then; for people.
    pub until: Wall,
    /// Why.
    pub reason: String,
}

/// How far a removal has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Removal {
    /// Nobody asked for one.
    #[default]
    None,
    /// It goes on until it is done.
    Removing,
    /// Nothing of the workload is left.
    Removed,
}

/// What a workload machine remembers: written whole with each turn that changes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadRecord {
    /// The release on its way in.
    pub install: Option<Install>,
    /// The release that is current, and runs unless somebody stopped it.
    pub current: Option<Release>,
    /// The release that proved itself before it, and can be restored.
    pub previous: Option<Release>,
    /// The release that failed here last.
    pub failed: Option<Failed>,
    /// The run that may be alive.
    pub run: Option<Run>,
    /// Somebody at the device stopped it.
    pub stopped_locally: bool,
    /// An operator stopped it from a server.
    pub stopped_remotely: bool,
    /// The last wish to start it anew that was carried out.
    pub restarts_done: u64,
    /// How often it was started again by itself since its release was installed.
    pub restarts: u32,
    /// How often it ended by itself since it was last well for a while.
    pub crashes: u32,
    /// How it last ended by itself.
    pub exit: Option<Exit>,
    /// Whether it is being taken off the device, or has been.
    pub removal: Removal,
    /// What somebody at the device puts the next switch off by.
    pub deferral: Option<Deferral>,
    /// How much of its rollout's limit a release has used up by being put off.
    pub veto_used: Duration,
    /// Which release, as [`Target::digest`] has it, and of which rollout.
    pub veto_of: Option<(ArtifactDigest, Option<RolloutId>)>,
}

/// A program to start: the artifact in its slot, started as its manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Where it lies.
    pub slot: Slot,
    /// Its arguments, environment and user.
    pub manifest: Arc<Manifest>,
    /// What fills the names that the manifest leaves open.
    pub configuration: Option<Arc<Configuration>>,
}

/// What is to be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A signed manifest, of at most `limit::MANIFEST_BYTES_MAX` and its signature; its bytes are the answer.
    Manifest,
    /// An artifact, into the device's artifact files.
    Artifact {
        /// Its size.
        size_bytes: u64,
    },
}

/// What was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// A signed manifest's bytes, not yet compared with anything.
    Manifest(Vec<u8>),
    /// All of the artifact is here, and has its digest.
    Artifact,
}

/// Why something was not fetched. A device without a link just goes on fetching when it has one again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// It does not fit.
    #[error("it needs {needed_bytes} bytes and {free_bytes} are free")]
    NoSpace {
        /// What it needs.
        needed_bytes: u64,
        /// What there is.
        free_bytes: u64,
    },
    /// Whoever was asked does not give it, or the disk failed: it is asked for again later.
    #[error("{cause}")]
    Unavailable {
        /// Why.
        cause: String,
    },
}

/// Why a release was not laid out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StageError {
    /// It does not fit.
    #[error("it needs {needed_bytes} bytes and {free_bytes} are free")]
    NoSpace {
        /// What it needs.
        needed_bytes: u64,
        /// What there is.
        free_bytes: u64,
    },
    /// The artifact's file is gone: it is fetched again.
    #[error("the artifact is not here")]
    NoArtifact,
    /// The disk failed.
    #[error("{cause}")]
    Disk {
        /// The operating system's text.
        cause: String,
    },
}

/// Why the current release is still what it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SwitchError {
    /// The release is not there, or not whole.
    #[error("{cause}")]
    NotStaged {
        /// What is wrong with it.
        cause: String,
    },
    /// The disk failed.
    #[error("{cause}")]
    Disk {
        /// The operating system's text.
        cause: String,
    },
}

/// What the runner knows of this workload after a restart of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A run goes on.
    Running {
        /// Which.
        run: OperationId,
        /// Its process.
        pid: u32,
        /// Whether it has said `READY=1`.
        ready: bool,
    },
    /// A run ended while nobody looked.
    Exited {
        /// Which.
        run: OperationId,
        /// How.
        exit: Exit,
    },
    /// There is none: the device has restarted, or it never ran.
    Gone,
}

/// What a run does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunEvent {
    /// The program has been executed.
    Started {
        /// Its process.
        pid: u32,
    },
    /// It was not executed, and nothing of the run is left.
    StartFailed {
        /// Why.
        cause: String,
    },
    /// It was not executed, since a run of this workload is still there.
    AlreadyRunning,
    /// It said `READY=1`.
    Ready,
    /// It is over, with everything that it left behind.
    Exited(Exit),
}

/// What somebody at the device asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Takes a local stop back, and starts at once.
    Start,
    /// Stops it until it is started again, across restarts of the device.
    Stop,
    /// Starts it anew.
    Restart,
    /// Leaves it at its release for a while, as long as its rollout lets it.
    Defer {
        /// For how long.
        length: Duration,
        /// Why.
        reason: String,
    },
    /// Takes that back.
    Allow,
}
