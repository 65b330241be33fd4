//! Reading a recording, which anybody may have written.

use std::sync::Arc;
use std::time::Duration;

use fleetd_actors::flight::{LEGS_MAX, Leg, Mark, STEPS_MAX, Start, Step};
use fleetd_actors::report::Waits;
use fleetd_actors::workload::device_queue::Ahead;
use fleetd_actors::workload::{
    AssignedTerms, Assignment, Child, Command, FetchError, Fetched, Found, Gate, InQueue, Input, Look, RunEvent,
    RunWish, Snapshot, StageError, SwitchError, Vigil, Work,
};
use fleetd_proto::fleetd::common::v1 as common;
use fleetd_proto::fleetd::record::v1 as stored;
use fleetd_sync_core::entropy::EntropyPosition;
use fleetd_sync_core::id::{ArtifactDigest, EnvelopeHash, FleetId, KeyId, OperationId};
use fleetd_sync_core::key::PublicKey;
use fleetd_sync_core::name::{Platform, WorkloadName};
use fleetd_sync_core::time::{ClockFloor, ClockQuality, Monotonic, Now, Wall};
use fleetd_sync_core::trust::{Authority, Rank, ReleaseKey, Revocation, Roster, RosterParts, Sites};
use prost::Message as _;

use super::WorkloadFlight;
use crate::record::workload as record;
use crate::record::{DecodeRecordError, fixed, named, optional, required};

/// What a recording says of all its legs.
struct Frame {
    name: WorkloadName,
    platform: Platform,
    rosters: Vec<Arc<Roster>>,
}

/// Reads a recording.
///
/// # Errors
/// [`DecodeRecordError`] when the bytes are none, or more than a recorder keeps.
pub fn decode_flight(bytes: &[u8]) -> Result<WorkloadFlight, DecodeRecordError> {
    let message = stored::FlightRecording::decode(bytes)?;
    let steps = message.legs.iter().map(|leg| leg.steps.len()).sum::<usize>();
    if message.legs.len() > LEGS_MAX || steps > STEPS_MAX {
        let (field, length, expected) = ("legs.steps", steps, STEPS_MAX);
        return Err(DecodeRecordError::Length { field, length, expected });
    }
    let frame = Frame {
        name: named("workload", &message.workload)?,
        platform: named("platform", &message.platform)?,
        rosters: message.rosters.iter().map(|one| roster(one).map(Arc::new)).collect::<Result<_, _>>()?,
    };
    let legs = message.legs.into_iter().map(|one| frame.leg(one)).collect::<Result<_, _>>()?;
    Ok(WorkloadFlight { version: message.version, workload: frame.name, platform: frame.platform, legs })
}

impl Frame {
    fn leg(&self, leg: stored::FlightLeg) -> Result<Leg<Snapshot, Input>, DecodeRecordError> {
        let start = match leg.start() {
            stored::FlightStart::Unspecified => Start::Loaded,
            stored::FlightStart::Continued => Start::Continued,
            stored::FlightStart::Resumed => Start::Resumed,
        };
        let state = self.state(required("leg.state", leg.state)?)?;
        let steps = leg.steps.into_iter().map(|one| self.step(one)).collect::<Result<_, _>>()?;
        Ok(Leg { start, state, steps })
    }

    fn roster(&self, place: u32) -> Result<Arc<Roster>, DecodeRecordError> {
        let known = usize::try_from(place).ok().and_then(|place| self.rosters.get(place));
        required("rosters", known.cloned())
    }

    fn state(&self, state: stored::WorkloadState) -> Result<Snapshot, DecodeRecordError> {
        let queue = match state.queue() {
            stored::QueueState::Unspecified => InQueue::Out,
            stored::QueueState::Asked => InQueue::Asked,
            stored::QueueState::AtWork => InQueue::AtWork,
        };
        Ok(Snapshot {
            name: self.name.clone(),
            platform: self.platform.clone(),
            record: record::read_workload(required("state.record", state.record)?)?,
            assignment: state.assignment.map(assignment).transpose()?,
            roster: state.roster.map(|place| self.roster(place)).transpose()?,
            work: work(&required("state.work", state.work)?)?,
            child: child(&required("state.child", state.child)?)?,
            vigil: vigil(required("state.vigil", state.vigil)?)?,
            restart_asked: state.restart_asked,
            gate: Gate {
                waits: Waits::from_text(&state.waits),
                deferred_until: state.deferred_until_ns.map(Monotonic),
                veto_until: state.veto_until_ns.map(Monotonic),
                queue,
            },
            is_reported: state.reported,
            is_shown: state.shown,
            entropy: EntropyPosition {
                seed: fixed("state.entropy_seed", &state.entropy_seed)?,
                drawn_bytes: state.entropy_drawn_bytes,
            },
        })
    }

    fn step(&self, step: stored::FlightStep) -> Result<Step<Input>, DecodeRecordError> {
        let quality = match step.quality() {
            common::ClockQuality::Unspecified => ClockQuality::None,
            common::ClockQuality::Floor => ClockQuality::Floor,
            common::ClockQuality::Beacon => ClockQuality::Beacon,
            common::ClockQuality::Synced => ClockQuality::Synced,
        };
        let input = step.input.map(|input| self.input(required("input.kind", input.kind)?)).transpose()?;
        let now = Now { monotonic: Monotonic(step.monotonic_ns), wall: Wall(step.wall_ms), quality };
        Ok(Step { now, input, mark: step.mark.map(mark) })
    }

    fn input(&self, kind: stored::workload_input::Kind) -> Result<Input, DecodeRecordError> {
        use stored::workload_input::Kind;
        Ok(match kind {
            Kind::Assigned(said) => Input::Assigned(assignment(said)?),
            Kind::Trust(place) => Input::Trust(self.roster(place)?),
            Kind::Fetched(fetched) => Input::Fetched {
                operation: id("fetched.operation_id", &fetched.operation_id)?,
                result: read_fetched(required("fetched.result", fetched.result)?),
            },
            Kind::Staged(staged) => {
                let result = staged.error.map_or(Ok(()), |error| {
                    Err(match error {
                        stored::disk_input::Error::NoSpace(space) => {
                            StageError::NoSpace { needed_bytes: space.needed_bytes, free_bytes: space.free_bytes }
                        }
                        stored::disk_input::Error::NotThere(_) => StageError::NoArtifact,
                        stored::disk_input::Error::Disk(cause) => StageError::Disk { cause },
                    })
                });
                Input::Staged { operation: id("staged.operation_id", &staged.operation_id)?, result }
            }
            Kind::Switched(switched) => {
                let result = switched.error.map_or(Ok(()), |error| {
                    Err(match error {
                        stored::disk_input::Error::NotThere(cause) => SwitchError::NotStaged { cause },
                        stored::disk_input::Error::Disk(cause) => SwitchError::Disk { cause },
                        stored::disk_input::Error::NoSpace(_) => SwitchError::Disk { cause: "no space".to_owned() },
                    })
                });
                Input::Switched { operation: id("switched.operation_id", &switched.operation_id)?, result }
            }
            Kind::Removed(removed) => {
                let result = match removed.error {
                    None => Ok(()),
                    Some(stored::disk_input::Error::Disk(cause) | stored::disk_input::Error::NotThere(cause)) => {
                        Err(cause)
                    }
                    Some(stored::disk_input::Error::NoSpace(_)) => Err("no space".to_owned()),
                };
                Input::Removed { operation: id("removed.operation_id", &removed.operation_id)?, result }
            }
            Kind::Attached(attached) => Input::Attached {
                operation: id("attached.operation_id", &attached.operation_id)?,
                found: found(attached)?,
            },
            Kind::Run(run) => {
                Input::Run { run: id("run.run_id", &run.run_id)?, event: run_event(required("run.event", run.event)?)? }
            }
            Kind::Probed(probed) => Input::Probed {
                operation: id("probed.operation_id", &probed.operation_id)?,
                outcome: probed.bad.map_or(Ok(()), Err),
            },
            Kind::Looked(looked) => Input::Looked {
                operation: id("looked.operation_id", &looked.operation_id)?,
                look: Look { is_locked: looked.locked, clock_floor: ClockFloor(Wall(looked.clock_floor_ms)) },
            },
            Kind::Queued(queued) => Input::Queued {
                operation: id("queued.operation_id", &queued.operation_id)?,
                ahead: queued.first.map(|first| ahead(&first, queued.before)).transpose()?,
            },
            Kind::Command(command) => read_command(command)?,
            Kind::Reset(stored::ResetInput {}) => Input::Reset,
        })
    }
}

fn ahead(first: &str, before: u32) -> Result<Ahead, DecodeRecordError> {
    Ok(Ahead { first: required("queued.first", first.parse().ok())?, before })
}

fn read_command(message: stored::CommandInput) -> Result<Input, DecodeRecordError> {
    let operation = id("command.operation_id", &message.operation_id)?;
    let command = match message.command() {
        stored::WorkloadCommand::Unspecified => return Err(DecodeRecordError::Missing { field: "command.command" }),
        stored::WorkloadCommand::Start => Command::Start,
        stored::WorkloadCommand::Stop => Command::Stop,
        stored::WorkloadCommand::Restart => Command::Restart,
        stored::WorkloadCommand::Defer => {
            let length = message.length.and_then(|length| length.try_into().ok()).unwrap_or(Duration::ZERO);
            Command::Defer { length, reason: message.reason }
        }
        stored::WorkloadCommand::Allow => Command::Allow,
    };
    Ok(Input::Command { operation, command })
}

fn mark(mark: stored::FlightMark) -> Mark {
    Mark {
        phase: mark.phase.into(),
        records: usize::try_from(mark.records).unwrap_or(usize::MAX),
        effects: usize::try_from(mark.effects).unwrap_or(usize::MAX),
        wakes_at: mark.wakes_at_ns.map(Monotonic),
    }
}

fn id(field: &'static str, bytes: &[u8]) -> Result<OperationId, DecodeRecordError> {
    fixed(field, bytes).map(OperationId::from_bytes)
}

fn optional_id(field: &'static str, bytes: &[u8]) -> Result<Option<OperationId>, DecodeRecordError> {
    Ok(optional(field, bytes)?.map(OperationId::from_bytes))
}

fn assignment(message: stored::AssignmentState) -> Result<Assignment, DecodeRecordError> {
    let run = match message.run() {
        stored::RunWish::Unspecified => None,
        stored::RunWish::Running => Some(RunWish::Running),
        stored::RunWish::Stopped => Some(RunWish::Stopped),
    };
    Ok(Assignment {
        target: message.target.map(|target| record::read_target("assignment.target", target)).transpose()?,
        run,
        restarts: message.restarts,
        held: message.held,
        conflict: message.conflict,
        remove: message.remove,
        desired_head: optional("assignment.desired_head", &message.desired_head)?.map(EnvelopeHash::from_bytes),
        terms: message.terms.as_deref().map(AssignedTerms::of),
    })
}

fn work(message: &stored::WorkState) -> Result<Work, DecodeRecordError> {
    Ok(Work {
        operation: optional_id("work.operation_id", &message.operation_id)?,
        retry_at: message.retry_at_ns.map(Monotonic),
        failures: message.failures,
        fault: message.fault.as_ref().map(record::read_fault),
        fetched: message.fetched,
        again: message.again,
    })
}

fn child(message: &stored::ChildState) -> Result<Child, DecodeRecordError> {
    let operation = || id("child.operation_id", &message.operation_id);
    Ok(match message.phase() {
        stored::ChildPhase::Unspecified => Child::Unknown,
        stored::ChildPhase::Attaching => Child::Attaching { operation: operation()? },
        stored::ChildPhase::Down => Child::Down,
        stored::ChildPhase::Backoff => Child::Backoff { until: Monotonic(message.at_ns) },
        stored::ChildPhase::Starting => Child::Starting { run: operation()? },
        stored::ChildPhase::Up => {
            let since = Monotonic(message.at_ns);
            Child::Up { run: operation()?, pid: message.pid, since, ready: message.ready }
        }
        stored::ChildPhase::Stopping => Child::Stopping { run: operation()?, unwell: message.unwell },
    })
}

fn vigil(message: stored::VigilState) -> Result<Vigil, DecodeRecordError> {
    Ok(Vigil {
        deadline: message.deadline_ns.map(Monotonic),
        probe_at: message.probe_at_ns.map(Monotonic),
        probe: optional_id("vigil.operation_id", &message.operation_id)?,
        good: u8::try_from(message.good).unwrap_or(u8::MAX),
        bad: u8::try_from(message.bad).unwrap_or(u8::MAX),
        last_bad: message.last_bad,
    })
}

fn read_fetched(result: stored::fetched_input::Result) -> Result<Fetched, FetchError> {
    match result {
        stored::fetched_input::Result::Manifest(bytes) => Ok(Fetched::Manifest(bytes)),
        stored::fetched_input::Result::Artifact(_) => Ok(Fetched::Artifact),
        stored::fetched_input::Result::NoSpace(space) => {
            Err(FetchError::NoSpace { needed_bytes: space.needed_bytes, free_bytes: space.free_bytes })
        }
        stored::fetched_input::Result::Unavailable(cause) => Err(FetchError::Unavailable { cause }),
    }
}

fn found(message: stored::AttachedInput) -> Result<Found, DecodeRecordError> {
    let Some(run) = optional_id("attached.run_id", &message.run_id)? else { return Ok(Found::Gone) };
    Ok(match message.exit {
        Some(exit) => Found::Exited { run, exit: record::read_exit(exit)? },
        None => Found::Running { run, pid: message.pid, ready: message.ready },
    })
}

fn run_event(event: stored::run_input::Event) -> Result<RunEvent, DecodeRecordError> {
    Ok(match event {
        stored::run_input::Event::Started(pid) => RunEvent::Started { pid },
        stored::run_input::Event::StartFailed(cause) => RunEvent::StartFailed { cause },
        stored::run_input::Event::AlreadyRunning(_) => RunEvent::AlreadyRunning,
        stored::run_input::Event::Ready(_) => RunEvent::Ready,
        stored::run_input::Event::Exited(exit) => RunEvent::Exited(record::read_exit(exit)?),
    })
}

fn roster(message: &stored::RosterRecord) -> Result<Roster, DecodeRecordError> {
    let authorities = message.authorities.iter().map(|authority| {
        let sites = authority.sites.as_ref().map(|sites| names("roster.sites", &sites.names)).transpose()?;
        Ok(Authority {
            key: key(&authority.public_key)?,
            rank: Rank(u8::try_from(authority.rank).unwrap_or(u8::MAX)),
            sites: sites.map_or(Sites::All, Sites::Only),
        })
    });
    let release_keys = message.release_keys.iter().map(|release| {
        let now = names("roster.workloads", &release.workloads)?;
        let ever = names("roster.workloads_ever", &release.workloads_ever)?;
        Ok(ReleaseKey { key: key(&release.public_key)?, now, ever })
    });
    let revoked = message.revocations.iter().map(|revocation| {
        let key = KeyId::from_bytes(fixed("roster.revocations.key_id", &revocation.key_id)?);
        Ok((key, Revocation::from_word(&revocation.reason)))
    });
    let denied = message.denials.iter().map(|denial| {
        let release = ArtifactDigest::from_bytes(fixed("roster.denials.manifest_digest", &denial.manifest_digest)?);
        Ok((release, denial.reason.clone()))
    });
    let issuers = message.certificate_authorities.iter().map(|one| Ok((key(&one.public_key)?, one.newest)));
    Ok(Roster::from_unverified(RosterParts {
        fleet: FleetId::from_bytes(fixed("roster.fleet_id", &message.fleet_id)?),
        version: message.version,
        certificate_authorities: issuers.collect::<Result<_, DecodeRecordError>>()?,
        authorities: authorities.collect::<Result<_, DecodeRecordError>>()?,
        release_keys: release_keys.collect::<Result<_, DecodeRecordError>>()?,
        revoked: revoked.collect::<Result<_, DecodeRecordError>>()?,
        denied: denied.collect::<Result<_, DecodeRecordError>>()?,
    }))
}

fn key(bytes: &[u8]) -> Result<PublicKey, DecodeRecordError> {
    let field = "roster.public_key";
    let bytes: [u8; 32] = fixed(field, bytes)?;
    PublicKey::from_slice(&bytes).map_err(|_| DecodeRecordError::Missing { field })
}

fn names<T, C>(field: &'static str, texts: &[String]) -> Result<C, DecodeRecordError>
where
    T: std::str::FromStr<Err = fleetd_sync_core::name::ParseNameError>,
    C: FromIterator<T>,
{
    texts.iter().map(|text| named(field, text)).collect()
}
