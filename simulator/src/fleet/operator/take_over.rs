//! What a rollout takes over from others before it starts, as `fleetd rollout start` does: all that they have not come to
//! their end with.

use std::collections::BTreeSet;
use std::sync::Arc;

use fleetd_actors::rollout;
use fleetd_actors::rollout::plan::Plan;
use fleetd_server::node as server_node;
use fleetd_sync_core::id::{LocalId, RolloutId};

use super::{Errand, Fleet, abort, answered, start};

impl Fleet {
    /// Starts a plan for an errand, once every rollout of before has given its devices over, or ended where it is taken back
    /// as a whole. A start that is cut off before its end is repeated, and finds that done.
    pub(super) fn start_over_others(
        &self,
        server: &server_node::Node,
        errand: &Errand,
        number: u64,
        plan: Arc<Plan>,
        taken_back: Option<RolloutId>,
    ) {
        let reply = answered(&errand.answer, &self.agenda, number);
        let mut formers = self.operator.rollouts.clone();
        formers.retain(|former| *former != errand.rollout && Some(*former) != taken_back);
        let devices = Arc::new(plan.assigned().map(|device| device.local).collect());
        let (by, last) = (errand.rollout, server.clone());
        let go = move || take_over(last.clone(), formers, by, devices, Box::new(move || start(&last, by, plan, reply)));
        match taken_back {
            // It may have ended already, and is answered so.
            Some(of) => abort(server, of, Box::new(move |_| go())),
            None => go(),
        }
    }
}

/// Has one rollout after the other give devices over, and goes on then.
fn take_over(
    server: server_node::Node,
    mut formers: Vec<RolloutId>,
    by: RolloutId,
    devices: Arc<BTreeSet<LocalId>>,
    then: Box<dyn FnOnce() + Send>,
) {
    let Some(former) = formers.pop() else { return then() };
    let (again, rest) = (server.clone(), Arc::clone(&devices));
    // One that was lost with a restored store has nothing to give over, and is answered so.
    let next = Box::new(move |_| take_over(again, formers, by, rest, then));
    let operation = server.shared.rollout_answers.open(next);
    server.actors.rollouts.send(&former, rollout::Input::Supersede { operation, by, devices });
}
