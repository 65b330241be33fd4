//! What a device fetches: manifests and artifacts by their digests, in verified groups, through any number of cuts.
//!
//! An artifact's room is looked for before a byte of it is asked for, and what is on the disk already is not asked
//! for again. Then come the values of its groups, which must merge to the digest, and then the groups, a window of
//! them at a time; each is verified before it is written. A signed manifest is small and is kept in memory. Whatever
//! a peer sends, only what the digest promises is taken; what does not come, or comes wrong, is asked for again.
//!
//! A fetch goes on through lost links and ends only when it is done, cancelled, refused for good, or the disk fails.

mod download;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::convert::Infallible;

use fleetd_actors::workload::{FetchError, Fetched, Wanted};
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::id::{ArtifactDigest, ConnectionId, OperationId};
use fleetd_sync_core::machine::{Machine, Turn};
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::session::Message;
use fleetd_sync_core::session::message::{ArtifactGroups, ArtifactRefusal, ArtifactRefused, ArtifactTree};
use fleetd_sync_core::time::{Monotonic, Now};

use crate::artifact_files::GroupSet;
use download::{Download, Step};

/// What a device fetches.
#[derive(Debug)]
pub struct Fetcher {
    entropy: Entropy,
    connection: Option<ConnectionId>,
    downloads: BTreeMap<ArtifactDigest, Download>,
    jobs: u64,
}

/// One download of one artifact: what the disk answers to an earlier one is not meant for a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// The artifact.
    pub digest: ArtifactDigest,
    /// Which download of it.
    pub number: u64,
}

/// What can happen to a fetcher.
#[derive(Clone, Debug)]
pub enum Input {
    /// A workload wants something.
    Want {
        /// Answered by [`Effect::Answer`].
        operation: OperationId,
        /// Which workload.
        workload: WorkloadName,
        /// What it hashes to.
        digest: ArtifactDigest,
        /// What it is.
        wanted: Wanted,
    },
    /// The answer is not wanted any more.
    Cancel {
        /// The operation that wanted it.
        operation: OperationId,
    },
    /// A workload has forgotten what it wanted.
    Abandon {
        /// Which workload.
        workload: WorkloadName,
    },
    /// The server may be asked on this connection.
    Linked(ConnectionId),
    /// It may not any more.
    Unlinked,
    /// Values of groups came.
    Tree(ArtifactTree),
    /// Groups came.
    Groups(ArtifactGroups),
    /// The server does not send something.
    Refused(ArtifactRefused),
    /// Answers [`Effect::Begin`] with the groups that are on the disk.
    Begun {
        /// For which download.
        job: Job,
        /// What came of it.
        result: Result<GroupSet, FetchError>,
    },
    /// Answers [`Effect::Write`].
    Written {
        /// For which download.
        job: Job,
        /// Which groups.
        groups: Vec<u64>,
        /// What came of it.
        result: Result<(), FetchError>,
    },
    /// Answers [`Effect::Finish`].
    Finished {
        /// For which download.
        job: Job,
        /// What came of it.
        result: Result<(), FetchError>,
    },
}

/// What it wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Look for room, and for what is on the disk already.
    Begin {
        /// For which download.
        job: Job,
        /// The artifact's size.
        size_bytes: u64,
    },
    /// Write groups that were verified.
    Write {
        /// For which download.
        job: Job,
        /// The groups.
        groups: Vec<(u64, Vec<u8>)>,
    },
    /// Make what was written durable, so that it need not be fetched again.
    Checkpoint {
        /// Of which artifact.
        digest: ArtifactDigest,
    },
    /// Make the artifact whole.
    Finish {
        /// For which download.
        job: Job,
    },
    /// Ask the server.
    Send {
        /// On which connection.
        connection: ConnectionId,
        /// What.
        message: Message,
    },
    /// Answer who wanted something.
    Answer {
        /// The operation.
        operation: OperationId,
        /// Whose it was.
        workload: WorkloadName,
        /// What came of it.
        result: Result<Fetched, FetchError>,
    },
}

type FetchTurn = Turn<Infallible, Effect>;

impl Fetcher {
    /// Starts with nothing wanted.
    #[must_use]
    pub const fn new(entropy: Entropy) -> Self {
        Self { entropy, connection: None, downloads: BTreeMap::new(), jobs: 0 }
    }

    /// How much of something has been fetched, and how large it is, as far as that is known.
    #[must_use]
    pub fn progress_bytes(&self, digest: &ArtifactDigest) -> Option<(u64, u64)> {
        self.downloads.get(digest)?.progress_bytes()
    }
}

impl Machine for Fetcher {
    type Input = Input;
    type Record = Infallible;
    type Effect = Effect;

    fn handle(&mut self, now: Now, input: Input, turn: &mut FetchTurn) {
        match input {
            Input::Want { operation, workload, digest, wanted } => {
                self.on_want(operation, workload, digest, wanted, turn);
            }
            Input::Cancel { operation } => self.on_cancel(operation, turn),
            Input::Abandon { workload } => self.on_abandon(&workload, turn),
            Input::Linked(connection) => self.on_linked(connection),
            Input::Unlinked => self.on_unlinked(turn),
            Input::Tree(tree) => self.on_tree(now, &tree, turn),
            Input::Groups(groups) => self.on_groups(now, &groups, turn),
            Input::Refused(refused) => self.on_refused(now, refused, turn),
            Input::Begun { job, result } => self.on_begun(job, result, turn),
            Input::Written { job, groups, result } => self.on_written(job, &groups, result, turn),
            Input::Finished { job, result } => self.on_finished(job, result, turn),
        }
        self.ask(now, turn);
    }

    fn handle_timeout(&mut self, now: Now, turn: &mut FetchTurn) {
        for download in self.downloads.values_mut() {
            download.on_timeout(now.monotonic);
        }
        self.ask(now, turn);
    }

    fn poll_timeout(&self) -> Option<Monotonic> {
        self.downloads.values().filter_map(Download::poll_timeout).min()
    }
}

impl Fetcher {
    fn on_want(
        &mut self,
        operation: OperationId,
        workload: WorkloadName,
        digest: ArtifactDigest,
        wanted: Wanted,
        turn: &mut FetchTurn,
    ) {
        if let Some(download) = self.downloads.get_mut(&digest) {
            if download.wanted() == wanted {
                download.waiters.insert(operation, workload);
            } else {
                let cause = format!("{digest} is being fetched as something else");
                turn.effect(Effect::Answer { operation, workload, result: Err(FetchError::Unavailable { cause }) });
            }
            return;
        }
        self.jobs += 1;
        let job = Job { digest, number: self.jobs };
        if let Wanted::Artifact { size_bytes } = wanted {
            turn.effect(Effect::Begin { job, size_bytes });
        }
        self.downloads.insert(digest, Download::new(job, wanted, operation, workload));
    }

    fn on_cancel(&mut self, operation: OperationId, turn: &mut FetchTurn) {
        self.retain_waiters(|waiting, _| *waiting != operation, turn);
    }

    fn on_abandon(&mut self, workload: &WorkloadName, turn: &mut FetchTurn) {
        self.retain_waiters(|_, waiting| waiting != workload, turn);
    }

    fn on_linked(&mut self, connection: ConnectionId) {
        self.connection = Some(connection);
        self.downloads.values_mut().for_each(Download::on_linked);
    }

    fn on_unlinked(&mut self, turn: &mut FetchTurn) {
        self.connection = None;
        for (digest, download) in &mut self.downloads {
            download.on_unlinked();
            if download.is_on_disk() {
                turn.effect(Effect::Checkpoint { digest: *digest });
            }
        }
    }

    fn on_tree(&mut self, now: Now, tree: &ArtifactTree, turn: &mut FetchTurn) {
        if let Some(download) = self.downloads.get_mut(&tree.digest) {
            let step = download.on_tree(now, tree, &mut self.entropy);
            self.carry_out(tree.digest, step, turn);
        }
    }

    fn on_groups(&mut self, now: Now, groups: &ArtifactGroups, turn: &mut FetchTurn) {
        if let Some(download) = self.downloads.get_mut(&groups.digest) {
            let step = download.on_groups(now, groups, &mut self.entropy);
            self.carry_out(groups.digest, step, turn);
        }
    }

    fn on_refused(&mut self, now: Now, refused: ArtifactRefused, turn: &mut FetchTurn) {
        let ArtifactRefused { digest, reason } = refused;
        let cause = match reason {
            ArtifactRefusal::Absent | ArtifactRefusal::Busy => {
                if let Some(download) = self.downloads.get_mut(&digest) {
                    download.back_off(now, &mut self.entropy);
                }
                return;
            }
            ArtifactRefusal::Forbidden => format!("the server does not give {digest} to this device"),
            ArtifactRefusal::Range => format!("the server has less of {digest} than was asked for"),
        };
        self.end(digest, &Err(FetchError::Unavailable { cause }), turn);
    }

    fn on_begun(&mut self, job: Job, result: Result<GroupSet, FetchError>, turn: &mut FetchTurn) {
        let Some(download) = self.download_of(job) else { return };
        match result {
            Ok(groups) => {
                let step = download.on_begun(groups);
                self.carry_out(job.digest, step, turn);
            }
            Err(error) => self.end(job.digest, &Err(error), turn),
        }
    }

    fn on_written(&mut self, job: Job, groups: &[u64], result: Result<(), FetchError>, turn: &mut FetchTurn) {
        let Some(download) = self.download_of(job) else { return };
        match result {
            Ok(()) => {
                let step = download.on_written(groups);
                self.carry_out(job.digest, step, turn);
            }
            Err(error) => self.end(job.digest, &Err(error), turn),
        }
    }

    fn on_finished(&mut self, job: Job, result: Result<(), FetchError>, turn: &mut FetchTurn) {
        if self.download_of(job).is_some() {
            self.end(job.digest, &result.map(|()| Fetched::Artifact), turn);
        }
    }

    fn download_of(&mut self, job: Job) -> Option<&mut Download> {
        self.downloads.get_mut(&job.digest).filter(|download| download.job() == job)
    }

    fn carry_out(&mut self, digest: ArtifactDigest, step: Step, turn: &mut FetchTurn) {
        match step {
            Step::Wait => {}
            Step::Write(job, groups) => turn.effect(Effect::Write { job, groups }),
            Step::Finish(job) => turn.effect(Effect::Finish { job }),
            Step::End(result) => self.end(digest, &result, turn),
        }
    }

    fn end(&mut self, digest: ArtifactDigest, result: &Result<Fetched, FetchError>, turn: &mut FetchTurn) {
        let Some(download) = self.downloads.remove(&digest) else { return };
        if result.is_err() && download.is_on_disk() {
            turn.effect(Effect::Checkpoint { digest });
        }
        for (operation, workload) in download.waiters {
            turn.effect(Effect::Answer { operation, workload, result: result.clone() });
        }
    }

    fn retain_waiters(&mut self, keep: impl Fn(&OperationId, &WorkloadName) -> bool, turn: &mut FetchTurn) {
        self.downloads.retain(|digest, download| {
            download.waiters.retain(|operation, workload| keep(operation, workload));
            let is_wanted = !download.waiters.is_empty();
            if !is_wanted && download.is_on_disk() {
                turn.effect(Effect::Checkpoint { digest: *digest });
            }
            is_wanted
        });
    }

    /// Asks for whatever may be asked for now.
    fn ask(&mut self, now: Now, turn: &mut FetchTurn) {
        let Some(connection) = self.connection else { return };
        for download in self.downloads.values_mut() {
            if let Some(want) = download.ask(now.monotonic) {
                turn.effect(Effect::Send { connection, message: Message::ArtifactWant(want) });
            }
        }
    }
}
