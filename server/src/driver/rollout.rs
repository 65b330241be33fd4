//! Carries out what a rollout decides.

use std::sync::Arc;

use fleetd_actors::device::Input as DeviceInput;
use fleetd_actors::driver::Driver;
use fleetd_actors::rollout::{Effect, Record, Rollout};
use fleetd_sync_core::commit::Mutation;
use fleetd_sync_core::id::RolloutId;
use fleetd_sync_core::time::Now;

use crate::node::{Later, Shared};
use crate::record;

/// The driver of one rollout's actor.
pub struct RolloutDriver {
    shared: Arc<Shared>,
    later: Later,
    rollout: RolloutId,
}

impl RolloutDriver {
    /// Makes the driver.
    #[must_use]
    pub const fn new(shared: Arc<Shared>, later: Later, rollout: RolloutId) -> Self {
        Self { shared, later, rollout }
    }
}

impl Driver<Rollout> for RolloutDriver {
    fn store(&mut self, record: Record, mutations: &mut Vec<Mutation>) {
        record::rollout::put(self.rollout, record, mutations);
    }

    fn accompany(&mut self, effects: &[Effect], mutations: &mut Vec<Mutation>) {
        for effect in effects {
            if let Effect::Answer { operation, result: Ok(_) } = effect {
                mutations.extend(self.shared.rollout_answers.take_receipt(*operation));
            }
        }
    }

    fn start(&mut self, _now: Now, effect: Effect) {
        let Some(actors) = self.later.actors() else { return };
        match effect {
            Effect::Assign { device, assignment } => actors.devices.send(&device, DeviceInput::Assign(assignment)),
            Effect::Withdraw { device, rollout, workload } => {
                actors.devices.send(&device, DeviceInput::Withdraw { rollout, workload });
            }
            Effect::Ask { device, rollout, workload } => {
                actors.devices.send(&device, DeviceInput::Ask { rollout, workload });
            }
            Effect::Answer { operation, result } => self.shared.rollout_answers.answer(operation, result),
            // Watchers follow the store's feed, which has both.
            Effect::DeviceChanged { .. } | Effect::Changed { .. } => {}
        }
    }
}
