//! What a client can make the server hold is bounded.

use std::time::Duration;

use bytes::Bytes;
use fleetd_server::edge::limit::Limits;
use fleetd_server::edge::rate::Rate;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::client::{framed, post_json, request, send_http1, send_http2, tls};
use super::service::{HANGS, Server};

const GET_UPLOAD: &str = "/fleetd.artifact.v1.ArtifactService/GetUpload";
const DOWNLOAD: &str = "/fleetd.artifact.v1.ArtifactService/DownloadArtifact";

#[tokio::test]
async fn a_message_that_is_too_long_is_refused() {
    let server = Server::start_with(Limits { message_bytes_max: 100, ..Limits::default() }).await;
    let json = json!({ "digest": "x".repeat(100) }).to_string();
    let answer = post_json(&server, GET_UPLOAD, "deployer", &json).await;
    assert_eq!((answer.status.as_u16(), answer.json()["code"].as_str()), (429, Some("resource_exhausted")));

    let body = framed(json.as_bytes());
    let answer = send_http1(&server, request("POST", DOWNLOAD, "application/connect+json", "deployer", body)).await;
    let end: serde_json::Value = serde_json::from_slice(&answer.frames()[0].1).unwrap();
    assert_eq!(end["error"]["code"], "resource_exhausted");

    let path = format!("{GET_UPLOAD}?encoding=proto&message={}", "x".repeat(101));
    let answer = send_http1(&server, request("GET", &path, "", "deployer", Bytes::new())).await;
    assert_eq!(answer.json()["code"], "resource_exhausted");
}

#[tokio::test]
async fn a_stranger_may_send_less() {
    let server = Server::start_with(Limits { open_body_bytes_max: 100, ..Limits::default() }).await;
    let json = json!({ "service": "x".repeat(100) }).to_string();
    let answer = post_json(&server, "/grpc.health.v1.Health/Check", "", &json).await;
    assert_eq!(answer.json()["code"], "resource_exhausted");
    let body = framed(&[0; 100]);
    let answer =
        send_http2(&server, request("POST", "/grpc.health.v1.Health/Check", "application/grpc", "", body)).await;
    assert_eq!(answer.grpc_status(), "8");
}

#[tokio::test]
async fn headers_that_are_too_long_are_refused() {
    let server = Server::start().await;
    let mut asked = request("POST", GET_UPLOAD, "application/json", "deployer", "{}".into());
    asked.headers_mut().insert("x-long", "x".repeat(20 << 10).parse().unwrap());
    assert_eq!(send_http1(&server, asked.clone()).await.status, 431);
    assert_eq!(send_http2(&server, asked).await.status, 431);
}

#[tokio::test]
async fn a_client_that_asks_for_nothing_is_let_go() {
    let server =
        Server::start_with(Limits { handshake_timeout: Duration::from_millis(300), ..Limits::default() }).await;
    for alpn in [&b"h2"[..], b"http/1.1"] {
        let mut stream = tls(&server, alpn).await;
        let mut received = Vec::new();
        // The connection ends, however it does: what must not happen is that this waits for ever.
        let _ = stream.read_to_end(&mut received).await;
    }
    let mut silent = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let _ = silent.read_to_end(&mut Vec::new()).await;
}

#[tokio::test]
async fn an_answer_that_comes_early_reaches_a_client_that_still_sends() {
    let server = Server::start().await;
    let mut stream = tls(&server, b"http/1.1").await;
    let length = 1 << 20;
    let head = format!("POST {GET_UPLOAD} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n");
    stream.write_all(format!("{head}content-length: {length}\r\n\r\n").as_bytes()).await.unwrap();
    let answer = read_answer(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("unauthenticated"), "{answer}");
    stream.write_all(&vec![b' '; length]).await.unwrap();
    stream.write_all(format!("{head}content-length: 2\r\n\r\n{{}}").as_bytes()).await.unwrap();
    let answer = read_answer(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "the next request of the connection is answered too: {answer}");
}

/// Reads an answer with its body.
async fn read_answer(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut read = Vec::new();
    loop {
        let mut part = [0; 4096];
        let length = stream.read(&mut part).await.expect("it can be read");
        assert!(length > 0, "the connection ends: {}", String::from_utf8_lossy(&read));
        read.extend_from_slice(&part[..length]);
        let text = String::from_utf8_lossy(&read).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        if body.len() >= length.parse::<usize>().expect("a number") {
            return text;
        }
    }
}

#[tokio::test]
async fn one_connection_more_than_allowed_waits_for_room() {
    let server = Server::start_with(Limits { connections_max: 1, ..Limits::default() }).await;
    let (mut first, connection) = http1::handshake(TokioIo::new(tls(&server, b"http/1.1").await)).await.unwrap();
    let running = tokio::spawn(connection);
    let ask = || {
        let mut request = request("POST", "/grpc.health.v1.Health/Check", "application/json", "", "{}".into());
        request.headers_mut().insert("host", "localhost".parse().unwrap());
        request
    };
    let server = std::sync::Arc::new(server);
    let second = tokio::spawn({
        let server = std::sync::Arc::clone(&server);
        async move { send_http1(&server, ask()).await.status }
    });
    for _ in 0..50 {
        let answer = first.send_request(ask()).await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.into_body().collect().await.unwrap();
        assert!(!second.is_finished(), "the second connection got in beside the first");
        first.ready().await.unwrap();
    }
    drop(first);
    running.await.unwrap().unwrap();
    assert_eq!(second.await.unwrap(), 200);
}

const WHO_AM_I: &str = "/fleetd.access.v1.AccessService/WhoAmI";

#[tokio::test]
async fn a_credential_that_calls_too_often_is_told_when_to_come_again() {
    let calls = Rate { per_second: 1, burst: 20 };
    let server = Server::start_with(Limits { calls, ..Limits::default() }).await;
    for _ in 0..20 {
        assert_eq!(post_json(&server, WHO_AM_I, "deployer", "{}").await.status, 200);
    }
    let answer = post_json(&server, WHO_AM_I, "deployer", "{}").await;
    let error = answer.json();
    assert_eq!((answer.status.as_u16(), error["code"].as_str()), (429, Some("resource_exhausted")));
    assert_eq!(answer.headers["retry-after"], "1");
    assert_eq!(error["message"], "deployer calls more often than 1 times a second");
    assert_eq!(error["details"][0]["debug"]["code"], "rate.credential");
    assert_eq!(error["details"][1]["type"], "google.rpc.RetryInfo");
    assert!(error["details"][1]["debug"]["retryDelay"].is_string(), "{error}");
    let answer = send_http2(&server, request("POST", WHO_AM_I, "application/grpc", "deployer", framed(b""))).await;
    assert_eq!(answer.grpc_status(), "8");
    assert_eq!(post_json(&server, WHO_AM_I, "admin", "{}").await.status, 200, "another credential is another's");
}

#[tokio::test]
async fn failures_of_an_address_are_put_off_and_a_good_credential_is_not() {
    let failures = Rate { per_second: 1, burst: 5 };
    let server = Server::start_with(Limits { failures, ..Limits::default() }).await;
    let mut codes = Vec::new();
    for token in ["", "unknown", "expired"].into_iter().cycle().take(9) {
        codes.push(post_json(&server, WHO_AM_I, token, "{}").await.status.as_u16());
    }
    assert_eq!(codes, [401, 401, 401, 401, 401, 429, 429, 429, 429]);
    let answer = post_json(&server, WHO_AM_I, "unknown", "{}").await;
    assert_eq!(answer.json()["details"][0]["debug"]["code"], "rate.failures");
    assert_eq!(post_json(&server, WHO_AM_I, "deployer", "{}").await.status, 200);
}

#[tokio::test]
async fn calls_without_a_credential_are_put_off_too() {
    let open_calls = Rate { per_second: 1, burst: 3 };
    let server = Server::start_with(Limits { open_calls, ..Limits::default() }).await;
    let health = "/grpc.health.v1.Health/Check";
    for _ in 0..3 {
        assert_eq!(post_json(&server, health, "", "{}").await.status, 200);
    }
    let answer = post_json(&server, health, "", "{}").await;
    assert_eq!((answer.status.as_u16(), answer.headers["retry-after"].to_str().unwrap()), (429, "1"));
    assert_eq!(answer.json()["details"][0]["debug"]["code"], "rate.open");
}

#[tokio::test]
async fn silent_connections_by_the_hundred_keep_nobody_out() {
    let server = Server::start().await;
    // More than an address may have, of both kinds: that never shake hands, and that shake hands and ask for nothing.
    let mut silent = Vec::new();
    for _ in 0..400 {
        silent.push(tokio::net::TcpStream::connect(server.address).await.unwrap());
    }
    let mut idle = Vec::new();
    for _ in 0..100 {
        idle.push(tls(&server, b"http/1.1").await);
    }
    assert_eq!(post_json(&server, WHO_AM_I, "deployer", "{}").await.status, 200);
    // Of one address, 64 are left; each of the others was closed when the next came.
    let mut closed = 0;
    for mut stream in silent {
        let mut byte = [0];
        let ended = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut byte)).await;
        closed += usize::from(matches!(ended, Ok(Ok(0) | Err(_))));
    }
    assert_eq!(closed, 400, "the idle ones came after them");
}

#[tokio::test]
async fn a_connection_with_a_credential_makes_room_for_no_stranger() {
    let limits = Limits { strangers_max: 4, strangers_each_max: 2, ..Limits::default() };
    let server = Server::start_with(limits).await;
    let (mut known, connection) = http1::handshake(TokioIo::new(tls(&server, b"http/1.1").await)).await.unwrap();
    tokio::spawn(connection);
    let ask = || {
        let mut request = request("POST", WHO_AM_I, "application/json", "deployer", "{}".into());
        request.headers_mut().insert("host", "localhost".parse().unwrap());
        request
    };
    let answer = known.send_request(ask()).await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.into_body().collect().await.unwrap();
    let mut strangers = Vec::new();
    for _ in 0..10 {
        strangers.push(tls(&server, b"http/1.1").await);
    }
    known.ready().await.unwrap();
    assert_eq!(known.send_request(ask()).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_deadline_that_passes_ends_the_request() {
    let server = Server::start().await;
    let hanging = |content_type: &str, body: Bytes, header: &'static str, value: &'static str| {
        let mut asked: http::Request<Full<Bytes>> = request("POST", GET_UPLOAD, content_type, "deployer", body);
        asked.headers_mut().insert(header, value.parse().unwrap());
        asked
    };
    let json = json!({ "digest": HANGS }).to_string();
    let answer = send_http1(&server, hanging("application/json", json.into(), "connect-timeout-ms", "5")).await;
    assert_eq!((answer.status.as_u16(), answer.json()["code"].as_str()), (504, Some("deadline_exceeded")));

    let proto = [&[0x0a, u8::try_from(HANGS.len()).unwrap()], HANGS.as_bytes()].concat();
    let answer = send_http2(&server, hanging("application/grpc", framed(&proto), "grpc-timeout", "5m")).await;
    assert_eq!(answer.grpc_status(), "4");
}

#[tokio::test]
async fn a_server_that_stops_waits_for_no_stream_without_end() {
    let server = Server::start_with(Limits { drain_timeout: Duration::from_millis(50), ..Limits::default() }).await;
    let (mut sender, connection) = http1::handshake(TokioIo::new(tls(&server, b"http/1.1").await)).await.unwrap();
    let running = tokio::spawn(connection);
    let body = framed(json!({ "digest": HANGS }).to_string().as_bytes());
    let mut asked = request("POST", DOWNLOAD, "application/connect+json", "deployer", body);
    asked.headers_mut().insert("host", "localhost".parse().unwrap());
    let answer = sender.send_request(asked).await.unwrap();
    assert_eq!(answer.status(), 200, "the stream has begun");
    server.stop().await;
    assert!(answer.into_body().collect().await.is_err(), "it was cut, not ended");
    let _ = running.await;
}
