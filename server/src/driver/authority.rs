//! Carries out what the authority decides.

use std::sync::{Arc, PoisonError};

use fleetd_actors::address::Address;
use fleetd_actors::authority::{Authority, Effect, Input, KeptTrust, Record, Trust};
use fleetd_actors::device::Input as DeviceInput;
use fleetd_actors::driver::Driver;
use fleetd_actors::lobby::Input as LobbyInput;
use fleetd_actors::registration::Input as RegistrationInput;
use fleetd_sync_core::commit::{Mutation, Space};
use fleetd_sync_core::time::Now;

use crate::node::{Later, Shared};

/// The authority's driver.
pub struct AuthorityDriver {
    shared: Arc<Shared>,
    later: Later,
    address: Address<Input>,
}

impl AuthorityDriver {
    /// Makes the driver.
    #[must_use]
    pub const fn new(shared: Arc<Shared>, later: Later, address: Address<Input>) -> Self {
        Self { shared, later, address }
    }

    fn keep(&self, kept: Box<KeptTrust>) {
        let (file, address) = (Arc::clone(&self.shared.identity.trust_file), self.address.clone());
        self.shared.seams.blocking.run(Box::new(move || {
            let result = file.write(&kept).map_err(|error| {
                let cause = match std::error::Error::source(&error) {
                    Some(source) => format!("{error}: {source}"),
                    None => error.to_string(),
                };
                tracing::error!(cause, "the copy of trust beside the keys could not be replaced");
                cause
            });
            address.send(Input::Kept(result));
        }));
    }

    fn announce(&self, trust: &Arc<Trust>) {
        *self.shared.trust.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(trust);
        let Some(actors) = self.later.actors() else { return };
        actors.lobby.send(LobbyInput::Trust(Arc::clone(trust)));
        actors.registration.send(RegistrationInput::Trust(Arc::clone(&trust.roster)));
        // Those that rest take up the present trust when they are loaded.
        for device in self.shared.connections.devices() {
            actors.devices.send(&device, DeviceInput::Trust(Arc::clone(trust)));
        }
    }
}

impl Driver<Authority> for AuthorityDriver {
    fn store(&mut self, record: Record, mutations: &mut Vec<Mutation>) {
        mutations.push(match record {
            Record::Root(record) => Mutation::Put {
                space: Space::RootRecord,
                key: record.body().version.to_be_bytes().to_vec(),
                value: record.encode(),
            },
            Record::Lane(record) => record.into_mutation(),
        });
    }

    fn accompany(&mut self, effects: &[Effect], mutations: &mut Vec<Mutation>) {
        for effect in effects {
            if let Effect::Answer { operation, result: Ok(_) } = effect {
                mutations.extend(self.shared.authority_answers.take_receipt(*operation));
            }
        }
    }

    fn start(&mut self, _now: Now, effect: Effect) {
        match effect {
            Effect::Announce(trust) => self.announce(&trust),
            Effect::Keep(kept) => self.keep(kept),
            Effect::Answer { operation, result } => self.shared.authority_answers.answer(operation, result),
            Effect::Alarm { version } => {
                tracing::error!(version, "the root's keys signed two records of one version; the first one stays");
            }
        }
    }
}
