//! The trace that a device leaves in the audit log when it joins: durable before anything of it is stored.
//!
//! Only what is new leaves one. A device that asks again with a token that it has used changes nothing, and could else
//! fill the log.

use fleetd_sync_core::id::{DeviceId, LocalId, OperationId};
use fleetd_sync_core::limit;
use fleetd_sync_core::name::DeviceName;
use fleetd_sync_core::time::Now;

use super::{Applicant, Effect, Registration, RegistrationTurn, Stage};
use crate::device::record::DeviceRecord;

/// What is done once the audit log has it.
#[derive(Debug)]
pub(super) enum Next {
    /// The device waits for an operator's word.
    Wait,
    /// It gets its certificate.
    Issue { device: DeviceId, name: DeviceName },
}

impl Registration {
    /// Lets a device wait for an operator's word, traced when it is the first time.
    pub(super) fn let_wait(
        &mut self,
        now: Now,
        asked: OperationId,
        applicant: Box<Applicant>,
        turn: &mut RegistrationTurn,
    ) {
        let local = LocalId::from(applicant.key.id());
        if self.pending.contains_key(&local) || self.pending.len() >= limit::PENDING_DEVICES_MAX {
            return self.wait(now, asked, &applicant, turn);
        }
        self.trace(now, asked, applicant, Next::Wait, turn);
    }

    /// Lets a device in, traced when it is new or uses another token than before.
    pub(super) fn let_in(
        &mut self,
        now: Now,
        asked: OperationId,
        applicant: Box<Applicant>,
        (device, name, is_known): (DeviceId, DeviceName, bool),
        turn: &mut RegistrationTurn,
    ) {
        let local = LocalId::from(applicant.key.id());
        let token = self.tokens.get(&applicant.request.token);
        let has_used = token.is_some_and(|token| token.state.used_by.contains(&local));
        if is_known && has_used {
            return self.issue(now, asked, *applicant, device, name, turn);
        }
        self.names.insert(name.clone());
        self.trace(now, asked, applicant, Next::Issue { device, name }, turn);
    }

    fn trace(
        &mut self,
        now: Now,
        asked: OperationId,
        applicant: Box<Applicant>,
        next: Next,
        turn: &mut RegistrationTurn,
    ) {
        let (device, token) = (LocalId::from(applicant.key.id()), Some(applicant.request.token));
        let name = match &next {
            Next::Wait => None,
            Next::Issue { name, .. } => Some(name.clone()),
        };
        self.joining.insert(device);
        let operation = self.open(now, asked, device, Stage::Trace { applicant, next });
        turn.effect(Effect::Trace { operation, device, token, name });
    }

    /// Traces that a device whose record was lost gets one again.
    pub(super) fn trace_lost(&mut self, now: Now, record: Box<DeviceRecord>, turn: &mut RegistrationTurn) {
        let (device, name) = (record.local, record.name.clone());
        self.joining.insert(device);
        self.names.insert(name.clone());
        // Nobody waits for the answer but the device's actor.
        let asked = OperationId::random(&mut self.entropy);
        let operation = self.open(now, asked, device, Stage::TraceLost { record });
        turn.effect(Effect::Trace { operation, device, token: None, name: Some(name) });
    }

    pub(super) fn on_traced(&mut self, now: Now, operation: OperationId, turn: &mut RegistrationTurn) {
        let is_traced = |stage: &Stage| matches!(stage, Stage::Trace { .. } | Stage::TraceLost { .. });
        if !self.open.get(&operation).is_some_and(|open| is_traced(&open.stage)) {
            return; // It took too long, and was put off.
        }
        let Some(open) = self.close(operation) else { return };
        match open.stage {
            Stage::Trace { applicant, next: Next::Wait } => self.wait(now, open.asked, &applicant, turn),
            Stage::Trace { applicant, next: Next::Issue { device, name } } => {
                self.issue(now, open.asked, *applicant, device, name, turn);
            }
            Stage::TraceLost { record } => {
                let name = record.name.clone();
                self.joining.insert(open.local);
                self.names.insert(name.clone());
                let operation = self.open(now, open.asked, open.local, Stage::Recover { name });
                turn.effect(Effect::Enrol { operation, record });
            }
            _ => {}
        }
    }
}
