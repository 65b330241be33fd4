//! Groups of devices.

use fleetd_actors::targeting::Members;
use fleetd_proto::fleetd::record::v1 as stored;
use fleetd_sync_core::commit::{Mutation, Space};
use fleetd_sync_core::id::{AccessId, LocalId};
use fleetd_sync_core::name::GroupName;
use fleetd_sync_core::time::Wall;
use prost::Message as _;

use super::{ReadRecordError, field, timestamp, wall};

/// A group, as the server keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredGroup {
    /// Which devices it is.
    pub members: Members,
    /// When it was made.
    pub created_at: Wall,
    /// Who made it.
    pub created_by: Option<AccessId>,
    /// When it was last changed.
    pub changed_at: Wall,
}

/// The key under which a group lies.
#[must_use]
pub fn group_key(name: &GroupName) -> Vec<u8> {
    name.as_str().as_bytes().to_vec()
}

/// The change of the store that keeps a group.
#[must_use]
pub fn put(name: &GroupName, group: &StoredGroup) -> Mutation {
    let (local_ids, selector, condition) = match &group.members {
        Members::Fixed(locals) => (locals.iter().map(|local| local.as_bytes().to_vec()).collect(), None, None),
        Members::Dynamic { selector, condition } => (Vec::new(), selector.as_ref(), condition.as_ref()),
    };
    let record = stored::GroupRecord {
        local_ids,
        selector: selector.map(ToString::to_string).unwrap_or_default(),
        condition: condition.map(ToString::to_string).unwrap_or_default(),
        created_at: Some(timestamp(group.created_at)),
        created_by: group.created_by.map(|by| by.as_bytes().to_vec()).unwrap_or_default(),
        changed_at: Some(timestamp(group.changed_at)),
    };
    Mutation::Put { space: Space::Group, key: group_key(name), value: record.encode_to_vec() }
}

/// Reads a group.
///
/// # Errors
/// [`ReadRecordError`] when it is none.
pub fn decode(bytes: &[u8]) -> Result<StoredGroup, ReadRecordError> {
    let record = stored::GroupRecord::decode(bytes)?;
    let members = if record.selector.is_empty() && record.condition.is_empty() {
        let locals = record.local_ids.iter().map(|local| field(LocalId::from_slice(local), "local_ids"));
        Members::Fixed(locals.collect::<Result<_, _>>()?)
    } else {
        Members::Dynamic {
            selector: read_some(&record.selector, "selector")?,
            condition: read_some(&record.condition, "condition")?,
        }
    };
    Ok(StoredGroup {
        members,
        created_at: record.created_at.as_ref().map(wall).unwrap_or_default(),
        created_by: AccessId::from_slice(&record.created_by),
        changed_at: record.changed_at.as_ref().map(wall).unwrap_or_default(),
    })
}

fn read_some<T: std::str::FromStr>(text: &str, name: &'static str) -> Result<Option<T>, ReadRecordError> {
    if text.is_empty() { Ok(None) } else { field(text.parse().ok(), name).map(Some) }
}
