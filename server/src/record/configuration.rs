//! Configurations.

use std::sync::Arc;

use fleetd_proto::fleetd::record::v1 as stored;
use fleetd_sync_core::commit::{Mutation, Space};
use fleetd_sync_core::configuration::Configuration;
use fleetd_sync_core::id::AccessId;
use fleetd_sync_core::name::{ConfigurationName, WorkloadName};
use fleetd_sync_core::time::Wall;
use prost::Message as _;

use super::{ReadRecordError, field, timestamp, wall};

/// A configuration as the server keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredConfiguration {
    /// What it fills, and with what.
    pub configuration: Arc<Configuration>,
    /// When the server took it.
    pub created_at: Wall,
    /// Who pushed it.
    pub created_by: Option<AccessId>,
}

/// The key of a configuration in its space.
#[must_use]
pub fn configuration_key(workload: &WorkloadName, name: &ConfigurationName) -> Vec<u8> {
    [workload.as_str().as_bytes(), &[0], name.as_str().as_bytes()].concat()
}

/// The change of the store that keeps a configuration.
#[must_use]
pub fn put(found: &StoredConfiguration) -> Mutation {
    let record = stored::ConfigurationRecord {
        content: found.configuration.encode(),
        created_at: Some(timestamp(found.created_at)),
        created_by: found.created_by.map(|by| by.as_bytes().to_vec()).unwrap_or_default(),
    };
    let key = configuration_key(found.configuration.workload(), found.configuration.name());
    Mutation::Put { space: Space::Configuration, key, value: record.encode_to_vec() }
}

/// Reads a configuration.
///
/// # Errors
/// [`ReadRecordError`] when it is none.
pub fn decode(bytes: &[u8]) -> Result<StoredConfiguration, ReadRecordError> {
    let record = stored::ConfigurationRecord::decode(bytes)?;
    Ok(StoredConfiguration {
        configuration: Arc::new(field(Configuration::decode(&record.content).ok(), "content")?),
        created_at: record.created_at.as_ref().map(wall).unwrap_or_default(),
        created_by: AccessId::from_slice(&record.created_by),
    })
}
