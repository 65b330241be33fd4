//! Carries out what the registration decides.

use std::sync::Arc;

use fleetd_actors::address::Address;
use fleetd_actors::audit;
use fleetd_actors::device::Input as DeviceInput;
use fleetd_actors::driver::Driver;
use fleetd_actors::registration::token::KnownDevice;
use fleetd_actors::registration::{Effect, Input, Record, Registration};
use fleetd_sync_core::audit::{By, Outcome};
use fleetd_sync_core::commit::{Mutation, Space};
use fleetd_sync_core::id::{LocalId, OperationId, TokenId};
use fleetd_sync_core::key::PublicKey;
use fleetd_sync_core::name::DeviceName;
use fleetd_sync_core::time::Now;

use crate::node::{Later, Shared};
use crate::record;

/// What the API calls the asking of a device to join, whichever way it asked.
const REGISTER: &str = "fleetd.registration.v1.RegistrationService/RegisterDevice";

/// The registration's driver.
pub struct RegistrationDriver {
    shared: Arc<Shared>,
    later: Later,
    address: Address<Input>,
}

impl RegistrationDriver {
    /// Makes the driver.
    #[must_use]
    pub const fn new(shared: Arc<Shared>, later: Later, address: Address<Input>) -> Self {
        Self { shared, later, address }
    }

    fn known(&self, device: LocalId) -> Option<KnownDevice> {
        let found = self.shared.seams.store.get(Space::Device, device.as_bytes()).ok()??;
        let record = record::device::decode(&found.value).ok()?;
        Some(KnownDevice { device: record.device, name: record.name, membership: record.membership })
    }

    /// Says whether no other device has a name. One that was renamed has left its former name behind.
    fn is_free(&self, name: &DeviceName, device: LocalId) -> bool {
        match self.shared.seams.store.get(Space::Name, name.as_str().as_bytes()) {
            Ok(None) => true,
            Ok(Some(found)) => match LocalId::from_slice(&found.value) {
                Some(owner) => owner == device || self.known(owner).is_none_or(|known| known.name != *name),
                None => true,
            },
            Err(_) => false,
        }
    }

    /// Has the audit log take what is about to be done, and goes on once it is durable.
    fn trace(&self, operation: OperationId, device: LocalId, token: Option<TokenId>, name: Option<DeviceName>) {
        let Some(actors) = self.later.actors() else { return };
        let address = self.address.clone();
        let reply = Box::new(move |_| address.send(Input::Traced { operation }));
        let action = if token.is_some() { REGISTER } else { audit::action::RECOVER };
        let request = match &name {
            Some(name) => format!("it joins as {name}"),
            None => "it waits for an operator's word".to_owned(),
        };
        let subjects = [Some(device.to_string()), name.map(|name| name.to_string()), token.map(|id| id.to_string())];
        let call = audit::Call {
            by: By::Device { local: device, token },
            action: action.to_owned(),
            subjects: subjects.into_iter().flatten().collect(),
            request,
        };
        let noted = Some(self.shared.audit_answers.open(reply));
        actors.audit.send(audit::Input::Note { operation: noted, call, outcome: Outcome::Done });
    }

    fn issue(&self, now: Now, key: &PublicKey) -> Result<Vec<Vec<u8>>, String> {
        let certificates = &self.shared.identity.certificates;
        let issued = certificates.issue_device(key, now.wall, &mut self.shared.entropy());
        issued.map(|issued| issued.chain).map_err(|error| error.to_string())
    }
}

impl Driver<Registration> for RegistrationDriver {
    fn store(&mut self, record: Record, mutations: &mut Vec<Mutation>) {
        mutations.push(record::registration::mutation(record));
    }

    fn accompany(&mut self, effects: &[Effect], mutations: &mut Vec<Mutation>) {
        for effect in effects {
            if let Effect::Answer { operation, result: Ok(_) } = effect {
                mutations.extend(self.shared.registration_answers.take_receipt(*operation));
            }
        }
    }

    fn start(&mut self, now: Now, effect: Effect) {
        match effect {
            Effect::Find { operation, device, name } => {
                let (known, name_is_free) = (self.known(device), self.is_free(&name, device));
                self.address.send(Input::Found { operation, known, name_is_free });
            }
            Effect::Trace { operation, device, token, name } => self.trace(operation, device, token, name),
            Effect::Issue { operation, key } => {
                let result = self.issue(now, &key);
                self.address.send(Input::Issued { operation, result });
            }
            Effect::Enrol { operation, record } => {
                if let Some(actors) = self.later.actors() {
                    let device = record.local;
                    actors.devices.send(&device, DeviceInput::Enrol { operation, record });
                }
            }
            Effect::NotRecovered { device, code } => {
                if let Some(actors) = self.later.actors() {
                    actors.devices.send(&device, DeviceInput::NotRecovered(code));
                }
            }
            Effect::Registered { operation, registered } => {
                self.shared.registered_answers.answer(operation, registered);
            }
            Effect::Renewed { operation, renewed } => self.shared.renewed_answers.answer(operation, renewed),
            Effect::Answer { operation, result } => self.shared.registration_answers.answer(operation, result),
        }
    }
}
