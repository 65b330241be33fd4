//! `DeviceService`: shows devices, says why they are as they are, and stops or starts what runs on them.

mod watch;

use std::collections::BTreeMap;

use fleetd_actors::device::command::Command;
use fleetd_actors::device::record::{DeviceRecord, Membership, Pin};
use fleetd_actors::targeting::{Matcher, Targets};
use fleetd_proto::fleetd::device::v1 as device;
use fleetd_proto::fleetd::device::v1::Presence;
use fleetd_proto::fleetd::device::v1::device_service_server::DeviceService;
use fleetd_sync_core::commit::Space;
use fleetd_sync_core::envelope::DocumentId;
use fleetd_sync_core::id::{HoldId, KeyId, LocalId};
use fleetd_sync_core::name::{DeviceName, WorkloadName};
use fleetd_sync_core::replica::document_prefix;
use fleetd_sync_core::resolve::Run;
use fleetd_sync_core::trust::Standing;
use fleetd_sync_store::state_store::KeyRange;
use prost::{Message, Name};
use tonic::{Request, Response, Status};

use super::backend::caller;
use super::call_error::{CallError, optional, parsed, reason};
use super::convert::explanation::{Looked, summary};
use super::convert::{self, targets};
use super::follower::Messages;
use super::page::{decode_token, encode_token, page_size};
use super::request_log::Kept;
use crate::edge::authenticate::Caller;
use crate::receipt::with_more;
use crate::record::timestamp;

/// Events of an explanation when the caller does not say.
const EVENTS: usize = 50;
/// Devices that are looked at between two of a page that match.
const INDEX_PAGE: usize = 256;

super::service!(
    /// Shows devices, and passes on what operators want of them.
    Devices
);

/// Which devices of a list are meant.
struct Filter {
    targets: Targets,
    presence: Presence,
    include_ended: bool,
}

impl Devices {
    /// Lets a device's actor obey a command, and shows the device after it.
    async fn obey<Q: Message + Name>(
        &self,
        caller: &Caller,
        (request_id, named): (&str, &str),
        asked: &Q,
        command: impl FnOnce() -> Result<Command, CallError>,
    ) -> Result<device::Device, Status> {
        let obeyed = async {
            let local = self.backend.find_device(named)?;
            self.backend.ask_device(local, caller, command()?).await?;
            self.backend.show_device(local)
        };
        let again = || self.backend.show_device(self.backend.find_device(named)?);
        Ok(self.backend.once_or((caller, Kept::Whole), request_id, asked, obeyed, again).await?.into_inner())
    }

    /// Reads a device if it is one of those that are meant.
    fn matching(&self, local: LocalId, filter: &Filter) -> Result<Option<device::Device>, CallError> {
        let (record, revision) = self.backend.device_record(local)?;
        if record.membership == Membership::Revoked && !filter.include_ended {
            return Ok(None);
        }
        let connection = self.backend.shared().connections.of_device(local).map(|(_, connection)| connection);
        if !targets::matches(&Matcher::new(&filter.targets), &record, connection.as_ref()) {
            return Ok(None);
        }
        let shown = self.backend.show_record(&record, revision);
        let is_meant = filter.presence == Presence::Unspecified || shown.presence() == filter.presence;
        Ok(is_meant.then_some(shown))
    }

    /// What a device runs of keys that are compromised.
    fn compromised(&self, record: &DeviceRecord) -> Result<BTreeMap<WorkloadName, KeyId>, CallError> {
        let trust = self.backend.shared().trust();
        let mut found = BTreeMap::new();
        for (workload, report) in &record.reports {
            let Some(version) = &report.release else { continue };
            let Some(stored) = self.backend.catalog.release(workload, version)? else { continue };
            let key = stored.signed.key();
            let standing = trust.roster.release_key(key, workload).map(|(_, standing)| standing);
            if matches!(standing, Some(Standing::Compromised | Standing::Stopped)) {
                found.insert(workload.clone(), key);
            }
        }
        Ok(found)
    }

    fn explain(&self, asked: &device::ExplainDeviceRequest) -> Result<device::Explanation, CallError> {
        let local = self.backend.find_device(&asked.device)?;
        let workload: Option<WorkloadName> = optional(&asked.workload, "workload")?;
        let (record, revision) = self.backend.device_record(local)?;
        let connection = self.backend.shared().connections.of_device(local).map(|(_, connection)| connection);
        if let Some(workload) = &workload
            && !convert::device::workloads(&record).contains(workload)
        {
            let (devices, known) = (vec![record.name.to_string()], convert::device::workloads(&record));
            return Err(CallError::UnknownWorkload { devices, workload: workload.clone(), known });
        }
        let orders = self.backend.shared().orders();
        let (connection_of, workload_of) = (connection.as_ref(), workload.as_ref());
        let compromised = self.compromised(&record)?;
        let looked = Looked {
            record: &record,
            connection: connection_of,
            workload: workload_of,
            orders: &orders,
            compromised: &compromised,
        };
        let events_max = match usize::try_from(asked.events_max) {
            Ok(0) | Err(_) => EVENTS,
            Ok(events_max) => events_max,
        };
        let reasons = looked.reasons();
        Ok(device::Explanation {
            device: Some(self.backend.show_record(&record, revision)),
            summary: summary(&reasons),
            events: looked.events(events_max),
            reasons,
            // Certificates are not kept: a device shows one with each connection.
            certificate: connection.as_ref().map(|connection| device::DeviceCertificate {
                not_after: Some(timestamp(connection.certificate_not_after)),
                ..device::DeviceCertificate::default()
            }),
            connected_at: connection.as_ref().map(|connection| timestamp(connection.since)),
            address: connection.as_ref().map(|connection| connection.address.to_string()).unwrap_or_default(),
            // A device that is connected has been sent every root record.
            trust_version: connection.map_or(0, |_| self.backend.shared().trust().chain.version()),
            lanes: self.lanes(local)?,
        })
    }

    /// How far a device's lanes are known: the last envelope of each that is stored.
    fn lanes(&self, local: LocalId) -> Result<Vec<device::LaneHead>, CallError> {
        let mut heads: Vec<device::LaneHead> = Vec::new();
        for (name, document) in [("desired", DocumentId::Desired(local)), ("actual", DocumentId::Actual(local))] {
            let prefix = document_prefix(document);
            self.backend.visit(Space::Envelope, KeyRange::prefix(&prefix), |key, _, _| {
                let Some(head) = key.get(prefix.len()..).and_then(|rest| lane_head(name, rest)) else { return Ok(()) };
                // Keys of one lane are in the order of their positions: the last one stays.
                heads.retain(|known| (known.document.as_str(), &known.lane) != (name, &head.lane));
                heads.push(head);
                Ok(())
            })?;
        }
        Ok(heads)
    }

    /// Probes a device, and then shows it.
    async fn probe(&self, caller: &Caller, local: LocalId) -> Result<device::Device, CallError> {
        let answer = self.backend.ask_device(local, caller, Command::Probe).await?;
        let mut shown = self.backend.show_device(local)?;
        if !answer.is_present && shown.presence() == Presence::Online {
            // Its connection has yet to be given up, but nobody answers on it.
            shown.presence = Presence::Offline.into();
        }
        Ok(shown)
    }
}

/// Reads the end of an envelope's key: lane, epoch, stamp and number.
fn lane_head(document: &str, key: &[u8]) -> Option<device::LaneHead> {
    let (lane, position) = key.split_at_checked(KeyId::LENGTH)?;
    let (numbers, []) = position.as_chunks::<8>() else { return None };
    let [epoch, stamp, seq] = numbers else { return None };
    Some(device::LaneHead {
        document: document.to_owned(),
        lane: KeyId::from_slice(lane)?.to_string(),
        epoch: u64::from_be_bytes(*epoch),
        stamp: u64::from_be_bytes(*stamp),
        seq: u64::from_be_bytes(*seq),
        parked: String::new(),
    })
}

#[tonic::async_trait]
impl DeviceService for Devices {
    async fn list_devices(
        &self,
        request: Request<device::ListDevicesRequest>,
    ) -> Result<Response<device::ListDevicesResponse>, Status> {
        let asked = request.into_inner();
        let size = page_size(asked.page_size)?;
        let filter = Filter {
            targets: targets::filter(
                &self.backend,
                (&asked.selector, &asked.condition),
                &asked.groups,
                &asked.devices,
            )?,
            presence: asked.presence(),
            include_ended: asked.include_ended,
        };
        let mut place = decode_token(&asked.page_token, "page_token")?.map(|token| read_place(&token)).transpose()?;
        let (mut devices, mut next_page_token) = (Vec::new(), String::new());
        'pages: loop {
            let candidates = self.backend.index.by_name(place.clone(), INDEX_PAGE).map_err(CallError::from)?;
            let is_last = candidates.len() < INDEX_PAGE;
            for candidate in candidates {
                if let Some(shown) = self.matching(candidate.1, &filter)? {
                    if devices.len() == size {
                        next_page_token = place.as_ref().map(write_place).unwrap_or_default();
                        break 'pages;
                    }
                    devices.push(shown);
                    place = Some(candidate);
                }
            }
            if is_last {
                break;
            }
        }
        Ok(Response::new(device::ListDevicesResponse { devices, next_page_token }))
    }

    async fn get_device(
        &self,
        request: Request<device::GetDeviceRequest>,
    ) -> Result<Response<device::GetDeviceResponse>, Status> {
        let caller = caller(&request)?;
        let asked = request.into_inner();
        let local = self.backend.find_device(&asked.device)?;
        let shown = if asked.probe { self.probe(&caller, local).await? } else { self.backend.show_device(local)? };
        Ok(Response::new(device::GetDeviceResponse { device: Some(shown) }))
    }

    async fn explain_device(
        &self,
        request: Request<device::ExplainDeviceRequest>,
    ) -> Result<Response<device::ExplainDeviceResponse>, Status> {
        let explanation = Some(self.explain(request.get_ref())?);
        Ok(Response::new(device::ExplainDeviceResponse { explanation }))
    }

    type WatchDevicesStream = Messages<device::WatchDevicesResponse>;

    async fn watch_devices(
        &self,
        request: Request<device::WatchDevicesRequest>,
    ) -> Result<Response<Self::WatchDevicesStream>, Status> {
        Ok(Response::new(watch::watch(self.clone(), &request.into_inner())?))
    }

    async fn update_labels(
        &self,
        request: Request<device::UpdateLabelsRequest>,
    ) -> Result<Response<device::UpdateLabelsResponse>, Status> {
        let caller = caller(&request)?;
        let asked = request.into_inner();
        let command = || {
            if asked.set.is_empty() && asked.remove.is_empty() {
                return Err(CallError::Missing { field: "set" });
            }
            let set = convert::device::labels(&asked.set, "set")?;
            let remove = asked.remove.iter().map(|key| convert::device::label_key(key, "remove"));
            Ok(Command::Label { set, remove: remove.collect::<Result<_, _>>()? })
        };
        let device = Some(self.obey(&caller, (&asked.request_id, &asked.device), &asked, command).await?);
        Ok(Response::new(device::UpdateLabelsResponse { device }))
    }

    async fn rename_device(
        &self,
        request: Request<device::RenameDeviceRequest>,
    ) -> Result<Response<device::RenameDeviceResponse>, Status> {
        let caller = caller(&request)?;
        let asked = request.into_inner();
        let renamed = async {
            let name: DeviceName = parsed(&asked.name, "name")?;
            let _turn = self.backend.naming.lock().await;
            let local = self.backend.find_device(&asked.device)?;
            let fence = self.backend.fence_name(&name)?;
            self.backend.require_free(&name, local)?;
            let is_its_own = self.backend.device_record(local)?.0.name == name;
            let asking = self.backend.ask_device(local, &caller, Command::Rename(name.clone()));
            // A device writes its own name again with each of its records: that is no other bearer.
            let answer = if is_its_own { asking.await } else { with_more(fence, asking).await };
            if matches!(answer, Err(CallError::TimedOut)) {
                self.backend.require_free(&name, local)?;
            }
            answer?;
            Ok(device::RenameDeviceResponse { device: Some(self.backend.show_device(local)?) })
        };
        // By its former name it is found no more.
        let again = || {
            let found = self.backend.find_device(&asked.name).or_else(|_| self.backend.find_device(&asked.device))?;
            Ok(device::RenameDeviceResponse { device: Some(self.backend.show_device(found)?) })
        };
        self.backend.once_or((&caller, Kept::Whole), &asked.request_id, &asked, renamed, again).await
    }

    async fn start_workload(
        &self,
        request: Request<device::StartWorkloadRequest>,
    ) -> Result<Response<device::StartWorkloadResponse>, Status> {
        let caller = caller(&request)?;
        let asked = request.into_inner();
        let command = || {
            let workload = parsed(&asked.workload, "workload")?;
            Ok(Command::Run { workload, run: Run::Running, reason: String::new() })
        };
        let device = Some(self.obey(&caller, (&asked.request_id, &asked.device), &asked, command).await?);
        Ok(Response::new(device::StartWorkloadResponse { device }))
    }

    async fn stop_workload(
        &self,
        request: Request<device::StopWorkloadRequest>,
    ) -> Result<Response<device::StopWorkloadResponse>, Status> {
        let caller = caller(&request)?;
        let asked = request.into_inner();
        let command = || {
            let workload = parsed(&asked.workload, "workload")?;
            Ok(Command::Run { workload, run: Run::Stopped, reason: reason(&asked.reason)? })
        };
        let device = Some(self.obey(&caller, (&asked.request_id, &asked.device), &asked, command).await?);
        Ok(Response::new(device::StopWorkloadResponse { device }))
    }

    async fn restart_workload(
        &self,
        request: Request<device::RestartWorkloadRequest>,
    ) -> Result<Response<device::RestartWorkloadResponse>, Status> {
        let caller = caller(&request)?;
        let asked = request.into_inner();
        let command = || Ok(Command::Restart { workload: parsed(&asked.workload, "workload")? });
        let device = Some(self.obey(&caller, (&asked.request_id, &asked.device), &asked, command).await?);
        Ok(Response::new(device::RestartWorkloadResponse { device }))
    }

    async fn hold_device(
        &self,
        request: Request<device::HoldDeviceRequest>,
    ) -> Result<Response<device::HoldDeviceResponse>, Status> {
        let caller = caller(&request)?;
        let asked = request.into_inner();
        let held = async {
            let local = self.backend.find_device(&asked.device)?;
            let hold = HoldId::random(&mut self.backend.shared().entropy());
            let workload = optional(&asked.workload, "workload")?;
            let command = Command::Hold { hold, workload, reason: reason(&asked.reason)? };
            let answer = self.backend.ask_device(local, &caller, command).await?;
            let row = answer.record.holds.get(&hold);
            Ok(device::HoldDeviceResponse { hold: row.map(|row| convert::device::hold(hold, row)) })
        };
        self.backend.once((&caller, Kept::Whole), &asked.request_id, &asked, held).await
    }

    async fn lift_hold(
        &self,
        request: Request<device::LiftHoldRequest>,
    ) -> Result<Response<device::LiftHoldResponse>, Status> {
        let caller = caller(&request)?;
        let asked = request.into_inner();
        let command = || Ok(Command::Lift { hold: parsed(&asked.hold_id, "hold_id")? });
        let device = Some(self.obey(&caller, (&asked.request_id, &asked.device), &asked, command).await?);
        Ok(Response::new(device::LiftHoldResponse { device }))
    }

    async fn revoke_device(
        &self,
        request: Request<device::RevokeDeviceRequest>,
    ) -> Result<Response<device::RevokeDeviceResponse>, Status> {
        let caller = caller(&request)?;
        let asked = request.into_inner();
        let command = || Ok(Command::Revoke { reason: reason(&asked.reason)? });
        let device = Some(self.obey(&caller, (&asked.request_id, &asked.device), &asked, command).await?);
        Ok(Response::new(device::RevokeDeviceResponse { device }))
    }

    async fn pin_workload(
        &self,
        request: Request<device::PinWorkloadRequest>,
    ) -> Result<Response<device::PinWorkloadResponse>, Status> {
        let caller = caller(&request)?;
        let asked = request.into_inner();
        let command = || {
            let workload = parsed(&asked.workload, "workload")?;
            let pin = Pin {
                version: parsed(&asked.version, "version")?,
                hold: HoldId::random(&mut self.backend.shared().entropy()),
                reason: reason(&asked.reason)?,
                created_by: caller.id.to_string(),
                created_at: self.backend.now(),
            };
            Ok(Command::Pin { workload, pin })
        };
        let device = Some(self.obey(&caller, (&asked.request_id, &asked.device), &asked, command).await?);
        Ok(Response::new(device::PinWorkloadResponse { device }))
    }

    async fn unpin_workload(
        &self,
        request: Request<device::UnpinWorkloadRequest>,
    ) -> Result<Response<device::UnpinWorkloadResponse>, Status> {
        let caller = caller(&request)?;
        let asked = request.into_inner();
        let command = || Ok(Command::Unpin { workload: parsed(&asked.workload, "workload")? });
        let device = Some(self.obey(&caller, (&asked.request_id, &asked.device), &asked, command).await?);
        Ok(Response::new(device::UnpinWorkloadResponse { device }))
    }
}

fn write_place((name, local): &(DeviceName, LocalId)) -> String {
    encode_token(&[local.as_bytes().as_slice(), name.as_str().as_bytes()].concat())
}

fn read_place(token: &[u8]) -> Result<(DeviceName, LocalId), CallError> {
    let (local, name) = token.split_at_checked(LocalId::LENGTH).unwrap_or_default();
    let name = std::str::from_utf8(name).ok().and_then(|name| name.parse().ok());
    let invalid =
        || CallError::Invalid { field: "page_token", cause: "it is no place in a list of devices".to_owned() };
    Ok((name.ok_or_else(invalid)?, LocalId::from_slice(local).ok_or_else(invalid)?))
}
