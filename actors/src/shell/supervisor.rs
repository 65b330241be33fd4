//! Watches every shell of a node, and starts again what has failed: at once the first time, then more slowly.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fleetd_sync_core::commit::ActorKey;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};

/// First pause before an actor that failed twice in a row is started again.
const RESTART_PAUSE_FIRST: Duration = Duration::from_millis(50);
/// Longest pause before an actor is started again.
const RESTART_PAUSE_LAST: Duration = Duration::from_secs(10);

/// A place where an actor can be started again.
pub(super) trait Respawn: Send + Sync {
    fn key(&self) -> &ActorKey;
    fn respawn(self: Arc<Self>, failed: ActorId);
}

pub(super) enum SupervisorMessage {
    Watch(ActorId, Arc<dyn Respawn>),
    Restart(ActorId, Arc<dyn Respawn>),
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
        match message {
            SupervisorMessage::Watch(actor, slot) => {
                watched.slots.insert(actor.pid(), slot);
            }
            SupervisorMessage::Restart(failed, slot) => slot.respawn(failed),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Self::Msg>,
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
                    watched.restart(&myself, actor.get_id(), slot, &error);
                }
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        Ok(())
    }
}

impl Watched {
    fn restart(
        &mut self,
        myself: &ActorRef<SupervisorMessage>,
        failed: ActorId,
        slot: Arc<dyn Respawn>,
        error: &ActorProcessingErr,
    ) {
        let failures = self.failures.entry(slot.key().clone()).or_default();
        let pause = match *failures {
            0 => Duration::ZERO,
            n => (RESTART_PAUSE_FIRST * 2_u32.saturating_pow(n.min(16))).min(RESTART_PAUSE_LAST),
        };
        *failures += 1;
        tracing::warn!(actor = %slot.key(), %error, ?pause, "an actor failed and starts again from the store");
        drop(myself.send_after(pause, move || SupervisorMessage::Restart(failed, slot)));
    }
}
