//! What checkers see: everything that nodes did to their seams, in the order in which it happened.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fleetd_actors::rollout::plan::Plan;
use fleetd_actors::targeting::DeviceRow;
use fleetd_agent::runner::line::LinePosition;
use fleetd_sync_core::commit::Batch;
use fleetd_sync_core::id::{ArtifactDigest, OperationId, RolloutId};
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::session::Class;

/// One thing that happened at a seam.
#[derive(Clone, Debug)]
pub enum Observation {
    /// A node handed a turn to its store. It is not durable yet.
    Submitted {
        /// Which node.
        node: Arc<str>,
        /// What it wants to be stored.
        batch: Arc<Batch>,
    },
    /// The store answered a turn.
    Answered {
        /// Which node.
        node: Arc<str>,
        /// What was to be stored.
        batch: Arc<Batch>,
        /// Whether it is durable now.
        is_durable: bool,
    },
    /// A program was started on a device.
    Started {
        /// Which device.
        node: Arc<str>,
        /// Of which workload.
        workload: WorkloadName,
        /// Its artifact.
        artifact: ArtifactDigest,
        /// The operation that names the run.
        run: OperationId,
        /// The file that was executed.
        program: PathBuf,
    },
    /// A device asked a program to end.
    Stopped {
        /// Which device.
        node: Arc<str>,
        /// Of which workload.
        workload: WorkloadName,
    },
    /// A program wrote a line.
    Wrote {
        /// On which device.
        node: Arc<str>,
        /// Of which workload.
        workload: WorkloadName,
        /// Its place in the runner's line log.
        at: LinePosition,
        /// What it wrote.
        body: Arc<[u8]>,
    },
    /// A device said that a runner may drop lines.
    Released {
        /// Which device.
        node: Arc<str>,
        /// Of which workload.
        workload: WorkloadName,
        /// The last of them.
        through: LinePosition,
    },
    /// A node put a frame on a link. Whether it arrives is the link's affair.
    Sent {
        /// Which node.
        node: Arc<str>,
        /// On which stream.
        class: Class,
        /// The frame.
        frame: Bytes,
    },
    /// Somebody else began to use a device's key.
    Cloned {
        /// Which device.
        node: Arc<str>,
    },
    /// A device began to send what nobody honest sends: only others are to be held to the design from now on.
    Hostile {
        /// Which device.
        node: Arc<str>,
    },
    /// A program ended on a device.
    Ended {
        /// Which device.
        node: Arc<str>,
        /// Of which workload.
        workload: WorkloadName,
    },
    /// Somebody at a device said "not now" of a workload's updates, and its agent has taken that in.
    PutOff {
        /// Which device.
        node: Arc<str>,
        /// Of which workload.
        workload: WorkloadName,
        /// For how long.
        lasting: Duration,
    },
    /// A workload took its update lock on a device.
    Locked {
        /// Which device.
        node: Arc<str>,
        /// Which workload.
        workload: WorkloadName,
    },
    /// An operator approves a wave of a rollout.
    Approved {
        /// The server.
        node: Arc<str>,
        /// Which rollout.
        rollout: RolloutId,
        /// Which wave, from 0.
        wave: u32,
    },
    /// A node lost its power, or its process was killed; its memory is gone.
    Died {
        /// Which node.
        node: Arc<str>,
    },
    /// An operator who came with a plan of before was let start it, or was not.
    PlanJudged {
        /// The server.
        node: Arc<str>,
        /// The plan.
        plan: Arc<Plan>,
        /// The fleet, as it was looked at then.
        rows: Arc<[DeviceRow]>,
        /// Whether it is started.
        is_started: bool,
    },
    /// A node started.
    Booted {
        /// Which node.
        node: Arc<str>,
    },
    /// A node's store was set back or emptied: what it had acknowledged since may be gone.
    Restored {
        /// Which node.
        node: Arc<str>,
    },
}

/// Where seams report to. Clones are the same tap; one that nobody drains keeps nothing.
#[derive(Clone, Debug, Default)]
pub struct Tap {
    seen: Arc<Mutex<Option<Vec<Observation>>>>,
}

impl Tap {
    /// Keeps observations from now on.
    pub fn open(&self) {
        self.lock().get_or_insert_default();
    }

    /// Whether somebody wants to know.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.lock().is_some()
    }

    /// Notes what happened.
    pub fn note(&self, observation: impl FnOnce() -> Observation) {
        if let Some(seen) = self.lock().as_mut() {
            seen.push(observation());
        }
    }

    /// Takes what happened since the last time.
    #[must_use]
    pub fn drain(&self) -> Vec<Observation> {
        self.lock().as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Vec<Observation>>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
