//! Orders over the whole fleet: stops and denied releases, as `fleetd rollout stop --all` and `fleetd release deny` give
//! them.

use fleetd_actors::orders::{Denial, FleetStop, Input};
use fleetd_server::node as server_node;
use fleetd_sync_core::id::{HoldId, OperationId};
use fleetd_sync_core::time::Clock as _;

use super::{Errand, Fleet, Wish, answered};

const CALLER: &str = "scenario";
const REASON: &str = "an operator is afraid";

impl Fleet {
    /// Says whether an errand takes back what another one, which is still on its way, is to bring about: who gives an
    /// order and takes it back does so one after the other.
    pub(super) fn is_premature(&self, wish: &Wish) -> bool {
        let is_given = |errand: &Errand| match (wish, &errand.wish) {
            (Wish::LiftAll { hold }, Wish::StopAll { hold: given })
            | (Wish::Allow { hold }, Wish::Deny { hold: given }) => hold == given,
            _ => false,
        };
        self.operator.errands.values().any(is_given)
    }

    /// Stops the whole fleet.
    pub(super) fn stop_all(&self, server: &server_node::Node, errand: &Errand, number: u64, hold: HoldId) {
        let (reason, created_by) = (REASON.to_owned(), CALLER.to_owned());
        let stop = FleetStop { hold, reason, created_by, created_at: self.server.clock.now().wall };
        self.order(server, errand, number, |operation| Input::Stop { operation, stop: Box::new(stop) });
    }

    /// Ends such a stop.
    pub(super) fn lift_all(&self, server: &server_node::Node, errand: &Errand, number: u64, hold: HoldId) {
        self.order(server, errand, number, |operation| Input::Lift { operation, hold });
    }

    /// Denies the newest release; says whether there is one.
    pub(super) fn deny(&mut self, server: &server_node::Node, errand: &Errand, number: u64, hold: HoldId) -> bool {
        let Some(newest) = self.operator.newest_release() else { return false };
        let manifest = newest.signed.digest();
        // Whoever asks again asks for the same.
        let manifest = *self.operator.denied.entry(hold).or_insert(manifest);
        let known = self.operator.releases.iter().find(|known| known.signed.digest() == manifest);
        let Some(claims) = known.map(|known| known.signed.claims()) else { return false };
        let (workload, version) = (claims.workload.clone(), claims.version.clone());
        let (reason, created_by, created_at) = (REASON.to_owned(), CALLER.to_owned(), self.server.clock.now().wall);
        let denial = Denial { hold, manifest, workload, version, reason, created_by, created_at };
        self.order(server, errand, number, |operation| Input::Deny { operation, denial: Box::new(denial) });
        true
    }

    /// Allows what such an order denied; says whether it did.
    pub(super) fn allow(&self, server: &server_node::Node, errand: &Errand, number: u64, hold: HoldId) -> bool {
        let Some(manifest) = self.operator.denied.get(&hold).copied() else { return false };
        self.order(server, errand, number, |operation| Input::Allow { operation, manifest });
        true
    }

    fn order(
        &self,
        server: &server_node::Node,
        errand: &Errand,
        number: u64,
        input: impl FnOnce(OperationId) -> Input,
    ) {
        let operation = server.shared.order_answers.open(answered(&errand.answer, &self.agenda, number));
        server.actors.orders.send(input(operation));
    }
}
