//! A rollout's flight recording, as a support bundle carries it. Whoever reads one takes it for what anybody may have
//! written.

use std::collections::BTreeSet;
use std::sync::Arc;

use fleetd_actors::flight::{FlightRecorder, Leg, Mark, Start, Step};
use fleetd_actors::report::WorkloadReport;
use fleetd_actors::rollout::plan::Plan;
use fleetd_actors::rollout::{Input, RunSnapshot, Snapshot, extent_max};
use fleetd_proto::fleetd::common::v1 as common;
use fleetd_proto::fleetd::record::v1 as stored;
use fleetd_sync_core::envelope::Value;
use fleetd_sync_core::id::{HoldId, LocalId, OperationId, RolloutId};
use fleetd_sync_core::time::{ClockQuality, Monotonic, Now, Wall};
use prost::Message as _;
use stored::report_field::Value as FieldValue;
use stored::rollout_input::Kind;

use super::rollout::{encode_progress, header_record, read_header, read_progress, read_standstill, standstill_record};
use super::{ReadRecordError, field, timestamp, wall};

/// Keeps a rollout's last steps.
pub type RolloutRecorder = FlightRecorder<Snapshot, Input>;

/// One rollout's last steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolloutFlight {
    /// The version of the program that recorded them.
    pub version: String,
    /// The rollout.
    pub rollout: RolloutId,
    /// Its legs, the oldest first.
    pub legs: Vec<Leg<Snapshot, Input>>,
}

/// The plans of a recording, each once: states and inputs name them by their place.
#[derive(Default)]
struct Plans(Vec<Arc<Plan>>);

impl Plans {
    fn place_of(&mut self, plan: &Arc<Plan>) -> u32 {
        let known = self.0.iter().position(|known| Arc::ptr_eq(known, plan) || known == plan);
        let place = known.unwrap_or_else(|| {
            self.0.push(Arc::clone(plan));
            self.0.len() - 1
        });
        u32::try_from(place).unwrap_or(u32::MAX)
    }

    fn at(&self, place: u32) -> Result<Arc<Plan>, ReadRecordError> {
        field(usize::try_from(place).ok().and_then(|place| self.0.get(place).cloned()), "plans")
    }
}

/// Writes a recording.
#[must_use]
pub fn encode_flight(flight: &RolloutFlight) -> Vec<u8> {
    let mut plans = Plans::default();
    let legs = flight.legs.iter().map(|one| encode_leg(one, &mut plans)).collect();
    let message = stored::RolloutFlightRecording {
        version: flight.version.clone(),
        rollout_id: flight.rollout.as_bytes().to_vec(),
        plans: plans.0.iter().map(|plan| plan.to_text()).collect(),
        legs,
    };
    message.encode_to_vec()
}

fn encode_leg(leg: &Leg<Snapshot, Input>, plans: &mut Plans) -> stored::RolloutFlightLeg {
    let start = match leg.start {
        Start::Loaded => stored::FlightStart::Unspecified,
        Start::Continued => stored::FlightStart::Continued,
        Start::Resumed => stored::FlightStart::Resumed,
    };
    stored::RolloutFlightLeg {
        start: start.into(),
        run: leg.state.run.as_ref().map(|run| encode_run(run, plans)),
        steps: leg.steps.iter().map(|one| encode_step(one, plans)).collect(),
    }
}

fn encode_run(run: &RunSnapshot, plans: &mut Plans) -> stored::RolloutRunState {
    let rollout = run.header.rollout;
    let ids = |devices: &mut dyn Iterator<Item = &LocalId>| devices.map(local).collect::<Vec<_>>();
    let deadlines = |deadlines: &mut dyn Iterator<Item = (&LocalId, &Monotonic)>| {
        let deadline = |(device, at): (&LocalId, &Monotonic)| (local(device), at.0);
        let deadline = |one| {
            let (local_id, at_ns) = deadline(one);
            stored::DeviceDeadline { local_id, at_ns }
        };
        deadlines.map(deadline).collect::<Vec<_>>()
    };
    let resent = |(device, count): (&LocalId, &u32)| stored::DeviceCount { local_id: local(device), count: *count };
    stored::RolloutRunState {
        rollout: Some(header_record(&run.header)),
        plan: plans.place_of(&run.plan),
        devices: run.devices.iter().map(|(device, progress)| encode_progress(rollout, *device, progress)).collect(),
        unsent: ids(&mut run.unsent.iter()),
        unasked: ids(&mut run.unasked.iter()),
        resend_at: deadlines(&mut run.resend_at.iter()),
        resends: run.resends.iter().map(resent).collect(),
        due_at: deadlines(&mut run.due_at.iter()),
        armed: run.is_armed,
        stage_due_ns: run.stage_due.map(|due| due.0),
    }
}

fn encode_step(step: &Step<Input>, plans: &mut Plans) -> stored::RolloutFlightStep {
    let quality = match step.now.quality {
        ClockQuality::None => common::ClockQuality::Unspecified,
        ClockQuality::Floor => common::ClockQuality::Floor,
        ClockQuality::Beacon => common::ClockQuality::Beacon,
        ClockQuality::Synced => common::ClockQuality::Synced,
    };
    let mark = step.mark.as_ref().map(|mark| stored::FlightMark {
        phase: mark.phase.to_string(),
        records: u32::try_from(mark.records).unwrap_or(u32::MAX),
        effects: u32::try_from(mark.effects).unwrap_or(u32::MAX),
        wakes_at_ns: mark.wakes_at.map(|at| at.0),
    });
    let input = step.input.as_ref().map(|one| stored::RolloutInput { kind: Some(encode_input(one, plans)) });
    let (monotonic_ns, wall_ms) = (step.now.monotonic.0, step.now.wall.0);
    stored::RolloutFlightStep { monotonic_ns, wall_ms, quality: quality.into(), input, mark }
}

fn encode_input(input: &Input, plans: &mut Plans) -> Kind {
    match input {
        Input::Start { operation, caller, plan } => Kind::Start(stored::StartRolloutInput {
            operation_id: operation.as_bytes().to_vec(),
            caller_id: caller.clone(),
            plan: plans.place_of(plan),
        }),
        Input::Abort { operation, reason } => {
            let operation_id = operation.as_bytes().to_vec();
            Kind::Abort(stored::AbortRolloutInput { operation_id, reason: reason.clone() })
        }
        Input::TakeBack { operation, reason } => {
            let operation_id = operation.as_bytes().to_vec();
            Kind::TakeBack(stored::AbortRolloutInput { operation_id, reason: reason.clone() })
        }
        Input::Supersede { operation, by, devices } => Kind::Supersede(stored::SupersedeRolloutInput {
            operation_id: operation.as_bytes().to_vec(),
            by_rollout_id: by.as_bytes().to_vec(),
            devices: devices.iter().map(local).collect(),
        }),
        Input::Pause { operation, reason } => {
            let operation_id = operation.as_bytes().to_vec();
            Kind::Pause(stored::PauseRolloutInput { operation_id, reason: reason.clone() })
        }
        Input::Resume { operation } => Kind::Resume(operation.as_bytes().to_vec()),
        Input::Approve { operation, wave } => {
            let operation_id = operation.as_bytes().to_vec();
            Kind::Approve(stored::ApproveRolloutInput { operation_id, wave: *wave })
        }
        Input::Ordered(standstill) => {
            Kind::Ordered(stored::OrderedInput { standstill: standstill.as_ref().map(standstill_record) })
        }
        Input::DeviceHeld { device, hold } => {
            Kind::Held(stored::HeldInput { local_id: local(device), hold_id: hold.as_bytes().to_vec() })
        }
        Input::DeviceLifted { device, is_held } => {
            Kind::Lifted(stored::LiftedInput { local_id: local(device), is_held: *is_held })
        }
        Input::DeviceAssigned { device } => Kind::Assigned(local(device)),
        Input::DeviceWithdrawn { device } => Kind::Withdrawn(local(device)),
        Input::DeviceAcknowledged { device, assigned } => Kind::Acknowledged(stored::AcknowledgedInput {
            local_id: local(device),
            rollout_id: assigned.map(|(rollout, _)| rollout.as_bytes().to_vec()).unwrap_or_default(),
            attempt: assigned.map_or(0, |(_, attempt)| attempt),
        }),
        Input::DeviceReported { device, report } => {
            let fields = report.fields().into_iter().filter_map(|(name, value)| encode_field(name, value?));
            Kind::Reported(stored::ReportedInput { local_id: local(device), fields: fields.collect() })
        }
        Input::DevicePresence { device, offline_since } => Kind::Presence(stored::PresenceInput {
            local_id: local(device),
            offline_since: offline_since.map(timestamp),
        }),
        Input::DeviceSuperseded { device, by } => {
            Kind::Superseded(stored::SupersededInput { local_id: local(device), by_rollout_id: by.as_bytes().to_vec() })
        }
        Input::DeviceGone { device } => Kind::Gone(local(device)),
    }
}

fn encode_field(name: &str, value: Value) -> Option<stored::ReportField> {
    let value = match value {
        Value::Text(text) => FieldValue::Text(text),
        Value::Bytes(content) => FieldValue::Content(content),
        Value::Integer(integer) => FieldValue::Integer(integer),
        // No field of a report has this kind.
        Value::Boolean(_) => return None,
    };
    Some(stored::ReportField { name: name.to_owned(), value: Some(value) })
}

fn local(device: &LocalId) -> Vec<u8> {
    device.as_bytes().to_vec()
}

/// Reads a recording.
///
/// # Errors
/// [`ReadRecordError`] when the bytes are none, or more than a recorder keeps.
pub fn decode_flight(bytes: &[u8]) -> Result<RolloutFlight, ReadRecordError> {
    let message = stored::RolloutFlightRecording::decode(bytes)?;
    let extent = extent_max();
    let steps = message.legs.iter().map(|leg| leg.steps.len()).sum::<usize>();
    if steps > extent.steps_max || message.legs.len() > extent.legs_max {
        return Err(ReadRecordError::Field { field: "legs" });
    }
    let rollout = field(RolloutId::from_slice(&message.rollout_id), "rollout_id")?;
    let plan = |text: &String| Plan::from_text(text).map(Arc::new).ok();
    let plans = message.plans.iter().map(|text| field(plan(text), "plans")).collect::<Result<_, _>>()?;
    let plans = Plans(plans);
    let legs = message.legs.into_iter().map(|leg| read_leg(leg, rollout, &plans)).collect::<Result<_, _>>()?;
    Ok(RolloutFlight { version: message.version, rollout, legs })
}

fn read_leg(
    leg: stored::RolloutFlightLeg,
    id: RolloutId,
    plans: &Plans,
) -> Result<Leg<Snapshot, Input>, ReadRecordError> {
    let start = match leg.start() {
        stored::FlightStart::Unspecified => Start::Loaded,
        stored::FlightStart::Continued => Start::Continued,
        stored::FlightStart::Resumed => Start::Resumed,
    };
    let run = leg.run.map(|run| read_run(run, id, plans)).transpose()?;
    let steps = leg.steps.into_iter().map(|step| read_step(step, plans)).collect::<Result<_, _>>()?;
    Ok(Leg { start, state: Snapshot { id, run }, steps })
}

fn read_run(run: stored::RolloutRunState, id: RolloutId, plans: &Plans) -> Result<RunSnapshot, ReadRecordError> {
    let header = read_header(field(run.rollout, "run.rollout")?)?;
    let plan = plans.at(run.plan)?;
    let deadline = |one: stored::DeviceDeadline| Ok((read_local(&one.local_id)?, Monotonic(one.at_ns)));
    let resent = |one: stored::DeviceCount| Ok((read_local(&one.local_id)?, one.count));
    let state = RunSnapshot {
        header,
        plan,
        devices: run.devices.iter().map(read_progress).collect::<Result<_, _>>()?,
        unsent: run.unsent.iter().map(|device| read_local(device)).collect::<Result<_, _>>()?,
        unasked: run.unasked.iter().map(|device| read_local(device)).collect::<Result<_, _>>()?,
        resend_at: run.resend_at.into_iter().map(deadline).collect::<Result<_, ReadRecordError>>()?,
        resends: run.resends.into_iter().map(resent).collect::<Result<_, ReadRecordError>>()?,
        due_at: run.due_at.into_iter().map(deadline).collect::<Result<_, ReadRecordError>>()?,
        is_armed: run.armed,
        stage_due: run.stage_due_ns.map(Monotonic),
    };
    // A machine asserts that it has the devices of its plan, and its own id.
    let planned: BTreeSet<LocalId> = state.plan.devices.iter().map(|device| device.local).collect();
    let are_planned = planned.len() == state.plan.devices.len() && planned.iter().eq(state.devices.keys());
    let is_wave = state.header.wave.number < state.plan.wave_count();
    field((are_planned && is_wave && state.header.rollout == id).then_some(state), "run.devices")
}

fn read_step(step: stored::RolloutFlightStep, plans: &Plans) -> Result<Step<Input>, ReadRecordError> {
    let quality = match step.quality() {
        common::ClockQuality::Unspecified => ClockQuality::None,
        common::ClockQuality::Floor => ClockQuality::Floor,
        common::ClockQuality::Beacon => ClockQuality::Beacon,
        common::ClockQuality::Synced => ClockQuality::Synced,
    };
    let now = Now { monotonic: Monotonic(step.monotonic_ns), wall: Wall(step.wall_ms), quality };
    let input = step.input.map(|input| read_input(field(input.kind, "input.kind")?, plans)).transpose()?;
    let mark = step.mark.map(|mark| Mark {
        phase: mark.phase.into(),
        records: usize::try_from(mark.records).unwrap_or(usize::MAX),
        effects: usize::try_from(mark.effects).unwrap_or(usize::MAX),
        wakes_at: mark.wakes_at_ns.map(Monotonic),
    });
    Ok(Step { now, input, mark })
}

fn read_input(kind: Kind, plans: &Plans) -> Result<Input, ReadRecordError> {
    let operation = |bytes: &[u8]| field(OperationId::from_slice(bytes), "operation_id");
    let rollout = |bytes: &[u8]| field(RolloutId::from_slice(bytes), "rollout_id");
    Ok(match kind {
        Kind::Start(start) => Input::Start {
            operation: operation(&start.operation_id)?,
            caller: start.caller_id,
            plan: plans.at(start.plan)?,
        },
        Kind::Abort(abort) => Input::Abort { operation: operation(&abort.operation_id)?, reason: abort.reason },
        Kind::TakeBack(asked) => Input::TakeBack { operation: operation(&asked.operation_id)?, reason: asked.reason },
        Kind::Supersede(asked) => Input::Supersede {
            operation: operation(&asked.operation_id)?,
            by: rollout(&asked.by_rollout_id)?,
            devices: Arc::new(asked.devices.iter().map(|device| read_local(device)).collect::<Result<_, _>>()?),
        },
        Kind::Pause(pause) => Input::Pause { operation: operation(&pause.operation_id)?, reason: pause.reason },
        Kind::Resume(asked) => Input::Resume { operation: operation(&asked)? },
        Kind::Approve(asked) => Input::Approve { operation: operation(&asked.operation_id)?, wave: asked.wave },
        Kind::Ordered(said) => Input::Ordered(said.standstill.map(read_standstill).transpose()?),
        Kind::Held(said) => Input::DeviceHeld {
            device: read_local(&said.local_id)?,
            hold: field(HoldId::from_slice(&said.hold_id), "hold_id")?,
        },
        Kind::Lifted(said) => Input::DeviceLifted { device: read_local(&said.local_id)?, is_held: said.is_held },
        Kind::Assigned(device) => Input::DeviceAssigned { device: read_local(&device)? },
        Kind::Withdrawn(device) => Input::DeviceWithdrawn { device: read_local(&device)? },
        Kind::Acknowledged(said) => {
            let assigned = match said.rollout_id.as_slice() {
                [] => None,
                bytes => Some((rollout(bytes)?, said.attempt)),
            };
            Input::DeviceAcknowledged { device: read_local(&said.local_id)?, assigned }
        }
        Kind::Reported(said) => {
            let mut report = Box::<WorkloadReport>::default();
            for one in said.fields {
                let value = match field(one.value, "report.value")? {
                    FieldValue::Text(text) => Value::Text(text),
                    FieldValue::Content(content) => Value::Bytes(content),
                    FieldValue::Integer(integer) => Value::Integer(integer),
                };
                report.read_field(&one.name, &value);
            }
            Input::DeviceReported { device: read_local(&said.local_id)?, report }
        }
        Kind::Presence(said) => Input::DevicePresence {
            device: read_local(&said.local_id)?,
            offline_since: said.offline_since.as_ref().map(wall),
        },
        Kind::Superseded(said) => {
            Input::DeviceSuperseded { device: read_local(&said.local_id)?, by: rollout(&said.by_rollout_id)? }
        }
        Kind::Gone(device) => Input::DeviceGone { device: read_local(&device)? },
    })
}

fn read_local(bytes: &[u8]) -> Result<LocalId, ReadRecordError> {
    field(LocalId::from_slice(bytes), "local_id")
}

#[cfg(test)]
mod tests;
