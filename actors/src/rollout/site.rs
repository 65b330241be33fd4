//! Sites whose devices switch together, or not at all.
//!
//! The assignment of such a device lets it lay the release out, and has it wait then: it says that it is ready. Once so
//! many of the site are ready as the strategy asks for, and nobody of it who can be reached is still on the way, they
//! are all told to switch, in one turn; that word is stored with each device before it leaves, and whoever was away
//! follows it. A site of which not enough are ready when its time is over gets nothing: what was laid out goes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fleetd_sync_core::counted::Counted;
use fleetd_sync_core::id::LocalId;
use fleetd_sync_core::planted::{Bug, is_planted};
use fleetd_sync_core::time::Now;

use super::RolloutTurn;
use super::plan::{Blocked, Plan, PlannedDevice, Verdict};
use super::run::RolloutRun;
use super::status::{DeviceProgress, DeviceStatus, Failure, Owed, SiteWord, Skip};
use super::strategy::percent_of;
use crate::window::DeviceTerms;

/// The devices of one site.
#[derive(Debug, Default)]
struct Site {
    devices: Vec<LocalId>,
    /// How many of them have to be ready.
    needed: usize,
}

/// The sites whose devices switch together. There is none where each device switches by itself.
#[derive(Debug, Default)]
pub(super) struct Sites {
    sites: Vec<Site>,
    of: BTreeMap<LocalId, usize>,
    /// Sites of which something has changed in this turn.
    changed: BTreeSet<usize>,
}

impl Sites {
    pub(super) fn new(plan: &Plan) -> Self {
        let Some(quorum) = plan.strategy.site_quorum else { return Self::default() };
        let mut all = Self::default();
        for devices in of_sites(&plan.devices).into_values() {
            let needed = needed(quorum, &devices);
            let devices: Vec<_> = assigned(&devices).map(|device| device.local).collect();
            let number = all.sites.len();
            all.of.extend(devices.iter().map(|device| (*device, number)));
            all.sites.push(Site { devices, needed });
        }
        all
    }

    /// Notes that something has changed of a device.
    pub(super) fn touch(&mut self, device: LocalId) {
        self.changed.extend(self.of.get(&device));
    }

    /// Has every site looked at.
    pub(super) fn touch_all(&mut self) {
        self.changed = (0..self.sites.len()).collect();
    }

    /// The site of a device, where its devices switch together.
    pub(super) fn of(&self, device: LocalId) -> Option<usize> {
        self.of.get(&device).copied()
    }
}

/// How the devices of a site stand.
#[derive(Debug, Default)]
struct Muster {
    /// They were told whether they switch.
    is_decided: bool,
    /// Something is on its way to the actor of one, or its turn has not come.
    is_unsettled: bool,
    /// One of them has acknowledged its assignment.
    is_reached: bool,
    /// So many are ready, and can be told so at once.
    ready: usize,
    /// So many can be reached, and are on their way.
    on_their_way: usize,
    /// So many may be ready at some time.
    may_be: usize,
}

impl Muster {
    fn count(mut self, progress: &DeviceProgress) -> Self {
        // Who has the release already, as of an older rollout, keeps nobody from it.
        let is_there = progress.status == DeviceStatus::Healthy;
        let is_ready = is_there || (progress.status.is_ready() && !progress.is_offline());
        self.is_decided |= progress.word != SiteWord::Unsaid;
        self.is_unsettled |= progress.owed != Owed::Nothing || progress.is_queued();
        self.is_reached |= !progress.status.waits_for_device();
        self.ready += usize::from(is_ready);
        self.on_their_way += usize::from(progress.status.is_under_way() && !progress.is_offline() && !is_ready);
        self.may_be += usize::from(is_there || progress.status.may_go_on());
        self
    }
}

impl RolloutRun {
    /// Decides on each site of which something has changed.
    pub(super) fn decide_sites(&mut self, now: Now, turn: &mut RolloutTurn) {
        for site in std::mem::take(&mut self.sites.changed) {
            self.decide_site(now, site, false, turn);
        }
        // What that has changed of their devices is decided.
        self.sites.changed.clear();
    }

    /// Decides on the site of a device whose time is over.
    pub(super) fn close_site_of(&mut self, now: Now, device: LocalId, turn: &mut RolloutTurn) {
        if let Some(site) = self.sites.of(device) {
            self.decide_site(now, site, true, turn);
        }
    }

    /// Has a site switch when enough of it are ready, or gives it up when there will not be, or its time is over.
    fn decide_site(&mut self, now: Now, site: usize, is_over: bool, turn: &mut RolloutTurn) {
        let Some(Site { devices, needed }) = self.sites.sites.get(site).filter(|_| self.header.goes_on()) else {
            return;
        };
        let (devices, needed) = (devices.clone(), *needed);
        let known = devices.iter().filter_map(|device| self.devices.get(device));
        let muster = known.fold(Muster::default(), Muster::count);
        if muster.is_decided {
            return;
        }
        let is_quorum = muster.ready >= needed || (is_planted(Bug::SiteSplit) && muster.ready > 0);
        if is_quorum && !muster.is_unsettled && (is_over || muster.on_their_way == 0) {
            devices.into_iter().for_each(|device| self.change(now, device, turn, agree));
        } else if muster.may_be < needed || (is_over && muster.is_reached) {
            devices.into_iter().for_each(|device| self.change(now, device, turn, give_up));
        }
    }

    /// The terms of a device: one that switches with its site waits for the word, and then for its window at most.
    pub(super) fn terms_of(&self, device: LocalId) -> DeviceTerms {
        let terms = self.plan.terms_of(self.zones.get(&device));
        if self.sites.of(device).is_none() {
            return terms;
        }
        match self.devices.get(&device).is_some_and(|progress| progress.word == SiteWord::Switch) {
            true => DeviceTerms { veto_limit: Duration::ZERO, ..terms },
            false => DeviceTerms { is_together: true, ..terms },
        }
    }
}

fn agree(progress: &mut DeviceProgress) {
    if progress.status.may_go_on() {
        (progress.word, progress.owed) = (SiteWord::Switch, Owed::Assign);
    }
}

fn give_up(progress: &mut DeviceProgress) {
    match &progress.status {
        // That it failed stays true; the assignment goes all the same.
        DeviceStatus::Failed(Failure::Silent | Failure::Deadline) => {}
        status if status.may_go_on() => progress.status = DeviceStatus::Skipped(Skip::Site),
        _ => return,
    }
    (progress.word, progress.owed) = (SiteWord::Stay, Owed::Withdraw);
}

/// The devices of each site. One that has none is of no site, and stands for itself.
fn of_sites(devices: &[PlannedDevice]) -> BTreeMap<&str, Vec<&PlannedDevice>> {
    let mut sites = BTreeMap::<&str, Vec<&PlannedDevice>>::new();
    for device in devices.iter().filter(|device| !device.site.is_empty()) {
        sites.entry(device.site.as_str()).or_default().push(device);
    }
    sites
}

/// How many devices of a site are meant: those that have the release already need no word.
fn meant(devices: &[&PlannedDevice]) -> usize {
    devices.iter().filter(|device| device.verdict != Verdict::Unchanged).count()
}

/// How many of them have to be ready.
fn needed(quorum: u32, devices: &[&PlannedDevice]) -> usize {
    percent_of(quorum, meant(devices))
}

/// Those that get the release.
fn assigned<'a>(devices: &[&'a PlannedDevice]) -> impl Iterator<Item = &'a PlannedDevice> {
    devices.iter().copied().filter(|device| device.is_assigned())
}

/// The sites of which fewer devices would get the release than have to be ready: why, and how many.
fn split_sites(quorum: u32, devices: &[PlannedDevice]) -> BTreeMap<String, String> {
    let split = of_sites(devices).into_iter().filter_map(|(site, devices)| {
        let (needed, assigned) = (needed(quorum, &devices), assigned(&devices).count());
        let meant = Counted(meant(&devices), "device");
        let reason = || format!("{needed} of {meant} of {site} must be ready, and {assigned} can be");
        (assigned > 0 && assigned < needed).then(|| (site.to_owned(), reason()))
    });
    split.collect()
}

/// Leaves out whoever could not switch with the site, since too many of it are left out.
pub(super) fn block_split_sites(quorum: Option<u32>, devices: &mut [PlannedDevice]) {
    let split = quorum.map(|quorum| split_sites(quorum, devices)).unwrap_or_default();
    for device in devices.iter_mut().filter(|device| device.is_assigned()) {
        if let Some(reason) = split.get(&device.site) {
            (device.verdict, device.artifact, device.supersedes) =
                (Verdict::Blocked { by: Blocked::Site, reason: reason.clone() }, None, None);
        }
    }
}

/// Takes whole sites out of what is left of a plan of which too few devices are left.
pub(super) fn drop_split_sites(plan: &Plan, left: &mut Vec<PlannedDevice>) {
    let Some(quorum) = plan.strategy.site_quorum else { return };
    let planned = of_sites(&plan.devices);
    let is_split = |(site, left): &(&str, Vec<&PlannedDevice>)| {
        let needed = planned.get(site).map_or(0, |devices| needed(quorum, devices));
        assigned(left).count() < needed
    };
    let split: BTreeSet<String> =
        of_sites(left).into_iter().filter(is_split).map(|(site, _)| site.to_owned()).collect();
    left.retain(|device| !split.contains(&device.site));
}
