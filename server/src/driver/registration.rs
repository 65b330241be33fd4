//! Carries out what the registration decides.

use std::sync::Arc;

use fleetd_actors::address::Address;
use fleetd_actors::device::Input as DeviceInput;
use fleetd_actors::driver::Driver;
use fleetd_actors::registration::token::KnownDevice;
use fleetd_actors::registration::{Effect, Input, Record, Registration};
use fleetd_sync_core::commit::{Mutation, Space};
use fleetd_sync_core::id::LocalId;
use fleetd_sync_core::name::DeviceName;
use fleetd_sync_core::time::Now;
use fleetd_sync_transport::identity;

use crate::node::{Later, Shared};
use crate::record;

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

    fn issue(&self, now: Now, device: LocalId, csr: &[u8]) -> Result<Vec<Vec<u8>>, String> {
        let key = identity::verify_signing_request(csr).map_err(|error| error.to_string())?;
        if LocalId::from(key.id()) != device {
            return Err("the signing request is for another key".to_owned());
        }
        let certificates = &self.shared.identity.certificates;
        let issued = certificates.issue_device(&key, now.wall, &mut self.shared.entropy());
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
            Effect::Issue { operation, device, csr } => {
                let result = self.issue(now, device, &csr);
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
