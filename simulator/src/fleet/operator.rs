//! What operators do to a fleet, through the inputs that the server's API sends.
//!
//! Two ways lead there. A test asks, and the world runs until it has its answer. A run cannot wait: its operators have
//! *errands*, which they send and look after; where the server is down, or an answer is lost with it, they ask again,
//! as whoever sits before the command line does.

mod order;
mod roll_out;
mod take_over;
mod way_back;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fleetd_actors::device;
use fleetd_actors::device::command::Command;
use fleetd_actors::device::record::Membership;
use fleetd_actors::registration::Input as RegistrationInput;
use fleetd_actors::registration::token::{Answer, Command as RegistrationCommand, TokenWish};
use fleetd_actors::rollout::plan::{Plan, PlannedRelease, plan};
use fleetd_actors::rollout::strategy::Strategy;
use fleetd_actors::targeting::{DeviceRow, Targets};
use fleetd_actors::{authority, rollout};
use fleetd_server::artifact_store::ArtifactStore as _;
use fleetd_server::{device_row, node as server_node, record};
use fleetd_sync_core::commit::Space;
use fleetd_sync_core::configuration::{Configuration, ConfiguredFile};
use fleetd_sync_core::enrolment::EnrolmentToken;
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::id::{ArtifactDigest, HoldId, KeyId, PlanId, RolloutId};
use fleetd_sync_core::name::{ConfigurationName, Platform, WorkloadName};
use fleetd_sync_core::release::{Artifact, EnvironmentValue, Manifest, Probe, ProbeCheck, SignedManifest};
use fleetd_sync_core::resolve::Run;
use fleetd_sync_core::time::Monotonic;
use fleetd_sync_core::trust::{Change, Revocation, Role};
use fleetd_sync_store::state_store::{KeyRange, StateStore as _};

use super::{Fleet, SERVER, SERVER_ADDRESS, ScenarioError, amd64, arm64, coffee, failed};
use crate::agenda::{Agenda, Task};
use crate::observation::Observation;
use crate::runner::{Behaviour, ROAST};
use crate::scenario::{Act, Program};

/// Records that are read at once.
const PAGE_RECORDS: usize = 4096;
/// Time after which an operator who has no answer asks again.
const AGAIN_AFTER: Duration = Duration::from_secs(10);
/// How often an operator asks for what is refused: the fleet may be in no state for it yet.
const REFUSALS_MAX: u32 = 60;
/// When a program crashes that crashes soon, after its start.
const CRASHES_SOON: Duration = Duration::from_millis(300);
/// The port that probes ask; nothing listens there but what a runner says.
const PROBE_PORT: u16 = 8080;

/// What an operator wants.
#[derive(Clone, Debug)]
pub enum Wish {
    /// A release, on every device.
    RollOut(Box<Act>),
    /// What the devices of the newest rollout ran before it.
    RollBack,
    /// That the newest rollout ends.
    Abort,
    /// That it stops for now.
    Pause,
    /// That it goes on.
    Resume,
    /// That nothing changes anywhere.
    StopAll {
        /// The stop's hold.
        hold: HoldId,
    },
    /// That such a stop ends.
    LiftAll {
        /// Its hold.
        hold: HoldId,
    },
    /// That nobody gets the newest release any more.
    Deny {
        /// The denial's hold.
        hold: HoldId,
    },
    /// That what was denied is allowed again.
    Allow {
        /// The denial's hold.
        hold: HoldId,
    },
    /// That nothing changes on a device.
    Hold {
        /// Which device.
        device: usize,
        /// The hold.
        hold: HoldId,
    },
    /// That such a hold ends.
    Lift {
        /// Which device.
        device: usize,
        /// The hold.
        hold: HoldId,
    },
    /// Another label on a device.
    Relabel {
        /// Which device.
        device: usize,
        /// The label's value.
        value: u64,
    },
    /// Another name for a device.
    Rename {
        /// Which device.
        device: usize,
        /// What its name ends with.
        value: u64,
    },
    /// That `coffee` runs on a device, or does not.
    Run {
        /// Which device.
        device: usize,
        /// Whether it runs.
        run: Run,
    },
    /// That `coffee` is started anew on a device.
    Restart {
        /// Which device.
        device: usize,
    },
    /// That a device's key counts no more.
    Revoke {
        /// Which device.
        device: usize,
    },
    /// That a device is what it says after its record was lost.
    Approve {
        /// Which device.
        device: usize,
    },
    /// That the waves of a rollout begin, each so long after it was waited for.
    ApproveWaves {
        /// Which rollout.
        rollout: RolloutId,
        /// How long after.
        after: Duration,
    },
}

/// An operator's wish on its way.
struct Errand {
    wish: Wish,
    /// What a rollout is called from the first try on: whoever asks again asks for the same.
    rollout: RolloutId,
    refusals: u32,
    /// Counts tries: an answer to an earlier one counts, too, but is looked for once.
    answer: Arc<Mutex<Option<Result<(), String>>>>,
}

/// A release that operators know.
#[derive(Clone)]
pub(super) struct KnownRelease {
    pub(super) signed: SignedManifest,
    attempts: u32,
}

/// The operators of a fleet.
pub(super) struct Operator {
    entropy: Entropy,
    errands: BTreeMap<u64, Errand>,
    next: u64,
    /// Every release, in the order in which they were pushed.
    pub(super) releases: Vec<KnownRelease>,
    /// The release that was rolled out last, by its place.
    pub(super) newest: Option<usize>,
    newest_rollout: Option<RolloutId>,
    /// Every rollout that was started.
    rollouts: Vec<RolloutId>,
    /// Plans that were made before their start, by that and by what they bring.
    saved: BTreeMap<(Duration, WorkloadName, String), Arc<Plan>>,
    /// Since when waves wait to be approved.
    awaiting: BTreeMap<(RolloutId, u32), Monotonic>,
    /// What was denied, by the denial's hold.
    denied: BTreeMap<HoldId, ArtifactDigest>,
}

impl Operator {
    pub(super) const fn new(entropy: Entropy) -> Self {
        Self {
            entropy,
            errands: BTreeMap::new(),
            next: 0,
            releases: Vec::new(),
            newest: None,
            newest_rollout: None,
            rollouts: Vec::new(),
            saved: BTreeMap::new(),
            awaiting: BTreeMap::new(),
            denied: BTreeMap::new(),
        }
    }

    /// The place of a version that was pushed.
    fn place_of(&self, workload: &WorkloadName, version: &str) -> Option<usize> {
        let is_it = |known: &KnownRelease| {
            let claims = known.signed.claims();
            claims.workload == *workload && claims.version.as_str() == version
        };
        self.releases.iter().position(is_it)
    }

    /// The workloads that devices may have.
    pub(super) fn workloads(&self) -> BTreeSet<WorkloadName> {
        let pushed = self.releases.iter().map(|known| known.signed.claims().workload.clone());
        pushed.chain([coffee()]).collect()
    }

    /// The newest release that was rolled out.
    pub(super) fn newest_release(&self) -> Option<&KnownRelease> {
        self.releases.get(self.newest?)
    }
}

/// A token for one device of a site, which needs no approval.
pub(super) const fn token_wish(site: String) -> TokenWish {
    TokenWish {
        note: String::new(),
        labels: BTreeMap::new(),
        site,
        uses_max: 1,
        expires_at: None,
        needs_approval: Some(false),
    }
}

/// Notes an answer, and that somebody should look at it.
fn answered<T, E: fmt::Display>(
    answer: &Arc<Mutex<Option<Result<(), String>>>>,
    agenda: &Agenda,
    errand: u64,
) -> Box<dyn FnOnce(Result<T, E>) + Send> {
    let (answer, agenda) = (Arc::clone(answer), agenda.clone());
    Box::new(move |result| {
        let told = result.map(drop).map_err(|error| error.to_string());
        *answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
        agenda.add(Task::Pursue(errand));
    })
}

impl Fleet {
    /// Root lets the release key sign the releases of workloads, as `fleetd trust delegate` does.
    ///
    /// # Errors
    /// [`ScenarioError`] when the authority refuses.
    pub fn delegate_release_key(&mut self, workloads: BTreeSet<WorkloadName>) -> Result<(), ScenarioError> {
        let chain = Arc::clone(&self.serving()?.shared.trust().chain);
        let change = Change::Delegate { key: self.release_key.public(), role: Role::Release { workloads } };
        let record = Box::new(chain.draft_next([change]).map_err(failed)?.sign(&self.root));
        let server = self.serving()?;
        self.ask("the authority", move |reply| {
            let operation = server.shared.authority_answers.open(Box::new(reply));
            server.actors.authority.send(authority::Input::AddRootRecord { operation, record });
        })?
        .map_err(failed)
    }

    /// Makes an enrolment token, as `fleetd enroll token create` does.
    ///
    /// # Errors
    /// [`ScenarioError`] when the registration refuses.
    pub fn create_token(&self, wish: TokenWish) -> Result<EnrolmentToken, ScenarioError> {
        let server = self.serving()?;
        let answer = self.ask("the registration", move |reply| {
            let operation = server.shared.registration_answers.open(Box::new(reply));
            let command = RegistrationCommand::CreateToken(wish);
            let caller = "scenario".to_owned();
            server.actors.registration.send(RegistrationInput::Command { operation, caller, command });
        })?;
        let Answer::Created { token, secret } = answer.map_err(failed)? else {
            return Err(failed("the registration gave no token"));
        };
        let addresses = vec![SERVER_ADDRESS.parse().map_err(failed)?];
        EnrolmentToken::new(addresses, self.serving()?.shared.trust().chain.fleet(), token.token, secret)
            .map_err(failed)
    }

    /// Revokes a key, as an admin does.
    ///
    /// # Errors
    /// [`ScenarioError`] when the authority refuses.
    pub fn revoke(&self, key: KeyId) -> Result<(), ScenarioError> {
        let server = self.serving()?;
        let revocation = Revocation::Compromised;
        self.ask("the authority", move |reply| {
            let operation = server.shared.authority_answers.open(Box::new(reply));
            server.actors.authority.send(authority::Input::Revoke { operation, key, revocation });
        })?
        .map_err(failed)
    }

    /// Approves a recovered device, as `fleetd enroll approve` does.
    ///
    /// # Errors
    /// [`ScenarioError`] when the device waits for no word.
    pub fn approve(&self, number: usize) -> Result<(), ScenarioError> {
        let server = self.serving()?;
        self.ask("the device's actor", |reply| {
            self.command(&server, number, Command::Approve, Box::new(reply));
        })?
        .map(drop)
        .map_err(failed)
    }

    fn command(
        &self,
        server: &server_node::Node,
        number: usize,
        command: Command,
        reply: Box<dyn FnOnce(server_node::DeviceAnswer) + Send>,
    ) {
        let Some(local) = self.devices.get(number).map(super::SimulatedDevice::local) else { return };
        let operation = server.shared.device_answers.open(reply);
        let caller = "scenario".to_owned();
        server.actors.devices.send(&local, device::Input::Command { operation, caller, command });
    }

    /// Signs a release of `coffee` for most devices' platform and puts it on the server, as `fleetd release push` does.
    ///
    /// # Errors
    /// [`ScenarioError`] when the manifest says what no release may say.
    pub fn push(&mut self, version: &str, program: &[u8]) -> Result<SignedManifest, ScenarioError> {
        let manifest = self.manifest(coffee(), version, &[(amd64(), program.to_vec())], ProbeCheck::Notify)?;
        self.publish(manifest, &[program])
    }

    fn manifest(
        &self,
        workload: WorkloadName,
        version: &str,
        programs: &[(Platform, Vec<u8>)],
        check: ProbeCheck,
    ) -> Result<Manifest, ScenarioError> {
        let artifact = |(platform, program): &(Platform, Vec<u8>)| {
            let size_bytes = u64::try_from(program.len()).map_err(failed)?;
            let digest = ArtifactDigest::of(program);
            Ok((platform.clone(), Artifact { digest, size_bytes, file_name: workload.to_string() }))
        };
        Ok(Manifest {
            fleet: self.serving()?.shared.trust().chain.fleet(),
            version: version.parse().map_err(failed)?,
            artifacts: programs.iter().map(artifact).collect::<Result<_, ScenarioError>>()?,
            workload,
            argv: Vec::new(),
            environment: ["MENU", "ROAST"].map(|name| (name.to_owned(), EnvironmentValue::FromConfig)).into(),
            probe: Probe { check, grace: Duration::from_secs(10), ..Probe::default() },
            user: None,
            stop_grace: Duration::from_secs(1),
        })
    }

    /// Signs a manifest, and puts it and its programs on the server.
    ///
    /// # Errors
    /// [`ScenarioError`] when it says what no release may say.
    pub fn publish(&mut self, manifest: Manifest, programs: &[&[u8]]) -> Result<SignedManifest, ScenarioError> {
        let signed = manifest.sign(&self.release_key).map_err(failed)?;
        let bytes = signed.encode();
        for content in programs.iter().copied().chain([bytes.as_slice()]) {
            let size_bytes = u64::try_from(content.len()).map_err(failed)?;
            self.server.artifacts.append(ArtifactDigest::of(content), size_bytes, 0, content).map_err(failed)?;
        }
        Ok(signed)
    }

    /// The configuration of that name, of which the server has the file from now on: one name always means one content.
    fn configuration_called(
        &self,
        workload: WorkloadName,
        name: ConfigurationName,
    ) -> Result<Arc<Configuration>, ScenarioError> {
        let menu = format!("the menu of {name}").into_bytes();
        let (digest, size_bytes) = (ArtifactDigest::of(&menu), u64::try_from(menu.len()).map_err(failed)?);
        self.server.artifacts.append(digest, size_bytes, 0, &menu).map_err(failed)?;
        let values = [(ROAST.to_owned(), name.to_string())].into();
        let files = [("MENU".to_owned(), ConfiguredFile { digest, size_bytes })].into();
        Configuration::new(workload, name, values, files).map(Arc::new).map_err(failed)
    }

    /// Plans a release for every device and starts the rollout.
    ///
    /// # Errors
    /// [`ScenarioError`] when there is nothing to plan, or the rollout is refused.
    pub fn roll_out(&mut self, release: &SignedManifest) -> Result<RolloutId, ScenarioError> {
        let rollout = RolloutId::random(&mut self.entropy);
        let plan = self.plan((release, None), Targets::All, 1, Strategy::default())?;
        self.start_plan(rollout, plan)?;
        Ok(rollout)
    }

    /// Plans a release for every device, in the way that a strategy says, and starts the rollout.
    ///
    /// # Errors
    /// Those of [`roll_out`](Self::roll_out).
    pub fn roll_out_by(&mut self, release: &SignedManifest, strategy: Strategy) -> Result<RolloutId, ScenarioError> {
        let rollout = RolloutId::random(&mut self.operator.entropy);
        let plan = self.plan((release, None), Targets::All, 1, strategy)?;
        self.start_plan(rollout, plan)?;
        Ok(rollout)
    }

    fn plan(
        &mut self,
        (release, configuration): (&SignedManifest, Option<Arc<Configuration>>),
        targets: Targets,
        attempt: u32,
        strategy: Strategy,
    ) -> Result<Plan, ScenarioError> {
        let planned = PlannedRelease { configuration, ..PlannedRelease::of(release.claims(), release.digest()) };
        plan(PlanId::random(&mut self.entropy), planned, targets, attempt, strategy, &self.rows()?).map_err(failed)
    }

    /// Starts a plan, as `fleetd rollout start` does.
    ///
    /// # Errors
    /// [`ScenarioError`] when that is refused.
    pub fn start_plan(&self, rollout: RolloutId, plan: Plan) -> Result<(), ScenarioError> {
        let server = self.serving()?;
        self.ask("the rollout", |reply| start(&server, rollout, Arc::new(plan), Box::new(reply)))?.map_err(failed)
    }

    /// Aborts a rollout, as `fleetd rollout abort` does.
    ///
    /// # Errors
    /// [`ScenarioError`] when that is refused.
    pub fn abort(&self, rollout: RolloutId) -> Result<(), ScenarioError> {
        let server = self.serving()?;
        self.ask("the rollout", |reply| abort(&server, rollout, Box::new(reply)))?.map_err(failed)
    }

    /// Approves a wave of a rollout, as `fleetd rollout approve` does. Nobody waits for the answer.
    ///
    /// # Errors
    /// [`ScenarioError`] while the server is down.
    pub(crate) fn approve_wave(&self, rollout: RolloutId, wave: u32) -> Result<(), ScenarioError> {
        let server = self.serving()?;
        self.tap.note(|| Observation::Approved { node: SERVER.into(), rollout, wave });
        let operation = server.shared.rollout_answers.open(Box::new(|_| {}));
        server.actors.rollouts.send(&rollout, rollout::Input::Approve { operation, wave: Some(wave) });
        Ok(())
    }

    /// The devices as a plan sees them, in the order of their local ids.
    ///
    /// # Errors
    /// [`ScenarioError`] when the server's store cannot be read.
    pub fn rows(&self) -> Result<Vec<DeviceRow>, ScenarioError> {
        let server = self.serving()?;
        let (mut rows, mut range) = (Vec::new(), KeyRange::all());
        loop {
            let page = self.server.store.scan(Space::Device, range.clone(), PAGE_RECORDS).map_err(failed)?;
            let Some((last, _)) = page.last() else { return Ok(rows) };
            range = range.after(last);
            for (_, found) in &page {
                let record = record::device::decode(&found.value).map_err(failed)?;
                let connection = server.shared.connections.of_device(record.local).map(|(_, connection)| connection);
                rows.push(device_row::of(&record, found.revision, connection.as_ref()));
            }
        }
    }

    /// Sends an operator on an errand.
    ///
    /// # Errors
    /// [`ScenarioError`] when it is one that nobody could run.
    pub fn want(&mut self, wish: Wish) -> Result<(), ScenarioError> {
        let number = self.operator.next;
        self.operator.next += 1;
        let rollout = RolloutId::random(&mut self.operator.entropy);
        let errand = Errand { wish, rollout, refusals: 0, answer: Arc::default() };
        self.operator.errands.insert(number, errand);
        self.pursue(number)
    }

    /// Approves every device that came back after its record was lost.
    ///
    /// # Errors
    /// Those of [`want`](Self::want).
    pub(crate) fn approve_recovered(&mut self) -> Result<(), ScenarioError> {
        if !self.is_serving() {
            return Ok(());
        }
        for device in 0..self.devices.len() {
            let is_recovered = self.record(device).is_some_and(|record| record.membership == Membership::Recovered);
            if is_recovered && !self.broken.contains_key(&device) {
                self.want(Wish::Approve { device })?;
            }
        }
        Ok(())
    }

    /// Looks after an errand: takes its answer, or asks (again).
    pub(super) fn pursue(&mut self, number: u64) -> Result<(), ScenarioError> {
        let Some(mut errand) = self.operator.errands.remove(&number) else { return Ok(()) };
        let answer = errand.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Wish::ApproveWaves { rollout, .. } = errand.wish
            && self.is_serving()
            && self.rollout(rollout).is_none_or(|header| header.phase.is_ended())
        {
            return Ok(());
        }
        match answer {
            Some(Ok(())) => {
                return self.fulfil(&errand);
            }
            Some(Err(_)) => {
                errand.refusals += 1;
                // What is refused of one device is an edit at the wrong moment, and nothing to insist on.
                if errand.refusals > REFUSALS_MAX || !matches!(errand.wish, Wish::RollOut(_)) {
                    return Ok(());
                }
            }
            None => {
                if self.is_serving() && !self.is_premature(&errand.wish) {
                    self.try_errand(number, &mut errand)?;
                }
                let agenda = self.agenda.clone();
                self.world.schedule(AGAIN_AFTER, "operator", b"look after", move || agenda.add(Task::Pursue(number)));
            }
        }
        self.operator.errands.insert(number, errand);
        Ok(())
    }

    fn fulfil(&mut self, errand: &Errand) -> Result<(), ScenarioError> {
        let place = match &errand.wish {
            Wish::RollOut(act) => self.operator.place_of(&act.workload(), &act.roll_out),
            Wish::RollBack => self
                .plan_of(errand.rollout)
                .and_then(|plan| self.operator.place_of(&plan.release.workload, plan.release.version.as_str())),
            Wish::Revoke { device } => {
                self.broken.insert(*device, crate::fault::FaultKind::OperatorRevokes);
                return Ok(());
            }
            _ => return Ok(()),
        };
        self.operator.newest = place.or(self.operator.newest);
        self.operator.newest_rollout = Some(errand.rollout);
        self.operator.rollouts.push(errand.rollout);
        let strategy = match &errand.wish {
            Wish::RollOut(act) => act.strategy.as_ref(),
            _ => None,
        };
        match strategy.and_then(|strategy| strategy.approve_after) {
            Some(after) => self.want(Wish::ApproveWaves { rollout: errand.rollout, after }),
            None => Ok(()),
        }
    }

    fn try_errand(&mut self, number: u64, errand: &mut Errand) -> Result<(), ScenarioError> {
        let server = self.serving()?;
        let agenda = self.agenda.clone();
        let refuse = |refusal: &str| {
            answered::<(), &str>(&errand.answer, &agenda, number)(Err(refusal));
        };
        let (device, command) = match errand.wish.clone() {
            // The server has it; only its answer was lost.
            Wish::RollOut(_) | Wish::RollBack if self.rollout(errand.rollout).is_some() => {
                answered::<(), &str>(&errand.answer, &agenda, number)(Ok(()));
                return Ok(());
            }
            Wish::RollOut(act) => return self.try_roll_out(&server, number, errand, &act),
            Wish::RollBack => {
                if !self.roll_back(&server, errand, number)? {
                    refuse("there is no way back");
                }
                return Ok(());
            }
            Wish::StopAll { hold } => {
                self.stop_all(&server, errand, number, hold);
                return Ok(());
            }
            Wish::LiftAll { hold } => {
                self.lift_all(&server, errand, number, hold);
                return Ok(());
            }
            Wish::Deny { hold } => {
                if !self.deny(&server, errand, number, hold) {
                    refuse("there is no release yet");
                }
                return Ok(());
            }
            Wish::Allow { hold } => {
                if !self.allow(&server, errand, number, hold) {
                    refuse("nothing was denied");
                }
                return Ok(());
            }
            Wish::ApproveWaves { rollout, after } => return self.approve_waves(rollout, after),
            Wish::Abort | Wish::Pause | Wish::Resume => {
                let send = match errand.wish {
                    Wish::Pause => pause,
                    Wish::Resume => resume,
                    _ => abort,
                };
                match self.operator.newest_rollout {
                    Some(rollout) => send(&server, rollout, answered(&errand.answer, &agenda, number)),
                    None => refuse("there is no rollout"),
                }
                return Ok(());
            }
            of_device => order_of(of_device)?,
        };
        self.command(&server, device, command, answered(&errand.answer, &agenda, number));
        Ok(())
    }

    /// The place of the release that an act brings, pushed if it was not yet.
    fn release_of(&mut self, act: &Act) -> Result<usize, ScenarioError> {
        let workload = act.workload();
        if let Some(place) = self.operator.place_of(&workload, &act.roll_out) {
            return Ok(place);
        }
        let programs: Vec<(Platform, Vec<u8>)> = [amd64(), arm64()]
            .into_iter()
            .map(|platform| {
                let bytes = format!("{workload} {} {:?} {platform}", act.roll_out, act.program).into_bytes();
                (platform, bytes)
            })
            .collect();
        self.script(act, &programs);
        let check = match act.program {
            Program::FailsProbe => ProbeCheck::Tcp { port: PROBE_PORT },
            _ => ProbeCheck::Notify,
        };
        let manifest = self.manifest(workload, &act.roll_out, &programs, check)?;
        let contents: Vec<&[u8]> = programs.iter().map(|(_, program)| program.as_slice()).collect();
        let signed = self.publish(manifest, &contents)?;
        self.operator.releases.push(KnownRelease { signed, attempts: 0 });
        Ok(self.operator.releases.len() - 1)
    }

    /// Tells every device's runner what a release's program does there.
    fn script(&self, act: &Act, programs: &[(Platform, Vec<u8>)]) {
        for (number, device) in self.devices.iter().enumerate() {
            let Some((_, program)) = programs.iter().find(|(platform, _)| *platform == device.platform) else {
                continue;
            };
            device.runner.script(ArtifactDigest::of(program), behaviour(act, number, &device.platform));
        }
        for clone in &self.clones {
            if let Some((_, program)) = programs.iter().find(|(platform, _)| *platform == clone.platform) {
                clone.runner.script(ArtifactDigest::of(program), behaviour(act, 0, &clone.platform));
            }
        }
    }
}

/// Which device a wish means that means one, and what its actor is told.
fn order_of(wish: Wish) -> Result<(usize, Command), ScenarioError> {
    Ok(match wish {
        Wish::Hold { device, hold } => {
            (device, Command::Hold { hold, workload: None, reason: "an operator looks".to_owned() })
        }
        Wish::Lift { device, hold } => (device, Command::Lift { hold }),
        Wish::Relabel { device, value } => {
            let (key, value) = ("shelf".parse().map_err(failed)?, value.to_string().parse().map_err(failed)?);
            (device, Command::Label { set: BTreeMap::from([(key, value)]), remove: Vec::new() })
        }
        Wish::Rename { device, value } => {
            (device, Command::Rename(format!("renamed-{value}").parse().map_err(failed)?))
        }
        Wish::Run { device, run } => (device, Command::Run { workload: coffee(), run, reason: String::new() }),
        Wish::Restart { device } => (device, Command::Restart { workload: coffee() }),
        Wish::Revoke { device } => (device, Command::Revoke { reason: "it was stolen".to_owned() }),
        Wish::Approve { device } => (device, Command::Approve),
        other => return Err(failed(format!("{other:?} means no device"))),
    })
}

/// What a release's program does on a device.
fn behaviour(act: &Act, number: usize, platform: &Platform) -> Behaviour {
    let good = Behaviour::default();
    if act.only_on.as_ref().is_some_and(|only| only != platform) {
        return good;
    }
    let crashes = |after: Duration| Behaviour { crashes_after: Some(after), is_sick: true, ..good };
    match act.program {
        Program::Good => good,
        Program::Crashes => crashes(act.after.unwrap_or(CRASHES_SOON)),
        Program::CrashesLate => Behaviour { crashes_after: Some(act.after.unwrap_or(CRASHES_LATE)), ..good },
        Program::Hangs => Behaviour { is_sick: true, ..good },
        Program::FailsProbe => Behaviour { fails_probes: true, ..good },
        Program::Slow => Behaviour { ready_after: act.after.unwrap_or(READY_LATE), ..good },
        Program::IgnoresTerm => Behaviour { ignores_term: true, ..good },
        Program::CrashesOnSome if number % 2 == 1 => crashes(act.after.unwrap_or(CRASHES_SOON)),
        Program::CrashesOnSome => good,
    }
}

/// When a program crashes that looked well, after its start.
const CRASHES_LATE: Duration = Duration::from_secs(90);
/// When a program is ready that starts slowly: within its grace.
const READY_LATE: Duration = Duration::from_secs(8);

fn start(
    server: &server_node::Node,
    rollout: RolloutId,
    plan: Arc<Plan>,
    reply: Box<dyn FnOnce(Result<(), rollout::RolloutError>) + Send>,
) {
    let operation = server.shared.rollout_answers.open(reply);
    let input = rollout::Input::Start { operation, caller: "scenario".to_owned(), plan };
    server.actors.rollouts.send(&rollout, input);
}

fn abort(
    server: &server_node::Node,
    rollout: RolloutId,
    reply: Box<dyn FnOnce(Result<(), rollout::RolloutError>) + Send>,
) {
    let operation = server.shared.rollout_answers.open(reply);
    let input = rollout::Input::Abort { operation, reason: "scenario".to_owned() };
    server.actors.rollouts.send(&rollout, input);
}

fn pause(
    server: &server_node::Node,
    rollout: RolloutId,
    reply: Box<dyn FnOnce(Result<(), rollout::RolloutError>) + Send>,
) {
    let operation = server.shared.rollout_answers.open(reply);
    server.actors.rollouts.send(&rollout, rollout::Input::Pause { operation, reason: "scenario".to_owned() });
}

fn resume(
    server: &server_node::Node,
    rollout: RolloutId,
    reply: Box<dyn FnOnce(Result<(), rollout::RolloutError>) + Send>,
) {
    let operation = server.shared.rollout_answers.open(reply);
    server.actors.rollouts.send(&rollout, rollout::Input::Resume { operation });
}
