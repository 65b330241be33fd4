//! Carries out what a rollout decides.

use std::sync::{Arc, PoisonError};

use fleetd_actors::audit::{self, Call, action};
use fleetd_actors::device::Input as DeviceInput;
use fleetd_actors::driver::Driver;
use fleetd_actors::flight::Recorded as _;
use fleetd_actors::rollout::status::RolloutHeader;
use fleetd_actors::rollout::{Effect, Input, Record, Rollout};
use fleetd_sync_core::audit::Outcome;
use fleetd_sync_core::commit::Mutation;
use fleetd_sync_core::id::RolloutId;
use fleetd_sync_core::machine::Turn;
use fleetd_sync_core::time::Now;

use crate::node::{Later, Shared};
use crate::record;
use crate::record::rollout_flight::RolloutRecorder;

/// The driver of one rollout's actor.
pub struct RolloutDriver {
    shared: Arc<Shared>,
    later: Later,
    rollout: RolloutId,
    recorder: Arc<RolloutRecorder>,
}

impl RolloutDriver {
    /// Makes the driver of a rollout that was loaded.
    #[must_use]
    pub fn new(shared: Arc<Shared>, later: Later, machine: &Rollout) -> Self {
        let rollout = machine.id();
        let recorder = shared.flights.of(rollout);
        recorder.loaded(machine.snapshot());
        Self { shared, later, rollout, recorder }
    }
}

impl RolloutDriver {
    /// Writes into the audit log what the rollout did by itself.
    fn note(&self, action: &'static str, header: RolloutHeader) {
        let Some(actors) = self.later.actors() else { return };
        let (phase, reason) = (header.phase, header.reason);
        let request = if reason.is_empty() { format!("it {phase}") } else { format!("it {phase}: {reason}") };
        let call = Call::own(action, Some(self.rollout.to_string()), request);
        actors.audit.send(audit::Input::Note { operation: None, call, outcome: Outcome::Done });
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

    fn witness_step(&mut self, now: Now, input: Option<&Input>) {
        self.recorder.step(now, input);
    }

    fn witness_turn(&mut self, machine: &Rollout, turn: &Turn<Record, Effect>) {
        self.recorder.witness(machine, turn);
    }

    fn start(&mut self, _now: Now, effect: Effect) {
        let Some(actors) = self.later.actors() else { return };
        match effect {
            Effect::Assign { device, assignment } => actors.devices.send(&device, DeviceInput::Assign(assignment)),
            Effect::Withdraw { device, rollout, workload } => {
                actors.devices.send(&device, DeviceInput::Withdraw { rollout, workload });
            }
            Effect::Hold { device, rollout, hold, workload, reason } => {
                actors.devices.send(&device, DeviceInput::Hold { rollout, hold, workload, reason });
            }
            Effect::Lift { device, rollout, workload } => {
                actors.devices.send(&device, DeviceInput::Lift { rollout, workload });
            }
            Effect::Ask { device, rollout, workload } => {
                actors.devices.send(&device, DeviceInput::Ask { rollout, workload });
            }
            Effect::AskOrders { manifest } => {
                // Held until it is sent, so that no newer order, of which the rollout is told, comes before it.
                let orders = self.shared.orders.read().unwrap_or_else(PoisonError::into_inner);
                actors.rollouts.send(&self.rollout, Input::Ordered(orders.standstill(manifest)));
            }
            Effect::Ended(header) => self.note(action::ROLLOUT_ENDED, header),
            Effect::Halted(header) => self.note(action::ROLLOUT_HALTED, header),
            Effect::Answer { operation, result } => self.shared.rollout_answers.answer(operation, result),
            // Watchers follow the store's feed, which has both.
            Effect::DeviceChanged { .. } | Effect::Changed { .. } => {}
        }
    }
}
