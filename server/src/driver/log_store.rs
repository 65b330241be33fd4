//! Carries out what a log store decides.

use std::fmt;
use std::sync::Arc;

use fleetd_actors::driver::Driver;
use fleetd_actors::log_record::LogBatch;
use fleetd_actors::log_stream::{Effect, Input, LogStore, Record};
use fleetd_sync_core::commit::Mutation;
use fleetd_sync_core::id::LocalId;
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::session::message::LogPush;
use fleetd_sync_core::session::{Class, Message};
use fleetd_sync_core::time::Now;

use super::{open_connection, send};
use crate::node::{Actors, Later, Shared};
use crate::record;

/// Whose logs: one workload's on one device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogStoreKey {
    /// The device.
    pub device: LocalId,
    /// The workload.
    pub workload: WorkloadName,
}

impl fmt::Display for LogStoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.device, self.workload)
    }
}

/// Takes log records of a device.
pub(super) fn receive(actors: &Actors, device: LocalId, push: LogPush) {
    match LogBatch::decode(&push.records) {
        Ok(batch) => {
            let key = LogStoreKey { device, workload: push.stream.workload.clone() };
            actors.logs.send(&key, Input::Received { stream: push.stream, batch });
        }
        Err(error) => tracing::warn!(%device, %error, "a device sent what are no log records"),
    }
}

/// The driver of one log store.
pub struct LogStoreDriver {
    shared: Arc<Shared>,
    key: LogStoreKey,
}

impl LogStoreDriver {
    /// Makes the driver.
    #[must_use]
    pub fn new(shared: Arc<Shared>, _later: Later, key: LogStoreKey) -> Self {
        Self { shared, key }
    }
}

impl Driver<LogStore> for LogStoreDriver {
    fn store(&mut self, record: Record, mutations: &mut Vec<Mutation>) {
        mutations.push(record::log::mutation(&self.key, record));
    }

    fn start(&mut self, _now: Now, effect: Effect) {
        match effect {
            Effect::Acknowledge(position) => {
                if let Some(connection) = open_connection(&self.shared, self.key.device) {
                    send(self.shared.seams.link.as_ref(), connection, Class::Logs, &Message::LogAck(position));
                }
            }
            // Readers follow the store's feed, which says when a log has grown.
            Effect::Following { .. } | Effect::Tail { .. } => {}
        }
    }
}
