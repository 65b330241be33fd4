//! Who may call, and repeating a call.

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use fleetd_server::edge::limit::Limits;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::world::{World, count, patient_limits, refuses, text};

const CREATE: &str = "access.v1.AccessService/CreateAccessToken";
const WHO: &str = "access.v1.AccessService/WhoAmI";

#[tokio::test]
async fn a_token_counts_until_it_is_revoked() {
    let world = World::start().await;
    let made = world.call(CREATE, json!({ "name": "ci", "role": "ROLE_DEPLOYER" })).await.expect("a token");
    let (token, id) = (text(&made["text"]), text(&made["accessToken"]["id"]));
    let who = world.call_as(token, WHO, &json!({})).await.expect("it counts");
    assert_eq!((&who["accessToken"]["name"], &who["accessToken"]["role"]), (&"ci".into(), &"ROLE_DEPLOYER".into()));
    assert_eq!(who["fleetId"], world.keys.fleet().to_string());
    let denied = world.call_as(token, CREATE, &json!({ "requestId": "x", "name": "y", "role": "ROLE_ADMIN" })).await;
    refuses(denied, "permission_denied", "access.role.too_low");
    let revoked = world.call("access.v1.AccessService/RevokeAccessToken", json!({ "accessId": id })).await;
    assert!(revoked.expect("it is known")["accessToken"]["revokedAt"].is_string());
    refuses(world.call_as(token, WHO, &json!({})).await, "unauthenticated", "access.token.revoked");
    let list = |ended: bool| world.call("access.v1.AccessService/ListAccessTokens", json!({ "includeEnded": ended }));
    assert_eq!(count(&list(false).await.expect("a list")["accessTokens"]), 1);
    assert_eq!(count(&list(true).await.expect("a list")["accessTokens"]), 2);
}

#[tokio::test]
async fn streams_that_are_open_end_soon_after_their_token_is_revoked_or_expires() {
    let limits = Limits { credential_interval: Duration::from_millis(20), ..patient_limits() };
    let world = World::start_with(limits).await;
    for (expires_at, code) in [("", "access.token.revoked"), ("2027-01-15T08:00:01Z", "access.token.expired")] {
        let mut asked = json!({ "name": "ci", "role": "ROLE_VIEWER" });
        if !expires_at.is_empty() {
            asked["expiresAt"] = expires_at.into();
        }
        let made = world.call(CREATE, asked).await.expect("a token");
        let mut watch = world.open_as(text(&made["text"]), "device.v1.DeviceService/WatchDevices", &json!({})).await;
        assert_eq!(watch.entry().await["change"], "DEVICE_CHANGE_SNAPSHOT_COMPLETE");
        if expires_at.is_empty() {
            let revoke = json!({ "accessId": made["accessToken"]["id"] });
            world.call("access.v1.AccessService/RevokeAccessToken", revoke).await.expect("it is known");
        } else {
            world.clock.turn(2000);
        }
        refuses(watch.next().await.expect("its end is said"), "unauthenticated", code);
    }
}

#[tokio::test]
async fn what_a_stranger_packed_grows_to_no_more_than_it_may_send() {
    let world = World::start().await;
    let register = "registration.v1.RegistrationService/RegisterDevice";
    for (facts, code) in [(1 << 10, "invalid_argument"), (1 << 20, "resource_exhausted")] {
        let request = json!({ "facts": { "model": "x".repeat(facts) } }).to_string();
        let mut packer = GzEncoder::new(Vec::new(), Compression::best());
        packer.write_all(request.as_bytes()).expect("it is packed");
        let packed = Bytes::from(packer.finish().expect("it is packed"));
        assert!(packed.len() < 2 << 10, "{} bytes are sent", packed.len());
        let headers = [("content-type", "application/json"), ("content-encoding", "gzip")];
        let answer = world.send_with("", register, &headers, packed).await;
        let body = answer.into_body().collect().await.expect("a whole answer").to_bytes();
        let answer: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(answer["code"], code, "{answer}");
    }
}

#[tokio::test]
async fn a_token_expires() {
    let world = World::start().await;
    let asked = json!({ "name": "ci", "role": "ROLE_VIEWER", "expiresAt": "2027-01-15T08:00:01Z" });
    let made = world.call(CREATE, asked).await.expect("a token");
    assert!(world.call_as(text(&made["text"]), WHO, &json!({})).await.is_ok());
    world.clock.turn(2000);
    refuses(world.call_as(text(&made["text"]), WHO, &json!({})).await, "unauthenticated", "access.token.expired");
    let asked = json!({ "name": "ci", "role": "ROLE_VIEWER", "expiresAt": "2027-01-15T08:00:01Z" });
    let late = refuses(world.call(CREATE, asked).await, "invalid_argument", "request.field.invalid");
    assert_eq!(late.message, "expires_at is invalid");
}

#[tokio::test]
async fn a_repeated_request_is_answered_as_the_first_time() {
    let world = World::start().await;
    let asked = json!({ "requestId": "build 1", "name": "ci", "role": "ROLE_VIEWER" });
    let first = world.call(CREATE, asked.clone()).await.expect("a token");
    assert_eq!(world.call(CREATE, asked).await, Ok(first.clone()), "even its secret, while the server runs");
    let other = json!({ "requestId": "build 1", "name": "ci", "role": "ROLE_ADMIN" });
    refuses(world.call(CREATE, other).await, "already_exists", "request.repeated_otherwise");
    let list = world.call("access.v1.AccessService/ListAccessTokens", json!({})).await.expect("a list");
    assert_eq!(count(&list["accessTokens"]), 2, "nothing more was made");
    world.clock.turn(25 * 3600 * 1000);
    let asked = json!({ "requestId": "build 1", "name": "ci", "role": "ROLE_VIEWER" });
    let later = world.call(CREATE, asked).await.expect("a token");
    assert_ne!(later["text"], first["text"], "a day later it is another request");
}

#[tokio::test]
async fn pages_of_a_list_have_every_entry_once() {
    let world = World::start().await;
    for name in ["a", "b", "c", "d"] {
        world.call(CREATE, json!({ "name": name, "role": "ROLE_VIEWER" })).await.expect("a token");
        world.clock.turn(1000);
    }
    let (mut names, mut token) = (Vec::new(), String::new());
    loop {
        let asked = json!({ "pageSize": 2, "pageToken": token });
        let page = world.call("access.v1.AccessService/ListAccessTokens", asked).await.expect("a page");
        names.extend(
            page["accessTokens"].as_array().expect("tokens").iter().map(|token| text(&token["name"]).to_owned()),
        );
        token = text(&page["nextPageToken"]).to_owned();
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(&names[..3], ["d", "c", "b"], "the newest first");
    names.sort_unstable();
    assert_eq!(names, ["a", "ana", "b", "c", "d"]);
    let asked = json!({ "pageSize": 5000 });
    refuses(
        world.call("access.v1.AccessService/ListAccessTokens", asked).await,
        "invalid_argument",
        "request.field.invalid",
    );
}
