//! Planning: what a rollout would do to each device, computed before it starts by the code that will decide.
//!
//! A plan is a value. [`Plan::to_text`] gives the one text that it is saved as, with a digest in its last line, so
//! that an edit by hand is noticed. [`check_fence`] compares a saved plan with today's devices: it may start only if
//! planning again would say the same of every one of them.

mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use fleetd_sync_core::commit::Revision;
use fleetd_sync_core::configuration::{Configuration, pair_digest};
use fleetd_sync_core::counted::Counted;
use fleetd_sync_core::id::{ArtifactDigest, DeviceId, LocalId, PlanId, RolloutId};
use fleetd_sync_core::name::{ConfigurationName, DeviceName, GroupName, Platform, Version, WorkloadName};
use fleetd_sync_core::planted::{Bug, is_planted};
use fleetd_sync_core::release::{Artifact, Manifest};
use fleetd_sync_core::time::Wall;

use super::site::{block_split_sites, drop_split_sites};
use super::strategy::{Place, Priority, Strategy, StrategyError};
use super::timing::Zones;
use crate::targeting::{
    Answer, AtWork, Chosen, DeviceRow, Group, Matcher, PresentRelease, Targets, UndecidedDevices, note_undecided,
};
use crate::window::Zone;
pub use text::ReadPlanError;

/// Storage that an install leaves free on a device: its logs and records go on growing.
const FREE_BYTES_RESERVE: u64 = 4 << 20;

/// The release that a rollout brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedRelease {
    /// The workload.
    pub workload: WorkloadName,
    /// The version.
    pub version: Version,
    /// The digest of the signed manifest.
    pub manifest: ArtifactDigest,
    /// The artifact for each platform, with its size.
    pub artifacts: BTreeMap<Platform, (ArtifactDigest, u64)>,
    /// What goes with it, if something does.
    pub configuration: Option<Arc<Configuration>>,
}

impl PlannedRelease {
    /// Takes what planning needs of a verified manifest.
    #[must_use]
    pub fn of(manifest: &Manifest, digest: ArtifactDigest) -> Self {
        let artifact =
            |(platform, artifact): (&Platform, &Artifact)| (platform.clone(), (artifact.digest, artifact.size_bytes));
        Self {
            workload: manifest.workload.clone(),
            version: manifest.version.clone(),
            manifest: digest,
            artifacts: manifest.artifacts.iter().map(artifact).collect(),
            configuration: None,
        }
    }

    /// What devices are compared by: the digest of the release, or of it and its configuration.
    #[must_use]
    pub fn digest(&self) -> ArtifactDigest {
        pair_digest(self.manifest, self.configuration.as_ref().map(|configuration| configuration.digest()))
    }

    /// How much a device fetches whose artifact has `size_bytes`, by what is there.
    fn fetched_bytes(&self, present: Option<&PresentRelease>, size_bytes: u64) -> u64 {
        let Some(configuration) = &self.configuration else { return self.program_bytes(present, size_bytes) };
        let files = configuration.files().values().map(|file| file.size_bytes);
        files.fold(self.program_bytes(present, size_bytes), u64::saturating_add)
    }

    /// The program of a release that is there, with another configuration or with none, is not fetched again.
    fn program_bytes(&self, present: Option<&PresentRelease>, size_bytes: u64) -> u64 {
        let is_there = present.is_some_and(|present| {
            let of_present = present.configuration.as_ref().map(|configuration| configuration.digest);
            let is_changed = of_present.is_some() || self.configuration.is_some();
            present.healthy && is_changed && present.manifest == pair_digest(self.manifest, of_present)
        });
        if is_there { 0 } else { size_bytes }
    }

    fn artifact_for(&self, platform: &Platform) -> Option<(ArtifactDigest, u64)> {
        let own = self.artifacts.get(platform);
        own.or_else(|| self.artifacts.iter().find(|(built, _)| built.runs_on(platform)).map(|(_, found)| found))
            .copied()
    }
}

/// Why a plan leaves a device out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blocked {
    /// A hold is in force.
    Held,
    /// The release has no artifact for its platform.
    Platform,
    /// The artifact does not fit its storage.
    Storage,
    /// It is not, or no longer, a member.
    Membership,
    /// Authorities disagree on it.
    Conflict,
    /// Another rollout of the workload is at work on it.
    Busy,
    /// The release is denied.
    Denied,
    /// The release's signature does not count any more.
    Unsigned,
    /// The workload is pinned at another version.
    Pinned,
    /// Its site switches together, and too few of the others get the release.
    Site,
    /// Its document has no room for what would be asked of it.
    Room,
}

impl Blocked {
    const ALL: [Self; 11] = [
        Self::Held,
        Self::Platform,
        Self::Storage,
        Self::Membership,
        Self::Conflict,
        Self::Busy,
        Self::Denied,
        Self::Unsigned,
        Self::Pinned,
        Self::Site,
        Self::Room,
    ];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Platform => "platform",
            Self::Storage => "storage",
            Self::Membership => "membership",
            Self::Conflict => "conflict",
            Self::Busy => "busy",
            Self::Denied => "denied",
            Self::Unsigned => "unsigned",
            Self::Pinned => "pinned",
            Self::Site => "site",
            Self::Room => "room",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == word)
    }
}

/// What a plan means for a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It gets the release in place of another one.
    Update {
        /// The version that it runs now.
        from: Version,
        /// The configuration that it has now, if it has one.
        configuration: Option<ConfigurationName>,
    },
    /// It gets the workload for the first time.
    Install,
    /// It has the release, and the release is well there.
    Unchanged,
    /// It is left out.
    Blocked {
        /// Why.
        by: Blocked,
        /// The same for people.
        reason: String,
    },
}

impl Verdict {
    /// Says whether the device gets an assignment.
    #[must_use]
    pub const fn is_assigned(&self) -> bool {
        matches!(self, Self::Update { .. } | Self::Install)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Update { from, configuration: None } => write!(f, "update from {from}"),
            Self::Update { from, configuration: Some(configuration) } => {
                write!(f, "update from {from} with {configuration}")
            }
            Self::Install => f.write_str("install"),
            Self::Unchanged => f.write_str("unchanged"),
            Self::Blocked { reason, .. } => write!(f, "blocked: {reason}"),
        }
    }
}

/// What a plan means for one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedDevice {
    /// The hash of its key.
    pub local: LocalId,
    /// The id that the server gave.
    pub device: DeviceId,
    /// Its name then.
    pub name: DeviceName,
    /// Its site then; empty for none.
    pub site: String,
    /// What happens to it.
    pub verdict: Verdict,
    /// When its turn comes, if it gets the release.
    pub place: Option<Place>,
    /// The artifact of its platform, and how much it will fetch: that, unless it has it, and the files of the
    /// configuration; `None` where nothing happens.
    pub artifact: Option<(ArtifactDigest, u64)>,
    /// Since when it could not be reached then.
    pub offline_since: Option<Wall>,
    /// Its time zone, where windows open by it and it is known.
    pub zone: Option<Zone>,
    /// The unfinished rollout of the same workload that this one takes it over from.
    pub supersedes: Option<RolloutId>,
    /// The revision of the record that was looked at.
    pub revision: Revision,
}

impl PlannedDevice {
    /// Says whether the rollout will assign the release to it.
    #[must_use]
    pub const fn is_assigned(&self) -> bool {
        self.verdict.is_assigned()
    }

    /// Says whether the same would happen; why exactly nothing does may be said in other words, and who goes back does so
    /// from whatever it has come to.
    fn comes_to_the_same(&self, other: &Self, is_way_back: bool) -> bool {
        let is_same = match (&self.verdict, &other.verdict) {
            (Verdict::Blocked { by, .. }, Verdict::Blocked { by: other, .. }) => by == other,
            (verdict, other) if is_way_back && verdict.is_assigned() => other.is_assigned(),
            (verdict, other) => verdict == other,
        };
        is_same && self.artifact == other.artifact && (self.zone == other.zone || !self.is_assigned())
    }
}

/// How many devices get which verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlanCounts {
    /// All that are meant.
    pub matched: usize,
    /// Those that get the release in place of another one.
    pub update: usize,
    /// Those that get the workload for the first time.
    pub install: usize,
    /// Those that have the release.
    pub unchanged: usize,
    /// Those that are left out.
    pub blocked: usize,
    /// Those among update and install that cannot be reached now.
    pub offline: usize,
    /// What will be sent, if nothing has to be sent twice.
    ///
    /// # Units
    /// Bytes.
    pub traffic_bytes: u64,
}

impl PlanCounts {
    fn add(&mut self, device: &PlannedDevice) {
        self.matched += 1;
        match device.verdict {
            Verdict::Update { .. } => self.update += 1,
            Verdict::Install => self.install += 1,
            Verdict::Unchanged => self.unchanged += 1,
            Verdict::Blocked { .. } => self.blocked += 1,
        }
        self.offline += usize::from(device.is_assigned() && device.offline_since.is_some());
        let size_bytes = device.artifact.map_or(0, |(_, size_bytes)| size_bytes);
        self.traffic_bytes = self.traffic_bytes.saturating_add(size_bytes);
    }
}

/// What a rollout takes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rollback {
    /// The rollout whose release goes.
    pub of: RolloutId,
    /// Whether all of it goes, so that it ends when this one starts.
    pub is_whole: bool,
}

/// What a rollout would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its id.
    pub id: PlanId,
    /// What it brings.
    pub release: PlannedRelease,
    /// To which devices.
    pub targets: Targets,
    /// The try that its assignments carry.
    pub attempt: u32,
    /// In which waves, what it waits for between them, and when it stops itself.
    pub strategy: Strategy,
    /// What it takes back, if it is a way back.
    pub rollback: Option<Rollback>,
    /// Devices that are not meant, since the condition could not be decided for them.
    pub undecided: Vec<UndecidedDevices>,
    /// What it means for each device, in the order of their local ids.
    pub devices: Vec<PlannedDevice>,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Neither a selector nor a device was named.
    #[error("no selector and no device is given; to mean every device, say so")]
    NoTargets,
    /// No device has a name or id that was given.
    #[error("no device is called {}", names.join(", "))]
    UnknownDevice {
        /// The names.
        names: Vec<String>,
    },
    /// The targets match no device.
    #[error("{targets} matches none of {}{}", Counted(*devices, "device"), Reasons(undecided))]
    NoMatch {
        /// What was asked for.
        targets: String,
        /// How many devices there are.
        devices: usize,
        /// Those of them that the condition could not be decided for.
        undecided: Vec<UndecidedDevices>,
    },
    /// The waves, or what stands between them, do not fit.
    #[error(transparent)]
    Strategy(#[from] StrategyError),
}

/// Why a condition could not be decided, as the end of a sentence.
struct Reasons<'a>(&'a [UndecidedDevices]);

impl fmt::Display for Reasons<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for UndecidedDevices { why, devices, example } in self.0 {
            write!(f, "; {why} on {} ({example})", Counted(*devices, "device"))?;
        }
        Ok(())
    }
}

/// Plans a release for the devices that `targets` mean among `rows`.
///
/// # Errors
/// [`PlanError`], each case apart: nothing asked for, a name that nobody has, a match of nothing, and waves that make no
/// sense for these devices.
pub fn plan(
    id: PlanId,
    release: PlannedRelease,
    targets: Targets,
    attempt: u32,
    strategy: Strategy,
    rows: &[DeviceRow],
) -> Result<Plan, PlanError> {
    strategy.check()?;
    if matches!(&targets, Targets::Some(chosen) if chosen.is_empty()) {
        return Err(PlanError::NoTargets);
    }
    let names = Matcher::new(&targets).unknown(rows);
    if !names.is_empty() {
        return Err(PlanError::UnknownDevice { names });
    }
    let matcher = Matcher::new(&targets);
    let (mut devices, mut undecided) = (Vec::new(), BTreeMap::<String, UndecidedDevices>::new());
    let mut zones = Zones::default();
    for row in rows {
        match matcher.answer(row) {
            Answer::Holds => devices.push(plan_device(&release, &strategy, row, &mut zones)),
            Answer::Fails => {}
            Answer::Undecided(why) => note_undecided(&mut undecided, why.to_string(), row.name.as_str()),
        }
    }
    let undecided: Vec<_> = undecided.into_values().collect();
    if devices.is_empty() {
        return Err(PlanError::NoMatch { targets: targets.to_string(), devices: rows.len(), undecided });
    }
    block_split_sites(strategy.site_quorum, &mut devices);
    devices.sort_by_key(|device| device.local);
    let canaries = canaries(&strategy, rows);
    strategy.place(id, &mut devices, |device| canaries.contains(&device))?;
    Ok(Plan { id, release, targets, attempt, strategy, rollback: None, undecided, devices })
}

/// The devices that go before all others, if the strategy names some.
fn canaries(strategy: &Strategy, rows: &[DeviceRow]) -> BTreeSet<LocalId> {
    let Some(selector) = &strategy.canary else { return BTreeSet::new() };
    let targets = Targets::Some(Chosen { selector: Some(selector.clone()), ..Chosen::default() });
    let matcher = Matcher::new(&targets);
    rows.iter().filter(|row| matcher.matches(*row)).map(|row| row.local).collect()
}

fn plan_device(release: &PlannedRelease, strategy: &Strategy, row: &DeviceRow, zones: &mut Zones) -> PlannedDevice {
    let (verdict, artifact) = match judge(release, strategy.priority, row) {
        Ok((verdict, artifact)) => (verdict, artifact),
        Err((by, reason)) => (Verdict::Blocked { by, reason }, None),
    };
    let at_work = row.rollouts.get(&release.workload).filter(|_| verdict.is_assigned());
    PlannedDevice {
        local: row.local,
        device: row.device,
        name: row.name.clone(),
        site: row.site.clone(),
        verdict,
        place: None,
        artifact,
        offline_since: row.offline_since,
        zone: zones.of(&strategy.terms, row),
        supersedes: at_work.map(|at_work| at_work.rollout),
        revision: row.revision,
    }
}

type Judged = Result<(Verdict, Option<(ArtifactDigest, u64)>), (Blocked, String)>;

fn judge(release: &PlannedRelease, priority: Priority, row: &DeviceRow) -> Judged {
    let workload = &release.workload;
    if let Some(reason) = &row.barred {
        return Err((Blocked::Membership, reason.clone()));
    }
    let present = row.releases.get(workload);
    if present.is_some_and(|present| present.manifest == release.digest() && present.healthy) {
        return Ok((Verdict::Unchanged, None));
    }
    if let Some(refused) = &row.refused {
        return Err(refused.clone());
    }
    let mut holds = row.holds.iter().filter(|(held, _)| held.as_ref().is_none_or(|held| held == workload));
    if let Some((_, reason)) = holds.next() {
        return Err((Blocked::Held, format!("held: {reason}")));
    }
    if row.conflicts.contains(workload) {
        return Err((Blocked::Conflict, format!("authorities disagree on {workload}")));
    }
    // What is no more urgent is taken over.
    if let Some(AtWork { rollout, priority: other }) = row.rollouts.get(workload).filter(|at| at.priority > priority) {
        let reason = format!("{rollout} is at work on {workload} with priority {other}, and this has {priority}");
        return Err((Blocked::Busy, reason));
    }
    let built = || release.artifacts.keys().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let Some(platform) = &row.platform else {
        return Err((Blocked::Platform, "its platform is not known yet".to_owned()));
    };
    let Some((artifact, size_bytes)) = release.artifact_for(platform) else {
        return Err((Blocked::Platform, format!("it is {platform}; the release is for {}", built())));
    };
    let size_bytes = release.fetched_bytes(present, size_bytes);
    let needed_bytes = size_bytes.saturating_add(FREE_BYTES_RESERVE);
    if let Some(free_bytes) = row.free_bytes.filter(|free_bytes| *free_bytes < needed_bytes) {
        return Err((Blocked::Storage, format!("it needs {needed_bytes} bytes and has {free_bytes} free")));
    }
    let verdict = present.map_or(Verdict::Install, |present| Verdict::Update {
        from: present.version.clone(),
        configuration: present.configuration.as_ref().map(|configuration| configuration.name.clone()),
    });
    Ok((verdict, Some((artifact, size_bytes))))
}

impl Plan {
    /// How many devices get which verdict.
    #[must_use]
    pub fn counts(&self) -> PlanCounts {
        let mut counts = PlanCounts::default();
        self.devices.iter().for_each(|device| counts.add(device));
        counts
    }

    /// The same by site; devices without one stand under the empty name.
    #[must_use]
    pub fn counts_by_site(&self) -> BTreeMap<&str, PlanCounts> {
        let mut sites = BTreeMap::<&str, PlanCounts>::new();
        self.devices.iter().for_each(|device| sites.entry(&device.site).or_default().add(device));
        sites
    }

    /// The same by wave, of the devices that get an assignment.
    #[must_use]
    pub fn counts_by_wave(&self) -> Vec<PlanCounts> {
        let mut waves: Vec<_> = (0..self.wave_count()).map(|_| PlanCounts::default()).collect();
        for device in self.assigned() {
            let wave = device.place.and_then(|place| waves.get_mut(usize::try_from(place.wave).ok()?));
            wave.into_iter().for_each(|wave| wave.add(device));
        }
        waves
    }

    /// The revisions that it looked at.
    #[must_use]
    pub fn fence(&self) -> Vec<(LocalId, Revision)> {
        self.devices.iter().map(|device| (device.local, device.revision)).collect()
    }

    /// Says whether there is nothing that a start could do: no device gets the release, and not because all have it
    /// already, but because some that lack it are blocked.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        let is_blocked = |device: &PlannedDevice| matches!(device.verdict, Verdict::Blocked { .. });
        self.assigned().next().is_none() && self.devices.iter().any(is_blocked)
    }

    /// How many waves it has; one that has nothing to do has one, which is empty.
    #[must_use]
    pub fn wave_count(&self) -> u32 {
        let last = self.devices.iter().filter_map(|device| device.place).map(|place| place.wave).max();
        last.unwrap_or(0).saturating_add(1)
    }

    /// The devices that get an assignment, in order.
    pub fn assigned(&self) -> impl Iterator<Item = &PlannedDevice> {
        self.devices.iter().filter(|device| device.is_assigned())
    }
}

/// Why a plan does not fit today's devices any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StaleReason {
    /// A group that the targets name is not what it was.
    #[error("group {group} changed")]
    GroupChanged {
        /// Its name.
        group: GroupName,
    },
    /// A group that the targets name is deleted.
    #[error("group {group} is deleted")]
    GroupGone {
        /// Its name.
        group: GroupName,
    },
    /// The targets mean a device that the plan does not know, and something would happen to it.
    #[error("{name} is new: {verdict}")]
    Appeared {
        /// Its name.
        name: DeviceName,
        /// What would happen to it.
        verdict: Verdict,
    },
    /// The targets do not mean a device any more that the plan names.
    #[error("{name} is not meant any more")]
    Gone {
        /// Its name.
        name: DeviceName,
    },
    /// A device's windows open by another clock.
    #[error("{name}: its time zone was {planned}, now it is {now}")]
    ZoneChanged {
        /// Its name.
        name: DeviceName,
        /// Its zone then.
        planned: String,
        /// Its zone now.
        now: String,
    },
    /// A device would be taken over from a rollout that the plan does not name for it.
    #[error("{name}: it would be taken over from {rollout}, which has it since")]
    TakenSince {
        /// Its name.
        name: DeviceName,
        /// The rollout that has it.
        rollout: RolloutId,
    },
    /// Something else would happen to a device.
    #[error("{name}: planned was {planned}, now it is {now}")]
    Changed {
        /// Its name.
        name: DeviceName,
        /// What was planned.
        planned: Verdict,
        /// What would happen now.
        now: Verdict,
    },
}

fn zone_name(zone: Option<&Zone>) -> String {
    zone.map_or_else(|| "unknown".to_owned(), ToString::to_string)
}

/// What a plan would mean today for the devices that it is for.
fn plan_again(plan: &Plan, rows: &[DeviceRow]) -> BTreeMap<LocalId, PlannedDevice> {
    let (matcher, mut zones) = (Matcher::new(&plan.targets), Zones::default());
    let meant = rows.iter().filter(|row| matcher.matches(*row));
    let mut devices: Vec<_> = meant.map(|row| plan_device(&plan.release, &plan.strategy, row, &mut zones)).collect();
    block_split_sites(plan.strategy.site_quorum, &mut devices);
    devices.into_iter().map(|device| (device.local, device)).collect()
}

/// Compares a saved plan with today's devices. A record that was merely written again, with nothing in it that a plan
/// looks at, leaves the plan as good as it was.
///
/// # Errors
/// Every difference, in the order of the devices' local ids.
pub fn check_fence(plan: &Plan, rows: &[DeviceRow]) -> Result<(), Vec<StaleReason>> {
    let mut now = plan_again(plan, rows);
    let planned: BTreeMap<_, _> = plan.devices.iter().map(|device| (device.local, device)).collect();
    let locals: BTreeSet<_> = now.keys().chain(planned.keys()).copied().collect();
    let reasons: Vec<_> = locals
        .into_iter()
        .filter_map(|local| match (planned.get(&local), now.remove(&local)) {
            // The revision alone does not tell: which rollouts are at work on a device stands in no record of its own.
            (Some(planned), Some(again)) => changed(planned, again, plan.rollback.is_some()),
            (Some(planned), None) => planned.is_assigned().then(|| StaleReason::Gone { name: planned.name.clone() }),
            (None, Some(again)) => {
                let name = again.name.clone();
                again.is_assigned().then_some(StaleReason::Appeared { name, verdict: again.verdict })
            }
            (None, None) => None,
        })
        .collect();
    if reasons.is_empty() || is_planted(Bug::StalePlanStarted) { Ok(()) } else { Err(reasons) }
}

/// What is not as it was planned of a device that is still meant.
fn changed(planned: &PlannedDevice, again: PlannedDevice, is_way_back: bool) -> Option<StaleReason> {
    if again.comes_to_the_same(planned, is_way_back) {
        // That the other rollout has ended, or given it over, is nothing new for the device.
        let since = again.supersedes.filter(|rollout| planned.supersedes != Some(*rollout));
        return since.map(|rollout| StaleReason::TakenSince { name: again.name, rollout });
    }
    if again.verdict == planned.verdict && again.zone != planned.zone {
        let (planned, now) = (zone_name(planned.zone.as_ref()), zone_name(again.zone.as_ref()));
        return Some(StaleReason::ZoneChanged { name: again.name, planned, now });
    }
    Some(StaleReason::Changed { name: again.name, planned: planned.verdict.clone(), now: again.verdict })
}

/// Compares the groups that a saved plan names with those of today, which are given where they are there still.
#[must_use]
pub fn check_groups(plan: &Plan, groups: &BTreeMap<GroupName, Group>) -> Vec<StaleReason> {
    let Targets::Some(chosen) = &plan.targets else { return Vec::new() };
    let changed = chosen.groups.iter().filter_map(|(name, planned)| match groups.get(name) {
        None => Some(StaleReason::GroupGone { group: name.clone() }),
        Some(group) if group.revision != planned.revision => Some(StaleReason::GroupChanged { group: name.clone() }),
        Some(_) => None,
    });
    changed.collect()
}

impl Plan {
    /// What is left of a plan that has become stale: the planned devices of which planning again would say the same.
    /// It names them, so that no other device can come to it; `None` when none of them gets the release.
    #[must_use]
    pub fn only_planned(&self, attempt: u32, rows: &[DeviceRow]) -> Option<Self> {
        let mut again = plan_again(self, rows);
        let left = |planned: &PlannedDevice| {
            let again = again.remove(&planned.local)?;
            // Its wave is the one that was planned.
            again
                .comes_to_the_same(planned, self.rollback.is_some())
                .then_some(PlannedDevice { place: planned.place, ..again })
        };
        let mut devices: Vec<_> = self.devices.iter().filter_map(left).collect();
        drop_split_sites(self, &mut devices);
        let named = devices.iter().map(|device| device.local.to_string()).collect();
        let targets = Targets::Some(Chosen { devices: named, ..Chosen::default() });
        let id = self.id_of_what_is_left();
        let left = Self { id, attempt, targets, undecided: Vec::new(), devices, ..self.clone() };
        let has_some = left.assigned().next().is_some();
        has_some.then_some(left)
    }

    /// The id of what [`Plan::only_planned`] leaves of the plan. There is one to each plan, so that none is started twice.
    #[must_use]
    pub fn id_of_what_is_left(&self) -> PlanId {
        let digest = ArtifactDigest::of(&[b"fleetd-plan-left\0", self.id.as_bytes().as_slice()].concat());
        let mut bytes = [0; PlanId::LENGTH];
        bytes.iter_mut().zip(digest.as_bytes()).for_each(|(byte, of_digest)| *byte = *of_digest);
        PlanId::from_bytes(bytes)
    }
}

#[cfg(test)]
mod configuration_tests;
#[cfg(test)]
mod tests;
