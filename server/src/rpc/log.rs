//! `LogService`: gives the lines that devices sent, from the past and as they come.

mod reader;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;

use fleetd_actors::targeting::{Matcher, Targets};
use fleetd_proto::fleetd::log::v1 as log;
use fleetd_proto::fleetd::log::v1::log_service_server::LogService;
use fleetd_sync_core::commit::Space;
use fleetd_sync_core::id::LocalId;
use fleetd_sync_core::limit::TAIL_LINES_MAX;
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::time::Wall;
use fleetd_sync_store::state_store::{Change, Changed, KeyRange};
use tonic::{Request, Response, Status};

use self::reader::{LogReader, Place, ReadRecord, read_places, write_places};
use super::backend::Backend;
use super::call_error::{CallError, optional};
use super::convert::log::Origin;
use super::convert::{self, targets};
use super::follower::{Follower, Messages, Outlet, StreamEnd, stream};
use crate::driver::LogStoreKey;
use crate::record::log::log_name;
use crate::record::wall;

/// Logs of a reader whose places stand in every token. Of more they stand in one of [`TOKEN_EVERY`].
const PLACES_ALWAYS_MAX: usize = 4;
/// Entries from one token to the next where many logs are read: so many may be repeated after a lost connection.
const TOKEN_EVERY: u64 = 128;
/// Logs of one device that are listed at once.
const LOGS_PAGE: usize = 256;

super::service!(
    /// Gives the lines that devices sent.
    Logs
);

#[tonic::async_trait]
impl LogService for Logs {
    type ReadLogsStream = Messages<log::ReadLogsResponse>;

    async fn read_logs(
        &self,
        request: Request<log::ReadLogsRequest>,
    ) -> Result<Response<Self::ReadLogsStream>, Status> {
        let asked = request.into_inner();
        let targets = targets::read(&self.backend, asked.targets.as_ref())?;
        if asked.tail_lines > TAIL_LINES_MAX {
            let cause = format!("{} lines; there may be {TAIL_LINES_MAX}", asked.tail_lines);
            return Err(CallError::Invalid { field: "tail_lines", cause }.into());
        }
        let named = match &targets {
            Targets::All => BTreeSet::new(),
            Targets::Some(chosen) => {
                chosen.devices.iter().map(|device| self.backend.find_device(device)).collect::<Result<_, _>>()?
            }
        };
        let reading = Reading {
            backend: Arc::clone(&self.backend),
            workload: optional(&asked.workload, "workload")?,
            since: asked.since.as_ref().map(wall),
            tail_lines: usize::try_from(asked.tail_lines).unwrap_or(usize::MAX),
            places: read_places(&asked.resume_token)?,
            is_resumed: !asked.resume_token.is_empty(),
            targets,
            named,
            devices: BTreeMap::new(),
            readers: BTreeMap::new(),
            given: 0,
        };
        Ok(Response::new(stream(|outlet| reading.run(asked.follow, outlet))))
    }
}

/// One caller's reading of logs.
struct Reading {
    backend: Arc<Backend>,
    targets: Targets,
    named: BTreeSet<LocalId>,
    workload: Option<WorkloadName>,
    since: Option<Wall>,
    tail_lines: usize,
    /// Where the caller was when its connection was lost.
    places: BTreeMap<String, Place>,
    is_resumed: bool,
    /// The devices that are meant; `None` for those that were looked at and are not.
    devices: BTreeMap<LocalId, Option<Origin>>,
    readers: BTreeMap<String, LogReader>,
    given: u64,
}

impl Reading {
    async fn run(mut self, follow: bool, outlet: Outlet<log::ReadLogsResponse>) -> Result<(), StreamEnd> {
        let store = Arc::clone(&self.backend.shared().seams.store);
        let mut follower = Follower::start(store);
        self.find_devices()?;
        self.find_logs(true)?;
        if !follow && !self.is_resumed {
            self.require_workload()?;
        }
        self.give_past(&outlet).await?;
        if !follow {
            return Ok(());
        }
        loop {
            match outlet.next_changes(&mut follower).await? {
                Ok(changes) if !self.concerns(&changes)? => continue,
                Ok(_) => {}
                Err(_) => {
                    self.find_devices()?;
                    self.find_logs(false)?;
                }
            }
            while let Some(read) = self.next()? {
                self.give(read, &outlet).await?;
            }
        }
    }

    /// Refuses a workload that none of the devices has: its name is misspelt. A follower may wait for one to come.
    fn require_workload(&self) -> Result<(), CallError> {
        let Some(workload) = &self.workload else { return Ok(()) };
        let (mut devices, mut known) = (Vec::new(), BTreeSet::new());
        for (local, origin) in &self.devices {
            if let Some(origin) = origin {
                devices.push(origin.device_name.clone());
                known.append(&mut convert::device::workloads(&self.backend.device_record(*local)?.0));
            }
        }
        // A log may have outlived what the device says of its workload.
        if devices.is_empty() || !self.readers.is_empty() || known.contains(workload) {
            return Ok(());
        }
        Err(CallError::UnknownWorkload { devices, workload: workload.clone(), known })
    }

    /// Gives what is there now: all of it, or the last lines.
    async fn give_past(&mut self, outlet: &Outlet<log::ReadLogsResponse>) -> Result<(), StreamEnd> {
        let is_tail = self.tail_lines > 0 && !self.is_resumed;
        let mut last = VecDeque::new();
        while let Some(read) = self.next()? {
            if !is_tail {
                self.give(read, outlet).await?;
                continue;
            }
            if last.len() == self.tail_lines {
                last.pop_front();
            }
            last.push_back(read);
        }
        for read in last {
            self.give(read, outlet).await?;
        }
        Ok(())
    }

    async fn give(&mut self, read: ReadRecord, outlet: &Outlet<log::ReadLogsResponse>) -> Result<(), StreamEnd> {
        if let Some(reader) = self.readers.get_mut(&read.log) {
            reader.given = read.place;
        }
        self.given += 1;
        let has_token = self.readers.len() <= PLACES_ALWAYS_MAX || self.given.is_multiple_of(TOKEN_EVERY);
        let resume_token = if has_token {
            write_places(self.readers.iter().map(|(name, reader)| (name.as_str(), reader.given)))
        } else {
            String::new()
        };
        Ok(outlet.send(log::ReadLogsResponse { entry: Some(read.entry), resume_token }).await?)
    }

    /// The next record of all logs by its time, in each log by its order.
    fn next(&mut self) -> Result<Option<ReadRecord>, StreamEnd> {
        loop {
            let mut earliest: Option<(Wall, &mut LogReader)> = None;
            for reader in self.readers.values_mut() {
                if let Some(at) = reader.peek(self.backend.store())?
                    && earliest.as_ref().is_none_or(|(earliest, _)| at < *earliest)
                {
                    earliest = Some((at, reader));
                }
            }
            let Some((at, reader)) = earliest else { return Ok(None) };
            let read = reader.take();
            if self.since.is_none_or(|since| at >= since) {
                return Ok(read);
            }
        }
    }

    /// Says whether changes have brought new entries, after taking up new logs.
    fn concerns(&mut self, changes: &[Change]) -> Result<bool, CallError> {
        let mut has_more = false;
        for change in changes {
            match &change.changed {
                Changed::Appended { log, .. } => has_more |= self.readers.contains_key(log) || self.take_up(log)?,
                Changed::Record { space: Space::Device, key, .. } => {
                    if let Some(local) = LocalId::from_slice(key) {
                        self.look_at(local)?;
                    }
                }
                Changed::Record { .. } | Changed::Forgotten { .. } => {}
            }
        }
        Ok(has_more)
    }

    /// Finds the devices that are meant.
    fn find_devices(&mut self) -> Result<(), CallError> {
        let mut locals = Vec::new();
        if matches!(&self.targets, Targets::Some(chosen) if chosen.is_listed() && chosen.groups.is_empty()) {
            locals.extend(self.named.iter().copied());
        } else {
            self.backend.store().visit(Space::Device, KeyRange::all(), &mut |key, _| {
                locals.extend(LocalId::from_slice(key));
                ControlFlow::Continue(())
            })?;
        }
        locals.into_iter().try_for_each(|local| self.look_at(local))
    }

    /// Decides once whether a device is meant.
    fn look_at(&mut self, local: LocalId) -> Result<(), CallError> {
        if self.devices.contains_key(&local) {
            return Ok(());
        }
        let (device, _) = self.backend.device_record(local)?;
        let connection = self.backend.shared().connections.of_device(local).map(|(_, connection)| connection);
        let is_meant =
            self.named.contains(&local) || targets::matches(&Matcher::new(&self.targets), &device, connection.as_ref());
        let origin = Origin { device_id: device.device.to_string(), device_name: device.name.to_string() };
        self.devices.insert(local, is_meant.then_some(origin));
        Ok(())
    }

    /// Takes up every log of the devices that are meant.
    fn find_logs(&mut self, is_first: bool) -> Result<(), CallError> {
        let meant: Vec<LocalId> =
            self.devices.iter().filter(|(_, origin)| origin.is_some()).map(|(local, _)| *local).collect();
        for local in meant {
            let prefix = format!("{local}.");
            let mut after: Option<String> = None;
            loop {
                let names = self.backend.store().list_logs(&prefix, after.as_deref(), LOGS_PAGE)?;
                for name in &names {
                    self.take_up(name)?;
                }
                match names.last() {
                    Some(last) if names.len() == LOGS_PAGE => after = Some(last.clone()),
                    _ => break,
                }
            }
        }
        if is_first && self.tail_lines > 0 && !self.is_resumed {
            for reader in self.readers.values_mut() {
                reader.skip_to_last(self.backend.store(), self.tail_lines)?;
            }
        }
        Ok(())
    }

    /// Takes up one log, if it is of a device and a workload that are meant.
    fn take_up(&mut self, name: &str) -> Result<bool, CallError> {
        if self.readers.contains_key(name) {
            return Ok(true);
        }
        let Some((local, workload)) = name.split_once('.') else { return Ok(false) };
        let (Ok(local), Ok(workload)) = (local.parse::<LocalId>(), workload.parse::<WorkloadName>()) else {
            return Ok(false);
        };
        if self.workload.as_ref().is_some_and(|asked| *asked != workload) {
            return Ok(false);
        }
        let Some(Some(origin)) = self.devices.get(&local) else { return Ok(false) };
        let key = LogStoreKey { device: local, workload };
        let place = self.places.get(name).copied().unwrap_or_default();
        self.readers.insert(log_name(&key), LogReader::new(key, origin.clone(), place));
        Ok(true)
    }
}
