//! `group`: devices that are meant by one name.

use clap::{Args, Subcommand};
use fleetd_proto::fleetd::device::v1::ListDevicesRequest;
use fleetd_proto::fleetd::group::v1::{
    CreateGroupRequest, DeleteGroupRequest, GetGroupRequest, Group as GroupMessage, ListGroupsRequest,
    UpdateGroupRequest,
};
use fleetd_sync_core::counted::Counted;
use serde_json::json;

use super::{Session, device, login, value, wording};
use crate::client::json::json as message_json;
use crate::client::request_id;
use crate::confirm::Confirm;
use crate::error::CommandError;
use crate::output::{Moment, table};

/// Devices that are meant by one name.
#[derive(Debug, Subcommand)]
pub enum Group {
    /// Make a group: a list of devices, or a selector and a condition
    Create(Create),
    /// List groups
    List(List),
    /// Show a group and the devices that it is now
    Show(Show),
    /// Add devices to a group that is a list
    Add(Add),
    /// Take devices out of a group that is a list
    Remove(Remove),
    /// Delete a group; its devices stay as they are
    Delete(Delete),
}

/// Make a group.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd group create kiosks-north brisk-otter calm-fox
  fleetd group create canaries -l channel=canary --where 'facts.memory_bytes >= 536870912'")]
pub struct Create {
    /// Its name
    pub name: String,
    /// Its devices, by name or id; none make an empty group
    #[arg(conflicts_with_all = ["selector", "condition"])]
    pub devices: Vec<String>,
    /// At any time the devices with these labels
    #[arg(long, short = 'l', value_parser = value::selector)]
    pub selector: Option<String>,
    /// At any time the devices of which this holds, in CEL; with a selector, both must
    #[arg(long = "where", value_name = "CONDITION", value_parser = value::condition)]
    pub condition: Option<String>,
}

/// List groups in the order of their names.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd group list
  fleetd group list --json | jq -r '.groups[].name'")]
pub struct List {}

/// Show a group and the devices that it is now.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd group show canaries
  fleetd group show canaries --json | jq -r '.devices[].name'")]
pub struct Show {
    /// Its name
    pub name: String,
}

/// Add devices to a group that is a list.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd group add kiosks-north brisk-otter")]
pub struct Add {
    /// Its name
    pub name: String,
    /// Devices, by name or id
    #[arg(required = true)]
    pub devices: Vec<String>,
}

/// Take devices out of a group that is a list.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd group remove kiosks-north brisk-otter")]
pub struct Remove {
    /// Its name
    pub name: String,
    /// Devices, by name or id
    #[arg(required = true)]
    pub devices: Vec<String>,
}

/// Delete a group.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd group delete kiosks-north --yes")]
pub struct Delete {
    /// Its name
    pub name: String,
    /// The answer beforehand.
    #[command(flatten)]
    pub confirm: Confirm,
}

impl Group {
    /// Runs the command.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let client = session.client().await?;
        let update = async |name: String, add: Vec<String>, remove: Vec<String>| {
            let request = UpdateGroupRequest { request_id: request_id(), name, add, remove };
            login::need(client.update_group(request).await?.group, "group")
        };
        let group = match self {
            Self::Create(command) => {
                let request = CreateGroupRequest {
                    request_id: request_id(),
                    name: command.name,
                    devices: command.devices,
                    selector: command.selector.unwrap_or_default(),
                    condition: command.condition.unwrap_or_default(),
                };
                login::need(client.create_group(request).await?.group, "group")?
            }
            Self::List(_) => {
                let groups = client.all_groups(ListGroupsRequest::default()).await?;
                let object = json!({ "groups": groups.iter().map(message_json).collect::<Vec<_>>() });
                return session.output.answer(&object, || render(&groups, Moment::now()));
            }
            Self::Show(command) => return command.run(session).await,
            Self::Add(command) => update(command.name, command.devices, Vec::new()).await?,
            Self::Remove(command) => update(command.name, Vec::new(), command.devices).await?,
            Self::Delete(command) => {
                let request = GetGroupRequest { name: command.name.clone() };
                let group = login::need(client.get_group(request).await?.group, "group")?;
                command.confirm.ask(session.output, &format!("delete group {}: {}", group.name, members(&group)))?;
                let request = DeleteGroupRequest { request_id: request_id(), name: command.name };
                let group = login::need(client.delete_group(request).await?.group, "group")?;
                return session.output.answer(&message_json(&group), || format!("{} is deleted", group.name));
            }
        };
        session.output.answer(&message_json(&group), || format!("{}: {}", group.name, members(&group)))
    }
}

impl Show {
    async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let client = session.client().await?;
        let group = login::need(client.get_group(GetGroupRequest { name: self.name.clone() }).await?.group, "group")?;
        let request = ListDevicesRequest { groups: vec![self.name], ..Default::default() };
        let devices = client.all_devices(request).await?;
        let object = json!({
            "group": message_json(&group),
            "devices": devices.iter().map(message_json).collect::<Vec<_>>(),
        });
        session.output.answer(&object, || {
            format!("{}: {}\n{}", group.name, members(&group), device::view::devices(&devices, Moment::now()))
        })
    }
}

/// Which devices a group is, in words.
fn members(group: &GroupMessage) -> String {
    let selector = (!group.selector.is_empty()).then(|| format!("selector {}", group.selector));
    let condition = (!group.condition.is_empty()).then(|| format!("where {}", group.condition));
    match (selector, condition) {
        (None, None) => Counted(group.local_ids.len(), "device").to_string(),
        (selector, condition) => selector.into_iter().chain(condition).collect::<Vec<_>>().join(" and "),
    }
}

/// Draws groups.
#[must_use]
pub fn render(groups: &[GroupMessage], now: Moment) -> String {
    let rows = groups.iter().map(|group| {
        let kind = if group.selector.is_empty() && group.condition.is_empty() { "fixed" } else { "dynamic" };
        let changed = wording::moment(group.changed_at.as_ref()).relative(now);
        [group.name.clone(), kind.to_owned(), members(group), changed]
    });
    table(["NAME", "KIND", "DEVICES", "CHANGED"], rows)
}
