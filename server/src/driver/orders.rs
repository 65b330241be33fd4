//! Carries out what the orders' machine decides.

use std::sync::{Arc, PoisonError};

use fleetd_actors::device::Input as DeviceInput;
use fleetd_actors::driver::Driver;
use fleetd_actors::orders::{Effect, OrderBook, Orders, Record};
use fleetd_actors::rollout::Input as RolloutInput;
use fleetd_sync_core::commit::Mutation;
use fleetd_sync_core::id::RolloutId;
use fleetd_sync_core::time::Now;

use crate::node::{Later, Shared};
use crate::record;

/// The driver of the orders' actor.
pub struct OrdersDriver {
    shared: Arc<Shared>,
    later: Later,
}

impl OrdersDriver {
    /// Makes the driver.
    #[must_use]
    pub const fn new(shared: Arc<Shared>, later: Later) -> Self {
        Self { shared, later }
    }

    /// Tells rollouts that have not ended, and then who is connected: a rollout that hears of the order by what a device
    /// makes of it would take it for something else. A device that is away is told when it connects; a rollout that starts
    /// asks by itself.
    fn announce(&self, orders: &Arc<Orders>) {
        *self.shared.orders.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(orders);
        let Some(actors) = self.later.actors() else { return };
        let store = self.shared.seams.store.as_ref();
        let told = record::rollout::visit_unfinished(store, &mut |header, manifest| {
            if !header.phase.is_ended() {
                let standstill = orders.standstill(manifest);
                actors.rollouts.send(&header.rollout, RolloutInput::Ordered(standstill));
            }
        });
        match told {
            Ok(unreadable) => unreadable.iter().for_each(|(key, error)| {
                let rollout = RolloutId::from_slice(key).map(|rollout| rollout.to_string()).unwrap_or_default();
                tracing::error!(rollout, %error, "a rollout is unreadable, and not told what stands over the fleet");
            }),
            Err(error) => {
                tracing::error!(%error, "rollouts could not be told what stands over the fleet; its devices are");
            }
        }
        for device in self.shared.connections.devices() {
            actors.devices.send(&device, DeviceInput::Orders(Arc::clone(orders)));
        }
    }
}

impl Driver<OrderBook> for OrdersDriver {
    fn store(&mut self, record: Record, mutations: &mut Vec<Mutation>) {
        mutations.push(record::order::mutation(record));
    }

    fn accompany(&mut self, effects: &[Effect], mutations: &mut Vec<Mutation>) {
        for effect in effects {
            if let Effect::Answer { operation, result: Ok(()) } = effect {
                mutations.extend(self.shared.order_answers.take_receipt(*operation));
            }
        }
    }

    fn start(&mut self, _now: Now, effect: Effect) {
        match effect {
            Effect::Announce(orders) => self.announce(&orders),
            Effect::Answer { operation, result } => self.shared.order_answers.answer(operation, result),
        }
    }
}
