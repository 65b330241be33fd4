//! How an RPC may be called: methods of HTTP, versions of HTTP, kinds of body, and what comes back beside a message.

use bytes::Bytes;
use serde_json::{Value, json};

use super::client::{Answer, framed, post_json, request, send_http1, send_http2};
use super::service::{COST, HANGS, Server};

const GET_UPLOAD: &str = "/fleetd.artifact.v1.ArtifactService/GetUpload";
const UPLOAD_CHUNK: &str = "/fleetd.artifact.v1.ArtifactService/UploadArtifactChunk";
const UPLOAD: &str = "/fleetd.artifact.v1.ArtifactService/UploadArtifact";
const DOWNLOAD: &str = "/fleetd.artifact.v1.ArtifactService/DownloadArtifact";
const REFLECT: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

/// The message that ends a stream of Connect.
fn end(answer: &Answer) -> Value {
    let (flags, end) = answer.frames().pop().expect("a stream has an end");
    assert_eq!(flags, 2, "the last message is the end");
    serde_json::from_slice(&end).expect("JSON")
}

#[tokio::test]
async fn a_read_is_got_or_posted_and_anything_else_is_posted() {
    let server = Server::start().await;
    for (path, allowed) in
        [(GET_UPLOAD, "GET, POST"), (UPLOAD_CHUNK, "POST"), (DOWNLOAD, "POST"), (UPLOAD, "POST"), (REFLECT, "POST")]
    {
        for method in ["GET", "HEAD", "PUT", "DELETE", "PATCH"] {
            let query = format!("{path}?connect=v1&encoding=json&message=%7B%7D");
            let answer = send_http1(&server, request(method, &query, "application/json", "admin", Bytes::new())).await;
            if method == "GET" && allowed.starts_with("GET") {
                assert_eq!(answer.status, 404, "it is called, and there is no such artifact");
            } else {
                assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, allowed), "{method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn what_was_got_is_for_this_caller_and_this_moment() {
    let server = Server::start().await;
    for message in ["%7B%22digest%22:%22b3_none%22%7D", "no%20JSON"] {
        let path = format!("{GET_UPLOAD}?encoding=json&message={message}");
        let answer = send_http1(&server, request("GET", &path, "", "deployer", Bytes::new())).await;
        assert_eq!(answer.header("cache-control"), "private, no-cache");
        assert_eq!(answer.header("vary"), "authorization, accept-encoding");
    }
    let path = format!("{GET_UPLOAD}?encoding=xml&message=%3Ca/%3E");
    let answer = send_http1(&server, request("GET", &path, "", "deployer", Bytes::new())).await;
    assert_eq!(answer.status, 415);
}

#[tokio::test]
async fn sending_and_receiving_at_once_needs_http2() {
    let server = Server::start().await;
    let asked = || {
        let question = framed(json!({ "listServices": "" }).to_string().as_bytes());
        request("POST", REFLECT, "application/connect+json", "viewer", question)
    };
    let refused = end(&send_http1(&server, asked()).await);
    assert_eq!(refused["error"]["code"], "unimplemented");
    assert!(refused["error"]["message"].as_str().unwrap().contains("HTTP/2"), "{refused}");

    let answer = send_http2(&server, asked()).await;
    let first: Value = serde_json::from_slice(&answer.frames()[0].1).unwrap();
    assert!(first["listServicesResponse"]["service"].as_array().unwrap().len() > 10, "{first}");
    assert_eq!(end(&answer).get("error"), None);
}

#[tokio::test]
async fn what_a_service_adds_behind_its_answer_arrives() {
    let server = Server::start().await;
    let chunk = json!({ "digest": "b3_1", "sizeBytes": "7", "content": "YnJld2luZw==" });
    let answer = post_json(&server, UPLOAD_CHUNK, "deployer", &chunk.to_string()).await;
    assert_eq!(answer.header(&format!("trailer-{COST}")), "7", "unary answers have it among their headers");
    let asked = request("POST", DOWNLOAD, "application/connect+json", "deployer", framed(br#"{"digest":"b3_1"}"#));
    assert_eq!(end(&send_http1(&server, asked).await), json!({ "metadata": { COST: ["7"] } }));
}

#[tokio::test]
async fn a_stream_is_cut_at_its_deadline_and_says_so() {
    let server = Server::start().await;
    let json = framed(json!({ "digest": HANGS }).to_string().as_bytes());
    let mut asked = request("POST", DOWNLOAD, "application/connect+json", "deployer", json);
    asked.headers_mut().insert("connect-timeout-ms", "50".parse().unwrap());
    assert_eq!(end(&send_http1(&server, asked).await)["error"]["code"], "deadline_exceeded");

    let proto = framed(&[&[0x0a, u8::try_from(HANGS.len()).unwrap()], HANGS.as_bytes()].concat());
    let mut asked = request("POST", DOWNLOAD, "application/grpc", "deployer", proto.clone());
    asked.headers_mut().insert("grpc-timeout", "50m".parse().unwrap());
    let answer = send_http2(&server, asked).await;
    assert_eq!((answer.status.as_u16(), answer.grpc_status()), (200, "4"));

    let mut asked = request("POST", DOWNLOAD, "application/grpc-web+proto", "deployer", proto);
    asked.headers_mut().insert("grpc-timeout", "50m".parse().unwrap());
    let answer = send_http1(&server, asked).await;
    let (flags, trailers) = answer.frames().pop().unwrap();
    assert_eq!(flags, 0x80);
    assert!(trailers.starts_with(b"grpc-status:4"), "{trailers:?}");
}

#[tokio::test]
async fn a_deadline_that_is_none_is_refused() {
    let server = Server::start().await;
    for value in ["soon", "12345678901", "-1", ""] {
        let mut asked = request("POST", GET_UPLOAD, "application/json", "deployer", "{}".into());
        asked.headers_mut().insert("connect-timeout-ms", value.parse().unwrap());
        let answer = send_http1(&server, asked).await;
        let refused = (answer.status.as_u16(), answer.json()["code"].as_str().map(str::to_owned));
        assert_eq!(refused, (400, Some("invalid_argument".to_owned())), "{value:?}");
    }
}

#[tokio::test]
async fn another_version_of_connect_is_refused() {
    let server = Server::start().await;
    let mut asked = request("POST", GET_UPLOAD, "application/json", "deployer", "{}".into());
    asked.headers_mut().insert("connect-protocol-version", "2".parse().unwrap());
    let answer = send_http1(&server, asked).await;
    assert_eq!((answer.status.as_u16(), answer.json()["code"].as_str()), (400, Some("invalid_argument")));
    let path = format!("{GET_UPLOAD}?connect=v2&encoding=json&message=%7B%7D");
    let answer = send_http1(&server, request("GET", &path, "", "deployer", Bytes::new())).await;
    assert_eq!((answer.status.as_u16(), answer.json()["code"].as_str()), (400, Some("invalid_argument")));
}

#[tokio::test]
async fn only_answers_have_an_end_among_their_messages() {
    let server = Server::start().await;
    let mut ended = framed(b"{}").to_vec();
    ended[0] = 2;
    let asked = request("POST", UPLOAD, "application/connect+json", "deployer", ended.into());
    assert_eq!(end(&send_http1(&server, asked).await)["error"]["code"], "invalid_argument");
}
