//! `device`: the devices of the fleet.

pub mod view;

use clap::{Args, Subcommand};
use fleetd_proto::fleetd::device::v1::{
    self as device, ExplainDeviceRequest, GetDeviceRequest, HoldDeviceRequest, LiftHoldRequest, ListDevicesRequest,
    PinWorkloadRequest, RenameDeviceRequest, RestartWorkloadRequest, RevokeDeviceRequest, StartWorkloadRequest,
    StopWorkloadRequest, UnpinWorkloadRequest, UpdateLabelsRequest, WatchDevicesRequest,
};
use serde_json::json;

use super::value::{self, DeviceWorkload, Place, ReleaseName};
use super::{Session, login};
use crate::client::json::json as message_json;
use crate::client::request_id;
use crate::client::watch::Told;
use crate::confirm::Confirm;
use crate::error::CommandError;
use crate::exit::Exit;
use crate::output::Moment;

/// The devices of the fleet.
#[derive(Debug, Subcommand)]
pub enum Device {
    /// List devices in the order of their names
    List(List),
    /// Show one device
    Show(Show),
    /// Say why a device is as it is
    Why(Why),
    /// Follow devices as they change
    Watch(Watch),
    /// Set labels (KEY=VALUE) and take them off (KEY-)
    Label(Label),
    /// Give a device another name
    Rename(Rename),
    /// Start a workload that was stopped
    Start(Start),
    /// Stop a workload; it stays stopped across reboots
    Stop(Stop),
    /// Stop a workload and start it again
    Restart(Restart),
    /// Keep a device, or one of its workloads, as it is
    Hold(Hold),
    /// End a hold
    Lift(Lift),
    /// Keep a workload from every version but one
    Pin(Pin),
    /// Let a workload have any version again
    Unpin(Unpin),
    /// Refuse a device's key for ever
    Revoke(Revoke),
}

/// List devices in the order of their names.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd device list
  fleetd device list -l 'shop=7,channel in (stable, beta)'
  fleetd device list --where 'facts.memory_bytes >= 536870912 && site != \"lab\"'
  fleetd device list --offline --json | jq -r '.devices[].name'")]
pub struct List {
    /// Only devices with these labels
    #[arg(long, short = 'l', value_parser = value::selector)]
    pub selector: Option<String>,
    /// Only devices of which this holds, in CEL: `facts.memory_bytes >= 536870912`; with a selector, both must
    #[arg(long = "where", value_name = "CONDITION", value_parser = value::condition)]
    pub condition: Option<String>,
    /// The devices of a group, besides those that are asked for otherwise (repeat for more)
    #[arg(long, short = 'g', value_name = "GROUP")]
    pub group: Vec<String>,
    /// A device by name or id, besides those that are asked for otherwise (repeat for more)
    #[arg(long, short = 'd', value_name = "DEVICE")]
    pub device: Vec<String>,
    /// Only devices that can be reached
    #[arg(long, conflicts_with = "offline")]
    pub online: bool,
    /// Only devices that cannot be reached
    #[arg(long)]
    pub offline: bool,
    /// Also those that are revoked, retired or denied
    #[arg(long)]
    pub ended: bool,
}

/// Show one device.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd device show brisk-otter
  fleetd device show brisk-otter --probe --json | jq -r .presence")]
pub struct Show {
    /// The device, by name or id
    pub device: String,
    /// Ask the device itself whether it is there, for up to three seconds
    #[arg(long)]
    pub probe: bool,
}

/// Say why a device is as it is.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd device why brisk-otter
  fleetd device why brisk-otter/coffee --events 10")]
pub struct Why {
    /// The device, by name or id, and one of its workloads
    #[arg(value_name = "DEVICE[/WORKLOAD]")]
    pub place: Place,
    /// At most so many events
    #[arg(long, default_value_t = 20, value_name = "COUNT")]
    pub events: u32,
}

/// Follow devices as they change.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd device watch
  fleetd device watch brisk-otter calm-fox
  fleetd device watch -l shop=7 --json")]
pub struct Watch {
    /// Devices, by name or id; all that match the selector when left out
    pub devices: Vec<String>,
    /// Only devices with these labels
    #[arg(long, short = 'l', value_parser = value::selector)]
    pub selector: Option<String>,
}

/// Set labels and take them off.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd device label brisk-otter shop=7 channel=stable
  fleetd device label brisk-otter channel-")]
pub struct Label {
    /// The device, by name or id
    pub device: String,
    /// KEY=VALUE sets a label, KEY- takes it off
    #[arg(required = true, value_name = "KEY=VALUE|KEY-")]
    pub changes: Vec<String>,
}

/// Give a device another name.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd device rename brisk-otter till-3")]
pub struct Rename {
    /// The device, by name or id
    pub device: String,
    /// The new name
    pub name: String,
}

/// Start a workload that was stopped.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd device start brisk-otter/coffee")]
pub struct Start {
    /// The device and its workload
    #[arg(value_name = "DEVICE/WORKLOAD")]
    pub place: DeviceWorkload,
}

/// Stop a workload; it stays stopped across reboots.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd device stop brisk-otter/coffee --reason 'boiler is being cleaned'")]
pub struct Stop {
    /// The device and its workload
    #[arg(value_name = "DEVICE/WORKLOAD")]
    pub place: DeviceWorkload,
    /// Why, for those who look later
    #[arg(long, default_value = "", hide_default_value = true)]
    pub reason: String,
}

/// Stop a workload and start it again.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd device restart brisk-otter/coffee")]
pub struct Restart {
    /// The device and its workload
    #[arg(value_name = "DEVICE/WORKLOAD")]
    pub place: DeviceWorkload,
}

/// Keep a device, or one of its workloads, as it is.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd device hold brisk-otter --reason 'trade fair until Friday'
  fleetd device hold brisk-otter/coffee")]
pub struct Hold {
    /// The device, by name or id, and one of its workloads
    #[arg(value_name = "DEVICE[/WORKLOAD]")]
    pub place: Place,
    /// Why, for those who look later
    #[arg(long, default_value = "", hide_default_value = true)]
    pub reason: String,
}

/// End a hold.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd device lift brisk-otter hld_3f5h7k9n1q3s5v7x")]
pub struct Lift {
    /// The device, by name or id
    pub device: String,
    /// The hold's id (`hld_…`), as `device show` names it
    pub hold: String,
}

/// Keep a workload from every version but one. What runs goes on; the pin installs nothing.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd device pin brisk-otter coffee@1.7.0 --reason 'certified with it until June'")]
pub struct Pin {
    /// The device, by name or id
    pub device: String,
    /// The version that it may have
    #[arg(value_name = "WORKLOAD@VERSION")]
    pub release: ReleaseName,
    /// Why, for those who look later
    #[arg(long, default_value = "", hide_default_value = true)]
    pub reason: String,
}

/// Let a workload have any version again.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd device unpin brisk-otter coffee")]
pub struct Unpin {
    /// The device, by name or id
    pub device: String,
    /// The workload
    pub workload: String,
}

/// Refuse a device's key for ever.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd device revoke brisk-otter --reason stolen --yes")]
pub struct Revoke {
    /// The device, by name or id
    pub device: String,
    /// Why, for those who look later
    #[arg(long, default_value = "", hide_default_value = true)]
    pub reason: String,
    /// The answer beforehand.
    #[command(flatten)]
    pub confirm: Confirm,
}

impl Device {
    /// Runs the command.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        match self {
            Self::List(command) => command.run(session).await,
            Self::Show(command) => command.run(session).await,
            Self::Why(command) => command.run(session).await,
            Self::Watch(command) => command.run(session).await,
            Self::Label(command) => command.run(session).await,
            Self::Rename(command) => command.run(session).await,
            Self::Start(command) => command.run(session).await,
            Self::Stop(command) => command.run(session).await,
            Self::Restart(command) => command.run(session).await,
            Self::Hold(command) => command.run(session).await,
            Self::Lift(command) => command.run(session).await,
            Self::Pin(command) => command.run(session).await,
            Self::Unpin(command) => command.run(session).await,
            Self::Revoke(command) => command.run(session).await,
        }
    }
}

/// Answers with a device and one line about what was done to it.
fn done(session: &Session<'_>, device: Option<device::Device>, what: &str) -> Result<(), CommandError> {
    let device = login::need(device, "device")?;
    session.output.answer(&message_json(&device), || {
        let online = device.presence == i32::from(device::Presence::Online);
        let later = if online { "" } else { "; it cannot be reached now, and follows when it is next heard" };
        format!("{}: {what}{later}", device.name)
    })
}

impl List {
    async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let presence = match (self.online, self.offline) {
            (true, _) => device::Presence::Online,
            (_, true) => device::Presence::Offline,
            _ => device::Presence::Unspecified,
        };
        let request = ListDevicesRequest {
            selector: self.selector.unwrap_or_default(),
            presence: presence.into(),
            include_ended: self.ended,
            condition: self.condition.unwrap_or_default(),
            groups: self.group,
            devices: self.device,
            ..Default::default()
        };
        let devices = session.client().await?.all_devices(request).await?;
        let object = json!({ "devices": devices.iter().map(message_json).collect::<Vec<_>>() });
        session.output.answer(&object, || view::devices(&devices, Moment::now()))
    }
}

impl Show {
    async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let request = GetDeviceRequest { device: self.device, probe: self.probe };
        let answer = session.client().await?.get_device(request).await?;
        let device = login::need(answer.device, "device")?;
        session.output.answer(&message_json(&device), || view::device(&device, Moment::now()))
    }
}

impl Why {
    async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let request =
            ExplainDeviceRequest { device: self.place.device, workload: self.place.workload, events_max: self.events };
        let answer = session.client().await?.explain_device(request).await?;
        let explanation = login::need(answer.explanation, "explanation")?;
        session.output.answer(&message_json(&explanation), || view::explanation(&explanation, Moment::now()))
    }
}

impl Watch {
    async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let client = session.client().await?;
        let request = WatchDevicesRequest {
            selector: self.selector.unwrap_or_default(),
            devices: self.devices,
            ..Default::default()
        };
        let mut watch = client.follow(request);
        loop {
            match watch.next().await? {
                Told::Entry(entry) if session.output.is_json() => {
                    session.output.answer(&message_json(&entry), String::new)?;
                }
                Told::Entry(entry) => {
                    if let Some(line) = view::change(&entry, Moment::now()) {
                        session.output.answer(&serde_json::Value::Null, || line)?;
                    }
                }
                Told::Lost(error) => session.output.note(&format!("{error}; connecting again")),
                Told::End => return Ok(()),
            }
        }
    }
}

impl Label {
    async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let mut request = UpdateLabelsRequest { request_id: request_id(), device: self.device, ..Default::default() };
        for change in &self.changes {
            if let Some(key) = change.strip_suffix('-').filter(|key| !key.contains('=')) {
                request.remove.push(key.to_owned());
                continue;
            }
            let (key, value) = value::label(change).map_err(|error| {
                CommandError::new("usage", "this is neither KEY=VALUE nor KEY-").caused_by(&error).exit(Exit::Usage)
            })?;
            request.set.insert(key, value);
        }
        let device = session.client().await?.update_labels(request).await?.device;
        let labels = device.as_ref().map(|device| super::wording::labels(&device.labels)).unwrap_or_default();
        done_now(session, device, &format!("labels are {labels}"))
    }
}

/// Answers with a device that the server itself has changed.
fn done_now(session: &Session<'_>, device: Option<device::Device>, what: &str) -> Result<(), CommandError> {
    let device = login::need(device, "device")?;
    session.output.answer(&message_json(&device), || format!("{}: {what}", device.name))
}

impl Rename {
    async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let request = RenameDeviceRequest { request_id: request_id(), device: self.device.clone(), name: self.name };
        let device = session.client().await?.rename_device(request).await?.device;
        done_now(session, device, &format!("was {}", self.device))
    }
}

impl Start {
    async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let DeviceWorkload { device, workload } = self.place;
        let request = StartWorkloadRequest { request_id: request_id(), device, workload: workload.clone() };
        let device = session.client().await?.start_workload(request).await?.device;
        done(session, device, &format!("{workload} is to start"))
    }
}

impl Stop {
    async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let DeviceWorkload { device, workload } = self.place;
        let request =
            StopWorkloadRequest { request_id: request_id(), device, workload: workload.clone(), reason: self.reason };
        let device = session.client().await?.stop_workload(request).await?.device;
        done(session, device, &format!("{workload} is to stop, and stays stopped until `fleetd device start`"))
    }
}

impl Restart {
    async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let DeviceWorkload { device, workload } = self.place;
        let request = RestartWorkloadRequest { request_id: request_id(), device, workload: workload.clone() };
        let device = session.client().await?.restart_workload(request).await?.device;
        done(session, device, &format!("{workload} is to restart"))
    }
}

impl Hold {
    async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let Place { device, workload } = self.place;
        let request =
            HoldDeviceRequest { request_id: request_id(), device: device.clone(), workload, reason: self.reason };
        let answer = session.client().await?.hold_device(request).await?;
        let hold = login::need(answer.hold, "hold")?;
        session.output.answer(&message_json(&hold), || {
            format!("{device} is held as it is\nend it: fleetd device lift {device} {}", hold.id)
        })
    }
}

impl Lift {
    async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let request = LiftHoldRequest { request_id: request_id(), device: self.device, hold_id: self.hold.clone() };
        let device = session.client().await?.lift_hold(request).await?.device;
        done_now(session, device, &format!("{} is lifted", self.hold))
    }
}

impl Pin {
    async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let (workload, version) = (self.release.workload.to_string(), self.release.version.to_string());
        let what = format!("{workload} is pinned at {version}");
        let request = PinWorkloadRequest {
            request_id: request_id(),
            device: self.device,
            workload,
            version,
            reason: self.reason,
        };
        done_now(session, session.client().await?.pin_workload(request).await?.device, &what)
    }
}

impl Unpin {
    async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let what = format!("{} may have any version", self.workload);
        let request = UnpinWorkloadRequest { request_id: request_id(), device: self.device, workload: self.workload };
        done_now(session, session.client().await?.unpin_workload(request).await?.device, &what)
    }
}

impl Revoke {
    async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let what = format!("revoke {}: its key is refused for ever, and what runs there is out of reach", self.device);
        self.confirm.ask(session.output, &what)?;
        let request =
            RevokeDeviceRequest { request_id: request_id(), device: self.device.clone(), reason: self.reason };
        let device = session.client().await?.revoke_device(request).await?.device;
        done_now(session, device, "is revoked")
    }
}
