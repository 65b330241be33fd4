//! Configurations.

use std::collections::BTreeMap;

use fleetd_proto::fleetd::configuration::v1 as api;
use fleetd_sync_core::configuration::{Configuration, ConfiguredFile};

use super::super::call_error::{CallError, parsed};
use crate::record::configuration::StoredConfiguration;
use crate::record::timestamp;

/// Reads the configuration that is asked for.
pub(crate) fn read(asked: &api::CreateConfigurationRequest) -> Result<Configuration, CallError> {
    let (workload, name) = (parsed(&asked.workload, "workload")?, parsed(&asked.name, "name")?);
    let (mut values, mut files) = (BTreeMap::new(), BTreeMap::new());
    for value in &asked.values {
        if values.insert(value.name.clone(), value.value.clone()).is_some() {
            return Err(twice("values", &value.name));
        }
    }
    for file in &asked.files {
        let found = ConfiguredFile { digest: parsed(&file.digest, "files")?, size_bytes: file.size_bytes };
        if files.insert(file.name.clone(), found).is_some() {
            return Err(twice("files", &file.name));
        }
    }
    Ok(Configuration::new(workload, name, values, files)?)
}

fn twice(field: &'static str, name: &str) -> CallError {
    CallError::Invalid { field, cause: format!("{name} is given twice") }
}

/// A configuration as the API shows it.
pub(crate) fn show(stored: &StoredConfiguration, complete: bool) -> api::Configuration {
    let configuration = &stored.configuration;
    let value =
        |(name, value): (&String, &String)| api::ConfigurationValue { name: name.clone(), value: value.clone() };
    let file = |(name, file): (&String, &ConfiguredFile)| api::ConfigurationFile {
        name: name.clone(),
        digest: file.digest.to_string(),
        size_bytes: file.size_bytes,
    };
    api::Configuration {
        workload: configuration.workload().to_string(),
        name: configuration.name().to_string(),
        digest: configuration.digest().to_string(),
        values: configuration.values().iter().map(value).collect(),
        files: configuration.files().iter().map(file).collect(),
        created_at: Some(timestamp(stored.created_at)),
        created_by: stored.created_by.map(|by| by.to_string()).unwrap_or_default(),
        complete,
    }
}
