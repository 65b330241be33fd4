//! Messages of Connect, packed by gzip or zstd on both ways; they are packed and unpacked here by other code.

use std::io::{Read as _, Write as _};

use bytes::Bytes;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use fleetd_sync_core::id::ArtifactDigest;
use fleetd_sync_core::limit::API_MESSAGE_BYTES_MAX;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::world::{World, base64};

const LIST: &str = "device.v1.DeviceService/ListDevices";
const DOWNLOAD: &str = "artifact.v1.ArtifactService/DownloadArtifact";
const UPLOAD: &str = "artifact.v1.ArtifactService/UploadArtifact";
const METHODS: [&str; 2] = ["gzip", "zstd"];

pub(super) fn pack(method: &str, message: &[u8]) -> Bytes {
    match method {
        "gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::best());
            encoder.write_all(message).expect("it is written");
            encoder.finish().expect("it ends").into()
        }
        "zstd" => zstd::stream::encode_all(message, 9).expect("it is written").into(),
        _ => Bytes::copy_from_slice(message),
    }
}

fn unpack(method: &str, packed: &[u8]) -> Vec<u8> {
    match method {
        "gzip" => {
            let mut message = Vec::new();
            GzDecoder::new(packed).read_to_end(&mut message).expect("it is gzip");
            message
        }
        "zstd" => zstd::stream::decode_all(packed).expect("it is zstd"),
        _ => packed.to_vec(),
    }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    fn error(&self) -> (u16, String, String) {
        let error: Value = serde_json::from_slice(&self.body).expect("JSON");
        let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
        (self.status.as_u16(), text("code"), text("message"))
    }

    /// The messages of a stream, each with its flags.
    fn frames(&self) -> Vec<(u8, Bytes)> {
        let mut frames = Vec::new();
        let mut rest = self.body.clone();
        while let Some((header, _)) = rest.split_first_chunk::<5>() {
            let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
            frames.push((header[0], rest.slice(5..5 + length)));
            rest = rest.slice(5 + length..);
        }
        frames
    }
}

/// Calls an RPC as the admin with these headers.
async fn call(world: &World, rpc: &str, headers: &[(&'static str, &str)], body: Bytes) -> Answer {
    let response = world.send_with(&world.admin, rpc, headers, body).await;
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("a whole answer").to_bytes();
    Answer { status: parts.status, headers: parts.headers, body }
}

fn framed(flags: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("it is short");
    [&[flags], length.to_be_bytes().as_slice(), message].concat()
}

const JSON: (&str, &str) = ("content-type", "application/json");
const STREAM: (&str, &str) = ("content-type", "application/connect+json");

#[tokio::test]
async fn a_long_answer_is_packed_as_its_client_likes() {
    let world = World::start().await;
    world.devices(20).await;
    for (accepted, wanted) in
        [("gzip", "gzip"), ("zstd", "zstd"), ("br, zstd, gzip", "zstd"), ("gzip;q=0", ""), ("identity", ""), ("br", "")]
    {
        let answer = call(&world, LIST, &[JSON, ("accept-encoding", accepted)], "{}".into()).await;
        assert_eq!(answer.header("content-encoding"), wanted, "{accepted}");
        let list: Value = serde_json::from_slice(&unpack(wanted, &answer.body)).expect("JSON");
        assert_eq!(list["devices"].as_array().map(Vec::len), Some(20));
    }
    let short = call(&world, "access.v1.AccessService/WhoAmI", &[JSON, ("accept-encoding", "gzip")], "{}".into()).await;
    assert_eq!((short.status.as_u16(), short.header("content-encoding")), (200, ""), "a short one is as it is");
}

#[tokio::test]
async fn a_packed_request_is_unpacked_and_answered_alike() {
    let world = World::start().await;
    world.devices(20).await;
    for method in METHODS {
        let body = pack(method, br#"{"pageSize":15}"#);
        let answer = call(&world, LIST, &[JSON, ("content-encoding", method)], body.clone()).await;
        assert_eq!(answer.header("content-encoding"), method, "it says nothing of what it takes");
        let list: Value = serde_json::from_slice(&unpack(method, &answer.body)).expect("JSON");
        assert_eq!(list["devices"].as_array().map(Vec::len), Some(15));

        let message = data_encoding::BASE64URL_NOPAD.encode(&body);
        let query = format!("{LIST}?connect=v1&base64=1&compression={method}&encoding=json&message={message}");
        let answer = call(&world, &query, &[], Bytes::new()).await;
        let list: Value = serde_json::from_slice(&unpack(method, &answer.body)).expect("JSON");
        assert_eq!(list["devices"].as_array().map(Vec::len), Some(15), "by GET");

        let answer = call(&world, LIST, &[JSON, ("content-encoding", method)], Bytes::new()).await;
        assert_eq!(answer.status, 200, "nothing is not unpacked");
    }
}

#[tokio::test]
async fn the_messages_of_a_stream_are_packed_one_by_one() {
    let world = World::start().await;
    let content = b"brewing ".repeat(80 << 10);
    world.send_artifact(&content).await;
    let digest = ArtifactDigest::of(&content).to_string();
    for method in METHODS {
        let body = framed(1, &pack(method, json!({ "digest": digest }).to_string().as_bytes()));
        let headers = [STREAM, ("connect-content-encoding", method)];
        let answer = call(&world, DOWNLOAD, &headers, body.into()).await;
        assert_eq!(answer.header("connect-content-encoding"), method);
        let mut received = Vec::new();
        let frames = answer.frames();
        let ((end_flags, _), parts) = frames.split_last().expect("a stream has an end");
        assert_eq!((end_flags & 2, parts.len()), (2, content.len().div_ceil(256 << 10)));
        for (flags, message) in parts {
            assert_eq!(*flags, 1, "it is packed");
            let part: Value = serde_json::from_slice(&unpack(method, message)).expect("JSON");
            let part = part["content"].as_str().expect("content").as_bytes();
            received.extend(data_encoding::BASE64.decode(part).expect("base 64"));
        }
        assert!(received == content, "{method}");

        // A stream that is sent, one message of it packed and the other not.
        let half = content.len() / 2;
        let part = |bytes: &[u8]| {
            let size_bytes = content.len().to_string();
            json!({ "requestId": method, "digest": digest, "sizeBytes": size_bytes, "content": base64(bytes) })
                .to_string()
        };
        let first = framed(1, &pack(method, part(&content[..half]).as_bytes()));
        let second = framed(0, part(&content[half..]).as_bytes());
        let headers = [STREAM, ("connect-content-encoding", method), ("connect-accept-encoding", "identity")];
        let answer = call(&world, UPLOAD, &headers, [first, second].concat().into()).await;
        assert_eq!(answer.header("connect-content-encoding"), "");
        let first: Value = serde_json::from_slice(&answer.frames()[0].1).expect("JSON");
        assert_eq!(first["complete"], true);
    }
}

#[tokio::test]
async fn what_cannot_be_unpacked_is_refused() {
    let world = World::start().await;
    let answer = call(&world, LIST, &[JSON, ("content-encoding", "br")], "{}".into()).await;
    let (status, code, message) = answer.error();
    assert_eq!((status, code.as_str()), (501, "unimplemented"));
    assert!(message.contains("gzip, zstd"), "{message}");
    let query = format!("{LIST}?encoding=json&compression=br&message=e30&base64=1");
    assert_eq!(call(&world, &query, &[], Bytes::new()).await.error().1, "unimplemented");

    for method in METHODS {
        let packed = [JSON, ("content-encoding", method)];
        let bomb = pack(method, &vec![b' '; API_MESSAGE_BYTES_MAX + 1]);
        assert!(bomb.len() < 64 << 10, "it is small on its way");
        assert_eq!(call(&world, LIST, &packed, bomb.clone()).await.error().1, "resource_exhausted");
        assert_eq!(call(&world, LIST, &packed, "{}".into()).await.error().1, "invalid_argument");

        let headers = [STREAM, ("connect-content-encoding", method)];
        for (flags, message, wanted) in
            [(1, bomb, "resource_exhausted"), (1, Bytes::from_static(b"{}"), "invalid_argument")]
        {
            let answer = call(&world, DOWNLOAD, &headers, framed(flags, &message).into()).await;
            let end: Value = serde_json::from_slice(&answer.frames()[0].1).expect("JSON");
            assert_eq!(end["error"]["code"], wanted, "{method}");
        }
    }
    let answer = call(&world, DOWNLOAD, &[STREAM], framed(1, b"{}").into()).await;
    let end: Value = serde_json::from_slice(&answer.frames()[0].1).expect("JSON");
    assert_eq!(end["error"]["code"], "invalid_argument", "no header says how it is packed");
    for (header, method) in [("connect-content-encoding", "br"), ("content-encoding", "gzip")] {
        let answer = call(&world, DOWNLOAD, &[STREAM, (header, method)], framed(0, b"{}").into()).await;
        let end: Value = serde_json::from_slice(&answer.frames()[0].1).expect("JSON");
        assert_eq!(end["error"]["code"], "unimplemented", "{header}");
    }
}
