//! Who may call what: one table, and nothing that is missing from it can be called.

use crate::edge::authenticate::Role;

/// What an RPC asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Nothing: the caller cannot have a credential yet, or asks only whether the server is up.
    Open,
    /// A credential of this role or a higher one.
    Needs(Role),
}

const OPEN: Permission = Permission::Open;
const VIEWER: Permission = Permission::Needs(Role::Viewer);
const DEPLOYER: Permission = Permission::Needs(Role::Deployer);
const ADMIN: Permission = Permission::Needs(Role::Admin);

/// The RPCs of one service, each with what it asks of its caller.
type Methods = &'static [(&'static str, Permission)];

/// Every RPC that this server serves.
const SERVICES: [(&str, Methods); 17] = [
    ("fleetd.registration.v1.RegistrationService", &[("GetFleet", OPEN), ("RegisterDevice", OPEN)]),
    (
        "fleetd.enrolment.v1.EnrolmentService",
        &[
            ("CreateEnrolmentToken", ADMIN),
            ("ListEnrolmentTokens", VIEWER),
            ("RevokeEnrolmentToken", ADMIN),
            ("ListPendingDevices", VIEWER),
            ("ApproveDevice", ADMIN),
            ("DenyDevice", ADMIN),
        ],
    ),
    (
        "fleetd.device.v1.DeviceService",
        &[
            ("ListDevices", VIEWER),
            ("GetDevice", VIEWER),
            ("ExplainDevice", VIEWER),
            ("WatchDevices", VIEWER),
            ("UpdateLabels", DEPLOYER),
            ("RenameDevice", DEPLOYER),
            ("StartWorkload", DEPLOYER),
            ("StopWorkload", DEPLOYER),
            ("RestartWorkload", DEPLOYER),
            ("HoldDevice", DEPLOYER),
            ("LiftHold", DEPLOYER),
            ("RevokeDevice", ADMIN),
            ("PinWorkload", DEPLOYER),
            ("UnpinWorkload", DEPLOYER),
        ],
    ),
    (
        "fleetd.artifact.v1.ArtifactService",
        &[
            ("GetUpload", DEPLOYER),
            ("UploadArtifact", DEPLOYER),
            ("UploadArtifactChunk", DEPLOYER),
            // The bytes are the developer's own: seeing that they exist is not having them.
            ("DownloadArtifact", DEPLOYER),
        ],
    ),
    (
        "fleetd.release.v1.ReleaseService",
        &[
            ("CreateRelease", DEPLOYER),
            ("ListReleases", VIEWER),
            ("GetRelease", VIEWER),
            ("DenyRelease", DEPLOYER),
            ("AllowRelease", DEPLOYER),
        ],
    ),
    (
        "fleetd.configuration.v1.ConfigurationService",
        &[("CreateConfiguration", DEPLOYER), ("ListConfigurations", VIEWER), ("GetConfiguration", VIEWER)],
    ),
    (
        "fleetd.rollout.v1.RolloutService",
        &[
            ("PlanRollout", DEPLOYER),
            ("PlanRollback", DEPLOYER),
            ("GetPlan", VIEWER),
            ("CheckPlan", VIEWER),
            ("StartRollout", DEPLOYER),
            ("GetRollout", VIEWER),
            ("ListRollouts", VIEWER),
            ("WatchRollout", VIEWER),
            ("AbortRollout", DEPLOYER),
            ("PauseRollout", DEPLOYER),
            ("ResumeRollout", DEPLOYER),
            ("ApproveRollout", DEPLOYER),
            ("StopFleet", DEPLOYER),
            ("LiftFleetStop", DEPLOYER),
            ("GetFleetStops", VIEWER),
        ],
    ),
    (
        "fleetd.group.v1.GroupService",
        &[
            ("CreateGroup", DEPLOYER),
            ("GetGroup", VIEWER),
            ("ListGroups", VIEWER),
            ("UpdateGroup", DEPLOYER),
            ("DeleteGroup", DEPLOYER),
        ],
    ),
    ("fleetd.log.v1.LogService", &[("ReadLogs", VIEWER)]),
    (
        "fleetd.access.v1.AccessService",
        &[("CreateAccessToken", ADMIN), ("ListAccessTokens", ADMIN), ("RevokeAccessToken", ADMIN), ("WhoAmI", VIEWER)],
    ),
    // It names every access token and what each was used for, which only an admin may list.
    ("fleetd.audit.v1.AuditService", &[("ListAuditEntries", ADMIN), ("WatchAuditEntries", ADMIN)]),
    // All that the server keeps leaves it, but for its keys.
    ("fleetd.backup.v1.BackupService", &[("ReadBackup", ADMIN)]),
    // Where things lie on the server's machine, and what its rollouts did with each device.
    ("fleetd.support.v1.SupportService", &[("ExamineServer", ADMIN), ("ReadSupportBundle", ADMIN)]),
    ("fleetd.trust.v1.TrustService", &[("GetTrust", VIEWER), ("AddRootRecord", ADMIN), ("RevokeKey", ADMIN)]),
    ("grpc.health.v1.Health", &[("Check", OPEN), ("Watch", OPEN)]),
    ("grpc.reflection.v1.ServerReflection", &[("ServerReflectionInfo", VIEWER)]),
    ("grpc.reflection.v1alpha.ServerReflection", &[("ServerReflectionInfo", VIEWER)]),
];

/// Says what the RPC at `path` (`/package.Service/Method`) asks of its caller; nothing for a path that is not served.
#[must_use]
pub fn permission(path: &str) -> Option<Permission> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    let (_, methods) = SERVICES.iter().find(|(name, _)| *name == service)?;
    methods.iter().find(|(name, _)| *name == method).map(|(_, permission)| *permission)
}

/// The full names of the services that this server serves.
pub fn services() -> impl Iterator<Item = &'static str> {
    SERVICES.iter().map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost_reflect::DescriptorPool;

    use super::*;

    #[test]
    fn every_rpc_of_the_schemas_is_in_the_table_and_no_other() {
        let pool = DescriptorPool::decode(fleetd_proto::DESCRIPTORS).unwrap();
        let declared: BTreeSet<String> = pool
            .services()
            .filter(|service| !service.full_name().starts_with("agent."))
            .flat_map(|service| service.methods().map(|method| method.full_name().to_owned()).collect::<Vec<_>>())
            .collect();
        let listed: BTreeSet<String> = SERVICES
            .iter()
            .flat_map(|(service, methods)| methods.iter().map(move |(method, _)| format!("{service}.{method}")))
            .filter(|name| !name.starts_with("grpc.reflection."))
            .collect();
        assert_eq!(listed, declared);
    }

    #[test]
    fn only_health_and_registration_are_open() {
        let open: Vec<&str> = SERVICES
            .iter()
            .filter(|(_, methods)| methods.iter().any(|(_, permission)| *permission == Permission::Open))
            .map(|(name, _)| *name)
            .collect();
        assert_eq!(open, ["fleetd.registration.v1.RegistrationService", "grpc.health.v1.Health"]);
    }

    #[test]
    fn paths_that_are_not_served_have_no_permission() {
        for path in [
            "",
            "/",
            "/fleetd.device.v1.DeviceService",
            "/fleetd.device.v1.DeviceService/",
            "/fleetd.device.v1.DeviceService/ListDevices/",
            "//fleetd.device.v1.DeviceService/ListDevices",
            "/agent.lifecycle.v1.LifecycleService/StopWorkload",
        ] {
            assert_eq!(permission(path), None, "{path:?}");
        }
        assert_eq!(permission("/fleetd.device.v1.DeviceService/RevokeDevice"), Some(ADMIN));
    }
}
