//! `GroupService`: devices that are meant by one name.

use std::collections::BTreeSet;

use fleetd_actors::targeting::Members;
use fleetd_proto::fleetd::group::v1 as api;
use fleetd_proto::fleetd::group::v1::group_service_server::GroupService;
use fleetd_sync_core::commit::{Mutation, Revision, Space};
use fleetd_sync_core::id::LocalId;
use fleetd_sync_core::limit::GROUP_DEVICES_MAX;
use fleetd_sync_core::name::GroupName;
use fleetd_sync_store::state_store::KeyRange;
use tonic::{Request, Response, Status};

use super::backend::{Backend, caller};
use super::call_error::{CallError, parsed};
use super::convert::targets;
use super::page::{page, write_revision};
use super::request_log::Kept;
use crate::edge::authenticate::Caller;
use crate::record::group::{self, StoredGroup, group_key};
use crate::record::timestamp;

super::service!(
    /// Makes groups of devices, changes them, and shows them.
    Groups
);

impl Backend {
    /// A group, and the revision of its record.
    pub(super) fn group(&self, name: &GroupName) -> Result<(StoredGroup, Revision), CallError> {
        let found = self.store().get(Space::Group, &group_key(name))?;
        let found = found.ok_or_else(|| CallError::UnknownGroup { group: name.clone() })?;
        Ok((group::decode(&found.value)?, found.revision))
    }
}

impl Groups {
    fn show(&self, name: &GroupName) -> Result<api::Group, CallError> {
        let (group, revision) = self.backend.group(name)?;
        Ok(show(name, &group, revision))
    }

    fn find_all(&self, devices: &[String]) -> Result<BTreeSet<LocalId>, CallError> {
        devices.iter().map(|device| self.backend.find_device(device)).collect()
    }

    /// The devices to take out. One that was forgotten since must be taken out by what is left of it, its local id.
    fn find_members(&self, devices: &[String]) -> Result<BTreeSet<LocalId>, CallError> {
        let find = |device: &String| device.parse().map_or_else(|_| self.backend.find_device(device), Ok);
        devices.iter().map(find).collect()
    }

    async fn create(&self, asked: &api::CreateGroupRequest, by: &Caller) -> Result<api::Group, CallError> {
        let name: GroupName = parsed(&asked.name, "name")?;
        let (selector, condition) = (targets::selector(&asked.selector)?, targets::condition(&asked.condition)?);
        let members = if selector.is_none() && condition.is_none() {
            Members::Fixed(bounded(self.find_all(&asked.devices)?)?)
        } else if asked.devices.is_empty() {
            Members::Dynamic { selector, condition }
        } else {
            let cause = "a group is a list of devices, or it has a selector or a condition".to_owned();
            return Err(CallError::Invalid { field: "devices", cause });
        };
        let now = self.backend.now();
        let group = StoredGroup { members, created_at: now, created_by: Some(by.id), changed_at: now };
        let absent = Mutation::Expect { space: Space::Group, key: group_key(&name), revision: Revision(0) };
        match self.backend.group(&name) {
            Ok(_) => return Err(CallError::GroupTaken { group: name }),
            Err(CallError::UnknownGroup { .. }) => {}
            Err(error) => return Err(error),
        }
        self.backend.commit(vec![absent, group::put(&name, &group)]).await?;
        self.show(&name)
    }

    async fn update(&self, asked: &api::UpdateGroupRequest) -> Result<api::Group, CallError> {
        let name: GroupName = parsed(&asked.name, "name")?;
        if asked.add.is_empty() && asked.remove.is_empty() {
            return Err(CallError::Missing { field: "add" });
        }
        let (mut group, revision) = self.backend.group(&name)?;
        let Members::Fixed(mut locals) = group.members else { return Err(CallError::DynamicGroup { group: name }) };
        locals.extend(self.find_all(&asked.add)?);
        for local in self.find_members(&asked.remove)? {
            locals.remove(&local);
        }
        group.members = Members::Fixed(bounded(locals)?);
        group.changed_at = self.backend.now();
        let unchanged = Mutation::Expect { space: Space::Group, key: group_key(&name), revision };
        self.backend.commit(vec![unchanged, group::put(&name, &group)]).await?;
        self.show(&name)
    }
}

fn bounded(locals: BTreeSet<LocalId>) -> Result<BTreeSet<LocalId>, CallError> {
    if locals.len() > GROUP_DEVICES_MAX {
        let cause = format!("the group would have {} devices; it may have {GROUP_DEVICES_MAX}", locals.len());
        return Err(CallError::Invalid { field: "devices", cause });
    }
    Ok(locals)
}

fn show(name: &GroupName, group: &StoredGroup, revision: Revision) -> api::Group {
    let (local_ids, selector, condition) = match &group.members {
        Members::Fixed(locals) => (locals.iter().map(ToString::to_string).collect(), None, None),
        Members::Dynamic { selector, condition } => (Vec::new(), selector.as_ref(), condition.as_ref()),
    };
    api::Group {
        name: name.to_string(),
        local_ids,
        selector: selector.map(ToString::to_string).unwrap_or_default(),
        condition: condition.map(ToString::to_string).unwrap_or_default(),
        created_at: Some(timestamp(group.created_at)),
        created_by: group.created_by.map(|by| by.to_string()).unwrap_or_default(),
        changed_at: Some(timestamp(group.changed_at)),
        revision: write_revision(revision),
    }
}

#[tonic::async_trait]
impl GroupService for Groups {
    async fn create_group(
        &self,
        request: Request<api::CreateGroupRequest>,
    ) -> Result<Response<api::CreateGroupResponse>, Status> {
        let caller = caller(&request)?;
        let asked = request.into_inner();
        let created = async { Ok(api::CreateGroupResponse { group: Some(self.create(&asked, &caller).await?) }) };
        let again = || Ok(api::CreateGroupResponse { group: Some(self.show(&parsed(&asked.name, "name")?)?) });
        self.backend.once_or((&caller, Kept::Whole), &asked.request_id, &asked, created, again).await
    }

    async fn get_group(
        &self,
        request: Request<api::GetGroupRequest>,
    ) -> Result<Response<api::GetGroupResponse>, Status> {
        let name: GroupName = parsed(&request.get_ref().name, "name")?;
        Ok(Response::new(api::GetGroupResponse { group: Some(self.show(&name)?) }))
    }

    async fn list_groups(
        &self,
        request: Request<api::ListGroupsRequest>,
    ) -> Result<Response<api::ListGroupsResponse>, Status> {
        let asked = request.into_inner();
        let mut found = Vec::new();
        self.backend.visit(Space::Group, KeyRange::all(), |key, value, revision| {
            let name = std::str::from_utf8(key).ok().and_then(|name| name.parse::<GroupName>().ok());
            if let Some(name) = name {
                found.push((key.to_vec(), show(&name, &group::decode(value)?, revision)));
            }
            Ok(())
        })?;
        let (groups, next_page_token) = page(found, asked.page_size, &asked.page_token)?;
        Ok(Response::new(api::ListGroupsResponse { groups, next_page_token }))
    }

    async fn update_group(
        &self,
        request: Request<api::UpdateGroupRequest>,
    ) -> Result<Response<api::UpdateGroupResponse>, Status> {
        let caller = caller(&request)?;
        let asked = request.into_inner();
        let updated = async { Ok(api::UpdateGroupResponse { group: Some(self.update(&asked).await?) }) };
        let again = || Ok(api::UpdateGroupResponse { group: Some(self.show(&parsed(&asked.name, "name")?)?) });
        self.backend.once_or((&caller, Kept::Whole), &asked.request_id, &asked, updated, again).await
    }

    async fn delete_group(
        &self,
        request: Request<api::DeleteGroupRequest>,
    ) -> Result<Response<api::DeleteGroupResponse>, Status> {
        let caller = caller(&request)?;
        let asked = request.into_inner();
        let deleted = async {
            let name: GroupName = parsed(&asked.name, "name")?;
            let (group, revision) = self.backend.group(&name)?;
            let unchanged = Mutation::Expect { space: Space::Group, key: group_key(&name), revision };
            let delete = Mutation::Delete { space: Space::Group, key: group_key(&name) };
            self.backend.commit(vec![unchanged, delete]).await?;
            Ok(api::DeleteGroupResponse { group: Some(show(&name, &group, revision)) })
        };
        self.backend.once((&caller, Kept::Whole), &asked.request_id, &asked, deleted).await
    }
}
