//! Invariant 7: a record is deleted at its origin only after it was stored, and is stored exactly once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fleetd_actors::log_record::{LogBatch, LogRecord};
use fleetd_actors::log_spool::SpoolRecord;
use fleetd_agent::record as agent_record;
use fleetd_agent::runner::line::LinePosition;
use fleetd_server::record as server_record;
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::session::{Class, LogPosition, LogStream, Message};
use fleetd_sync_store::state_store::{LogPart, StateStore};
use fleetd_sync_transport::frame;

use super::ledger::Part;
use super::{Broken, Fact, Inspector, Scene};
use crate::fleet::SERVER;
use crate::observation::Observation;
use crate::reference::log::Logs;

/// What the names of spools' logs begin with.
const SPOOL: &str = "spool.";
/// Bytes of a spool that are read at once.
const PAGE_BYTES: usize = 256 << 10;

/// What is known of one device's lines.
#[derive(Debug, Default)]
struct Device {
    /// Each line that a program wrote, and where in the runner's log.
    written: BTreeMap<Vec<u8>, LinePosition>,
    /// The lines that are durable in the spool, or were.
    spooled: BTreeSet<Vec<u8>>,
    /// The last line of the runner that is durable in the spool.
    read: Option<LinePosition>,
    /// Each entry of the spool's log: whose records it has, and the last of their numbers.
    entries: BTreeMap<u64, (LogStream, u64)>,
    /// Whether its store was set back: what it had acknowledged to the runner may be gone.
    is_set_back: bool,
}

/// Follows each line from its program to the server's store.
#[derive(Debug, Default)]
pub(super) struct LogChecker {
    logs: Logs,
    devices: BTreeMap<Arc<str>, Device>,
    /// Devices that send what they never spooled, and streams of theirs: what is stored of them harms nobody else.
    hostile: BTreeSet<Arc<str>>,
    foreign: BTreeSet<LogStream>,
}

impl LogChecker {
    fn device(&mut self, node: &Arc<str>) -> &mut Device {
        self.devices.entry(Arc::clone(node)).or_default()
    }

    /// A device hands an entry to its spool.
    fn on_spooling(&mut self, node: &Arc<str>, sequence: u64, spooled: (LogStream, LogBatch)) -> Result<(), Broken> {
        let (stream, batch) = spooled;
        let Some(last) = batch.sequence_last() else {
            return Broken::on(node, "it spools a batch without records");
        };
        if let Err(why) = self.logs.spool(&stream, &batch) {
            return Broken::on(node, why);
        }
        self.device(node).entries.insert(sequence, (stream, last));
        Ok(())
    }

    /// An entry of a spool is durable: each of its lines was written, and was not spooled before, and none between.
    fn on_spooled(&mut self, scene: &Scene<'_>, node: &Arc<str>, batch: LogBatch) -> Result<(), Broken> {
        let device = self.device(node);
        for record in batch.records {
            let LogRecord::Line(line) = record else {
                device.read = None;
                continue;
            };
            let Some(at) = device.written.get(&line.body).copied() else {
                return Broken::on(node, "it spooled a line that no program wrote");
            };
            if !device.spooled.insert(line.body) && !device.is_set_back {
                return Broken::on(node, format!("it spooled line {} of {:?} twice", at.sequence, at.stamp));
            }
            if let Some(before) = device.read.filter(|before| before.stamp == at.stamp)
                && at.sequence != before.sequence + 1
                && !device.is_set_back
            {
                let seen = format!("line {} was spooled after {}, and no gap between", at.sequence, before.sequence);
                return Broken::on(node, seen);
            }
            device.read = Some(at);
        }
        scene.marks.reach("a line was spooled");
        Ok(())
    }

    /// A runner was told that it may drop lines: they are durable in the spool.
    fn on_released(&mut self, node: &Arc<str>, through: LinePosition) -> Result<(), Broken> {
        let device = self.device(node);
        let is_lost = |(body, at): (&Vec<u8>, &LinePosition)| {
            at.stamp == through.stamp && at.sequence <= through.sequence && !device.spooled.contains(body)
        };
        let is_durable = !device.written.iter().any(is_lost);
        // What became durable without an answer is in the store all the same.
        if is_durable || device.is_set_back {
            return Ok(());
        }
        Broken::on(node, format!("it let lines up to {} go before they were durable", through.sequence))
    }

    fn on_forgotten(&mut self, scene: &Scene<'_>, node: &Arc<str>, through: u64) -> Result<(), Broken> {
        let device = self.devices.entry(Arc::clone(node)).or_default();
        let kept = device.entries.split_off(&(through + 1));
        let gone = std::mem::replace(&mut device.entries, kept);
        let spools = scene.ledger.node(node).map(|held| &held.spools);
        for (entry, (stream, last)) in gone {
            let stored = self.logs.stored_ever(&stream);
            let spool = spools.and_then(|spools| spools.get(&stream.workload));
            let is_gap = spool.is_some_and(|spool| {
                spool.gaps.iter().any(|gap| gap.stream == stream && gap.first <= last && last <= gap.last)
            });
            if last > stored && !is_gap {
                let seen = format!("it forgot entry {entry} up to number {last}, of which {stored} are stored");
                return Broken::on(node, seen);
            }
        }
        scene.marks.reach("acknowledged lines were dropped");
        Ok(())
    }

    fn on_spool(&self, node: &Arc<str>, record: &SpoolRecord) -> Result<(), Broken> {
        for position in &record.streams {
            let stored = self.logs.stored_ever(&position.stream);
            if position.acked > stored {
                let acked = position.acked;
                return Broken::on(node, format!("it takes number {acked} for stored, and {stored} are"));
            }
        }
        Ok(())
    }

    fn on_stored(&mut self, scene: &Scene<'_>, node: &Arc<str>, stored: (LogStream, LogBatch)) -> Result<(), Broken> {
        let (stream, batch) = stored;
        for record in &batch.records {
            if matches!(record, LogRecord::Gap { .. }) {
                scene.marks.reach("a gap stands for lines that are gone");
            }
        }
        if self.foreign.contains(&stream) {
            return Ok(());
        }
        self.logs.store(&stream, &batch).or_else(|why| Broken::on(node, why))
    }

    fn on_sent(&self, scene: &Scene<'_>, node: &Arc<str>, bytes: &[u8]) -> Result<(), Broken> {
        let Ok(Some(Message::LogAck(LogPosition { stream, sequence }))) = frame::decode(bytes) else { return Ok(()) };
        let stored = self.logs.stored_through(&stream);
        if sequence > stored && !self.foreign.contains(&stream) {
            return Broken::on(node, format!("it acknowledges number {sequence}, and {stored} are durable"));
        }
        scene.marks.reach("lines were acknowledged");
        Ok(())
    }

    fn on_opened(&mut self, scene: &Scene<'_>, node: &Arc<str>) {
        if &**node != SERVER {
            let found = super::store_of(scene.fleet, node).map(|store| spooled_in(&*store)).unwrap_or_default();
            let device = self.device(node);
            device.read = None;
            // Power may fail after lines became durable and before the store has said so.
            device.spooled.extend(found);
            return;
        }
        let mut positions = BTreeMap::new();
        for device in &scene.fleet.devices {
            let stored = server_record::log::positions(&*scene.fleet.server.store, device.local());
            positions.extend(stored.unwrap_or_default().into_iter().map(|at| (at.stream, at.sequence)));
        }
        self.logs.reopen(&positions);
    }

    fn on_appended(
        &mut self,
        scene: &Scene<'_>,
        node: &Arc<str>,
        part: (&str, u64, &[u8]),
        is_durable: bool,
    ) -> Result<(), Broken> {
        let (log, sequence, entry) = part;
        if &**node == SERVER {
            let Ok(stored) = server_record::log::decode_entry(entry) else {
                return Broken::on(node, format!("entry {sequence} of {log} is none"));
            };
            let device = log.split('.').next().and_then(|local| scene.ledger.name(local.parse().ok()?));
            if device.is_some_and(|device| self.hostile.contains(device)) {
                self.foreign.insert(stored.0.clone());
            }
            return if is_durable { self.on_stored(scene, node, stored) } else { Ok(()) };
        }
        let spooled = workload_of(log).and_then(|workload| agent_record::decode_spool_entry(&workload, entry));
        let Some(spooled) = spooled else { return Broken::on(node, format!("entry {sequence} of {log} is none")) };
        if is_durable { self.on_spooled(scene, node, spooled.1) } else { self.on_spooling(node, sequence, spooled) }
    }
}

/// The lines that lie in a device's spools.
fn spooled_in(store: &dyn StateStore) -> BTreeSet<Vec<u8>> {
    let mut lines = BTreeSet::new();
    for log in store.list_logs(SPOOL, None, usize::MAX).unwrap_or_default() {
        let (Some(workload), Ok(Some((mut from, last)))) = (workload_of(&log), store.log_range(&log)) else { continue };
        while from <= last {
            let parts = store.read_log(&log, from, PAGE_BYTES).unwrap_or_default();
            let before = from;
            for part in parts {
                match part {
                    LogPart::Entry { sequence, entry } => {
                        let spooled = agent_record::decode_spool_entry(&workload, &entry);
                        let records = spooled.map(|(_, batch)| batch.records).unwrap_or_default();
                        lines.extend(records.into_iter().filter_map(|record| match record {
                            LogRecord::Line(line) => Some(line.body),
                            LogRecord::Gap { .. } => None,
                        }));
                        from = sequence.saturating_add(1);
                    }
                    LogPart::Gap { last, .. } => from = last.saturating_add(1),
                }
            }
            if from == before {
                break;
            }
        }
    }
    lines
}

/// The workload of a spool's log.
fn workload_of(log: &str) -> Option<WorkloadName> {
    log.strip_prefix(SPOOL)?.parse().ok()
}

impl Inspector for LogChecker {
    fn invariant(&self) -> u8 {
        7
    }

    fn name(&self) -> &'static str {
        "logs"
    }

    fn learn(&mut self, scene: &Scene<'_>, node: &Arc<str>, fact: Fact<'_>) -> Result<(), Broken> {
        let is_clone = scene.ledger.local(node).is_none() && &**node != SERVER;
        if is_clone || self.hostile.contains(node) {
            return Ok(());
        }
        match fact {
            Fact::Seen(Observation::Hostile { node } | Observation::Cloned { node }) => {
                self.hostile.insert(Arc::clone(node));
                Ok(())
            }
            Fact::Submitted(Part::Appended { log, sequence, entry }) => {
                self.on_appended(scene, node, (log, *sequence, entry), false)
            }
            Fact::Stored(Part::Appended { log, sequence, entry }) => {
                self.on_appended(scene, node, (log, *sequence, entry), true)
            }
            Fact::Stored(Part::Forgotten { log, through }) if workload_of(log).is_some() => {
                self.on_forgotten(scene, node, *through)
            }
            Fact::Stored(Part::Spool { record, .. }) => self.on_spool(node, record),
            Fact::Seen(Observation::Sent { class: Class::Logs, frame, .. }) if &**node == SERVER => {
                self.on_sent(scene, node, frame)
            }
            Fact::Seen(Observation::Wrote { at, body, .. }) => {
                self.device(node).written.insert(body.to_vec(), *at);
                Ok(())
            }
            Fact::Seen(Observation::Released { through, .. }) => self.on_released(node, *through),
            Fact::Seen(Observation::Restored { .. }) => {
                let device = self.device(node);
                device.is_set_back = true;
                device.entries.clear();
                Ok(())
            }
            Fact::Opened => {
                self.on_opened(scene, node);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
