//! Carries out what a device's actor decides.

use std::sync::Arc;

use fleetd_actors::address::Address;
use fleetd_actors::audit;
use fleetd_actors::authority;
use fleetd_actors::device::{Device, Effect, Input, Record, RolloutNews};
use fleetd_actors::driver::Driver;
use fleetd_actors::registration;
use fleetd_actors::rollout;
use fleetd_sync_core::audit::{By, Outcome};
use fleetd_sync_core::commit::Mutation;
use fleetd_sync_core::id::{ConnectionId, LocalId, RolloutId};
use fleetd_sync_core::session::Message;
use fleetd_sync_core::session::message::{Refusal, Renewed};
use fleetd_sync_core::time::Now;
use fleetd_sync_core::trust::Revocation;
use fleetd_sync_transport::identity;

use super::{artifact, log_store, send};
use crate::node::{Later, Shared};
use crate::record;

/// The driver of one device's actor.
pub struct DeviceDriver {
    shared: Arc<Shared>,
    later: Later,
    local: LocalId,
    address: Address<Input>,
}

impl DeviceDriver {
    /// Makes the driver.
    #[must_use]
    pub const fn new(shared: Arc<Shared>, later: Later, local: LocalId, address: Address<Input>) -> Self {
        Self { shared, later, local, address }
    }

    fn deliver(&self, connection: ConnectionId, message: Message) {
        match message {
            Message::ArtifactWant(want) => artifact::serve(&self.shared, connection, want),
            Message::LogPush(push) => {
                if let Some(actors) = self.later.actors() {
                    log_store::receive(&actors, self.local, push);
                }
            }
            // The session lets nothing else of a device through.
            _ => {}
        }
    }

    /// Has a certificate issued. It leaves once the audit log has it.
    fn renew(&self, connection: ConnectionId, csr: Vec<u8>) {
        let Some(actors) = self.later.actors() else { return };
        let (address, shared, audit, local) =
            (self.address.clone(), Arc::clone(&self.shared), actors.audit.clone(), self.local);
        let answer = move |renewed: Renewed| {
            let is_issued = matches!(renewed, Renewed::Issued { .. });
            let hand_over = move |()| address.send(Input::Renewed { connection, message: Message::Renewed(renewed) });
            if !is_issued {
                return hand_over(());
            }
            let by = By::Device { local, token: None };
            let (action, request) = (audit::action::RENEW.to_owned(), "it gets another certificate".to_owned());
            let call = audit::Call { by, action, subjects: vec![local.to_string()], request };
            let operation = Some(shared.audit_answers.open(Box::new(move |_| hand_over(()))));
            audit.send(audit::Input::Note { operation, call, outcome: Outcome::Done });
        };
        match identity::verify_signing_request(&csr) {
            Ok(key) => {
                let operation = self.shared.renewed_answers.open(Box::new(answer));
                actors.registration.send(registration::Input::Renew { operation, device: self.local, key });
            }
            Err(error) => {
                let code = "enrolment.request.invalid".to_owned();
                answer(Renewed::Refused(Refusal { code, message: error.to_string() }));
            }
        }
    }

    fn tell_rollout(&self, rollout: RolloutId, news: RolloutNews) {
        let Some(actors) = self.later.actors() else { return };
        let device = self.local;
        let input = match news {
            RolloutNews::Assigned => rollout::Input::DeviceAssigned { device },
            RolloutNews::Withdrawn => rollout::Input::DeviceWithdrawn { device },
            RolloutNews::Held(hold) => rollout::Input::DeviceHeld { device, hold },
            RolloutNews::Lifted { is_held } => rollout::Input::DeviceLifted { device, is_held },
            RolloutNews::Reported(report) => rollout::Input::DeviceReported { device, report },
            RolloutNews::Presence(offline_since) => rollout::Input::DevicePresence { device, offline_since },
            RolloutNews::Superseded(by) => rollout::Input::DeviceSuperseded { device, by },
            RolloutNews::Gone => rollout::Input::DeviceGone { device },
        };
        actors.rollouts.send(&rollout, input);
    }

    fn revoke_key(&self, device: LocalId) {
        let Some(actors) = self.later.actors() else { return };
        let operation = self.shared.authority_answers.open(Box::new(move |result| {
            if let Err(error) = result {
                tracing::error!(%device, %error, "a device's key could not be revoked");
            }
        }));
        let revocation = Revocation::Compromised;
        actors.authority.send(authority::Input::Revoke { operation, key: device.into(), revocation });
    }
}

impl Driver<Device> for DeviceDriver {
    fn store(&mut self, record: Record, mutations: &mut Vec<Mutation>) {
        match record {
            Record::Device(record) => record::device::put(&record, mutations),
            Record::Lane(record) => mutations.push(record.into_mutation()),
        }
    }

    fn accompany(&mut self, effects: &[Effect], mutations: &mut Vec<Mutation>) {
        for effect in effects {
            if let Effect::Answer { operation, result: Ok(_) } = effect {
                mutations.extend(self.shared.device_answers.take_receipt(*operation));
            }
        }
    }

    fn start(&mut self, _now: Now, effect: Effect) {
        let link = self.shared.seams.link.as_ref();
        match effect {
            Effect::Send { connection, class, message } => send(link, connection, class, &message),
            Effect::Close { connection, code } => {
                // At once, and not when the link tells of its end: whoever hears that the device is gone may ask again.
                self.shared.connections.give_up(connection);
                link.close(connection, code);
            }
            Effect::Serve { connection, grade } => self.shared.connections.serve(connection, grade),
            Effect::Deliver { connection, message } => self.deliver(connection, message),
            Effect::Renew { connection, csr } => self.renew(connection, csr),
            Effect::Recover { key } => {
                if let Some(actors) = self.later.actors() {
                    actors.registration.send(registration::Input::Recover { device: self.local, key });
                }
            }
            Effect::TrustReceived(envelopes) => {
                if let Some(actors) = self.later.actors() {
                    actors.authority.send(authority::Input::Received(envelopes));
                }
            }
            Effect::Enrolled { operation } => {
                if let Some(actors) = self.later.actors() {
                    actors.registration.send(registration::Input::Enrolled { operation });
                }
            }
            Effect::TellRollout { rollout, news } => self.tell_rollout(rollout, news),
            Effect::Answer { operation, result } => self.shared.device_answers.answer(operation, result),
            Effect::RevokeKey { device } => self.revoke_key(device),
            Effect::AuthorityForked { document, lane } => {
                tracing::error!(%document, %lane, "two servers write with this key; stop the one that was restored from elsewhere");
            }
            Effect::Forked => tracing::error!(device = %self.local, "two hold this device's key; it is quarantined"),
        }
    }
}
