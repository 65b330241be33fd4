//! Carries out what the fetcher decided: requests to the server, and groups on the disk.

use std::convert::Infallible;
use std::sync::Arc;

use fleetd_actors::address::Address;
use fleetd_actors::driver::Driver;
use fleetd_actors::spawn::LoadActorError;
use fleetd_actors::workload::FetchError;
use fleetd_sync_core::commit::Mutation;
use fleetd_sync_core::session::Class;
use fleetd_sync_core::time::Now;

use super::Surroundings;
use crate::artifact_files::{BeginArtifactError, FinishArtifactError};
use crate::cause::cause_of;
use crate::fetch::{Effect, Fetcher, Input};

/// Carries out what the fetcher decided.
pub(crate) struct FetchDriver {
    surroundings: Arc<Surroundings>,
    address: Address<Input>,
}

/// Starts a fetcher, and tells it what is wanted.
pub(crate) fn load(
    surroundings: &Arc<Surroundings>,
    address: &Address<Input>,
) -> Result<(Fetcher, FetchDriver), LoadActorError> {
    if let Some(exchange) = surroundings.exchange() {
        exchange.fetcher_loaded(address);
    }
    let fetcher = Fetcher::new(surroundings.entropy("fetch"));
    Ok((fetcher, FetchDriver { surroundings: Arc::clone(surroundings), address: address.clone() }))
}

impl Driver<Fetcher> for FetchDriver {
    fn store(&mut self, record: Infallible, _mutations: &mut Vec<Mutation>) {
        match record {}
    }

    fn start(&mut self, _now: Now, effect: Effect) {
        match effect {
            Effect::Begin { job, size_bytes } => self.run(move |surroundings, address| {
                let result = surroundings.seams.files.begin(&job.digest, size_bytes).map_err(|error| match error {
                    BeginArtifactError::NoSpace { needed_bytes, free_bytes, .. } => {
                        FetchError::NoSpace { needed_bytes, free_bytes }
                    }
                    error => unavailable(&error),
                });
                address.send(Input::Begun { job, result });
            }),
            Effect::Write { job, groups } => self.run(move |surroundings, address| {
                let files = &surroundings.seams.files;
                let written =
                    groups.iter().try_for_each(|(index, bytes)| files.write_group(&job.digest, *index, bytes));
                let groups = groups.into_iter().map(|(index, _)| index).collect();
                address.send(Input::Written { job, groups, result: written.map_err(|error| unavailable(&error)) });
            }),
            Effect::Checkpoint { digest } => self.run(move |surroundings, _| {
                if let Err(error) = surroundings.seams.files.checkpoint(&digest) {
                    tracing::warn!(%digest, error = cause_of(&error), "what was fetched may be fetched again");
                }
            }),
            Effect::Finish { job } => self.run(move |surroundings, address| {
                let finished = surroundings.seams.files.finish(&job.digest);
                if let Err(error @ FinishArtifactError::Digest { .. }) = &finished {
                    tracing::warn!(%error, "the disk does not give back what it was given");
                }
                let result = finished.map(drop).map_err(|error| unavailable(&error));
                address.send(Input::Finished { job, result });
            }),
            Effect::Send { connection, message } => {
                super::agent::send(&*self.surroundings.seams.link, connection, Class::Artifacts, &message);
            }
            Effect::Answer { operation, workload, result } => {
                if let Some(exchange) = self.surroundings.exchange() {
                    exchange.fetched(operation, &workload, result);
                }
            }
        }
    }
}

impl FetchDriver {
    fn run(&self, job: impl FnOnce(&Surroundings, &Address<Input>) + Send + 'static) {
        let address = self.address.clone();
        self.surroundings.run_blocking(move |surroundings| job(surroundings, &address));
    }
}

fn unavailable(error: &dyn std::error::Error) -> FetchError {
    FetchError::Unavailable { cause: cause_of(error) }
}
