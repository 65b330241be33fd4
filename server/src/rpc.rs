//! The services of the API: each converts a request, asks the node, and converts the answer.
//!
//! Nothing is decided here. What changes something is asked of an actor; what is only shown is read from the store, so
//! that looking at a fleet wakes nobody. [`backend`] is what all services share, `call_error` the one table of what a
//! caller can be told, and `convert` holds the messages.

pub mod access;
mod admission;
pub mod artifact;
pub mod audit;
pub mod backend;
pub mod backup;
mod call_error;
mod catalog;
pub mod configuration;
mod convert;
pub mod device;
mod device_index;
mod device_mirror;
pub mod enrolment;
mod fleet_index;
mod follower;
pub mod group;
pub mod help;
pub mod log;
mod page;
pub mod permission;
pub mod registration;
pub mod release;
mod request_log;
pub mod rollout;
pub mod status;
pub mod support;
mod traced;
pub mod trust;

use std::sync::Arc;

use fleetd_proto::fleetd::access::v1::access_service_server::AccessServiceServer;
use fleetd_proto::fleetd::artifact::v1::artifact_service_server::ArtifactServiceServer;
use fleetd_proto::fleetd::audit::v1::audit_service_server::AuditServiceServer;
use fleetd_proto::fleetd::backup::v1::backup_service_server::BackupServiceServer;
use fleetd_proto::fleetd::configuration::v1::configuration_service_server::ConfigurationServiceServer;
use fleetd_proto::fleetd::device::v1::device_service_server::DeviceServiceServer;
use fleetd_proto::fleetd::enrolment::v1::enrolment_service_server::EnrolmentServiceServer;
use fleetd_proto::fleetd::group::v1::group_service_server::GroupServiceServer;
use fleetd_proto::fleetd::log::v1::log_service_server::LogServiceServer;
use fleetd_proto::fleetd::registration::v1::registration_service_server::RegistrationServiceServer;
use fleetd_proto::fleetd::release::v1::release_service_server::ReleaseServiceServer;
use fleetd_proto::fleetd::rollout::v1::rollout_service_server::RolloutServiceServer;
use fleetd_proto::fleetd::support::v1::support_service_server::SupportServiceServer;
use fleetd_proto::fleetd::trust::v1::trust_service_server::TrustServiceServer;
use fleetd_sync_core::limit;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;

pub use self::admission::{admission_status, rate_status};
use self::backend::Backend;

/// The longest answer: a thousand devices with their workloads.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// How messages of gRPC and gRPC-Web may be packed. Not by zstd: its unpacker takes as much memory as a stranger's
/// message asks for.
pub(crate) const PACKED: CompressionEncoding = CompressionEncoding::Gzip;

/// Lets a service take packed messages, and pack its answers to those who take them.
macro_rules! packed {
    ($service:expr) => {
        $service.accept_compressed(PACKED).send_compressed(PACKED)
    };
}

/// Every service of the API, before `backend`.
#[must_use]
pub fn routes(backend: &Arc<Backend>) -> Routes {
    let backend = || Arc::clone(backend);
    let devices = DeviceServiceServer::new(device::Devices::new(backend()));
    let rollouts = RolloutServiceServer::new(rollout::Rollouts::new(backend()));
    // Strangers call it: what they packed grows to no more than they may send as it is.
    let registrations = RegistrationServiceServer::new(registration::Registrations::new(backend()))
        .max_decoding_message_size(limit::API_OPEN_BODY_BYTES_MAX);
    let mut routes = Routes::builder();
    routes
        .add_service(packed!(registrations))
        .add_service(packed!(EnrolmentServiceServer::new(enrolment::Enrolments::new(backend()))))
        .add_service(packed!(devices.max_encoding_message_size(ANSWER_BYTES_MAX)))
        .add_service(packed!(ArtifactServiceServer::new(artifact::Artifacts::new(backend()))))
        .add_service(packed!(ReleaseServiceServer::new(release::Releases::new(backend()))))
        .add_service(packed!(ConfigurationServiceServer::new(configuration::Configurations::new(backend()))))
        .add_service(packed!(
            rollouts
                .max_decoding_message_size(limit::PLAN_DOCUMENT_BYTES_MAX)
                .max_encoding_message_size(ANSWER_BYTES_MAX)
        ))
        .add_service(packed!(GroupServiceServer::new(group::Groups::new(backend()))))
        .add_service(packed!(LogServiceServer::new(log::Logs::new(backend()))))
        .add_service(packed!(AccessServiceServer::new(access::Access::new(backend()))))
        .add_service(packed!(
            AuditServiceServer::new(audit::AuditLog::new(backend())).max_encoding_message_size(ANSWER_BYTES_MAX)
        ))
        .add_service(packed!(BackupServiceServer::new(backup::Backups::new(backend()))))
        .add_service(packed!(SupportServiceServer::new(support::SupportDesk::new(backend()))))
        .add_service(packed!(TrustServiceServer::new(trust::TrustRoot::new(backend()))));
    routes.routes()
}

/// Declares a service that has nothing but the backend.
macro_rules! service {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name {
            backend: std::sync::Arc<crate::rpc::backend::Backend>,
        }

        impl $name {
            pub(super) const fn new(backend: std::sync::Arc<crate::rpc::backend::Backend>) -> Self {
                Self { backend }
            }
        }
    };
}
use service;
