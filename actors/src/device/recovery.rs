//! A device whose record was lost with a store, and what it brings back.

use fleetd_sync_core::envelope::DocumentId;
use fleetd_sync_core::id::ConnectionId;
use fleetd_sync_core::key::PublicKey;
use fleetd_sync_core::limit;
use fleetd_sync_core::session::CloseCode;
use fleetd_sync_core::time::{Monotonic, Now};

use super::record::HoldRow;
use super::wanted::{self, Wanted};
use super::{Device, DeviceTurn, Effect, standing};

/// A connection that waits for its device's record.
#[derive(Debug)]
pub(super) struct Returning {
    connection: ConnectionId,
    pub(super) until: Monotonic,
}

impl Device {
    /// Has a record made for a device that proved its certificate and has none. What it says meanwhile is not heard:
    /// it dials again when the record is there.
    pub(super) fn begin_returning(
        &mut self,
        now: Now,
        connection: ConnectionId,
        key: PublicKey,
        turn: &mut DeviceTurn,
    ) {
        self.end_returning(CloseCode::Replaced, turn);
        self.returning = Some(Returning { connection, until: now.monotonic + limit::HELLO_TIMEOUT });
        turn.effect(Effect::Recover { key });
    }

    pub(super) fn on_not_recovered(&mut self, code: CloseCode, turn: &mut DeviceTurn) {
        self.end_returning(code, turn);
    }

    pub(super) fn on_returning_timeout(&mut self, now: Now, turn: &mut DeviceTurn) {
        if self.returning.as_ref().is_some_and(|returning| returning.until <= now.monotonic) {
            self.end_returning(CloseCode::Busy, turn);
        }
    }

    pub(super) fn end_returning(&mut self, code: CloseCode, turn: &mut DeviceTurn) {
        if let Some(Returning { connection, .. }) = self.returning.take() {
            turn.effect(Effect::Close { connection, code });
        }
    }

    pub(super) fn forget_returning(&mut self, connection: ConnectionId) {
        self.returning.take_if(|returning| returning.connection == connection);
    }

    /// What this server's own lane asks of the device.
    pub(super) fn own_words(&self) -> Wanted {
        let lane = self.replica.own_lane();
        let state = lane.and_then(|lane| self.replica.lane_state(DocumentId::Desired(self.local), lane));
        state.cloned().unwrap_or_default()
    }

    /// Takes back what this server had asked and does not remember: its own lane has come to say other than `before`,
    /// and nobody else can write it. What was wished since is put on top, whether it was written already or not: what
    /// was written below the branch that came is void.
    pub(super) fn adopt(&mut self, now: Now, before: &Wanted, turn: &mut DeviceTurn) {
        let after = self.own_words();
        let Some(record) = self.record.as_mut().filter(|_| after != *before) else { return };
        let base = self.unwritten.take();
        let since = wanted::difference(&record.wanted, base.as_ref().unwrap_or(before));
        let mut rows = wanted::changed(after, since);
        standing::without_standing(&mut rows, record, &self.orders);
        record.wanted = rows;
        for (hold, workload, reason) in wanted::holds(&record.wanted) {
            let row = HoldRow { workload, reason, created_by: String::new(), created_at: now.wall };
            record.holds.entry(hold).or_insert(row);
        }
        let stands = wanted::holds(&record.wanted).map(|(hold, ..)| hold).collect::<Vec<_>>();
        record.holds.retain(|hold, _| stands.contains(hold));
        let message = "brought back what this server had asked of it".to_owned();
        record.note(now.wall, "recovered", None, message, "");
        self.persist_record(turn);
    }
}
