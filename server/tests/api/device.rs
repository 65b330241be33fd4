//! Devices: seen, steered, watched.

use std::time::Duration;

use fleetd_actors::device::Input;
use fleetd_actors::device::command::Command;
use fleetd_actors::engine::REST_AFTER;
use fleetd_sync_core::id::{LocalId, OperationId};
use serde_json::{Value, json};

use super::world::{HELP_AT, World, count, refuses, text};

async fn on(world: &World, rpc: &str, request: Value) -> Result<Value, super::world::Refused> {
    world.call(&format!("device.v1.DeviceService/{rpc}"), request).await
}

#[tokio::test]
async fn a_device_is_found_by_name_id_and_local_id() {
    let world = World::start().await;
    let name = world.devices(1).await.remove(0);
    let shown = on(&world, "GetDevice", json!({ "device": name })).await.expect("it is there");
    let shown = &shown["device"];
    assert_eq!((text(&shown["state"]), text(&shown["presence"])), ("DEVICE_STATE_ENROLLED", "PRESENCE_NEVER"));
    assert_eq!(shown["facts"]["platform"], "linux/arm64");
    for other in ["id", "localId"] {
        let found = on(&world, "GetDevice", json!({ "device": shown[other], "probe": true })).await;
        assert_eq!(found.expect("it is there")["device"]["name"], *name);
    }
    for unknown in ["nobody", "dev_0000000000000000", "loc_00000000000000000000000000", "No Name"] {
        let refused =
            refuses(on(&world, "GetDevice", json!({ "device": unknown })).await, "not_found", "device.unknown");
        assert_eq!(refused.next_command, "fleetd device list");
        assert_eq!(refused.help_url, format!("{HELP_AT}/errors/device.unknown"));
    }
}

#[tokio::test]
async fn a_list_is_in_the_order_of_names_by_selector_and_in_pages() {
    let world = World::start().await;
    let mut names = world.devices(5).await;
    names.sort_unstable();
    let list = |request: Value| async { on(&world, "ListDevices", request).await };
    let found = |answer: &Value| -> Vec<String> {
        answer["devices"].as_array().into_iter().flatten().map(|device| text(&device["name"]).to_owned()).collect()
    };
    assert_eq!(found(&list(json!({})).await.expect("a list")), names);
    let first = list(json!({ "pageSize": 3 })).await.expect("a page");
    let second = list(json!({ "pageSize": 3, "pageToken": first["nextPageToken"] })).await.expect("a page");
    assert_eq!([found(&first), found(&second)].concat(), names);
    assert_eq!(text(&second["nextPageToken"]), "");
    on(&world, "UpdateLabels", json!({ "device": names[2], "set": { "channel": "beta" } })).await.expect("it is there");
    let beta = list(json!({ "selector": "shop=7,channel in (beta)" })).await.expect("a list");
    assert_eq!(found(&beta), names[2..3]);
    let by_id = list(json!({ "selector": format!("id={}", text(&beta["devices"][0]["id"])) })).await;
    assert_eq!(found(&by_id.expect("a list")), names[2..3]);
    assert_eq!(found(&list(json!({ "presence": "PRESENCE_ONLINE" })).await.expect("a list")), [""; 0]);
    let refused = refuses(list(json!({ "selector": "shop=7," })).await, "invalid_argument", "selector.invalid");
    assert!(refused.details.contains("column 8"), "{refused:?}");
}

#[tokio::test]
async fn labels_and_names_are_the_operators() {
    let world = World::start().await;
    let names = world.devices(2).await;
    let labelled = on(&world, "UpdateLabels", json!({ "device": names[0], "set": { "a": "b" }, "remove": ["shop"] }));
    assert_eq!(labelled.await.expect("it is there")["device"]["labels"], json!({ "a": "b" }));
    let renamed = on(&world, "RenameDevice", json!({ "device": names[0], "name": "till-3" })).await;
    assert_eq!(renamed.expect("it is free")["device"]["name"], "till-3");
    refuses(on(&world, "GetDevice", json!({ "device": names[0] })).await, "not_found", "device.unknown");
    let taken = on(&world, "RenameDevice", json!({ "device": names[1], "name": "till-3" })).await;
    refuses(taken, "already_exists", "device.name_taken");
    let freed = on(&world, "RenameDevice", json!({ "device": names[1], "name": names[0] })).await;
    assert_eq!(freed.expect("it was given up")["device"]["name"], *names[0]);
    for (rpc, request) in [
        ("RenameDevice", json!({ "device": "till-3", "name": "Till 3" })),
        ("UpdateLabels", json!({ "device": "till-3", "set": { "a": "b c" } })),
        ("UpdateLabels", json!({ "device": "till-3", "remove": ["!"] })),
    ] {
        refuses(on(&world, rpc, request).await, "invalid_argument", "request.field.invalid");
    }
}

#[tokio::test]
async fn a_registered_device_that_nobody_speaks_to_is_a_record_and_no_actor() {
    let world = World::start().await;
    let names = world.devices(3).await;
    let devices = &world.node.actors.devices;
    assert_eq!(devices.loaded(), 3);
    tokio::time::pause();
    for _ in 0..2 {
        let past = REST_AFTER + Duration::from_secs(1);
        world.clock.turn(past.as_millis().try_into().expect("it is short"));
        tokio::time::sleep(past).await;
    }
    assert_eq!(devices.loaded(), 0, "nothing may wait in an actor's memory for a time to come");
    tokio::time::resume();
    on(&world, "HoldDevice", json!({ "device": names[0], "reason": "trade fair" })).await.expect("it is woken");
    assert_eq!(devices.loaded(), 1);
}

/// A registration gives a name, too, and does not wait for the turn of those who rename.
#[tokio::test]
async fn a_name_that_another_device_gets_meanwhile_is_not_given_twice() {
    let world = World::start().await;
    let names = world.devices(2).await;
    let other = on(&world, "GetDevice", json!({ "device": names[1] })).await.expect("it is there");
    let other: LocalId = text(&other["device"]["localId"]).parse().expect("an id");

    world.store.hold();
    let (operation, caller) = (OperationId::from_bytes([1; 8]), "nobody".to_owned());
    let command = Command::Rename("till-3".parse().expect("a name"));
    world.node.actors.devices.send(&other, Input::Command { operation, caller, command });
    while world.store.queued() == 0 {
        tokio::task::yield_now().await;
    }
    // Nothing of it is durable yet, and the name is free for all that anybody can see.
    let renaming = on(&world, "RenameDevice", json!({ "device": names[0], "name": "till-3" }));
    let letting_go = async {
        while world.store.queued() == 1 {
            tokio::task::yield_now().await;
        }
        // The answer never comes, and nobody wants to wait for that.
        tokio::time::pause();
        world.store.let_go();
    };
    let (renamed, ()) = tokio::join!(renaming, letting_go);
    tokio::time::resume();
    refuses(renamed, "already_exists", "device.name_taken");
    let shown = on(&world, "GetDevice", json!({ "device": "till-3" })).await.expect("it is there");
    assert_eq!(shown["device"]["localId"], other.to_string());
    let shown = on(&world, "GetDevice", json!({ "device": names[0] })).await.expect("it keeps its name");
    assert_eq!(shown["device"]["name"], *names[0]);
}

#[tokio::test]
async fn a_hold_is_placed_explained_and_lifted() {
    let world = World::start().await;
    let name = world.devices(1).await.remove(0);
    let held = on(&world, "HoldDevice", json!({ "device": name, "reason": "trade fair" })).await.expect("it is there");
    let hold = text(&held["hold"]["id"]).to_owned();
    let why = on(&world, "ExplainDevice", json!({ "device": name })).await.expect("it is there");
    let why = &why["explanation"];
    assert_eq!(why["summary"], "a hold keeps it as it is: trade fair");
    let kinds: Vec<&str> =
        why["reasons"].as_array().expect("reasons").iter().map(|reason| text(&reason["kind"])).collect();
    assert_eq!(kinds, ["REASON_KIND_HELD", "REASON_KIND_OFFLINE"]);
    assert_eq!(why["reasons"][0]["nextCommand"], format!("fleetd device lift {name} {hold}"));
    assert_eq!(why["events"][0]["kind"], "held");
    let lifted = on(&world, "LiftHold", json!({ "device": name, "holdId": hold })).await.expect("it is in force");
    assert!(count(&lifted["device"]["holds"]) == 0);
    let again = on(&world, "LiftHold", json!({ "device": name, "holdId": hold })).await;
    refuses(again, "not_found", "device.hold_unknown");
}

#[tokio::test]
async fn workloads_that_a_device_does_not_have_are_not_steered() {
    let world = World::start().await;
    let name = world.devices(1).await.remove(0);
    for rpc in ["StartWorkload", "StopWorkload", "RestartWorkload"] {
        let answer = on(&world, rpc, json!({ "device": name, "workload": "coffee" })).await;
        refuses(answer, "not_found", "device.workload_unknown");
        let answer = on(&world, rpc, json!({ "device": "nobody", "workload": "coffee" })).await;
        refuses(answer, "not_found", "device.unknown");
        let answer = on(&world, rpc, json!({ "device": name, "workload": "Coffee" })).await;
        refuses(answer, "invalid_argument", "request.field.invalid");
    }
    let why = on(&world, "ExplainDevice", json!({ "device": name, "workload": "coffee" })).await;
    refuses(why, "not_found", "device.workload_unknown");
}

#[tokio::test]
async fn a_revoked_device_never_comes_back() {
    let world = World::start().await;
    let made = world
        .call("enrolment.v1.EnrolmentService/CreateEnrolmentToken", json!({ "usesMax": 2, "needsApproval": false }));
    let token = text(&made.await.expect("a token")["text"]).to_owned();
    let joined = world.register(&token, 1).await.expect("it joins");
    let name = &joined["registered"]["name"];
    let revoked = on(&world, "RevokeDevice", json!({ "device": name, "reason": "stolen" })).await;
    assert_eq!(revoked.expect("it is there")["device"]["state"], "DEVICE_STATE_REVOKED");
    let held = on(&world, "HoldDevice", json!({ "device": name })).await;
    refuses(held, "failed_precondition", "device.revoked");
    assert!(count(&on(&world, "ListDevices", json!({})).await.expect("a list")["devices"]) == 0);
    let ended = on(&world, "ListDevices", json!({ "includeEnded": true })).await.expect("a list");
    assert_eq!(count(&ended["devices"]), 1);
    let answer = world.register(&token, 1).await.expect_err("its key is revoked");
    assert_eq!(answer.kind, "permission_denied");
    let trust = world.call("trust.v1.TrustService/GetTrust", json!({})).await.expect("it is shown");
    assert_eq!(trust["trust"]["revocations"][0]["keyId"], joined["registered"]["localId"]);
}

#[tokio::test]
async fn a_watch_tells_what_is_there_and_each_change_and_goes_on_where_it_was() {
    let world = World::start().await;
    let names = world.devices(2).await;
    let mut watch = world.open("device.v1.DeviceService/WatchDevices", &json!({ "selector": "shop" })).await;
    let mut seen: Vec<String> = Vec::new();
    for _ in 0..2 {
        let entry = watch.entry().await;
        assert_eq!(entry["change"], "DEVICE_CHANGE_SNAPSHOT");
        seen.push(text(&entry["device"]["name"]).to_owned());
    }
    seen.sort_unstable();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    assert_eq!(seen, sorted);
    let complete = watch.entry().await;
    assert_eq!(complete["change"], "DEVICE_CHANGE_SNAPSHOT_COMPLETE");
    on(&world, "UpdateLabels", json!({ "device": names[0], "set": { "a": "b" } })).await.expect("it is there");
    let changed = watch.entry().await;
    assert_eq!((&changed["change"], &changed["device"]["labels"]["a"]), (&"DEVICE_CHANGE_CHANGED".into(), &"b".into()));
    on(&world, "UpdateLabels", json!({ "device": names[0], "remove": ["shop"] })).await.expect("it is there");
    assert_eq!(watch.entry().await["change"], "DEVICE_CHANGE_REMOVED", "it does not match any more");
    on(&world, "RenameDevice", json!({ "device": names[1], "name": "till" })).await.expect("it is free");
    assert_eq!(watch.entry().await["device"]["name"], "till");

    let request = json!({ "resumeToken": changed["resumeToken"] });
    let mut again = world.open("device.v1.DeviceService/WatchDevices", &request).await;
    let mut told = [again.entry().await, again.entry().await];
    told.sort_by_key(|entry| entry["device"]["revision"].as_str().and_then(|text| text.parse::<u64>().ok()));
    assert!(told.iter().all(|entry| entry["change"] == "DEVICE_CHANGE_CHANGED"), "{told:?}");
    assert_eq!(told[1]["device"]["name"], "till", "only what changed since is told");
}
