//! What each step does, and what must be seen for it.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::Value;

use super::coffee;
use super::failure::StepError;
use super::fleet::{Fleet, LOOK_PAUSE, WORKLOAD, is_online, runs, summary, workload};
use super::operator::{self, text};
use super::stage::Stage;
use super::story::Story;
use super::udp_proxy::UdpProxy;
use crate::client::api::access::v1::WhoAmIRequest;
use crate::client::api::device::v1::{Device, GetDeviceRequest, Presence};
use crate::client::api::enrolment::v1::CreateEnrolmentTokenRequest;
use crate::client::api::release::v1::GetReleaseRequest;
use crate::client::api::rollout::v1::{Plan, Rollout, RolloutCounts, RolloutState};
use crate::client::api::trust::v1::{DelegationRole, GetTrustRequest};
use crate::client::login::introduce;
use crate::client::{CallError, FleetClient, request_id};
use crate::output::Moment;

/// Devices of the demo.
pub(super) const DEVICES: usize = 3;
/// The label that tells which process a device is.
const PLACE: &str = "place";
/// The device that loses its link.
pub(super) const FAR: usize = DEVICES - 1;

/// A server that runs.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) sync_address: SocketAddr,
    pub(super) root_key_path: String,
    pub(super) client: FleetClient,
}

/// Starts a server, and gets to know it as an operator does.
pub(super) async fn serve(stage: &Stage, story: &Story<'_>) -> Result<Server, StepError> {
    let data = stage.path("server").display().to_string();
    let anywhere = "127.0.0.1:0";
    let arguments = ["--json", "serve", "--data", &data, "--api-address", anywhere, "--sync-address", anywhere];
    stage.start("server", &arguments)?;
    story.awaits("the server to say where it listens");
    let announcement = announcement(&stage.path("server.out")).await?;
    let said = |field| text(&announcement, field, "serve");
    let unsaid = |field| move || StepError::Unsaid { command: "serve".to_owned(), field };
    let api = said("apiAddress")?;
    let sync_address = said("syncAddress")?.parse().map_err(|_| unsaid("syncAddress")())?;
    let fleet = said("fleetId")?;
    let root_key_path = said("rootKeyPath")?.to_owned();
    story.tell(&format!("API at https://{api}, devices dial {sync_address}"));
    story.tell(&format!("fleet {fleet}; its root key lies in a file of its own"));

    // The server has logged in the operator of this directory; this is a token for us, from that operator.
    let token = operator::quietly(stage, &["access", "create", "demo", "--role", "admin"]).await?;
    let token = text(&token, "text", "access create")?.to_owned();
    let url = api.parse().map_err(|_| unsaid("apiAddress")())?;
    let introduction = introduce(&url, fleet.parse().map_err(|_| unsaid("fleetId")())?).await?;
    let client = FleetClient::connect(&introduction.target(Some(token))).await?;
    let me = client.who_am_i(WhoAmIRequest {}).await?.access_token.ok_or(CallError::Incomplete { field: "token" })?;
    story.tell(&format!("the server proved that it serves this fleet, and knows us as {:?}", me.name));
    Ok(Server { sync_address, root_key_path, client })
}

/// Waits for the line that a server prints when it is up.
async fn announcement(path: &Path) -> Result<Value, StepError> {
    loop {
        let text = tokio::fs::read_to_string(path).await.unwrap_or_default();
        // The last line may not be whole yet.
        if let Some((line, _)) = text.split_once('\n') {
            return serde_json::from_str(line)
                .map_err(|_| StepError::Unsaid { command: "serve".to_owned(), field: "announcement" });
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// The devices, in the order of their processes, and their links.
#[derive(Debug)]
pub(super) struct Devices {
    pub(super) devices: Vec<Device>,
    pub(super) links: Vec<UdpProxy>,
}

/// Names the process of a device, counted from 0.
pub(super) fn agent_name(number: usize) -> String {
    format!("agent-{}", number + 1)
}

/// Starts agents, each with a token of its own, and sees them join.
pub(super) async fn enrol(stage: &Stage, fleet: &Fleet<'_>, server: &Server) -> Result<Devices, StepError> {
    let mut links = Vec::new();
    for number in 0..DEVICES {
        let request = CreateEnrolmentTokenRequest {
            request_id: request_id(),
            note: "the demo's".to_owned(),
            labels: [(PLACE.to_owned(), number.to_string())].into(),
            uses_max: 1,
            ..CreateEnrolmentTokenRequest::default()
        };
        let token = fleet.client.create_enrolment_token(request).await?.text;
        let start = |source| StepError::Start { what: "a UDP proxy".to_owned(), source };
        let link = UdpProxy::start(server.sync_address).await.map_err(start)?;
        let name = agent_name(number);
        configure(stage, &name, Some(&token), link.address()).await?;
        start_agent(stage, &name)?;
        fleet.story.tell(&format!("{name} starts, and dials {}", link.address()));
        links.push(link);
    }
    let mut devices = fleet
        .until("three devices that are enrolled and online", |devices| {
            devices.iter().filter(|device| is_online(device)).count() == DEVICES
        })
        .await?;
    devices.sort_by_key(|device| device.labels.get(PLACE).cloned());
    for (number, device) in devices.iter().enumerate() {
        let platform = device.facts.as_ref().map_or("", |facts| facts.platform.as_str());
        fleet.story.tell(&format!("{} is {}, {platform}, key {}", agent_name(number), device.name, device.local_id));
    }
    Ok(Devices { devices, links })
}

/// Writes an agent's configuration file, in which `server` is the only way to the fleet.
pub(super) async fn configure(
    stage: &Stage,
    agent: &str,
    token: Option<&str>,
    server: SocketAddr,
) -> Result<(), StepError> {
    let directory = stage.path(agent);
    let mut lines = vec![
        ("data-directory", directory.join("data").display().to_string()),
        ("run-directory", directory.join("run").display().to_string()),
        ("log-level", "warn".to_owned()),
    ];
    lines.extend(token.map(|token| ("enroll-token", token.to_owned())));
    let mut text: String = lines.iter().map(|(key, value)| format!("{key} = {}\n", quoted(value))).collect();
    text.push_str(&format!("servers = [{}]\n", quoted(&server.to_string())));
    let path = directory.join("agent.toml");
    let write = async {
        tokio::fs::create_dir_all(&directory).await?;
        tokio::fs::write(&path, text).await
    };
    write.await.map_err(|source| StepError::File { path: path.clone(), verb: "written", source })
}

/// A text as TOML writes it.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// Starts an agent that has been configured.
pub(super) fn start_agent(stage: &Stage, agent: &str) -> Result<(), StepError> {
    let configuration = stage.path(agent).join("agent.toml").display().to_string();
    stage.start(agent, &["agent", "run", "--config", &configuration])
}

/// Makes a release key, and has root delegate it.
pub(super) async fn delegate(stage: &Stage, fleet: &Fleet<'_>, server: &Server) -> Result<(), StepError> {
    let made = operator::fleetd(stage, fleet.story, &["key", "create", "release.key"]).await?;
    let key = text(&made, "keyId", "key create")?;
    let root = &server.root_key_path;
    let arguments =
        ["trust", "delegate", "release.pub", "--role", "release", "--workload", WORKLOAD, "--root", root.as_str()];
    operator::fleetd(stage, fleet.story, &arguments).await?;
    let trust = fleet.client.get_trust(GetTrustRequest {}).await?.trust.unwrap_or_default();
    let found = trust.delegations.iter().find(|delegation| delegation.key_id == key);
    match found {
        Some(delegation) if delegation.role() == DelegationRole::Release && delegation.workloads == [WORKLOAD] => {
            fleet.story.tell(&format!("root record {}: {key} signs releases of {WORKLOAD}", trust.version));
            Ok(())
        }
        _ => Err(StepError::unexpected(format!("{key} to sign releases of {WORKLOAD}"), format!("{found:?}"))),
    }
}

/// Signs a version of the program and sends it.
pub(super) async fn push(stage: &Stage, fleet: &Fleet<'_>, version: &str) -> Result<(), StepError> {
    let file = coffee::write(stage.directory(), version).map_err(|source| StepError::File {
        path: stage.directory().to_owned(),
        verb: "written",
        source,
    })?;
    let release = format!("{WORKLOAD}@{version}");
    let artifact = ["release", "push", release.as_str(), "--artifact", file.as_str(), "--key", "release.key"];
    let arguments = [artifact.as_slice(), &["--grace", "2s", "--stop-grace", "2s"]].concat();
    operator::fleetd(stage, fleet.story, &arguments).await?;
    let request = GetReleaseRequest { workload: WORKLOAD.to_owned(), version: version.to_owned() };
    let release = fleet.client.get_release(request).await?.release.unwrap_or_default();
    if !release.complete {
        return Err(StepError::unexpected(format!("{WORKLOAD} {version} to be complete"), "that it is not"));
    }
    let signer = release.signed_manifest.map(|manifest| manifest.key_id).unwrap_or_default();
    fleet.story.tell(&format!("the server has {WORKLOAD} {version}, signed by {signer}"));
    Ok(())
}

/// Brings the first release to every device.
pub(super) async fn roll_out_first(fleet: &Fleet<'_>, version: &str) -> Result<(), StepError> {
    let plan = fleet.plan(version, 0).await?;
    expect_plan(&plan, "3 matched, 3 install", |counts| (counts.matched, counts.install) == (3, 3))?;
    let rollout = fleet.start(&plan).await?;
    expect_end(fleet, &rollout, RolloutState::Succeeded).await?;
    fleet.counts(&rollout.id, "3 healthy devices", |counts| counts.healthy == 3).await?;
    fleet
        .until(&format!("three devices that run {version}"), |devices| {
            devices.len() == DEVICES && devices.iter().all(|device| runs(device, version))
        })
        .await?;
    Ok(())
}

/// Cuts one device off, and sees the server notice.
pub(super) async fn cut(fleet: &Fleet<'_>, devices: &Devices) -> Result<(), StepError> {
    let (Some(device), Some(link)) = (devices.devices.get(FAR), devices.links.get(FAR)) else { return Ok(()) };
    link.cut();
    fleet.story.tell(&format!("the cable of {} is out", device.name));
    fleet.story.awaits(format!("{} to be offline", device.name));
    loop {
        let request = GetDeviceRequest { device: device.id.clone(), probe: true };
        let seen = fleet.client.get_device(request).await?.device.unwrap_or_default();
        if seen.presence() == Presence::Offline {
            break;
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    let others = fleet.devices().await?.iter().filter(|device| is_online(device)).count();
    if others != DEVICES - 1 {
        return Err(StepError::unexpected("the other two to be online", format!("{others} online")));
    }
    fleet.story.tell(&format!("the server asked {}, and heard nothing; the other two are online", device.name));
    Ok(())
}

/// Brings a release to those that can be reached.
pub(super) async fn roll_out_second(fleet: &Fleet<'_>, devices: &Devices, version: &str) -> Result<Rollout, StepError> {
    let plan = fleet.plan(version, 0).await?;
    expect_plan(&plan, "3 update, 1 of them offline", |counts| (counts.update, counts.offline) == (3, 1))?;
    let rollout = fleet.start(&plan).await?;
    expect_end(fleet, &rollout, RolloutState::Succeeded).await?;
    let is_so = |counts: &RolloutCounts| (counts.healthy, counts.waiting, counts.offline) == (2, 1, 1);
    let counts = fleet.counts(&rollout.id, "2 healthy devices and 1 offline", is_so).await?;
    let seen = fleet
        .until(&format!("two devices that run {version}"), |devices| {
            devices.iter().filter(|device| runs(device, version)).count() == DEVICES - 1
        })
        .await?;
    let far = devices.devices.get(FAR).map(|device| device.id.as_str());
    if let Some(device) = seen.iter().find(|device| Some(device.id.as_str()) == far) {
        let has = workload(device).actual_release;
        fleet.story.tell(&format!("{}; {} was last seen with {has}", summary(&counts), device.name));
    }
    Ok(rollout)
}

/// Gives the device its link again, and sees it follow.
pub(super) async fn converge(fleet: &Fleet<'_>, devices: &Devices, rollout: &Rollout) -> Result<(), StepError> {
    let (Some(device), Some(link)) = (devices.devices.get(FAR), devices.links.get(FAR)) else { return Ok(()) };
    link.heal();
    fleet.story.tell(&format!("the cable of {} is in", device.name));
    let awaited = format!("{} to be online and to run {}", device.name, rollout.version);
    fleet
        .until(&awaited, |seen| {
            seen.iter().any(|seen| seen.id == device.id && is_online(seen) && runs(seen, &rollout.version))
        })
        .await?;
    let counts = fleet.counts(&rollout.id, "3 healthy devices", |counts| counts.healthy == 3).await?;
    fleet.story.tell(&format!("{} runs {}; of the rollout {}", device.name, rollout.version, summary(&counts)));
    Ok(())
}

/// Brings a release that crashes, and sees every device go back.
pub(super) async fn roll_out_crashing(fleet: &Fleet<'_>, version: &str) -> Result<(), StepError> {
    // That every device goes back is what is to be seen: it must not halt at the first.
    let plan = fleet.plan(version, 3).await?;
    expect_plan(&plan, "3 update", |counts| counts.update == 3)?;
    let rollout = fleet.start(&plan).await?;
    expect_end(fleet, &rollout, RolloutState::Failed).await?;
    fleet.counts(&rollout.id, "3 restored devices", |counts| counts.restored == 3).await?;
    Ok(())
}

/// Sees every device run the release before, by what the API says and by what its program writes.
pub(super) async fn restored(fleet: &Fleet<'_>, version: &str) -> Result<(), StepError> {
    let since = Moment::now();
    let devices = fleet
        .until(&format!("three devices that run {version} again"), |devices| {
            devices.len() == DEVICES && devices.iter().all(|device| is_online(device) && runs(device, version))
        })
        .await?;
    for device in &devices {
        let workload = workload(device);
        let reason = if workload.reason.is_empty() { String::new() } else { format!(": {}", workload.reason) };
        fleet.story.tell(&format!("{} runs {}{reason}", device.name, workload.actual_release));
    }
    fleet.read_lines(&devices, Some(since), &coffee::mark(version), 2).await
}

fn expect_plan(
    plan: &Plan,
    expected: &str,
    is_so: impl Fn(&crate::client::api::rollout::v1::PlanCounts) -> bool,
) -> Result<(), StepError> {
    let counts = plan.counts.unwrap_or_default();
    if is_so(&counts) {
        Ok(())
    } else {
        Err(StepError::unexpected(format!("a plan with {expected}"), format!("{counts:?}")))
    }
}

async fn expect_end(fleet: &Fleet<'_>, rollout: &Rollout, expected: RolloutState) -> Result<(), StepError> {
    let end = fleet.watch(&rollout.id).await?;
    if end == expected {
        return Ok(());
    }
    let reason = fleet.rollout(&rollout.id).await?.reason;
    Err(StepError::unexpected(
        format!("{} to end as {}", rollout.id, expected.as_str_name()),
        format!("{} {reason}", end.as_str_name()),
    ))
}
