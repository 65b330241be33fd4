//! Connect: JSON and protobuf, POST and GET, unary and streaming.

use bytes::Bytes;
use fleetd_proto::fleetd::artifact::v1::{DownloadArtifactResponse, GetUploadRequest, GetUploadResponse};
use fleetd_proto::fleetd::common::v1::Error;
use prost::Message as _;
use serde_json::json;

use super::client::{framed, post_json, request, send_http1, send_http2};
use super::service::{PANICS, Server};

const GET_UPLOAD: &str = "/fleetd.artifact.v1.ArtifactService/GetUpload";
const UPLOAD_CHUNK: &str = "/fleetd.artifact.v1.ArtifactService/UploadArtifactChunk";
const UPLOAD: &str = "/fleetd.artifact.v1.ArtifactService/UploadArtifact";
const DOWNLOAD: &str = "/fleetd.artifact.v1.ArtifactService/DownloadArtifact";

/// Puts seven bytes on the shelf.
async fn upload(server: &Server, digest: &str) {
    let chunk = json!({ "requestId": "r1", "digest": digest, "sizeBytes": "7", "content": "YnJld2luZw==" });
    let answer = post_json(server, UPLOAD_CHUNK, "deployer", &chunk.to_string()).await;
    assert_eq!(answer.json(), json!({ "receivedBytes": "7", "complete": true }));
}

#[tokio::test]
async fn json_is_answered_with_json_on_both_versions_of_http() {
    let server = Server::start().await;
    upload(&server, "b3_1").await;
    let asked = || {
        let mut request =
            request("POST", GET_UPLOAD, "application/json; charset=utf-8", "deployer", r#"{"digest":"b3_1"}"#.into());
        request.headers_mut().insert("connect-protocol-version", "1".parse().unwrap());
        request.headers_mut().insert("x-echo", "beans".parse().unwrap());
        request
    };
    for answer in [send_http1(&server, asked()).await, send_http2(&server, asked()).await] {
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.header("x-echo"), "beans", "metadata goes there and back");
        assert_eq!(answer.header("grpc-status"), "");
        assert_eq!(answer.json(), json!({ "receivedBytes": "7", "complete": true }));
    }
    server.stop().await;
}

#[tokio::test]
async fn protobuf_is_answered_with_protobuf() {
    let server = Server::start().await;
    upload(&server, "b3_1").await;
    let body = GetUploadRequest { digest: "b3_1".to_owned() }.encode_to_vec().into();
    let answer = send_http1(&server, request("POST", GET_UPLOAD, "application/proto", "deployer", body)).await;
    assert_eq!(answer.header("content-type"), "application/proto");
    assert_eq!(GetUploadResponse::decode(answer.body).unwrap().received_bytes, 7);
}

#[tokio::test]
async fn reads_can_be_got_and_mutations_cannot() {
    let server = Server::start().await;
    upload(&server, "b3_1").await;
    let path = format!("{GET_UPLOAD}?connect=v1&encoding=json&message=%7B%22digest%22:%22b3_1%22%7D");
    let answer = send_http1(&server, request("GET", &path, "", "deployer", Bytes::new())).await;
    assert_eq!(answer.json()["receivedBytes"], "7");

    let path = format!("{UPLOAD_CHUNK}?connect=v1&encoding=json&message=%7B%7D");
    let answer = send_http1(&server, request("GET", &path, "", "deployer", Bytes::new())).await;
    assert_eq!(answer.status, 405);
    assert_eq!(answer.header("allow"), "POST");

    let answer = send_http1(&server, request("GET", GET_UPLOAD, "", "deployer", Bytes::new())).await;
    assert_eq!((answer.status.as_u16(), answer.json()["code"].as_str()), (400, Some("invalid_argument")));
}

#[tokio::test]
async fn an_error_is_json_with_a_readable_detail() {
    let server = Server::start().await;
    let answer = post_json(&server, GET_UPLOAD, "deployer", r#"{"digest":"b3_none"}"#).await;
    assert_eq!(answer.status, 404);
    let error = answer.json();
    assert_eq!(error["code"], "not_found");
    assert_eq!(error["message"], "there is no artifact b3_none");
    assert_eq!(error["details"][0]["type"], Error::default_type());
    assert_eq!(error["details"][0]["debug"]["nextCommand"], "fleetd release push");
}

/// The name by which a message travels.
trait DefaultType: prost::Name {
    fn default_type() -> String {
        Self::full_name()
    }
}

impl<M: prost::Name> DefaultType for M {}

#[tokio::test]
async fn what_is_no_json_of_the_request_is_refused() {
    let server = Server::start().await;
    for body in ["{", "[]", r#"{"digest":7}"#, r#"{"digest":"a"} tail"#] {
        let answer = post_json(&server, GET_UPLOAD, "deployer", body).await;
        assert_eq!((answer.status.as_u16(), answer.json()["code"].as_str()), (400, Some("invalid_argument")), "{body}");
    }
}

#[tokio::test]
async fn a_server_stream_ends_with_its_outcome() {
    let server = Server::start().await;
    upload(&server, "b3_1").await;
    let body = framed(br#"{"digest":"b3_1"}"#);
    let answer = send_http1(&server, request("POST", DOWNLOAD, "application/connect+json", "deployer", body)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "application/connect+json");
    let frames = answer.frames();
    let flags: Vec<u8> = frames.iter().map(|(flags, _)| *flags).collect();
    assert_eq!(flags, [0, 0, 0, 2]);
    let first: serde_json::Value = serde_json::from_slice(&frames[0].1).unwrap();
    assert_eq!(first, json!({ "sizeBytes": "7", "content": "YnJl" }));
    let end: serde_json::Value = serde_json::from_slice(&frames[3].1).unwrap();
    assert_eq!(end.get("error"), None);
}

#[tokio::test]
async fn a_stream_that_fails_keeps_what_came_before() {
    let server = Server::start().await;
    upload(&server, "b3_torn").await;
    let body = framed(&GetUploadRequest { digest: "b3_torn".to_owned() }.encode_to_vec());
    let answer = send_http2(&server, request("POST", DOWNLOAD, "application/connect+proto", "deployer", body)).await;
    let frames = answer.frames();
    assert_eq!(frames.len(), 4);
    assert_eq!(DownloadArtifactResponse::decode(frames[2].1.clone()).unwrap().content, b"g");
    let end: serde_json::Value = serde_json::from_slice(&frames[3].1).unwrap();
    assert_eq!(end["error"]["code"], "data_loss");
}

#[tokio::test]
async fn a_stream_that_fails_at_once_is_a_stream_that_ends() {
    let server = Server::start().await;
    for (token, code) in [("deployer", "not_found"), ("", "unauthenticated"), ("viewer", "permission_denied")] {
        let body = framed(br#"{"digest":"b3_none"}"#);
        let answer = send_http1(&server, request("POST", DOWNLOAD, "application/connect+json", token, body)).await;
        assert_eq!(answer.status, 200);
        let frames = answer.frames();
        assert_eq!((frames.len(), frames[0].0), (1, 2));
        let end: serde_json::Value = serde_json::from_slice(&frames[0].1).unwrap();
        assert_eq!(end["error"]["code"], code);
        assert!(end["error"]["details"][0]["debug"]["code"].is_string(), "{end}");
    }
}

#[tokio::test]
async fn a_client_stream_is_taken_part_by_part() {
    let server = Server::start().await;
    let parts = [framed(br#"{"digest":"b3_2","content":"YnJldw=="}"#), framed(br#"{"content":"aW5n"}"#)].concat();
    let answer =
        send_http1(&server, request("POST", UPLOAD, "application/connect+json", "deployer", parts.into())).await;
    let frames = answer.frames();
    let first: serde_json::Value = serde_json::from_slice(&frames[0].1).unwrap();
    assert_eq!(first["receivedBytes"], "7");

    let parts = [framed(br#"{"digest":"b3_3"}"#), framed(b"no JSON")].concat();
    let answer =
        send_http1(&server, request("POST", UPLOAD, "application/connect+json", "deployer", parts.into())).await;
    let end: serde_json::Value = serde_json::from_slice(&answer.frames()[0].1).unwrap();
    assert_eq!(end["error"]["code"], "invalid_argument");
}

#[tokio::test]
async fn a_body_of_another_kind_is_refused() {
    let server = Server::start().await;
    for (path, content_type) in [
        (GET_UPLOAD, "text/plain"),
        (GET_UPLOAD, "application/connect+json"),
        (DOWNLOAD, "application/json"),
        (GET_UPLOAD, ""),
    ] {
        let answer = send_http1(&server, request("POST", path, content_type, "deployer", "{}".into())).await;
        assert_eq!(answer.status, 415, "{path} {content_type}");
        assert!(answer.header("accept-post").contains("application/json"));
    }
}

#[tokio::test]
async fn a_handler_that_panics_fails_its_request_only() {
    let server = Server::start().await;
    let answer = post_json(&server, GET_UPLOAD, "deployer", &json!({ "digest": PANICS }).to_string()).await;
    assert_eq!((answer.status.as_u16(), answer.json()["code"].as_str()), (500, Some("internal")));
    assert!(!answer.json().to_string().contains("this handler panics"), "its words stay inside");
    upload(&server, "b3_1").await;
}
