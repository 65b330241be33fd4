//! Invariant 6, of orders over the whole fleet: whoever can be told of one is held by it, also who comes later, and no
//! rollout goes on under it, nor stands still once it is taken back.
//!
//! What stands is read from the server's store when that has changed, and what that means for a device says
//! [`reference::order`](crate::reference::order).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fleetd_actors::orders::Orders;
use fleetd_actors::rollout::status::RolloutPhase;
use fleetd_actors::workload::WorkloadRecord;
use fleetd_server::record;
use fleetd_sync_core::id::{ArtifactDigest, HoldId};
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::time::Monotonic;

use super::ledger::Part;
use super::{Broken, Fact, Inspector, Scene, device_number};
use crate::fleet::SERVER;
use crate::reference::order::held_by;

/// Time until a device that is linked has been told: its Hello, and a commit.
const TOLD_WITHIN: Duration = Duration::from_millis(250);
/// Time until all is told that is to be told: actors that failed are loaded again, a rollout's device is asked.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
/// Time between two looks at everybody.
const LOOKS_APART: Duration = Duration::from_secs(5);

/// Holds a fleet to what stands over it.
#[derive(Debug, Default)]
pub(super) struct OrderChecker {
    orders: Orders,
    /// Since when each order stands.
    since: BTreeMap<HoldId, Monotonic>,
    /// Since when none does.
    free_since: Monotonic,
    /// Since when the server runs.
    serving_since: Monotonic,
    /// Since when each device is seen to be linked, while an order stands.
    linked_since: BTreeMap<usize, Monotonic>,
    is_changed: bool,
    looks_next: Monotonic,
}

impl OrderChecker {
    fn read(&mut self, scene: &Scene<'_>) {
        self.is_changed = false;
        let Ok(orders) = record::order::load(&*scene.fleet.server.store) else { return };
        let holds = orders.stops.keys().copied().chain(orders.denials.values().map(|denial| denial.hold));
        self.since = holds.map(|hold| (hold, *self.since.get(&hold).unwrap_or(&scene.at))).collect();
        if !orders.stops.is_empty() && self.orders.stops.is_empty() {
            scene.marks.reach("the whole fleet was stopped");
        }
        if !orders.denials.is_empty() && self.orders.denials.is_empty() {
            scene.marks.reach("a release was denied");
        }
        if orders.is_empty() {
            self.linked_since.clear();
            if !self.orders.is_empty() {
                self.free_since = scene.at;
            }
        }
        self.orders = orders;
    }

    /// Those orders that have stood for so long.
    fn standing(&self, at: Monotonic, span: Duration) -> Orders {
        let stands = |hold: &HoldId| self.since.get(hold).is_some_and(|since| at.since(*since) >= span);
        let mut orders = self.orders.clone();
        orders.stops.retain(|hold, _| stands(hold));
        orders.denials.retain(|_, denial| stands(&denial.hold));
        orders
    }

    fn see_link(&mut self, scene: &Scene<'_>, number: usize) {
        if scene.fleet.is_linked(number) {
            self.linked_since.entry(number).or_insert(scene.at);
        } else {
            self.linked_since.remove(&number);
        }
    }

    /// Why the server ought to hold a device, and does not.
    fn unheld(scene: &Scene<'_>, number: usize, workload: &WorkloadName, orders: &Orders) -> Option<String> {
        let server: Arc<str> = SERVER.into();
        let device = scene.fleet.devices.get(number)?;
        let wish = scene.words.of(&server, device.local()).map(|word| word.wishes.of(workload)).unwrap_or_default();
        let why = held_by(orders, &wish, runs_well(scene, number, workload))?;
        (!wish.is_held).then_some(why)
    }

    fn look(&mut self, scene: &Scene<'_>) -> Result<(), Broken> {
        let (at, server): (_, Arc<str>) = (scene.at, SERVER.into());
        let is_settled = |since: Monotonic| at.since(since) >= SETTLED_WITHIN;
        let orders = self.standing(at, SETTLED_WITHIN);
        let workloads = scene.fleet.workloads();
        let numbers: Vec<usize> = scene.fleet.core().collect();
        for number in numbers {
            self.see_link(scene, number);
            let is_told = self.linked_since.get(&number).is_some_and(|since| is_settled(*since));
            let mut unheld = workloads.iter().filter_map(|workload| Self::unheld(scene, number, workload, &orders));
            if let Some(why) = unheld.next().filter(|_| is_told) {
                let seen = format!("{why}, and device-{number} is linked for long and not held");
                return Broken::on(&server, seen);
            }
        }
        let rollouts = scene.ledger.node(SERVER).into_iter().flat_map(|held| held.rollouts.values());
        for header in rollouts.filter(|_| scene.fleet.is_serving() && is_settled(self.serving_since)) {
            if header.phase == RolloutPhase::Running && !orders.stops.is_empty() {
                return Broken::on(&server, format!("the whole fleet is stopped, and {} goes on", header.rollout));
            }
        }
        Ok(())
    }

    /// Nothing that an order had stopped stays so without one.
    fn look_free(&self, scene: &Scene<'_>) -> Result<(), Broken> {
        let is_settled = |since: Monotonic| scene.at.since(since) >= SETTLED_WITHIN;
        if !(scene.fleet.is_serving() && is_settled(self.serving_since) && is_settled(self.free_since)) {
            return Ok(());
        }
        let rollouts = scene.ledger.node(SERVER).into_iter().flat_map(|held| held.rollouts.values());
        let mut stays = rollouts.filter(|header| header.ordered.is_some() && !header.phase.is_ended());
        match stays.next() {
            Some(header) => {
                let seen = format!("no order stands any more, and {} stays stopped by one", header.rollout);
                Broken::on(&SERVER.into(), seen)
            }
            None => Ok(()),
        }
    }

    /// A device that switches was told, if it could be.
    fn on_submitted(
        &self,
        scene: &Scene<'_>,
        node: &Arc<str>,
        workload: &WorkloadName,
        after: &WorkloadRecord,
    ) -> Result<(), Broken> {
        let switches = scene.begins_to_switch(node, workload, after).is_some();
        let Some(number) = device_number(node).filter(|_| switches) else { return Ok(()) };
        let is_told = |since: &Monotonic| scene.at.since(*since) >= TOLD_WITHIN;
        if !self.linked_since.get(&number).is_some_and(is_told) {
            return Ok(());
        }
        match Self::unheld(scene, number, workload, &self.standing(scene.at, SETTLED_WITHIN)) {
            Some(why) => Broken::on(node, format!("it switches {workload}: {why}, and its server does not tell it")),
            None => Ok(()),
        }
    }
}

/// The release of a workload that has proven itself on a device, by its own records.
fn runs_well(scene: &Scene<'_>, number: usize, workload: &WorkloadName) -> Option<ArtifactDigest> {
    let node = &scene.fleet.devices.get(number)?.name;
    let current = scene.ledger.node(node)?.workloads.get(workload)?.current.as_ref()?;
    current.healthy.then_some(current.digest)
}

impl Inspector for OrderChecker {
    fn invariant(&self) -> u8 {
        6
    }

    fn name(&self) -> &'static str {
        "orders"
    }

    fn learn(&mut self, scene: &Scene<'_>, node: &Arc<str>, fact: Fact<'_>) -> Result<(), Broken> {
        match (fact, &**node == SERVER) {
            (Fact::Stored(Part::Ordered), true) => self.is_changed = true,
            (Fact::Settled(_), true) if self.is_changed => self.read(scene),
            (Fact::Opened, true) => {
                self.serving_since = scene.at;
                self.linked_since.clear();
                self.read(scene);
            }
            (Fact::Died, true) => self.linked_since.clear(),
            (Fact::Submitted(Part::Workload { workload, record }), false) if !self.orders.is_empty() => {
                self.on_submitted(scene, node, workload, record)?;
            }
            _ => {}
        }
        if self.orders.is_empty() && self.free_since == Monotonic(0) {
            return Ok(());
        }
        if let Some(number) = device_number(node).filter(|_| !self.orders.is_empty()) {
            self.see_link(scene, number);
        }
        if scene.at < self.looks_next {
            return Ok(());
        }
        self.looks_next = scene.at + LOOKS_APART;
        if self.orders.is_empty() { self.look_free(scene) } else { self.look(scene) }
    }
}
