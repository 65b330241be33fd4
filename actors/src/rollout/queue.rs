//! Who begins next, where a strategy bounds how many devices are at work at the same time.

use std::collections::{BTreeMap, BTreeSet};

use fleetd_sync_core::id::LocalId;
use fleetd_sync_core::planted::{Bug, is_planted};

use super::plan::Plan;
use super::strategy::Place;

/// Devices whose turn has come and that wait for a place at work. It is empty, and counts nothing, where nothing is
/// bounded.
#[derive(Debug, Default)]
pub(super) struct Queue {
    fleet_max: Option<usize>,
    site_max: Option<usize>,
    /// The site of each device, by a number of its own.
    sites: BTreeMap<LocalId, u32>,
    waiting: BTreeMap<u32, BTreeSet<(Place, LocalId)>>,
    at_work: usize,
    at_work_of_site: BTreeMap<u32, usize>,
}

impl Queue {
    pub(super) fn new(plan: &Plan) -> Self {
        let strategy = &plan.strategy;
        if !strategy.is_capped() {
            return Self::default();
        }
        let max = |max: Option<u32>| max.map(|max| usize::try_from(max).unwrap_or(usize::MAX));
        let mut numbers = BTreeMap::new();
        let is_by_site = strategy.unavailable_per_site_max.is_some();
        let mut site = |name| {
            let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
            if is_by_site { *numbers.entry(name).or_insert(next) } else { 0 }
        };
        let sites = plan.assigned().map(|device| (device.local, site(device.site.as_str()))).collect();
        let (fleet_max, site_max) = (max(strategy.unavailable_max), max(strategy.unavailable_per_site_max));
        Self { fleet_max, site_max, sites, ..Self::default() }
    }

    /// Notes whether a device waits for a place.
    pub(super) fn wait(&mut self, device: LocalId, place: Place, waits: bool) {
        let Some(site) = self.sites.get(&device) else { return };
        let waiting = self.waiting.entry(*site).or_default();
        if waits {
            waiting.insert((place, device));
        } else {
            waiting.remove(&(place, device));
        }
    }

    /// Notes that a device took a place, or left it.
    pub(super) fn count(&mut self, device: LocalId, before: bool, after: bool) {
        let Some(site) = self.sites.get(&device) else { return };
        let of_site = self.at_work_of_site.entry(*site).or_default();
        match (before, after) {
            (false, true) => (self.at_work, *of_site) = (self.at_work + 1, *of_site + 1),
            (true, false) => (self.at_work, *of_site) = (self.at_work - 1, *of_site - 1),
            _ => {}
        }
    }

    /// The device that begins next, if there is a place for it.
    pub(super) fn next(&self) -> Option<LocalId> {
        let more = usize::from(is_planted(Bug::PlaceOffByOne));
        if self.fleet_max.is_some_and(|max| self.at_work >= max + more) {
            return None;
        }
        let is_free = |site: &u32| {
            let at_work = self.at_work_of_site.get(site).copied().unwrap_or(0);
            self.site_max.is_none_or(|max| at_work < max)
        };
        let free = self.waiting.iter().filter(|(site, _)| is_free(site));
        free.filter_map(|(_, waiting)| waiting.first()).min().map(|(_, device)| *device)
    }
}
