//! Carries out what the audit log decides.

use std::sync::Arc;

use fleetd_actors::address::Address;
use fleetd_actors::audit::{Audit, Effect, Input, Record};
use fleetd_actors::driver::Driver;
use fleetd_sync_core::commit::{Mutation, Space};
use fleetd_sync_core::time::Now;

use crate::node::Shared;
use crate::record;

/// The audit log's driver.
pub struct AuditDriver {
    shared: Arc<Shared>,
    address: Address<Input>,
}

impl AuditDriver {
    /// Makes the driver.
    #[must_use]
    pub const fn new(shared: Arc<Shared>, address: Address<Input>) -> Self {
        Self { shared, address }
    }
}

impl Driver<Audit> for AuditDriver {
    fn store(&mut self, record: Record, mutations: &mut Vec<Mutation>) {
        record::audit::put(record, mutations);
    }

    fn start(&mut self, _now: Now, effect: Effect) {
        match effect {
            Effect::Noted { operation, number } => self.shared.audit_answers.answer(operation, number),
            Effect::Look { intent, caller, request_id } => {
                let key = record::request::request_key(caller, &request_id);
                // A store that cannot be read now is not known to have it.
                let is_made = self.shared.seams.store.get(Space::Request, &key).is_ok_and(|found| found.is_some());
                self.address.send(Input::Looked { intent, is_made });
            }
        }
    }
}
