//! What operators ask of one device.

use std::collections::BTreeMap;

use fleetd_sync_core::id::{ConnectionId, HoldId, OperationId};
use fleetd_sync_core::limit;
use fleetd_sync_core::name::{DeviceName, LabelKey, LabelValue, WorkloadName};
use fleetd_sync_core::resolve::Run;
use fleetd_sync_core::time::{Now, Wall};

use super::record::{DeviceRecord, HoldRow, Membership, Pin};
use super::{Device, DeviceTurn, Effect, room, wanted};

/// What an operator asks of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Change its labels.
    Label {
        /// Labels to set.
        set: BTreeMap<LabelKey, LabelValue>,
        /// Labels to take away.
        remove: Vec<LabelKey>,
    },
    /// Call it something else; the caller has made sure that the name is free.
    Rename(DeviceName),
    /// Start or stop a workload, until told otherwise.
    Run {
        /// Which.
        workload: WorkloadName,
        /// Whether it should run.
        run: Run,
        /// Why, for people.
        reason: String,
    },
    /// Start a workload anew.
    Restart {
        /// Which.
        workload: WorkloadName,
    },
    /// Stop all changes of a workload, or of all of them.
    Hold {
        /// The hold's id.
        hold: HoldId,
        /// Which workload; all without one.
        workload: Option<WorkloadName>,
        /// Why, for people.
        reason: String,
    },
    /// End a hold.
    Lift {
        /// Which.
        hold: HoldId,
    },
    /// Keep a workload from any version but one.
    Pin {
        /// Which.
        workload: WorkloadName,
        /// The version, and why.
        pin: Pin,
    },
    /// Let a workload have any version again.
    Unpin {
        /// Which.
        workload: WorkloadName,
    },
    /// Say that a recovered device is of the fleet as before.
    Approve,
    /// Revoke its key: it never comes back.
    Revoke {
        /// Why, for people.
        reason: String,
    },
    /// Say whether it answers now.
    Probe,
    /// Say what is known of it now.
    Look,
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The device's record after it.
    pub record: Box<DeviceRecord>,
    /// Its connection, if it is connected.
    pub connection: Option<ConnectionId>,
    /// Whether a probe was answered in time.
    pub is_present: bool,
}

/// Why a command is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// There is no such device.
    #[error("there is no such device")]
    Unknown,
    /// Its key is revoked.
    #[error("the device is revoked: nothing can be asked of it any more")]
    Revoked,
    /// It came back after its record was lost, and nobody has approved it.
    #[error("the device came back after its record was lost, and waits for an operator's word")]
    Recovered,
    /// It waits for no word.
    #[error("the device waits for no operator's word")]
    NotRecovered,
    /// It was never given that workload.
    #[error("the device has no workload {workload}")]
    NoWorkload {
        /// The workload.
        workload: WorkloadName,
    },
    /// There is no such hold.
    #[error("the device has no hold {hold}")]
    NoHold {
        /// The hold.
        hold: HoldId,
    },
    /// Its holds would take more room than they may.
    #[error("the holds on the device would take {bytes} bytes, the limit is {bytes_max}")]
    Holds {
        /// What they would take.
        bytes: usize,
        /// What they may take.
        bytes_max: usize,
    },
    /// The workload is not pinned.
    #[error("{workload} is not pinned there")]
    NotPinned {
        /// The workload.
        workload: WorkloadName,
    },
    /// It would have too many labels.
    #[error("the device would have {labels} labels, the limit is {labels_max}")]
    Labels {
        /// How many it would have.
        labels: usize,
        /// How many it may have.
        labels_max: usize,
    },
}

impl Device {
    pub(super) fn on_command(
        &mut self,
        now: Now,
        operation: OperationId,
        caller: &str,
        command: Command,
        turn: &mut DeviceTurn,
    ) {
        if command == Command::Probe && self.probe(now, operation, turn) {
            return; // Answered when the device does, or does not.
        }
        let is_look = matches!(command, Command::Probe | Command::Look);
        let result = self.obey(now.wall, caller, command, turn);
        if result.is_ok() && !is_look {
            self.persist_record(turn);
            self.mint(now, turn);
        }
        self.answer(operation, result, turn);
    }

    pub(super) fn answer(&self, operation: OperationId, result: Result<bool, CommandError>, turn: &mut DeviceTurn) {
        let connection = self.serving.as_ref().map(|serving| serving.connection);
        let result = match (result, &self.record) {
            (Ok(is_present), Some(record)) => Ok(Answer { record: Box::new(record.clone()), connection, is_present }),
            (Ok(_), None) => Err(CommandError::Unknown),
            (Err(error), _) => Err(error),
        };
        turn.effect(Effect::Answer { operation, result });
    }

    /// Changes the record as the command says.
    fn obey(&mut self, at: Wall, caller: &str, command: Command, turn: &mut DeviceTurn) -> Result<bool, CommandError> {
        let is_connected = self.serving.is_some();
        let record = self.record.as_mut().ok_or(CommandError::Unknown)?;
        if matches!(command, Command::Look | Command::Probe) {
            return Ok(is_connected && command == Command::Look);
        }
        if record.membership == Membership::Revoked {
            return Err(CommandError::Revoked);
        }
        if record.membership == Membership::Recovered && command.is_wish() {
            return Err(CommandError::Recovered);
        }
        match command {
            Command::Label { set, remove } => label(record, at, caller, set, &remove)?,
            Command::Rename(name) => {
                let message = format!("renamed from {} to {name}", record.name);
                record.name = name;
                record.note(at, "renamed", None, message, caller);
            }
            Command::Run { workload, run, reason } => set_run(record, at, caller, &workload, run, &reason)?,
            Command::Restart { workload } => {
                require(record, &workload)?;
                wanted::count_restart(&mut record.wanted, &workload);
                let message = format!("{workload} should be started anew");
                record.note(at, "restart", Some(&workload), message, caller);
            }
            Command::Hold { hold, workload, reason } => place_hold(record, at, caller, hold, workload, reason)?,
            Command::Lift { hold } => {
                let row = record.holds.remove(&hold).ok_or(CommandError::NoHold { hold })?;
                wanted::lift(&mut record.wanted, hold, row.workload.as_ref());
                let message = format!("the hold {hold} was lifted");
                record.note(at, "lifted", row.workload.as_ref(), message, caller);
            }
            Command::Pin { workload, pin } => {
                record.note(at, "pinned", Some(&workload), format!("{workload} is {}", pin.sentence()), caller);
                record.pins.insert(workload, pin);
            }
            Command::Unpin { workload } => {
                let pin = record.pins.remove(&workload);
                let pin = pin.ok_or_else(|| CommandError::NotPinned { workload: workload.clone() })?;
                let message = format!("{workload} is not pinned at {} any more", pin.version);
                record.note(at, "unpinned", Some(&workload), message, caller);
            }
            Command::Approve => approve(record, at, caller)?,
            Command::Revoke { reason } => {
                record.membership = Membership::Revoked;
                record.note(at, "revoked", None, format!("its key was revoked: {reason}"), caller);
                turn.effect(Effect::RevokeKey { device: self.local });
            }
            Command::Probe | Command::Look => {}
        }
        Ok(is_connected)
    }
}

impl Command {
    /// Says whether the device itself is to do something.
    const fn is_wish(&self) -> bool {
        matches!(self, Self::Run { .. } | Self::Restart { .. } | Self::Hold { .. } | Self::Lift { .. })
    }
}

fn approve(record: &mut DeviceRecord, at: Wall, caller: &str) -> Result<(), CommandError> {
    if record.membership != Membership::Recovered {
        return Err(CommandError::NotRecovered);
    }
    record.membership = Membership::Enrolled;
    record.note(at, "approved", None, "an operator approved it, after its record was lost".to_owned(), caller);
    Ok(())
}

fn label(
    record: &mut DeviceRecord,
    at: Wall,
    caller: &str,
    set: BTreeMap<LabelKey, LabelValue>,
    remove: &[LabelKey],
) -> Result<(), CommandError> {
    let mut labels = record.labels.clone();
    labels.retain(|key, _| !remove.contains(key));
    labels.extend(set);
    if labels.len() > limit::DEVICE_LABELS_MAX {
        return Err(CommandError::Labels { labels: labels.len(), labels_max: limit::DEVICE_LABELS_MAX });
    }
    record.labels = labels;
    record.note(at, "labelled", None, "its labels were changed".to_owned(), caller);
    Ok(())
}

fn set_run(
    record: &mut DeviceRecord,
    at: Wall,
    caller: &str,
    workload: &WorkloadName,
    run: Run,
    reason: &str,
) -> Result<(), CommandError> {
    require(record, workload)?;
    wanted::set_run(&mut record.wanted, workload, run);
    let (kind, message) = match run {
        Run::Running => ("start", format!("{workload} should run")),
        Run::Stopped if reason.is_empty() => ("stop", format!("{workload} should not run")),
        Run::Stopped => ("stop", format!("{workload} should not run: {reason}")),
    };
    record.note(at, kind, Some(workload), message, caller);
    Ok(())
}

fn place_hold(
    record: &mut DeviceRecord,
    at: Wall,
    caller: &str,
    hold: HoldId,
    workload: Option<WorkloadName>,
    reason: String,
) -> Result<(), CommandError> {
    let mut rows = record.wanted.clone();
    wanted::hold(&mut rows, hold, workload.as_ref(), &reason);
    // What rollouts hold has the other half of the room.
    record.holds.iter().filter(|(_, row)| row.is_of_rollout()).for_each(|(hold, row)| {
        wanted::lift(&mut rows, *hold, row.workload.as_ref());
    });
    let (bytes, bytes_max) = (room::hold_bytes(&rows), limit::OPERATOR_HOLDS_BYTES_MAX);
    if bytes > bytes_max {
        return Err(CommandError::Holds { bytes, bytes_max });
    }
    wanted::hold(&mut record.wanted, hold, workload.as_ref(), &reason);
    record.note(at, "held", workload.as_ref(), format!("held ({hold}): {reason}"), caller);
    record.holds.insert(hold, HoldRow { workload, reason, created_by: caller.to_owned(), created_at: at });
    Ok(())
}

fn require(record: &DeviceRecord, workload: &WorkloadName) -> Result<(), CommandError> {
    let is_known =
        record.reports.contains_key(workload) || wanted::assigned_release(&record.wanted, workload).is_some();
    if is_known { Ok(()) } else { Err(CommandError::NoWorkload { workload: workload.clone() }) }
}
