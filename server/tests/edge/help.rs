//! Errors say where their pages are, and the pages are there, for anybody.

use bytes::Bytes;
use data_encoding::BASE64_NOPAD;
use fleetd_proto::fleetd::artifact::v1::{DownloadArtifactRequest, UploadArtifactChunkRequest};
use fleetd_proto::fleetd::common::v1::Error;
use fleetd_server::error_page::{self, page, pages};
use fleetd_server::rpc::status::error_of;
use http::HeaderMap;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use prost::Message as _;
use tonic::Status;

use super::client::{Answer, framed, post_json, request, send_http1, send_http2, tls};
use super::service::{HELP_AT, Server};

const GET_UPLOAD: &str = "/fleetd.artifact.v1.ArtifactService/GetUpload";
const UPLOAD: &str = "/fleetd.artifact.v1.ArtifactService/UploadArtifactChunk";
const DOWNLOAD: &str = "/fleetd.artifact.v1.ArtifactService/DownloadArtifact";

async fn get(server: &Server, path: &str) -> Answer {
    send_http1(server, request("GET", path, "", "", Bytes::new())).await
}

#[tokio::test]
async fn every_page_is_served_to_strangers() {
    let server = Server::start().await;
    let stream = tls(&server, b"http/1.1").await;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
    tokio::spawn(connection);
    let mut seen = 0;
    for (code, text) in pages() {
        let asked = http::Request::get(format!("/errors/{code}")).header("host", "localhost");
        let answer =
            sender.send_request(asked.body(Full::<Bytes>::default()).expect("a request")).await.expect("a page");
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/plain; charset=utf-8");
        assert_eq!(answer.into_body().collect().await.expect("all of it").to_bytes(), text, "{code}");
        seen += 1;
    }
    assert!(seen > 200, "only {seen} pages");
    let head = send_http2(&server, request("HEAD", "/errors/usage", "", "", Bytes::new())).await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    for path in ["/errors", "/errors/"] {
        let answer = get(&server, path).await;
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, error_page::list().as_bytes()));
    }
}

#[tokio::test]
async fn what_is_no_page_is_not_found_and_not_repeated() {
    let server = Server::start().await;
    for path in ["/errors/rollout", "/errors/%3Cb%3E", "/errors/../keys", "/errors/usage/", "/errors/usage.md"] {
        let answer = get(&server, path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.body, "There is no page of that name. All there are: /errors/\n");
    }
    assert_eq!(post_json(&server, "/errors/usage", "", "{}").await.status, 401, "a page takes nothing");
}

/// The error in a status of gRPC.
fn of_grpc(headers: &HeaderMap) -> Error {
    error_of(&Status::from_header_map(headers).expect("a status")).expect("an error")
}

/// The error in an error of Connect.
fn of_connect(error: &serde_json::Value) -> Error {
    let value = error["details"][0]["value"].as_str().expect("a detail");
    Error::decode(&*BASE64_NOPAD.decode(value.as_bytes()).expect("base 64")).expect("an error")
}

#[tokio::test]
async fn an_error_says_in_every_protocol_where_its_page_is_and_there_it_is() {
    let server = Server::start().await;
    let grpc = |path, token, body| request("POST", path, "application/grpc", token, body);
    let unary = send_http2(&server, grpc(GET_UPLOAD, "deployer", framed(b""))).await;
    // Its error comes behind a message.
    let digest = || "b3_torn".to_owned();
    let chunk = UploadArtifactChunkRequest { digest: digest(), content: b"abc".to_vec(), ..Default::default() };
    send_http2(&server, grpc(UPLOAD, "deployer", framed(&chunk.encode_to_vec()))).await;
    let torn = framed(&DownloadArtifactRequest { digest: digest(), offset_bytes: 0 }.encode_to_vec());
    let stream = send_http2(&server, grpc(DOWNLOAD, "deployer", torn.clone())).await;
    assert!(stream.headers.get("grpc-status").is_none() && stream.frames().len() == 1, "it began well");
    let web = request("POST", GET_UPLOAD, "application/grpc-web+proto", "deployer", framed(b""));
    let web = send_http1(&server, web).await;
    let connect = post_json(&server, GET_UPLOAD, "deployer", "{}").await;
    let envelopes = request("POST", DOWNLOAD, "application/connect+proto", "deployer", torn);
    let envelopes = send_http1(&server, envelopes).await;
    let (_, end) = envelopes.frames().pop().expect("an end");
    let end: serde_json::Value = serde_json::from_slice(&end).expect("JSON");
    let stranger = post_json(&server, GET_UPLOAD, "", "{}").await;
    let strange = send_http2(&server, grpc(GET_UPLOAD, "", framed(b""))).await;

    for (error, code) in [
        (of_grpc(&unary.headers), "artifact.unknown"),
        (of_grpc(&stream.trailers), "store.unreadable"),
        (of_grpc(&web.headers), "artifact.unknown"),
        (of_connect(&connect.json()), "artifact.unknown"),
        (of_connect(&end["error"]), "store.unreadable"),
        (of_connect(&stranger.json()), "access.token.missing"),
        (of_grpc(&strange.headers), "access.token.missing"),
    ] {
        assert_eq!((error.code.as_str(), error.help_url.as_str()), (code, &*format!("{HELP_AT}/errors/{code}")));
        let path = error.help_url.strip_prefix(HELP_AT).expect("an address");
        assert_eq!(get(&server, path).await.body, page(code).expect("a page"));
    }
}
