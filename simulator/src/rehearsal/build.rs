//! Makes the copy of a fleet, by the product's own protocol.
//!
//! Every device enrols with a token that gives it its labels and site, is renamed, and gets the release that it runs
//! from a rollout of its own; one that did not prove itself there gets another one that crashes, and restores the
//! first. Holds and stops are an operator's. What no operator can bring about, a membership that is in doubt, is
//! written into the server's record while the server is down. Who is away is cut off last. Then all clocks are set to
//! the date at which the rollout starts, so that windows mean what they will mean.
//!
//! The new release is one of the copy: signed by the copy's key, with the platforms and the probe of the real one, and
//! a few bytes in place of each artifact. What the artifact itself would carry is counted, and takes its time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fleetd_actors::device;
use fleetd_actors::device::command::Command;
use fleetd_actors::device::record::Membership;
use fleetd_actors::registration::token::TokenWish;
use fleetd_actors::rollout::plan::{Plan, PlannedRelease, plan};
use fleetd_actors::rollout::status::RolloutPhase;
use fleetd_actors::rollout::strategy::{FailureBudget, Strategy};
use fleetd_actors::targeting::{Chosen, DeviceRow, Targets};
use fleetd_server::record;
use fleetd_sync_core::commit::{ActorKey, Batch, Space};
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::id::{ArtifactDigest, HoldId, LocalId, PlanId, RolloutId};
use fleetd_sync_core::limit;
use fleetd_sync_core::name::{DeviceName, Platform, Version, WorkloadName};
use fleetd_sync_core::release::{Artifact, Manifest, Probe, SignedManifest};
use fleetd_sync_core::resolve::Run;
use fleetd_sync_core::time::Monotonic;
use fleetd_sync_store::memory::MemoryStore;
use fleetd_sync_store::state_store::StateStore as _;

use super::course::{Assigned, Recorder};
use super::draw::{Links, Transfer, fails};
use super::planning::{ZONE_FACT, assigned, parsed, plan_again, refusal};
use super::{Barred, CopiedDevice, Rehearsal};
use crate::clock::{earlier, new_year_2026};
use crate::engine::EngineKind;
use crate::fleet::{Fleet, NewDevice, SERVER, ScenarioError, failed};
use crate::runner::Behaviour;
use crate::scenario::Scenario;
use crate::world::World;

/// Devices that enrol at once: a server lets no more wait in its lobby.
const ENROLLED_AT_ONCE: usize = 1000;
/// Bytes that stand for an artifact: no manifest of the copy has as many.
const STAND_IN_BYTES: usize = 4 << 10;
/// Events between two looks at whether a step of the copy is done.
const EVENTS_BETWEEN_LOOKS: u32 = 64;
/// Time that a step of the copy may take.
const PATIENCE: Duration = Duration::from_secs(3600);
/// Time after which a fleet that was changed is at rest.
const SETTLES_WITHIN: Duration = Duration::from_secs(5);
/// By how much the copy begins before the rollout does: no clock has to be put back once it is made.
const MADE_BEFORE: Duration = Duration::from_secs(2 * 3600);
/// Time until a release that crashes does.
const CRASHES_AFTER: Duration = Duration::from_millis(300);

/// What is to be started in a copy that is ready.
pub(crate) struct Ready {
    plan: Plan,
    artifacts: BTreeSet<ArtifactDigest>,
    assigned: Vec<Assigned>,
    duration: Duration,
}

impl From<super::RehearsalError> for ScenarioError {
    fn from(error: super::RehearsalError) -> Self {
        failed(error)
    }
}

/// Makes the copy that a scenario asks for.
///
/// # Errors
/// [`ScenarioError`] when the copy cannot be made, or a plan for it says something else than the plan itself.
pub(crate) fn build(
    scenario: &Scenario,
    rehearsal: &Rehearsal,
    engine: EngineKind,
    world: World,
) -> Result<(Fleet, Ready), ScenarioError> {
    let original = rehearsal.read_plan()?;
    let workload = original.release.workload.clone();
    let starts = scenario.begins().unwrap_or_else(new_year_2026);
    world.begin_at(earlier(starts, MADE_BEFORE).max(new_year_2026()));
    let mut fleet = Fleet::on(engine, world, Duration::ZERO)?;
    fleet.delegate_release_key(BTreeSet::from([workload.clone()]))?;
    let entropy = fleet.world.entropy("rehearsal");
    let mut builder = Builder { rehearsal, workload, entropy, fleet };
    builder.enrol(scenario.latency_ms)?;
    let release = builder.release(&original)?;
    builder.bring_present_releases(&original, &release)?;
    builder.place_holds()?;
    builder.doubt_members()?;
    builder.cut_off()?;
    builder.fleet.set_date(starts);
    builder.ready(&original, release, scenario.duration)
}

struct Builder<'a> {
    rehearsal: &'a Rehearsal,
    workload: WorkloadName,
    entropy: Entropy,
    fleet: Fleet,
}

impl Builder<'_> {
    fn device(&self, number: usize) -> Result<&CopiedDevice, ScenarioError> {
        self.rehearsal.devices.get(number).ok_or_else(|| failed("there is no such device"))
    }

    fn local(&self, number: usize) -> Result<LocalId, ScenarioError> {
        let device = self.fleet.devices.get(number).ok_or_else(|| failed("there is no such device"))?;
        Ok(device.local())
    }

    /// Lets every device enrol, with its labels and its site, and gives it its name.
    fn enrol(&mut self, [from, to]: [u64; 2]) -> Result<(), ScenarioError> {
        let mut alike: BTreeMap<_, u32> = BTreeMap::new();
        for device in &self.rehearsal.devices {
            *alike.entry((&device.site, &device.labels)).or_default() += 1;
        }
        let mut tokens = BTreeMap::new();
        for ((site, labels), uses_max) in alike {
            let read =
                labels.iter().map(|(key, value)| Ok((key.parse().map_err(failed)?, value.parse().map_err(failed)?)));
            let wish = TokenWish {
                note: String::new(),
                labels: read.collect::<Result<_, ScenarioError>>()?,
                site: site.clone(),
                uses_max,
                expires_at: None,
                needs_approval: Some(false),
            };
            tokens.insert((site, labels), self.fleet.create_token(wish)?);
        }
        let zones = self.rehearsal.zones();
        for (number, device) in self.rehearsal.devices.iter().enumerate() {
            let latency = from + self.entropy.stream(&format!("latency {}", device.name)).below(to - from + 1);
            self.fleet.network.set_latency(&format!("device-{number}"), Duration::from_millis(latency));
            let facts = [
                ("platform", device.platform.clone()),
                ("disk_free_bytes", device.disk_free_bytes.map(|free| free.to_string())),
                (ZONE_FACT, zones.get(&device.local).cloned()),
            ];
            let facts = facts.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
            let token =
                tokens.get(&(&device.site, &device.labels)).cloned().ok_or_else(|| failed("there is no token"))?;
            // One that has not said for what it is built cannot be sent anything either.
            let platform =
                device.platform.as_ref().and_then(|platform| platform.parse().ok()).unwrap_or_else(Platform::any);
            self.fleet.add(NewDevice { platform, facts: facts.collect(), token })?;
            if (number + 1).is_multiple_of(ENROLLED_AT_ONCE) {
                self.fleet.wait_until_enrolled()?;
            }
        }
        self.fleet.wait_until_enrolled()?;
        let names = self.rehearsal.devices.iter().enumerate();
        let names = names.map(|(number, device)| {
            let name: DeviceName = parsed(device, &device.name)?;
            Ok((number, Command::Rename(name)))
        });
        let names = names.collect::<Result<Vec<_>, ScenarioError>>()?;
        self.command(names)
    }

    /// Has operators say something to many devices, and waits for all answers.
    fn command(&self, commands: Vec<(usize, Command)>) -> Result<(), ScenarioError> {
        let server = self.fleet.serving()?;
        let expected = commands.len();
        let answers = Arc::new(Mutex::new(Vec::with_capacity(expected)));
        for (number, command) in commands {
            let (local, given) = (self.local(number)?, Arc::clone(&answers));
            let operation = server.shared.device_answers.open(Box::new(move |answer| {
                given.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
            }));
            let caller = "rehearsal".to_owned();
            server.actors.devices.send(&local, device::Input::Command { operation, caller, command });
        }
        let count = || answers.lock().unwrap_or_else(PoisonError::into_inner).len();
        self.wait("operators to be answered", |_| count() == expected)?;
        let answers = std::mem::take(&mut *answers.lock().unwrap_or_else(PoisonError::into_inner));
        answers.into_iter().try_for_each(|answer| answer.map(drop).map_err(failed))
    }

    /// Runs the world until something holds, which is looked at now and then.
    fn wait(&self, what: &str, holds: impl Fn(&Fleet) -> bool) -> Result<(), ScenarioError> {
        let mut events = 0_u32;
        let waited = self.fleet.world.run_until(PATIENCE, || {
            events = events.wrapping_add(1);
            events % EVENTS_BETWEEN_LOOKS == 1 && holds(&self.fleet)
        });
        if waited.is_some() || holds(&self.fleet) {
            Ok(())
        } else {
            Err(failed(format!("the copy waited in vain for {what}")))
        }
    }

    /// The release of the plan, as the copy has it.
    fn release(&mut self, original: &Plan) -> Result<SignedManifest, ScenarioError> {
        let release = &original.release;
        let artifacts = release.artifacts.iter().map(|(platform, (_, size_bytes))| (platform.clone(), *size_bytes));
        let artifacts: BTreeMap<_, _> = artifacts.collect();
        self.publish(&release.version, &artifacts, Probe::from(&self.rehearsal.probe))
    }

    /// Signs a release and puts it on the server, with something that stands for each artifact.
    fn publish(
        &mut self,
        version: &Version,
        artifacts: &BTreeMap<Platform, u64>,
        probe: Probe,
    ) -> Result<SignedManifest, ScenarioError> {
        let mut programs = Vec::new();
        let mut built = BTreeMap::new();
        for (platform, size_bytes) in artifacts {
            let program = stand_in(&format!("{} {version} for {platform}\n", self.workload), *size_bytes);
            let size_bytes = u64::try_from(program.len()).map_err(failed)?;
            let artifact =
                Artifact { digest: ArtifactDigest::of(&program), size_bytes, file_name: "program".to_owned() };
            built.insert(platform.clone(), artifact);
            programs.push(program);
        }
        let manifest = Manifest {
            fleet: self.fleet.serving()?.shared.trust().chain.fleet(),
            workload: self.workload.clone(),
            version: version.clone(),
            artifacts: built,
            argv: Vec::new(),
            environment: BTreeMap::new(),
            probe,
            user: None,
            stop_grace: Duration::from_secs(1),
        };
        let programs: Vec<&[u8]> = programs.iter().map(Vec::as_slice).collect();
        self.fleet.publish(manifest, &programs)
    }

    /// Brings every device what it runs.
    fn bring_present_releases(&mut self, original: &Plan, release: &SignedManifest) -> Result<(), ScenarioError> {
        let mut groups: BTreeMap<(&str, bool), Vec<usize>> = BTreeMap::new();
        let mut unwell = Vec::new();
        for (number, device) in self.rehearsal.devices.iter().enumerate() {
            let Some(present) = &device.present else { continue };
            let is_new = present.version == original.release.version.to_string()
                && present.manifest.as_ref() == Some(&original.release.digest().to_string());
            groups.entry((&present.version, is_new)).or_default().push(number);
            if !present.healthy {
                unwell.push(number);
            }
        }
        let everywhere = BTreeMap::from([(Platform::any(), u64::try_from(STAND_IN_BYTES).unwrap_or(u64::MAX))]);
        let (mut rollouts, rows) = (Vec::new(), self.open_rows()?);
        for ((version, is_new), numbers) in groups {
            let version: Version = version.parse().map_err(failed)?;
            let present = if is_new { release.clone() } else { self.publish(&version, &everywhere, Probe::default())? };
            rollouts.push(self.roll_out(&present, &numbers, &rows)?);
        }
        self.wait_until_ended(&rollouts)?;
        if unwell.is_empty() {
            return Ok(());
        }
        let version: Version = "0.0.0-restored".parse().map_err(failed)?;
        let broken = self.publish(&version, &everywhere, Probe::default())?;
        let crash = Behaviour { crashes_after: Some(CRASHES_AFTER), is_sick: true, ..Behaviour::default() };
        for artifact in broken.claims().artifacts.values() {
            self.fleet.devices.iter().for_each(|device| device.runner.script(artifact.digest, crash));
        }
        let rollout = self.roll_out(&broken, &unwell, &self.open_rows()?)?;
        self.wait_until_ended(&[rollout])
    }

    /// The devices as a plan sees them to which anything may be brought: that something does not fit is true of the new
    /// release alone.
    fn open_rows(&self) -> Result<Vec<DeviceRow>, ScenarioError> {
        let rows = self.fleet.rows()?.into_iter();
        let open = |row: DeviceRow| {
            let platform = row.platform.or_else(|| Some(Platform::any()));
            DeviceRow { free_bytes: None, platform, ..row }
        };
        Ok(rows.map(open).collect())
    }

    /// Rolls a release out to these devices.
    fn roll_out(
        &self,
        release: &SignedManifest,
        numbers: &[usize],
        rows: &[DeviceRow],
    ) -> Result<RolloutId, ScenarioError> {
        let mut entropy = self.entropy.stream(&format!("rollout {}", release.digest()));
        let (id, rollout) = (PlanId::random(&mut entropy), RolloutId::random(&mut entropy));
        let devices = numbers.iter().map(|number| Ok(self.device(*number)?.name.clone()));
        let targets =
            Targets::Some(Chosen { devices: devices.collect::<Result<_, ScenarioError>>()?, ..Chosen::default() });
        let planned = PlannedRelease::of(release.claims(), release.digest());
        // Whatever fails there is what the copy is to be like.
        let budget = FailureBudget { count: Some(u32::MAX), percent: None };
        let strategy = Strategy { budget, ..Strategy::default() };
        let plan = plan(id, planned, targets, 1, strategy, rows).map_err(failed)?;
        self.fleet.start_plan(rollout, plan)?;
        Ok(rollout)
    }

    fn wait_until_ended(&self, rollouts: &[RolloutId]) -> Result<(), ScenarioError> {
        self.wait("what devices run to be brought to them", |fleet| {
            rollouts
                .iter()
                .all(|rollout| fleet.rollout(*rollout).is_some_and(|header| header.phase != RolloutPhase::Running))
        })
    }

    /// Places the holds, and stops what operators stopped.
    fn place_holds(&mut self) -> Result<(), ScenarioError> {
        let mut commands = Vec::new();
        for (number, device) in self.rehearsal.devices.iter().enumerate() {
            let mut entropy = self.entropy.stream(&format!("holds {}", device.name));
            for hold in &device.holds {
                let workload = hold.workload.as_ref().map(|workload| parsed(device, workload)).transpose()?;
                let (hold, reason) = (HoldId::random(&mut entropy), hold.reason.clone());
                commands.push((number, Command::Hold { hold, workload, reason }));
            }
            if device.stopped && device.present.is_some() {
                let (workload, reason) = (self.workload.clone(), String::new());
                commands.push((number, Command::Run { workload, run: Run::Stopped, reason }));
            }
            if device.barred == Some(Barred::Revoked) {
                commands.push((number, Command::Revoke { reason: "it is revoked".to_owned() }));
            }
        }
        if commands.is_empty() {
            return Ok(());
        }
        self.command(commands)?;
        self.fleet.world.run_for(SETTLES_WITHIN);
        Ok(())
    }

    /// Lets the server doubt members, as it does after it lost its records or saw two holders of a key.
    fn doubt_members(&mut self) -> Result<(), ScenarioError> {
        let doubt = |device: &CopiedDevice| match device.barred? {
            Barred::Recovered => Some(Membership::Recovered),
            Barred::Quarantined => Some(Membership::Quarantined),
            Barred::Revoked => None,
        };
        let doubted = self.rehearsal.devices.iter().enumerate();
        let doubted: Vec<_> = doubted.filter_map(|(number, device)| Some((number, doubt(device)?))).collect();
        if doubted.is_empty() {
            return Ok(());
        }
        self.fleet.crash(SERVER);
        let store = self.fleet.server.store.reopen().map_err(failed)?;
        let mut mutations = Vec::new();
        for (number, membership) in &doubted {
            let local = self.local(*number)?;
            let found = store.get(Space::Device, local.as_bytes()).map_err(failed)?;
            let found = found.ok_or_else(|| failed("a device of the copy has no record"))?;
            let mut record = record::device::decode(&found.value).map_err(failed)?;
            record.membership = *membership;
            record::device::put(&record, &mut mutations);
        }
        write(&store, mutations)?;
        store.close();
        self.fleet.start(SERVER)?;
        let doubted: BTreeSet<usize> = doubted.iter().map(|(number, _)| *number).collect();
        let expected: Vec<usize> = self
            .rehearsal
            .devices
            .iter()
            .enumerate()
            .filter(|(number, device)| device.barred.is_none() && !doubted.contains(number))
            .map(|(number, _)| number)
            .collect();
        self.wait("devices to find the server again", |fleet| expected.iter().all(|number| fleet.is_linked(*number)))
    }

    /// Cuts off who is away, and waits until the server has noticed.
    fn cut_off(&mut self) -> Result<(), ScenarioError> {
        let away = self.rehearsal.devices.iter().enumerate().filter(|(_, device)| device.offline_since_ms.is_some());
        let away: Vec<usize> = away.map(|(number, _)| number).collect();
        away.iter().for_each(|number| self.fleet.network.cut(&format!("device-{number}")));
        self.fleet.world.run_for(SETTLES_WITHIN);
        if away.is_empty() {
            return Ok(());
        }
        self.fleet.world.run_for(limit::IDLE_TIMEOUT);
        self.wait("the server to miss who is away", |fleet| !away.iter().any(|number| fleet.is_linked(*number)))
    }

    /// Plans again, and says what is to be looked at while that is carried out.
    fn ready(
        self,
        original: &Plan,
        release: SignedManifest,
        duration: Duration,
    ) -> Result<(Fleet, Ready), ScenarioError> {
        let (rehearsal, fleet) = (self.rehearsal, self.fleet);
        let artifacts: BTreeSet<_> = release.claims().artifacts.values().map(|artifact| artifact.digest).collect();
        let mut planned = PlannedRelease::of(release.claims(), release.digest());
        for (platform, (_, size_bytes)) in &mut planned.artifacts {
            // What fits is decided by the real size.
            if let Some((_, real_bytes)) = original.release.artifacts.get(platform) {
                *size_bytes = *real_bytes;
            }
        }
        let numbers: BTreeMap<&str, usize> =
            rehearsal.devices.iter().enumerate().map(|(number, device)| (device.name.as_str(), number)).collect();
        let rows = rows(rehearsal, &fleet, &numbers, &original.targets, &self.workload)?;
        let id = PlanId::random(&mut self.entropy.stream("plan"));
        let plan = plan_again(rehearsal, id, planned, &rows)?;
        let fails_entropy = fleet.world.entropy("rehearsal fails");
        let mut watched = Vec::new();
        for (name, planned) in assigned(&plan) {
            let number = numbers.get(name).copied().ok_or_else(|| failed(format!("{name} was not copied")))?;
            let device = rehearsal.devices.get(number).ok_or_else(|| failed(format!("{name} was not copied")))?;
            let is_bad = fails(rehearsal, device, &fails_entropy);
            let real_bytes = planned.artifact.map_or(0, |(_, size_bytes)| size_bytes);
            watched.push(Assigned {
                device: number,
                local: planned.local,
                wave: planned.place.map_or(0, |place| place.wave),
                is_bad,
                more_bytes: real_bytes.saturating_sub(u64::try_from(STAND_IN_BYTES).unwrap_or(u64::MAX)),
                transfer: transfer(rehearsal, real_bytes),
            });
            if is_bad && let Some(simulated) = fleet.devices.get(number) {
                let crash = Behaviour { crashes_after: Some(CRASHES_AFTER), is_sick: true, ..Behaviour::default() };
                artifacts.iter().for_each(|artifact| simulated.runner.script(*artifact, crash));
            }
        }
        watched.sort_by_key(|assigned| assigned.device);
        // One link carries one artifact; those for other platforms are about as large.
        let largest = original.release.artifacts.values().map(|(_, size_bytes)| *size_bytes).max().unwrap_or(0);
        let takes = transfer(rehearsal, largest);
        let stand_in_bytes = STAND_IN_BYTES.min(usize::try_from(largest).unwrap_or(usize::MAX));
        let transfer = (!takes.is_zero()).then_some(Transfer { stand_in_bytes, takes });
        let mut links = Links::new(rehearsal, transfer, fleet.world.entropy("rehearsal links"));
        fleet.network.shape(move |frame| links.takes(frame))?;
        Ok((fleet, Ready { plan, artifacts, assigned: watched, duration }))
    }
}

impl Ready {
    /// Starts the plan, and says who writes down what comes of it.
    ///
    /// # Errors
    /// [`ScenarioError`] when the server refuses it.
    pub(crate) fn start(self, fleet: &Fleet, begin: Monotonic) -> Result<Recorder, ScenarioError> {
        let rollout = RolloutId::random(&mut fleet.world.entropy("rehearsal rollout"));
        let (_, carried_bytes) = fleet.network.traffic();
        let span = (begin, self.duration);
        let recorder = Recorder::new(rollout, &self.plan, self.artifacts, self.assigned, span, carried_bytes);
        fleet.start_plan(rollout, self.plan)?;
        Ok(recorder)
    }
}

/// The copy's devices as a planner sees them. What a copy has not got is the original's: device ids, which an operator
/// may have named, the other rollouts that are at work, what authorities disagree on, and what is refused.
fn rows(
    rehearsal: &Rehearsal,
    fleet: &Fleet,
    numbers: &BTreeMap<&str, usize>,
    targets: &Targets,
    workload: &WorkloadName,
) -> Result<Vec<DeviceRow>, ScenarioError> {
    let mut rows = Vec::new();
    for mut row in fleet.rows()? {
        let device = numbers.get(row.name.as_str()).and_then(|number| rehearsal.devices.get(*number));
        let device = device.ok_or_else(|| failed(format!("{} is in the copy, and was not copied", row.name)))?;
        if !super::planning::is_shown(targets, device) {
            continue;
        }
        row.device = parsed(device, &device.id)?;
        row.refused = device.refused.as_ref().map(refusal);
        row.rollouts.extend(super::planning::at_work(device)?.map(|at_work| (workload.clone(), at_work)));
        if device.conflict {
            row.conflicts.insert(workload.clone());
        }
        rows.push(row);
    }
    Ok(rows)
}

/// How long an artifact takes on a device's link.
fn transfer(rehearsal: &Rehearsal, size_bytes: u64) -> Duration {
    match rehearsal.bandwidth {
        None | Some(0) => Duration::ZERO,
        Some(bandwidth) => Duration::from_millis(size_bytes.saturating_mul(1000) / bandwidth),
    }
}

/// Bytes that stand for an artifact: as many as it has, or [`STAND_IN_BYTES`].
fn stand_in(words: &str, size_bytes: u64) -> Vec<u8> {
    let bytes = usize::try_from(size_bytes).unwrap_or(usize::MAX).min(STAND_IN_BYTES).max(words.len());
    words.bytes().cycle().take(bytes).collect()
}

/// Writes into the store of a server that is down.
fn write(store: &MemoryStore, mutations: Vec<fleetd_sync_core::commit::Mutation>) -> Result<(), ScenarioError> {
    use fleetd_sync_core::commit::Commit as _;

    let result = Arc::new(Mutex::new(None));
    let given = Arc::clone(&result);
    let batch = Batch { actor: ActorKey::only("rehearsal"), mutations };
    store.submit(batch, Box::new(move |answer| *given.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer)));
    while store.step() > 0 {}
    let answer = result.lock().unwrap_or_else(PoisonError::into_inner).take();
    answer.ok_or_else(|| failed("the server's store did not answer"))?.map_err(failed)
}
