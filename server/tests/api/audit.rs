//! Who did what: every call that changes something leaves its trace, and a trace that was changed is found.

use std::collections::BTreeSet;

use data_encoding::BASE64;
use fleetd_server::history::History;
use fleetd_sync_core::audit::{Chain, Entry, EntryHash, origin};
use fleetd_sync_core::commit::{ActorKey, Batch, Mutation, Space};
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_store::state_store::{StateStore as _, commit_and_wait};
use prost_reflect::DescriptorPool;
use serde_json::{Value, json};

use super::field::{complete_registration, whole_requests};
use super::world::{World, refuses, text};

const LIST: &str = "audit.v1.AuditService/ListAuditEntries";
const WATCH: &str = "audit.v1.AuditService/WatchAuditEntries";

/// The entries of the log that are meant, the oldest first.
async fn list(world: &World, filter: Value) -> Vec<Value> {
    let answer = world.call(LIST, json!({ "filter": filter, "oldestFirst": true, "pageSize": 1000 })).await;
    answer.expect("a page")["auditEntries"].as_array().cloned().unwrap_or_default()
}

fn entry_of(shown: &Value) -> Vec<u8> {
    BASE64.decode(text(&shown["encoded"]).as_bytes()).expect("base 64")
}

/// The RPCs that change something, by the schemas.
fn mutating() -> BTreeSet<String> {
    let pool = DescriptorPool::decode(fleetd_proto::DESCRIPTORS).expect("a valid set");
    let methods = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
    let ours = methods.filter(|method| method.parent_service().full_name().starts_with("fleetd."));
    let changes = ours.filter(|method| {
        let level = method.options().get_field_by_name("idempotency_level").map(std::borrow::Cow::into_owned);
        level.and_then(|level| level.as_enum_number()) != Some(1)
    });
    changes.map(|method| format!("{}/{}", method.parent_service().full_name(), method.name())).collect()
}

#[tokio::test]
async fn every_rpc_that_changes_something_leaves_its_trace() {
    let world = World::start().await;
    let device = world.devices(1).await.remove(0);
    let rpcs = mutating();
    assert!(rpcs.len() > 20, "the schemas were found");
    let requests = whole_requests();
    for rpc in rpcs {
        let before = list(&world, json!({ "action": rpc })).await.len();
        let short = rpc.strip_prefix("fleetd.").expect("it is ours");
        let mut request = requests.get(short).unwrap_or_else(|| panic!("no whole request of {rpc}")).clone();
        let fields = request.as_object_mut().expect("an object");
        if fields.get("device").is_some_and(|device| device == "$") {
            fields.insert("device".to_owned(), device.clone().into());
        }
        fields.insert("requestId".to_owned(), world.request_id().into());
        let is_registration = short.ends_with("RegisterDevice");
        if is_registration {
            complete_registration(&world, fields).await;
        }
        if short.ends_with("/UploadArtifactChunk") {
            // All that it announces, so that it ends with this part.
            fields.insert("content".to_owned(), BASE64.encode(b"x").into());
        }
        // Whether it is done or refused: what is asked here need not exist.
        drop(if short.ends_with("/UploadArtifact") {
            world.upload(short, &[request]).await
        } else {
            world.call(short, request).await
        });
        let left = list(&world, json!({ "action": rpc })).await.split_off(before);
        let stages: Vec<&str> = left.iter().map(|entry| text(&entry["stage"])).collect();
        match is_registration {
            true => assert_eq!(stages, ["STAGE_WHOLE"], "{rpc}"),
            false => assert_eq!(stages, ["STAGE_INTENT", "STAGE_OUTCOME"], "{rpc}"),
        }
    }
}

#[tokio::test]
async fn an_entry_says_who_asked_for_what_and_how_it_ended() {
    let world = World::start().await;
    let device = world.devices(1).await.remove(0);
    let request = json!({ "device": device, "reason": "it hums" });
    world.call("device.v1.DeviceService/HoldDevice", request).await.expect("it is held");
    let request = json!({ "device": device, "holdId": "hld_0000000000000000" });
    let lifted = world.call("device.v1.DeviceService/LiftHold", request).await;
    refuses(lifted, "not_found", "device.hold_unknown");

    let held = list(&world, json!({ "action": "HoldDevice" })).await;
    assert_eq!(held[0]["token"]["name"], "ana");
    assert_eq!(held[0]["token"]["role"], "admin");
    assert_eq!(text(&held[0]["request"]), format!(r#"{{"device":"{device}","reason":"it hums"}}"#));
    assert_eq!(held[0]["clockQuality"], "CLOCK_QUALITY_FLOOR");
    assert_eq!((&held[1]["outcome"], &held[1]["intentNumber"]), (&"OUTCOME_DONE".into(), &held[0]["number"]));
    let lifted = list(&world, json!({ "action": "LiftHold" })).await;
    assert_eq!(
        (text(&lifted[1]["outcome"]), text(&lifted[1]["errorCode"])),
        ("OUTCOME_REFUSED", "device.hold_unknown")
    );

    // By the name that was used, and by the id that stays.
    let local = text(&held[0]["subjects"][1]).to_owned();
    assert!(local.starts_with("loc_"), "{local}");
    for subject in [&device, &local] {
        let about = list(&world, json!({ "subject": subject })).await;
        let actions: Vec<_> = about.iter().map(|entry| text(&entry["action"]).rsplit('/').next().unwrap()).collect();
        assert_eq!(actions, ["RegisterDevice", "HoldDevice", "HoldDevice", "LiftHold", "LiftHold"], "{subject}");
    }
    assert_eq!(list(&world, json!({ "by": local })).await.len(), 1, "it joined");
    assert!(list(&world, json!({ "by": "nobody" })).await.is_empty());
    let at = &held[0]["writtenAt"];
    assert!(list(&world, json!({ "until": at })).await.is_empty());
    assert!(!list(&world, json!({ "since": at })).await.is_empty());
}

#[tokio::test]
async fn secrets_are_not_in_it() {
    let world = World::start().await;
    let made = world.call("access.v1.AccessService/CreateAccessToken", json!({ "name": "ci", "role": "ROLE_VIEWER" }));
    let access = text(&made.await.expect("a token")["text"]).to_owned();
    let request = json!({ "usesMax": 1, "needsApproval": true });
    let made = world.call("enrolment.v1.EnrolmentService/CreateEnrolmentToken", request).await.expect("a token");
    let enrolment = text(&made["text"]).to_owned();
    world.register(&enrolment, 1).await.expect("it waits");
    let all = list(&world, json!({})).await;
    assert_eq!(all.len(), 5, "two calls, each with its outcome, and a device that waits");
    let bytes: Vec<u8> = all.iter().flat_map(entry_of).collect();
    for secret in [access.as_str(), access.rsplit('_').next().unwrap(), enrolment.as_str()] {
        assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{secret}");
    }
}

#[tokio::test]
async fn repeating_a_request_leaves_no_second_trace() {
    let world = World::start().await;
    let request = json!({ "requestId": "once", "usesMax": 1 });
    for _ in 0..3 {
        world.call("enrolment.v1.EnrolmentService/CreateEnrolmentToken", request.clone()).await.expect("a token");
    }
    assert_eq!(list(&world, json!({})).await.len(), 2);
}

#[tokio::test]
async fn parts_of_one_upload_leave_one_trace() {
    let world = World::start().await;
    let content = [7_u8; 30];
    let digest = fleetd_sync_core::id::ArtifactDigest::of(&content).to_string();
    for (number, part) in (0..).zip(content.chunks(10)) {
        let request = json!({ "digest": digest, "sizeBytes": "30", "offsetBytes": (number * 10).to_string(),
            "content": BASE64.encode(part) });
        world.call("artifact.v1.ArtifactService/UploadArtifactChunk", request).await.expect("it is taken");
    }
    let left = list(&world, json!({ "subject": digest })).await;
    assert_eq!(left.iter().map(|entry| text(&entry["stage"])).collect::<Vec<_>>(), ["STAGE_INTENT", "STAGE_OUTCOME"]);
}

#[tokio::test]
async fn a_role_that_is_too_low_is_noted_and_a_stranger_is_not() {
    let world = World::start().await;
    let made = world.call("access.v1.AccessService/CreateAccessToken", json!({ "name": "bob", "role": "ROLE_VIEWER" }));
    let viewer = text(&made.await.expect("a token")["text"]).to_owned();
    let before = list(&world, json!({})).await.len();
    for _ in 0..30 {
        let refused = world.call_as("", "device.v1.DeviceService/RevokeDevice", &json!({})).await;
        refuses(refused, "unauthenticated", "access.token.missing");
        let refused = world.call_as(&viewer, LIST, &json!({})).await;
        refuses(refused, "permission_denied", "access.role.too_low");
    }
    let left = list(&world, json!({})).await.split_off(before);
    assert_eq!(left.len(), 10, "more are counted");
    assert_eq!((text(&left[0]["token"]["name"]), text(&left[0]["errorCode"])), ("bob", "access.role.too_low"));
    assert_eq!(text(&left[0]["action"]), "fleetd.audit.v1.AuditService/ListAuditEntries");
}

#[tokio::test]
async fn pages_lead_through_the_log_in_both_orders() {
    let world = World::start().await;
    for _ in 0..7 {
        world.call("enrolment.v1.EnrolmentService/CreateEnrolmentToken", json!({})).await.expect("a token");
    }
    for is_oldest_first in [true, false] {
        let (mut numbers, mut token) = (Vec::new(), String::new());
        loop {
            let request = json!({ "pageSize": 4, "pageToken": token, "oldestFirst": is_oldest_first });
            let page = world.call(LIST, request).await.expect("a page");
            assert_eq!((text(&page["firstNumber"]), text(&page["lastNumber"])), ("1", "14"));
            let entries = page["auditEntries"].as_array().expect("entries").clone();
            numbers.extend(entries.iter().map(|entry| text(&entry["number"]).parse::<u32>().unwrap()));
            token = text(&page["nextPageToken"]).to_owned();
            if token.is_empty() {
                break;
            }
        }
        let mut expected: Vec<u32> = (1..=14).collect();
        if !is_oldest_first {
            expected.reverse();
        }
        assert_eq!(numbers, expected);
    }
    refuses(world.call(LIST, json!({ "pageToken": "!" })).await, "invalid_argument", "request.field.invalid");
}

#[tokio::test]
async fn a_follower_is_told_of_each_entry_as_it_is_written() {
    let world = World::start().await;
    world.call("enrolment.v1.EnrolmentService/CreateEnrolmentToken", json!({})).await.expect("a token");
    let request = json!({ "afterNumber": "1", "filter": { "action": "CreateEnrolmentToken" } });
    let mut entries = world.open(WATCH, &request).await;
    assert_eq!(entries.entry().await["auditEntry"]["number"], "2");
    world
        .call("access.v1.AccessService/CreateAccessToken", json!({ "name": "a", "role": "ROLE_VIEWER" }))
        .await
        .unwrap();
    world.call("enrolment.v1.EnrolmentService/CreateEnrolmentToken", json!({})).await.expect("a token");
    let told = entries.entry().await;
    assert_eq!(told["auditEntry"]["number"], "5", "others are not meant");
    // Who lost the stream goes on behind it, and who names an entry that is not there is told so.
    world.call("enrolment.v1.EnrolmentService/CreateEnrolmentToken", json!({})).await.expect("a token");
    let request = json!({ "resumeToken": told["resumeToken"] });
    let mut entries = world.open(WATCH, &request).await;
    assert_eq!(entries.entry().await["auditEntry"]["number"], "6");
    let mut ahead = world.open(WATCH, &json!({ "afterNumber": "9" })).await;
    let refused = ahead.next().await.expect("an answer");
    let refused = refuses(refused, "invalid_argument", "request.field.invalid");
    assert!(refused.details.contains("no entry 9: the last one is 8"), "{refused:?}");
}

#[tokio::test]
async fn a_follower_of_a_restored_log_is_told_all_of_it() {
    let world = World::start().await;
    world.call("enrolment.v1.EnrolmentService/CreateEnrolmentToken", json!({})).await.expect("a token");
    let mut entries = world.open(WATCH, &json!({ "afterNumber": "1" })).await;
    let told = entries.entry().await;
    // A restore begins another history; what it writes next has the numbers of what was lost.
    let history = History::draw(&mut Entropy::from_seed([7; 32]));
    let restored = Batch { actor: ActorKey::only("a restore"), mutations: vec![history.put()] };
    commit_and_wait(&world.store, restored).expect("it is written");
    let mut entries = world.open(WATCH, &json!({ "resumeToken": told["resumeToken"] })).await;
    for number in ["1", "2"] {
        assert_eq!(entries.entry().await["auditEntry"]["number"], number);
    }
}

/// Follows the chain as whoever does not believe the server: from the bytes of the entries alone.
async fn follow(world: &World) -> Result<Chain, String> {
    let mut chain = Chain::after(0, origin(world.keys.fleet()));
    for shown in list(world, json!({})).await {
        chain.follow(&entry_of(&shown)).map_err(|error| error.to_string())?;
    }
    Ok(chain)
}

#[tokio::test]
async fn an_entry_that_was_changed_or_taken_out_breaks_the_chain() {
    let world = World::start().await;
    world.devices(2).await;
    let page = world.call(LIST, json!({})).await.expect("a page");
    let chain = follow(&world).await.expect("it is whole");
    assert_eq!(text(&page["headHash"]), chain.head().to_string());
    assert_eq!(text(&page["lastNumber"]), chain.last().to_string());

    let key = 2_u64.to_be_bytes().to_vec();
    let kept = world.store.get(Space::AuditEntry, &key).unwrap().expect("an entry").value;
    let write =
        |mutation| commit_and_wait(&world.store, Batch { actor: ActorKey::only("a thief"), mutations: vec![mutation] });
    let mut entry = Entry::decode(&kept).unwrap();
    entry.action = "fleetd.device.v1.DeviceService/HoldDevice".to_owned();
    write(Mutation::Put { space: Space::AuditEntry, key: key.clone(), value: entry.encode() }).unwrap();
    assert_eq!(
        follow(&world).await,
        Err("entry 3 was written above another entry 2 than the one that is there".into())
    );
    write(Mutation::Delete { space: Space::AuditEntry, key: key.clone() }).unwrap();
    assert_eq!(follow(&world).await, Err("entry 2 is missing: entry 3 comes in its place".into()));
    write(Mutation::Put { space: Space::AuditEntry, key: key.clone(), value: kept.clone() }).unwrap();
    assert_eq!(follow(&world).await, Ok(chain));

    // Whoever writes all of it anew comes to another head than the one that somebody noted.
    let mut entry = Entry::decode(&kept).unwrap();
    entry.action = "fleetd.device.v1.DeviceService/HoldDevice".to_owned();
    let mut before = EntryHash::of(&entry.encode());
    write(Mutation::Put { space: Space::AuditEntry, key, value: entry.encode() }).unwrap();
    for number in 3..=chain.last() {
        let key = number.to_be_bytes().to_vec();
        let mut entry = Entry::decode(&world.store.get(Space::AuditEntry, &key).unwrap().unwrap().value).unwrap();
        entry.previous = before;
        before = EntryHash::of(&entry.encode());
        write(Mutation::Put { space: Space::AuditEntry, key, value: entry.encode() }).unwrap();
    }
    assert_ne!(follow(&world).await.expect("it is a chain").head(), chain.head());
}
