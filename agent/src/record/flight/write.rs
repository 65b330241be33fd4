//! Writing a recording.

use fleetd_actors::flight::{Leg, Mark, Start, Step};
use fleetd_actors::workload::{
    AssignedTerms, Assignment, Child, Command, FetchError, Fetched, Found, InQueue, Input, RunEvent, RunWish, Snapshot,
    StageError, SwitchError, Vigil, Work,
};
use fleetd_proto::fleetd::common::v1 as common;
use fleetd_proto::fleetd::record::v1 as stored;
use fleetd_sync_core::id::OperationId;
use fleetd_sync_core::time::{ClockQuality, Monotonic};
use fleetd_sync_core::trust::{RosterParts, Sites};
use prost::Message as _;

use super::{Rosters, WorkloadFlight};
use crate::record::workload as record;

/// Writes a recording.
#[must_use]
pub fn encode_flight(flight: &WorkloadFlight) -> Vec<u8> {
    let mut rosters = Rosters::default();
    let legs = flight.legs.iter().map(|one| leg(one, &mut rosters)).collect();
    let message = stored::FlightRecording {
        version: flight.version.clone(),
        workload: flight.workload.to_string(),
        platform: flight.platform.to_string(),
        rosters: rosters.0.iter().map(|known| roster(known.parts())).collect(),
        legs,
    };
    message.encode_to_vec()
}

fn leg(leg: &Leg<Snapshot, Input>, rosters: &mut Rosters) -> stored::FlightLeg {
    let start = match leg.start {
        Start::Loaded => stored::FlightStart::Unspecified,
        Start::Continued => stored::FlightStart::Continued,
        Start::Resumed => stored::FlightStart::Resumed,
    };
    stored::FlightLeg {
        start: start.into(),
        state: Some(state(&leg.state, rosters)),
        steps: leg.steps.iter().map(|one| step(one, rosters)).collect(),
    }
}

fn step(step: &Step<Input>, rosters: &mut Rosters) -> stored::FlightStep {
    let quality = match step.now.quality {
        ClockQuality::None => common::ClockQuality::Unspecified,
        ClockQuality::Floor => common::ClockQuality::Floor,
        ClockQuality::Beacon => common::ClockQuality::Beacon,
        ClockQuality::Synced => common::ClockQuality::Synced,
    };
    stored::FlightStep {
        monotonic_ns: step.now.monotonic.0,
        wall_ms: step.now.wall.0,
        quality: quality.into(),
        input: step.input.as_ref().map(|one| stored::WorkloadInput { kind: Some(input(one, rosters)) }),
        mark: step.mark.as_ref().map(mark),
    }
}

fn mark(mark: &Mark) -> stored::FlightMark {
    stored::FlightMark {
        phase: mark.phase.to_string(),
        records: u32::try_from(mark.records).unwrap_or(u32::MAX),
        effects: u32::try_from(mark.effects).unwrap_or(u32::MAX),
        wakes_at_ns: nanoseconds(mark.wakes_at),
    }
}

fn nanoseconds(at: Option<Monotonic>) -> Option<u64> {
    at.map(|at| at.0)
}

fn id(operation: OperationId) -> Vec<u8> {
    operation.as_bytes().to_vec()
}

fn optional_id(operation: Option<OperationId>) -> Vec<u8> {
    operation.map(id).unwrap_or_default()
}

fn state(state: &Snapshot, rosters: &mut Rosters) -> stored::WorkloadState {
    stored::WorkloadState {
        record: Some(record::workload(&state.record)),
        assignment: state.assignment.as_ref().map(assignment),
        roster: state.roster.as_ref().map(|roster| rosters.place_of(roster)),
        work: Some(work(&state.work)),
        child: Some(child(&state.child)),
        vigil: Some(vigil(&state.vigil)),
        restart_asked: state.restart_asked,
        reported: state.is_reported,
        shown: state.is_shown,
        entropy_seed: state.entropy.seed.to_vec(),
        entropy_drawn_bytes: state.entropy.drawn_bytes,
        waits: state.gate.waits.as_ref().map(ToString::to_string).unwrap_or_default(),
        deferred_until_ns: nanoseconds(state.gate.deferred_until),
        veto_until_ns: nanoseconds(state.gate.veto_until),
        queue: match state.gate.queue {
            InQueue::Out => stored::QueueState::Unspecified,
            InQueue::Asked => stored::QueueState::Asked,
            InQueue::AtWork => stored::QueueState::AtWork,
        }
        .into(),
    }
}

fn assignment(assignment: &Assignment) -> stored::AssignmentState {
    let run = match assignment.run {
        None => stored::RunWish::Unspecified,
        Some(RunWish::Running) => stored::RunWish::Running,
        Some(RunWish::Stopped) => stored::RunWish::Stopped,
    };
    stored::AssignmentState {
        target: assignment.target.as_ref().map(record::target),
        run: run.into(),
        restarts: assignment.restarts,
        held: assignment.held,
        conflict: assignment.conflict,
        remove: assignment.remove,
        desired_head: assignment.desired_head.map(|head| head.as_bytes().to_vec()).unwrap_or_default(),
        terms: assignment.terms.as_ref().map(AssignedTerms::text),
    }
}

fn work(work: &Work) -> stored::WorkState {
    stored::WorkState {
        operation_id: optional_id(work.operation),
        retry_at_ns: nanoseconds(work.retry_at),
        failures: work.failures,
        fault: work.fault.as_ref().map(record::fault),
        fetched: work.fetched,
        again: work.again,
    }
}

fn child(child: &Child) -> stored::ChildState {
    let (phase, operation) = match child {
        Child::Unknown => (stored::ChildPhase::Unspecified, None),
        Child::Attaching { operation } => (stored::ChildPhase::Attaching, Some(*operation)),
        Child::Down => (stored::ChildPhase::Down, None),
        Child::Backoff { .. } => (stored::ChildPhase::Backoff, None),
        Child::Starting { run } => (stored::ChildPhase::Starting, Some(*run)),
        Child::Up { run, .. } => (stored::ChildPhase::Up, Some(*run)),
        Child::Stopping { run, .. } => (stored::ChildPhase::Stopping, Some(*run)),
    };
    let mut message = stored::ChildState { operation_id: optional_id(operation), ..stored::ChildState::default() };
    message.set_phase(phase);
    match child {
        Child::Backoff { until } => message.at_ns = until.0,
        Child::Up { pid, since, ready, .. } => {
            (message.pid, message.at_ns, message.ready) = (*pid, since.0, *ready);
        }
        Child::Stopping { unwell, .. } => message.unwell = *unwell,
        Child::Unknown | Child::Attaching { .. } | Child::Down | Child::Starting { .. } => {}
    }
    message
}

fn vigil(vigil: &Vigil) -> stored::VigilState {
    stored::VigilState {
        deadline_ns: nanoseconds(vigil.deadline),
        probe_at_ns: nanoseconds(vigil.probe_at),
        operation_id: optional_id(vigil.probe),
        good: vigil.good.into(),
        bad: vigil.bad.into(),
        last_bad: vigil.last_bad.clone(),
    }
}

fn input(input: &Input, rosters: &mut Rosters) -> stored::workload_input::Kind {
    use stored::workload_input::Kind;
    match input {
        Input::Assigned(said) => Kind::Assigned(assignment(said)),
        Input::Trust(roster) => Kind::Trust(rosters.place_of(roster)),
        Input::Fetched { operation, result } => {
            Kind::Fetched(stored::FetchedInput { operation_id: id(*operation), result: Some(fetched(result)) })
        }
        Input::Staged { operation, result } => {
            let error = result.as_ref().err().map(|error| match error {
                StageError::NoSpace { needed_bytes, free_bytes } => {
                    stored::disk_input::Error::NoSpace(space(*needed_bytes, *free_bytes))
                }
                StageError::NoArtifact => stored::disk_input::Error::NotThere(String::new()),
                StageError::Disk { cause } => stored::disk_input::Error::Disk(cause.clone()),
            });
            Kind::Staged(stored::DiskInput { operation_id: id(*operation), error })
        }
        Input::Switched { operation, result } => {
            let error = result.as_ref().err().map(|error| match error {
                SwitchError::NotStaged { cause } => stored::disk_input::Error::NotThere(cause.clone()),
                SwitchError::Disk { cause } => stored::disk_input::Error::Disk(cause.clone()),
            });
            Kind::Switched(stored::DiskInput { operation_id: id(*operation), error })
        }
        Input::Removed { operation, result } => {
            let error = result.as_ref().err().cloned().map(stored::disk_input::Error::Disk);
            Kind::Removed(stored::DiskInput { operation_id: id(*operation), error })
        }
        Input::Attached { operation, found } => Kind::Attached(attached(*operation, *found)),
        Input::Run { run, event } => Kind::Run(stored::RunInput { run_id: id(*run), event: Some(run_event(event)) }),
        Input::Probed { operation, outcome } => {
            Kind::Probed(stored::ProbedInput { operation_id: id(*operation), bad: outcome.as_ref().err().cloned() })
        }
        Input::Command { operation, command } => {
            let (word, length, reason) = match command {
                Command::Start => (stored::WorkloadCommand::Start, None, ""),
                Command::Stop => (stored::WorkloadCommand::Stop, None, ""),
                Command::Restart => (stored::WorkloadCommand::Restart, None, ""),
                Command::Defer { length, reason } => {
                    (stored::WorkloadCommand::Defer, (*length).try_into().ok(), reason.as_str())
                }
                Command::Allow => (stored::WorkloadCommand::Allow, None, ""),
            };
            let (operation_id, reason) = (id(*operation), reason.to_owned());
            Kind::Command(stored::CommandInput { operation_id, command: word.into(), length, reason })
        }
        Input::Looked { operation, look } => Kind::Looked(stored::LookedInput {
            operation_id: id(*operation),
            locked: look.is_locked,
            clock_floor_ms: look.clock_floor.0.0,
        }),
        Input::Queued { operation, ahead } => Kind::Queued(stored::QueuedInput {
            operation_id: id(*operation),
            first: ahead.as_ref().map(|ahead| ahead.first.to_string()),
            before: ahead.as_ref().map_or(0, |ahead| ahead.before),
        }),
        Input::Reset => Kind::Reset(stored::ResetInput {}),
    }
}

fn fetched(result: &Result<Fetched, FetchError>) -> stored::fetched_input::Result {
    match result {
        Ok(Fetched::Manifest(bytes)) => stored::fetched_input::Result::Manifest(bytes.clone()),
        Ok(Fetched::Artifact) => stored::fetched_input::Result::Artifact(true),
        Err(FetchError::NoSpace { needed_bytes, free_bytes }) => {
            stored::fetched_input::Result::NoSpace(space(*needed_bytes, *free_bytes))
        }
        Err(FetchError::Unavailable { cause }) => stored::fetched_input::Result::Unavailable(cause.clone()),
    }
}

const fn space(needed_bytes: u64, free_bytes: u64) -> stored::SpaceRecord {
    stored::SpaceRecord { needed_bytes, free_bytes }
}

fn attached(operation: OperationId, found: Found) -> stored::AttachedInput {
    let message = stored::AttachedInput { operation_id: id(operation), ..stored::AttachedInput::default() };
    match found {
        Found::Running { run, pid, ready } => stored::AttachedInput { run_id: id(run), pid, ready, ..message },
        Found::Exited { run, exit } => {
            stored::AttachedInput { run_id: id(run), exit: Some(record::exit(exit)), ..message }
        }
        Found::Gone => message,
    }
}

fn run_event(event: &RunEvent) -> stored::run_input::Event {
    match event {
        RunEvent::Started { pid } => stored::run_input::Event::Started(*pid),
        RunEvent::StartFailed { cause } => stored::run_input::Event::StartFailed(cause.clone()),
        RunEvent::AlreadyRunning => stored::run_input::Event::AlreadyRunning(true),
        RunEvent::Ready => stored::run_input::Event::Ready(true),
        RunEvent::Exited(exit) => stored::run_input::Event::Exited(record::exit(*exit)),
    }
}

fn roster(parts: RosterParts) -> stored::RosterRecord {
    let key = |key: &[u8; 32]| key.to_vec();
    let names = |names: &mut dyn Iterator<Item = String>| names.collect::<Vec<_>>();
    stored::RosterRecord {
        fleet_id: parts.fleet.as_bytes().to_vec(),
        version: parts.version,
        certificate_authorities: parts
            .certificate_authorities
            .iter()
            .map(|(public, newest)| stored::RosterCertificateAuthority {
                public_key: key(public.as_bytes()),
                newest: *newest,
            })
            .collect(),
        authorities: parts
            .authorities
            .iter()
            .map(|authority| stored::RosterAuthority {
                public_key: key(authority.key.as_bytes()),
                rank: authority.rank.0.into(),
                sites: match &authority.sites {
                    Sites::All => None,
                    Sites::Only(sites) => {
                        Some(stored::RosterSites { names: names(&mut sites.iter().map(ToString::to_string)) })
                    }
                },
            })
            .collect(),
        release_keys: parts
            .release_keys
            .iter()
            .map(|release| stored::RosterReleaseKey {
                public_key: key(release.key.as_bytes()),
                workloads: names(&mut release.now.iter().map(ToString::to_string)),
                workloads_ever: names(&mut release.ever.iter().map(ToString::to_string)),
            })
            .collect(),
        revocations: parts
            .revoked
            .iter()
            .map(|(key, revocation)| stored::RosterRevocation {
                key_id: key.as_bytes().to_vec(),
                reason: revocation.as_str().to_owned(),
            })
            .collect(),
        denials: parts
            .denied
            .into_iter()
            .map(|(release, reason)| stored::RosterDenial { manifest_digest: release.as_bytes().to_vec(), reason })
            .collect(),
    }
}
