//! Nobody calls what they may not.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost_reflect::{DescriptorPool, MethodDescriptor};

use super::client::{Answer, framed, post_json, request, send_http1, send_http2};
use super::service::Server;

/// Every RPC of the schemas, and those of reflection.
fn methods() -> Vec<MethodDescriptor> {
    let mut pool = DescriptorPool::decode(fleetd_proto::DESCRIPTORS).expect("a valid set");
    for set in [tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET, tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET] {
        pool.decode_file_descriptor_set(set).expect("a valid set");
    }
    pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()).collect()
}

fn path(method: &MethodDescriptor) -> String {
    format!("/{}/{}", method.parent_service().full_name(), method.name())
}

/// Calls an RPC in one protocol with nothing in the request, and reads how it ended.
async fn outcome(server: &Server, method: &MethodDescriptor, content_type: &str, token: &str) -> String {
    let body = if content_type == "application/json" { Bytes::from_static(b"{}") } else { framed(b"") };
    let asked = request("POST", &path(method), content_type, token, body);
    match content_type {
        "application/grpc" => send_http2(server, asked).await.grpc_status().to_owned(),
        "application/connect+json" => end_code(&send_http1(server, asked).await),
        _ => send_http1(server, asked).await.json()["code"].as_str().unwrap_or("ok").to_owned(),
    }
}

/// The code of the error that ends a stream of Connect.
fn end_code(answer: &Answer) -> String {
    let (_, end) = answer.frames().pop().expect("a stream has an end");
    let end: serde_json::Value = serde_json::from_slice(&end).expect("JSON");
    end["error"]["code"].as_str().unwrap_or("ok").to_owned()
}

#[tokio::test]
async fn every_rpc_but_health_and_registration_refuses_strangers() {
    let server = Server::start().await;
    let methods = methods();
    assert!(methods.len() > 45, "the schemas were found");
    let mut open = BTreeSet::new();
    for method in &methods {
        if method.full_name() == "grpc.health.v1.Health.Watch" {
            // It is a stream without end; that it is open shows in the table's own test.
            continue;
        }
        for token in ["", "unknown", "expired"] {
            let grpc = outcome(&server, method, "application/grpc", token).await;
            let connect = outcome(&server, method, connect_type(method), token).await;
            if grpc == "16" || connect == "unauthenticated" {
                assert_eq!((grpc.as_str(), connect.as_str()), ("16", "unauthenticated"), "{}", method.full_name());
            } else {
                open.insert(method.full_name().to_owned());
            }
        }
    }
    let open: Vec<&str> = open.iter().map(String::as_str).collect();
    assert_eq!(
        open,
        [
            "fleetd.registration.v1.RegistrationService.GetFleet",
            "fleetd.registration.v1.RegistrationService.RegisterDevice",
            "grpc.health.v1.Health.Check",
        ]
    );
}

fn connect_type(method: &MethodDescriptor) -> &'static str {
    if method.is_client_streaming() || method.is_server_streaming() {
        "application/connect+json"
    } else {
        "application/json"
    }
}

#[tokio::test]
async fn a_get_without_a_credential_is_refused() {
    let server = Server::start().await;
    let path = "/fleetd.artifact.v1.ArtifactService/GetUpload?encoding=json&message=%7B%7D";
    let answer = send_http1(&server, request("GET", path, "", "", Bytes::new())).await;
    assert_eq!((answer.status.as_u16(), answer.json()["code"].as_str()), (401, Some("unauthenticated")));
}

#[tokio::test]
async fn a_refusal_says_what_to_do() {
    let server = Server::start().await;
    let path = "/fleetd.access.v1.AccessService/WhoAmI";
    let answer = post_json(&server, path, "expired", "{}").await;
    let detail = &answer.json()["details"][0]["debug"];
    assert_eq!(detail["code"], "access.token.expired");
    assert_eq!(detail["nextCommand"], "fleetd login URL");
}

#[tokio::test]
async fn a_role_that_is_too_low_is_forbidden() {
    let server = Server::start().await;
    let path = "/fleetd.access.v1.AccessService/CreateAccessToken";
    let answer = post_json(&server, path, "deployer", "{}").await;
    assert_eq!((answer.status.as_u16(), answer.json()["code"].as_str()), (403, Some("permission_denied")));
    assert_eq!(answer.json()["message"], "deployer has the role deployer, this call needs admin");
    let answer = post_json(&server, path, "admin", "{}").await;
    assert_eq!(answer.json()["code"], "unimplemented", "it reaches the service");
    assert_eq!(answer.status, 501);
}

#[tokio::test]
async fn paths_that_lead_nowhere_say_so() {
    let server = Server::start().await;
    for path in [
        "/",
        "/index.html",
        "/fleetd.device.v1.DeviceService/Explode",
        "/no.such.Service/Method",
        "/agent.lifecycle.v1.LifecycleService/StopWorkload",
    ] {
        let answer = post_json(&server, path, "admin", "{}").await;
        assert_eq!((answer.status.as_u16(), answer.json()["code"].as_str()), (404, Some("unimplemented")), "{path}");
        let answer = post_json(&server, path, "", "{}").await;
        assert_eq!(answer.status, 401, "strangers are not told what is there: {path}");
        let answer = send_http2(&server, request("POST", path, "application/grpc", "admin", framed(b""))).await;
        assert_eq!(answer.grpc_status(), "12", "{path}");
    }
}

#[tokio::test]
async fn a_served_rpc_without_a_service_is_unimplemented() {
    let server = Server::start().await;
    let answer = post_json(&server, "/fleetd.device.v1.DeviceService/ListDevices", "viewer", "{}").await;
    assert_eq!(answer.json()["code"], "unimplemented");
}
