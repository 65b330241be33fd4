//! `ConfigurationService`: takes and shows what fills the names that manifests leave open.

use std::sync::Arc;

use fleetd_proto::fleetd::configuration::v1 as api;
use fleetd_proto::fleetd::configuration::v1::configuration_service_server::ConfigurationService;
use fleetd_sync_core::commit::{Mutation, Revision, Space};
use fleetd_sync_core::configuration::Configuration;
use fleetd_sync_core::name::{ConfigurationName, WorkloadName};
use fleetd_sync_store::state_store::KeyRange;
use tonic::{Request, Response, Status};

use super::artifact::{blocking, missing};
use super::backend::{Backend, caller};
use super::call_error::{CallError, optional, parsed};
use super::convert;
use super::page::{newest_first, page};
use super::request_log::Kept;
use crate::artifact_store::Held;
use crate::edge::authenticate::Caller;
use crate::record;
use crate::record::configuration::StoredConfiguration;

super::service!(
    /// Takes configurations, and shows them.
    Configurations
);

/// The files of a configuration that the server does not have, each with the name of its variable.
async fn missing_files(backend: &Backend, configuration: &Configuration) -> Result<Vec<String>, CallError> {
    let files = configuration.files().iter();
    missing(backend, files.map(|(name, file)| (format!("{name} {}", file.digest), file.digest)).collect()).await
}

/// Finds a configuration.
pub(super) fn find(
    backend: &Backend,
    workload: &WorkloadName,
    name: &ConfigurationName,
) -> Result<StoredConfiguration, CallError> {
    let key = record::configuration::configuration_key(workload, name);
    match backend.store().get(Space::Configuration, &key)? {
        Some(found) => Ok(record::configuration::decode(&found.value)?),
        None => Err(CallError::UnknownConfiguration { workload: workload.clone(), name: name.clone() }),
    }
}

/// Finds a configuration of which the server has every file.
pub(super) async fn find_whole(
    backend: &Backend,
    workload: &WorkloadName,
    name: &ConfigurationName,
) -> Result<Arc<Configuration>, CallError> {
    let configuration = find(backend, workload, name)?.configuration;
    require_whole(backend, &configuration).await?;
    Ok(configuration)
}

async fn require_whole(backend: &Backend, configuration: &Configuration) -> Result<(), CallError> {
    let missing = missing_files(backend, configuration).await?;
    if missing.is_empty() {
        return check_sizes(backend, configuration).await;
    }
    let (workload, name) = (configuration.workload().clone(), configuration.name().clone());
    Err(CallError::IncompleteConfiguration { workload, name, missing })
}

/// Refuses a size that is not the artifact's: plans and devices go by it, and what was taken never changes.
async fn check_sizes(backend: &Backend, configuration: &Configuration) -> Result<(), CallError> {
    let files = configuration.files().clone();
    let wrong = blocking(backend, move |store| {
        for (name, file) in files {
            match store.held(file.digest)? {
                Held::Whole { size_bytes } if size_bytes != file.size_bytes => {
                    return Ok(Some(format!("{name} has {size_bytes} bytes, and {} were said", file.size_bytes)));
                }
                _ => {}
            }
        }
        Ok(None)
    });
    let cause = wrong.await?;
    cause.map_or(Ok(()), |cause| Err(CallError::Invalid { field: "files", cause }))
}

impl Configurations {
    async fn show(&self, stored: &StoredConfiguration) -> Result<api::Configuration, CallError> {
        let missing = missing_files(&self.backend, &stored.configuration).await?;
        Ok(convert::configuration::show(stored, missing.is_empty()))
    }

    async fn create(&self, caller: &Caller, configuration: Configuration) -> Result<api::Configuration, CallError> {
        let (workload, name) = (configuration.workload().clone(), configuration.name().clone());
        WorkloadName::for_release(workload.as_str()).map_err(CallError::ReservedName)?;
        require_whole(&self.backend, &configuration).await?;
        match find(&self.backend, &workload, &name) {
            Ok(known) if *known.configuration == configuration => return self.show(&known).await,
            Ok(_) => return Err(CallError::DuplicateConfiguration { workload, name }),
            Err(CallError::UnknownConfiguration { .. }) => {}
            Err(error) => return Err(error),
        }
        let (created_at, created_by) = (self.backend.now(), Some(caller.id));
        let stored = StoredConfiguration { configuration: Arc::new(configuration), created_at, created_by };
        let key = record::configuration::configuration_key(&workload, &name);
        let absent = Mutation::Expect { space: Space::Configuration, key, revision: Revision(0) };
        self.backend.commit(vec![absent, record::configuration::put(&stored)]).await?;
        self.show(&stored).await
    }
}

#[tonic::async_trait]
impl ConfigurationService for Configurations {
    async fn create_configuration(
        &self,
        request: Request<api::CreateConfigurationRequest>,
    ) -> Result<Response<api::CreateConfigurationResponse>, Status> {
        let caller = caller(&request)?;
        let asked = request.into_inner();
        let created = async {
            let configuration = convert::configuration::read(&asked)?;
            let configuration = Some(self.create(&caller, configuration).await?);
            Ok(api::CreateConfigurationResponse { configuration })
        };
        self.backend.once((&caller, Kept::Whole), &asked.request_id, &asked, created).await
    }

    async fn list_configurations(
        &self,
        request: Request<api::ListConfigurationsRequest>,
    ) -> Result<Response<api::ListConfigurationsResponse>, Status> {
        let asked = request.into_inner();
        let range = match optional::<WorkloadName>(&asked.workload, "workload")? {
            Some(workload) => KeyRange::prefix(&record::release::workload_prefix(&workload)),
            None => KeyRange::all(),
        };
        let mut stored = Vec::new();
        self.backend.visit(Space::Configuration, range, |key, value, _| {
            let found = record::configuration::decode(value)?;
            stored.push((newest_first(found.created_at.0, key), found));
            Ok(())
        })?;
        stored.sort_by(|(key, _), (other, _)| key.cmp(other));
        let (stored, next_page_token) = page(stored, asked.page_size, &asked.page_token)?;
        let mut configurations = Vec::with_capacity(stored.len());
        for found in &stored {
            configurations.push(self.show(found).await?);
        }
        Ok(Response::new(api::ListConfigurationsResponse { configurations, next_page_token }))
    }

    async fn get_configuration(
        &self,
        request: Request<api::GetConfigurationRequest>,
    ) -> Result<Response<api::GetConfigurationResponse>, Status> {
        let asked = request.into_inner();
        let found = find(&self.backend, &parsed(&asked.workload, "workload")?, &parsed(&asked.name, "name")?)?;
        let configuration = Some(self.show(&found).await?);
        Ok(Response::new(api::GetConfigurationResponse { configuration }))
    }
}
