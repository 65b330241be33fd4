//! Every field that a schema calls required is asked for.

use std::collections::BTreeMap;

use fleetd_server::rpc::permission::services;
use serde_json::{Value, json};

use super::world::{World, base64, method, refuses};

/// Requests that lack nothing, by RPC; what they name need not exist.
pub(crate) fn whole_requests() -> BTreeMap<&'static str, Value> {
    let local = "loc_00000000000000000000000000";
    let digest = format!("b3_{}", "0".repeat(52));
    BTreeMap::from([
        ("access.v1.AccessService/CreateAccessToken", json!({ "name": "ci", "role": "ROLE_VIEWER" })),
        ("access.v1.AccessService/RevokeAccessToken", json!({ "accessId": "acc_0000000000000000" })),
        ("artifact.v1.ArtifactService/GetUpload", json!({ "digest": digest })),
        ("artifact.v1.ArtifactService/UploadArtifactChunk", json!({ "digest": digest, "sizeBytes": "1" })),
        ("artifact.v1.ArtifactService/UploadArtifact", json!({ "digest": digest, "sizeBytes": "1" })),
        ("artifact.v1.ArtifactService/DownloadArtifact", json!({ "digest": digest })),
        ("device.v1.DeviceService/GetDevice", json!({ "device": "x" })),
        ("device.v1.DeviceService/ExplainDevice", json!({ "device": "x" })),
        ("device.v1.DeviceService/UpdateLabels", json!({ "device": "$", "set": { "a": "b" } })),
        ("device.v1.DeviceService/RenameDevice", json!({ "device": "$", "name": "till" })),
        ("device.v1.DeviceService/StartWorkload", json!({ "device": "$", "workload": "coffee" })),
        ("device.v1.DeviceService/StopWorkload", json!({ "device": "$", "workload": "coffee" })),
        ("device.v1.DeviceService/RestartWorkload", json!({ "device": "$", "workload": "coffee" })),
        ("device.v1.DeviceService/HoldDevice", json!({ "device": "$" })),
        ("device.v1.DeviceService/LiftHold", json!({ "device": "$", "holdId": "hld_0000000000000000" })),
        ("device.v1.DeviceService/RevokeDevice", json!({ "device": "$" })),
        ("enrolment.v1.EnrolmentService/CreateEnrolmentToken", json!({})),
        ("enrolment.v1.EnrolmentService/RevokeEnrolmentToken", json!({ "tokenId": "tok_0000000000000000" })),
        ("enrolment.v1.EnrolmentService/ApproveDevice", json!({ "localId": local })),
        ("enrolment.v1.EnrolmentService/DenyDevice", json!({ "localId": local })),
        ("group.v1.GroupService/CreateGroup", json!({ "name": "kiosks" })),
        ("group.v1.GroupService/GetGroup", json!({ "name": "kiosks" })),
        ("group.v1.GroupService/UpdateGroup", json!({ "name": "kiosks", "add": ["x"] })),
        ("group.v1.GroupService/DeleteGroup", json!({ "name": "kiosks" })),
        ("log.v1.LogService/ReadLogs", json!({ "targets": { "all": true } })),
        (
            "registration.v1.RegistrationService/RegisterDevice",
            json!({ "token": "$", "csrDer": "$", "facts": { "platform": "any" } }),
        ),
        (
            "configuration.v1.ConfigurationService/CreateConfiguration",
            json!({ "workload": "coffee", "name": "roast-1" }),
        ),
        ("configuration.v1.ConfigurationService/GetConfiguration", json!({ "workload": "coffee", "name": "roast-1" })),
        ("release.v1.ReleaseService/CreateRelease", json!({ "signedManifest": {} })),
        ("release.v1.ReleaseService/GetRelease", json!({ "workload": "coffee", "version": "1" })),
        ("release.v1.ReleaseService/DenyRelease", json!({ "workload": "coffee", "version": "1" })),
        ("release.v1.ReleaseService/AllowRelease", json!({ "workload": "coffee", "version": "1" })),
        (
            "rollout.v1.RolloutService/PlanRollout",
            json!({ "workload": "coffee", "version": "1", "targets": { "all": true } }),
        ),
        ("rollout.v1.RolloutService/GetPlan", json!({ "planId": "pln_0000000000000000" })),
        ("rollout.v1.RolloutService/CheckPlan", json!({ "planId": "pln_0000000000000000" })),
        ("rollout.v1.RolloutService/StartRollout", json!({ "planId": "pln_0000000000000000" })),
        ("rollout.v1.RolloutService/GetRollout", json!({ "rolloutId": "rol_0000000000000000" })),
        ("rollout.v1.RolloutService/WatchRollout", json!({ "rolloutId": "rol_0000000000000000" })),
        ("rollout.v1.RolloutService/AbortRollout", json!({ "rolloutId": "rol_0000000000000000" })),
        ("rollout.v1.RolloutService/PauseRollout", json!({ "rolloutId": "rol_0000000000000000" })),
        ("rollout.v1.RolloutService/ResumeRollout", json!({ "rolloutId": "rol_0000000000000000" })),
        ("rollout.v1.RolloutService/ApproveRollout", json!({ "rolloutId": "rol_0000000000000000" })),
        ("rollout.v1.RolloutService/PlanRollback", json!({ "rolloutId": "rol_0000000000000000" })),
        ("rollout.v1.RolloutService/StopFleet", json!({})),
        ("rollout.v1.RolloutService/LiftFleetStop", json!({ "holdId": "hld_0000000000000000" })),
        ("device.v1.DeviceService/PinWorkload", json!({ "device": "$", "workload": "coffee", "version": "1" })),
        ("device.v1.DeviceService/UnpinWorkload", json!({ "device": "$", "workload": "coffee" })),
        ("trust.v1.TrustService/AddRootRecord", json!({ "rootRecord": base64(b"x") })),
        (
            "trust.v1.TrustService/RevokeKey",
            json!({ "keyId": "key_00000000000000000000000000", "kind": "REVOCATION_KIND_RETIRED" }),
        ),
    ])
}

/// The fields of each request that its schema calls required: RPC, name in JSON, name in errors.
fn required_fields() -> Vec<(String, String, String)> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    let mut schemas = protox::Compiler::new([&root]).expect("the schemas are there");
    schemas.include_imports(true).include_source_info(true);
    let packages = services().filter_map(|name| name.strip_prefix("fleetd.")?.split('.').next());
    for package in packages {
        schemas.open_file(format!("fleetd/{package}/v1/{package}_service.proto")).expect("it is valid");
    }
    let mut found = Vec::new();
    for file in &schemas.file_descriptor_set().file {
        let comments = file.source_code_info.iter().flat_map(|info| &info.location);
        let comments: BTreeMap<&[i32], &str> =
            comments.map(|place| (place.path.as_slice(), place.leading_comments())).collect();
        for service in &file.service {
            for method in &service.method {
                let rpc = format!("{}.{}/{}", file.package(), service.name(), method.name());
                let rpc = rpc.strip_prefix("fleetd.").expect("all of them are").to_owned();
                let name = method.input_type().rsplit('.').next().expect("a name");
                let (number, message) = (0..)
                    .zip(&file.message_type)
                    .find(|(_, message)| message.name() == name)
                    .expect("requests stand beside their service");
                for (index, field) in (0..).zip(&message.field) {
                    let comment = comments.get([4, number, 2, index].as_slice()).copied().unwrap_or_default();
                    if comment.contains("Required") {
                        found.push((rpc.clone(), field.json_name().to_owned(), field.name().to_owned()));
                    }
                }
                for (index, choice) in (0..).zip(&message.oneof_decl) {
                    let comment = comments.get([4, number, 8, index].as_slice()).copied().unwrap_or_default();
                    if comment.contains("Required") {
                        // Whichever of its fields the whole request has is the one that is taken out.
                        found.push((rpc.clone(), "planId".to_owned(), choice.name().to_owned()));
                    }
                }
            }
        }
    }
    found
}

#[tokio::test]
async fn every_required_field_is_asked_for() {
    let world = World::start().await;
    let device = world.devices(1).await.remove(0);
    let requests = whole_requests();
    let required = required_fields();
    assert!(required.len() > 50, "only {} required fields were found", required.len());
    for (rpc, json_name, name) in required {
        let mut request = requests.get(rpc.as_str()).unwrap_or_else(|| panic!("no whole request of {rpc}")).clone();
        let fields = request.as_object_mut().expect("an object");
        if fields.get("device").is_some_and(|device| device == "$") {
            fields.insert("device".to_owned(), device.clone().into());
        }
        let method = method(&rpc);
        if method.input().get_field_by_name("request_id").is_some() {
            fields.insert("requestId".to_owned(), world.request_id().into());
        }
        fields.remove(&json_name);
        if rpc.ends_with("RegisterDevice") {
            complete_registration(&world, fields).await;
        }
        let answer = if method.is_client_streaming() || method.is_server_streaming() {
            world.upload(&rpc, &[request.clone()]).await
        } else {
            world.call_as(&admin(&world).await, &rpc, &request).await
        };
        let refused = refuses(answer, "invalid_argument", "request.field.missing");
        assert_eq!(refused.message, format!("{name} is missing"), "{rpc}: {request}");
    }
}

async fn admin(world: &World) -> String {
    let made =
        world.call("access.v1.AccessService/CreateAccessToken", json!({ "name": "a", "role": "ROLE_ADMIN" })).await;
    super::world::text(&made.expect("a token")["text"]).to_owned()
}

/// Fills a registration's token and signing request, where they were not taken out.
pub(super) async fn complete_registration(world: &World, fields: &mut serde_json::Map<String, Value>) {
    let made = world.call("enrolment.v1.EnrolmentService/CreateEnrolmentToken", json!({})).await.expect("a token");
    if fields.contains_key("token") {
        fields.insert("token".to_owned(), made["text"].clone());
    }
    if fields.contains_key("csrDer") {
        let request =
            fleetd_sync_transport::identity::signing_request(&super::world::device_key(9)).expect("a request");
        fields.insert("csrDer".to_owned(), base64(&request).into());
    }
}
