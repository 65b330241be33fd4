//! gRPC, gRPC-Web, health and reflection.

use bytes::Bytes;
use fleetd_proto::fleetd::access::v1::WhoAmIRequest;
use fleetd_proto::fleetd::access::v1::access_service_client::AccessServiceClient;
use fleetd_proto::fleetd::artifact::v1::artifact_service_client::ArtifactServiceClient;
use fleetd_proto::fleetd::artifact::v1::{
    DownloadArtifactRequest, GetUploadRequest, GetUploadResponse, UploadArtifactRequest,
};
use fleetd_proto::grpc::health::v1::HealthCheckRequest;
use fleetd_proto::grpc::health::v1::health_check_response::ServingStatus;
use fleetd_proto::grpc::health::v1::health_client::HealthClient;
use fleetd_server::rpc::status::error_of;
use prost::Message as _;
use tonic::Code;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use super::client::{bearer, channel, framed, post_json, request, send_http1};
use super::service::Server;

#[tokio::test]
async fn a_grpc_client_streams_an_artifact_there_and_back() {
    let server = Server::start().await;
    let mut client = ArtifactServiceClient::with_interceptor(channel(&server).await, bearer("deployer"));
    let parts = ["brew", "ing"].map(|content| UploadArtifactRequest {
        digest: "b3_1".to_owned(),
        content: content.into(),
        ..UploadArtifactRequest::default()
    });
    let uploaded = client.upload_artifact(futures::stream::iter(parts)).await.unwrap().into_inner();
    assert_eq!(uploaded.received_bytes, 7);

    let asked = GetUploadRequest { digest: "b3_1".to_owned() };
    assert_eq!(client.get_upload(asked).await.unwrap().into_inner().received_bytes, 7);

    let asked = DownloadArtifactRequest { digest: "b3_1".to_owned(), offset_bytes: 0 };
    let mut parts = client.download_artifact(asked).await.unwrap().into_inner();
    let mut content = Vec::new();
    while let Some(part) = parts.message().await.unwrap() {
        content.extend(part.content);
    }
    assert_eq!(content, b"brewing");
    server.stop().await;
}

#[tokio::test]
async fn a_handler_knows_its_caller() {
    let server = Server::start().await;
    let mut client = AccessServiceClient::with_interceptor(channel(&server).await, bearer("viewer"));
    let answer = client.who_am_i(WhoAmIRequest {}).await.unwrap().into_inner();
    assert_eq!(answer.access_token.unwrap().name, "viewer");
}

#[tokio::test]
async fn an_error_reaches_a_grpc_client_with_its_detail() {
    let server = Server::start().await;
    let mut client = ArtifactServiceClient::with_interceptor(channel(&server).await, bearer("deployer"));
    let status = client.get_upload(GetUploadRequest { digest: "b3_none".to_owned() }).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(error_of(&status).unwrap().next_command, "fleetd release push");

    let mut stranger = ArtifactServiceClient::new(channel(&server).await);
    let status = stranger.get_upload(GetUploadRequest { digest: "b3_none".to_owned() }).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!(error_of(&status).unwrap().code, "access.token.missing");
}

#[tokio::test]
async fn a_browser_calls_by_grpc_web() {
    let server = Server::start().await;
    post_json(
        &server,
        "/fleetd.artifact.v1.ArtifactService/UploadArtifactChunk",
        "admin",
        r#"{"digest":"b3_1","content":"AAA="}"#,
    )
    .await;
    let body = framed(&GetUploadRequest { digest: "b3_1".to_owned() }.encode_to_vec());
    let path = "/fleetd.artifact.v1.ArtifactService/GetUpload";
    let answer =
        send_http1(&server, request("POST", path, "application/grpc-web+proto", "deployer", body.clone())).await;
    let frames = answer.frames();
    assert_eq!(GetUploadResponse::decode(frames[0].1.clone()).unwrap().received_bytes, 2);
    assert_eq!(frames[1].0, 0x80, "trailers are the last frame");
    assert!(frames[1].1.starts_with(b"grpc-status:0"), "{frames:?}");

    let refused = send_http1(&server, request("POST", path, "application/grpc-web+proto", "", body)).await;
    assert_eq!(refused.header("content-type"), "application/grpc-web+proto");
    assert_eq!(refused.grpc_status(), "16");
}

#[tokio::test]
async fn anybody_may_ask_whether_the_server_is_up() {
    let server = Server::start().await;
    let mut client = HealthClient::new(channel(&server).await);
    for service in ["", "fleetd.device.v1.DeviceService"] {
        let asked = HealthCheckRequest { service: service.to_owned() };
        assert_eq!(client.check(asked).await.unwrap().into_inner().status(), ServingStatus::Serving);
    }
    let answer = post_json(&server, "/grpc.health.v1.Health/Check", "", "").await;
    assert_eq!(answer.json()["status"], "SERVING");
}

#[tokio::test]
async fn reflection_lists_what_is_served_to_those_who_may_look() {
    let server = Server::start().await;
    let asked = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::with_interceptor(channel(&server).await, bearer("viewer"));
    let mut answers = client.server_reflection_info(futures::stream::iter([asked.clone()])).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("no list: {answer:?}");
    };
    let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    assert!(names.contains(&"fleetd.rollout.v1.RolloutService"), "{names:?}");
    assert!(!names.iter().any(|name| name.starts_with("agent.")), "{names:?}");

    let mut stranger = ServerReflectionClient::new(channel(&server).await);
    let status = stranger.server_reflection_info(futures::stream::iter([asked])).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn grpc_without_http2_is_refused() {
    let server = Server::start().await;
    let path = "/fleetd.artifact.v1.ArtifactService/GetUpload";
    let answer = send_http1(&server, request("POST", path, "application/grpc", "deployer", Bytes::new())).await;
    assert_eq!(answer.status, 400);
}
