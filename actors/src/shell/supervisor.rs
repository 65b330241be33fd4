//! Watches every shell of a node, and starts again what has failed: at once the first time, then more slowly.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fleetd_sync_core::commit::ActorKey;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};

use crate::engine::restart_pause;

/// A place where an actor can be started again.
pub(super) trait Respawn: Send + Sync {
    fn key(&self) -> &ActorKey;
    fn respawn_after(self: Arc<Self>, pause: Duration, failed: ActorId);
}

pub(super) enum SupervisorMessage {
    Watch(ActorId, Arc<dyn Respawn>),
}

#[derive(Default)]
pub(super) struct Watched {
    slots: BTreeMap<u64, Arc<dyn Respawn>>,
    failures: BTreeMap<ActorKey, u32>,
}

struct Supervisor;

/// Starts a supervisor on the present runtime.
pub(super) async fn start() -> Result<ActorRef<SupervisorMessage>, SpawnErr> {
    Ok(Actor::spawn(None, Supervisor, ()).await?.0)
}

impl Actor for Supervisor {
    type Msg = SupervisorMessage;
    type State = Watched;
    type Arguments = ();

    async fn pre_start(&self, _myself: ActorRef<Self::Msg>, (): ()) -> Result<Watched, ActorProcessingErr> {
        Ok(Watched::default())
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        watched: &mut Watched,
    ) -> Result<(), ActorProcessingErr> {
        let SupervisorMessage::Watch(actor, slot) = message;
        watched.slots.insert(actor.pid(), slot);
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        watched: &mut Watched,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorTerminated(actor, _, _) => {
                if let Some(slot) = watched.slots.remove(&actor.get_id().pid()) {
                    watched.failures.remove(slot.key());
                }
            }
            SupervisionEvent::ActorFailed(actor, error) => {
                if let Some(slot) = watched.slots.remove(&actor.get_id().pid()) {
                    watched.restart(actor.get_id(), slot, &error);
                }
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        Ok(())
    }
}

impl Watched {
    fn restart(&mut self, failed: ActorId, slot: Arc<dyn Respawn>, error: &ActorProcessingErr) {
        let failures = self.failures.entry(slot.key().clone()).or_default();
        let pause = restart_pause(*failures);
        *failures += 1;
        tracing::warn!(actor = %slot.key(), %error, ?pause, "an actor failed and starts again from the store");
        slot.respawn_after(pause, failed);
    }
}
