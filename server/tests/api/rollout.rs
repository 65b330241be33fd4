//! Plans and rollouts.

use fleetd_server::record::request::{self, GivenAnswer};
use fleetd_sync_core::commit::{ActorKey, Batch, Commit as _, Space};
use fleetd_sync_store::state_store::{Change, Changed, KeyRange, StateStore as _};
use serde_json::{Value, json};

use super::world::{Refused, World, base64, count, refuses, text};

async fn on(world: &World, rpc: &str, request: Value) -> Result<Value, Refused> {
    world.call(&format!("rollout.v1.RolloutService/{rpc}"), request).await
}

fn plan_of(targets: Value) -> Value {
    json!({ "workload": "coffee", "version": "1.0.0", "targets": targets })
}

#[tokio::test]
async fn a_plan_says_what_would_happen_to_each_device() {
    let world = World::start().await;
    world.with_release("1.0.0").await;
    let names = world.devices(3).await;
    let hold = json!({ "device": names[1], "reason": "trade fair" });
    world.call("device.v1.DeviceService/HoldDevice", hold).await.expect("it is there");
    let planned = on(&world, "PlanRollout", plan_of(json!({ "selector": "shop=7" }))).await.expect("a plan");
    let counts = &planned["plan"]["counts"];
    assert_eq!((&counts["matched"], &counts["install"], &counts["blocked"]), (&3.into(), &2.into(), &1.into()));
    assert_eq!((&counts["offline"], &planned["plan"]["attempt"]), (&2.into(), &1.into()));
    let first = &planned["devices"][0];
    assert_eq!((text(&first["name"]), text(&first["blockedReason"])), (names[1].as_str(), "BLOCKED_REASON_HELD"));
    let id = &planned["plan"]["id"];
    let again = on(&world, "GetPlan", json!({ "planId": id })).await.expect("it is saved");
    assert_eq!((&again["plan"], &again["document"]), (&planned["plan"], &planned["document"]));
    let blocked =
        on(&world, "GetPlan", json!({ "planId": id, "verdict": "VERDICT_BLOCKED" })).await.expect("it is saved");
    assert_eq!(count(&blocked["devices"]), 1);
    let named = on(&world, "PlanRollout", plan_of(json!({ "devices": [names[0]] }))).await.expect("a plan");
    assert_eq!((&named["plan"]["counts"]["matched"], &named["plan"]["attempt"]), (&1.into(), &2.into()));
}

#[tokio::test]
async fn a_plan_is_compared_with_the_fleet_without_a_start() {
    let world = World::start().await;
    world.with_release("1.0.0").await;
    let names = world.devices(2).await;
    let planned = on(&world, "PlanRollout", plan_of(json!({ "all": true }))).await.expect("a plan");
    let (id, document) = (&planned["plan"]["id"], &planned["document"]);
    let same = on(&world, "CheckPlan", json!({ "planId": id })).await.expect("it is saved");
    assert_eq!((&same["planId"], count(&same["changes"])), (id, 0));
    let hold = json!({ "device": names[1], "reason": "trade fair" });
    world.call("device.v1.DeviceService/HoldDevice", hold).await.expect("it is there");
    let changed = on(&world, "CheckPlan", json!({ "document": document })).await.expect("it is what was saved");
    assert_eq!(count(&changed["changes"]), 1);
    let change = text(&changed["changes"][0]);
    assert!(change.starts_with(&format!("{}: planned was install, now it is blocked", names[1])), "{change}");
    let refused = on(&world, "StartRollout", json!({ "planId": id })).await;
    refuses(refused, "failed_precondition", "rollout.plan_stale");
    let started = on(&world, "StartRollout", json!({ "planId": id, "onlyPlanned": true })).await.expect("what is left");
    let checked = on(&world, "CheckPlan", json!({ "planId": id })).await.expect("it is saved");
    assert_eq!((&checked["rolloutId"], count(&checked["changes"])), (&started["rollout"]["id"], 0));
}

#[tokio::test]
async fn targets_that_mean_nothing_or_nobody_are_refused() {
    let world = World::start().await;
    world.with_release("1.0.0").await;
    world.devices(1).await;
    for (targets, kind, code) in [
        (json!({}), "invalid_argument", "request.field.missing"),
        (json!({ "selector": "  " }), "invalid_argument", "selector.empty"),
        (json!({ "selector": "shop=" }), "invalid_argument", "selector.invalid"),
        (json!({ "all": true, "selector": "shop" }), "invalid_argument", "request.field.invalid"),
        (json!({ "devices": [""] }), "invalid_argument", "request.field.missing"),
        (json!({ "devices": ["nobody"] }), "not_found", "device.unknown"),
        (json!({ "selector": "shop=8" }), "failed_precondition", "rollout.no_match"),
    ] {
        let refused = refuses(on(&world, "PlanRollout", plan_of(targets)).await, kind, code);
        assert!(!code.starts_with("selector") || !refused.next_command.is_empty(), "{refused:?}");
        assert!(!refused.details.contains("1 devices"), "{refused:?}");
    }
    let unknown = json!({ "workload": "coffee", "version": "9", "targets": { "all": true } });
    refuses(on(&world, "PlanRollout", unknown).await, "not_found", "release.unknown");
    refuses(
        on(&world, "GetPlan", json!({ "planId": "pln_0000000000000000" })).await,
        "not_found",
        "rollout.plan_unknown",
    );
    refuses(on(&world, "GetPlan", json!({ "planId": "x" })).await, "invalid_argument", "request.field.invalid");
}

#[tokio::test]
async fn a_release_that_does_not_fit_a_disk_is_blocked_there_before_anything_is_sent() {
    let world = World::start().await;
    world.with_release("1.0.0").await;
    let roomy = world.devices(1).await.remove(0);
    let made = world.call("enrolment.v1.EnrolmentService/CreateEnrolmentToken", json!({})).await.expect("a token");
    let facts = json!({ "platform": "linux/arm64", "diskFreeBytes": "4000000" });
    world.register_with(text(&made["text"]), 50, facts).await.expect("it joins");
    let planned = on(&world, "PlanRollout", plan_of(json!({ "all": true }))).await.expect("a plan");
    let rows = planned["devices"].as_array().expect("devices");
    let blocked: Vec<&Value> = rows.iter().filter(|row| row["verdict"] == "VERDICT_BLOCKED").collect();
    assert_eq!((rows.len(), blocked.len()), (2, 1));
    assert_ne!(blocked[0]["name"], *roomy);
    assert_eq!(blocked[0]["blockedReason"], "BLOCKED_REASON_STORAGE");
    assert!(text(&blocked[0]["reason"]).contains("has 4000000 free"), "{}", blocked[0]);
    let started = on(&world, "StartRollout", json!({ "planId": planned["plan"]["id"] })).await.expect("it fits");
    assert_eq!(started["rollout"]["counts"]["waiting"], 1, "the small one is not asked: {started}");
}

#[tokio::test]
async fn a_plan_starts_once() {
    let world = World::start().await;
    world.with_release("1.0.0").await;
    let names = world.devices(2).await;
    let planned = on(&world, "PlanRollout", plan_of(json!({ "all": true }))).await.expect("a plan");
    let request = json!({ "requestId": "go", "document": planned["document"] });
    let started = on(&world, "StartRollout", request.clone()).await.expect("it fits");
    assert_eq!(on(&world, "StartRollout", request).await, Ok(started.clone()), "repeated, it is the same rollout");
    let rollout = &started["rollout"];
    assert_eq!((text(&rollout["state"]), &rollout["counts"]["waiting"]), ("ROLLOUT_STATE_RUNNING", &2.into()));
    let twice = on(&world, "StartRollout", json!({ "planId": planned["plan"]["id"] })).await;
    let refused = refuses(twice, "already_exists", "rollout.plan_started");
    assert_eq!(refused.next_command, format!("fleetd rollout watch {}", text(&rollout["id"])));
    let shown = on(&world, "GetRollout", json!({ "rolloutId": rollout["id"] })).await.expect("it is there");
    let mut sorted = names.clone();
    sorted.sort_unstable();
    let shown: Vec<&str> =
        shown["devices"].as_array().expect("devices").iter().map(|device| text(&device["name"])).collect();
    assert_eq!(shown, sorted);
    let list = on(&world, "ListRollouts", json!({ "workload": "coffee" })).await.expect("a list");
    assert_eq!(list["rollouts"][0]["id"], rollout["id"]);
    assert!(count(&on(&world, "ListRollouts", json!({ "workload": "tea" })).await.expect("a list")["rollouts"]) == 0);
    let device =
        world.call("device.v1.DeviceService/GetDevice", json!({ "device": names[0] })).await.expect("it is there");
    assert_eq!(device["device"]["workloads"][0]["desiredRelease"], "1.0.0");
}

#[tokio::test]
async fn a_plan_of_which_nobody_would_get_the_release_is_refused() {
    let world = World::start().await;
    world.with_release("1.0.0").await;
    let names = world.devices(2).await;
    for name in &names {
        let hold = json!({ "device": name, "reason": "trade fair" });
        world.call("device.v1.DeviceService/HoldDevice", hold).await.expect("it is there");
    }
    let planned = on(&world, "PlanRollout", plan_of(json!({ "all": true }))).await.expect("it is a plan all the same");
    assert_eq!(planned["plan"]["counts"]["blocked"], 2);
    let refused = refuses(
        on(&world, "StartRollout", json!({ "planId": planned["plan"]["id"] })).await,
        "failed_precondition",
        "rollout.plan_blocked",
    );
    let reasons: Vec<_> = refused.details.lines().collect();
    assert_eq!(reasons[0], "each device that lacks the release is blocked");
    assert!(names.iter().all(|name| reasons.contains(&format!("{name}: held: trade fair").as_str())), "{reasons:?}");
    assert!(names.iter().any(|name| refused.next_command == format!("fleetd device why {name}")));
    assert_eq!(count(&on(&world, "ListRollouts", json!({})).await.expect("a list")["rollouts"]), 0);
}

/// The batch that wrote the record of a space also wrote a request's receipt.
fn came_with_its_receipt(changes: &[Change], space: Space) -> bool {
    let wrote = |wanted: Space| {
        let is_of =
            move |change: &&Change| matches!(&change.changed, Changed::Record { space, .. } if *space == wanted);
        changes.iter().filter(is_of).map(|change| change.revision)
    };
    wrote(space).any(|revision| wrote(Space::Request).any(|receipt| receipt == revision))
}

/// Leaves of every answer only its receipt, as a crash between the change and its answer does.
fn lose_answers(world: &World) {
    let found = world.store.scan(Space::Request, KeyRange::all(), 1000).expect("it reads");
    let mutations = found.into_iter().map(|(key, found)| {
        let given = request::decode(&found.value).expect("it is an answer");
        request::put(key, &GivenAnswer { response: None, ..given })
    });
    let batch = Batch { actor: ActorKey::only("test"), mutations: mutations.collect() };
    world.store.submit(batch, Box::new(|result| result.expect("it is stored")));
}

#[tokio::test]
async fn a_repeated_request_changes_nothing_though_its_answer_was_lost_with_the_server() {
    let world = World::start().await;
    world.with_release("1.0.0").await;
    let names = world.devices(1).await;
    let planned = on(&world, "PlanRollout", plan_of(json!({ "all": true }))).await.expect("a plan");
    let before = world.store.feed_end();
    let start = json!({ "requestId": "go", "planId": planned["plan"]["id"] });
    let started = on(&world, "StartRollout", start.clone()).await.expect("it fits");
    let id = &started["rollout"]["id"];
    let abort = json!({ "requestId": "stop", "rolloutId": id, "reason": "wrong shop" });
    let aborted = on(&world, "AbortRollout", abort.clone()).await.expect("it runs");
    let rename = json!({ "requestId": "call", "device": names[0], "name": "bar" });
    let renamed = world.call("device.v1.DeviceService/RenameDevice", rename.clone()).await.expect("it is free");
    let hold = json!({ "requestId": "hold", "device": "bar", "reason": "trade fair" });
    world.call("device.v1.DeviceService/HoldDevice", hold.clone()).await.expect("it is there");
    let changes = world.store.feed(before, 1000).expect("the feed reaches back").changes;
    for space in [Space::Rollout, Space::Device] {
        assert!(came_with_its_receipt(&changes, space), "{space:?}");
    }

    lose_answers(&world);
    let again = on(&world, "StartRollout", start).await.expect("it was started");
    assert_eq!(again["rollout"]["id"], *id);
    assert_eq!(count(&on(&world, "ListRollouts", json!({})).await.expect("a list")["rollouts"]), 1);
    let again = on(&world, "AbortRollout", abort).await.expect("it was aborted");
    assert_eq!(again["rollout"]["reason"], aborted["rollout"]["reason"]);
    let again = world.call("device.v1.DeviceService/RenameDevice", rename).await.expect("it was renamed");
    assert_eq!(again["device"]["deviceId"], renamed["device"]["deviceId"]);
    let again = world.call("device.v1.DeviceService/HoldDevice", hold).await;
    refuses(again, "already_exists", "request.answer_lost");
    let shown = world.call("device.v1.DeviceService/GetDevice", json!({ "device": "bar" })).await.expect("it is there");
    assert_eq!(count(&shown["device"]["holds"]), 1, "{shown}");
}

#[tokio::test]
async fn of_two_devices_that_are_given_one_name_at_once_one_gets_it() {
    let world = World::start().await;
    let names = world.devices(4).await;
    let rename = |device: String| {
        let request = json!({ "device": device, "name": "bar" });
        world.call("device.v1.DeviceService/RenameDevice", request)
    };
    let [a, b, c, d] = std::array::from_fn(|index| rename(names[index].clone()));
    let answers: [_; 4] = tokio::join!(a, b, c, d).into();
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
    for answer in answers.into_iter().filter(Result::is_err) {
        refuses(answer, "already_exists", "device.name_taken");
    }
}

#[tokio::test]
async fn an_edited_plan_is_refused() {
    let world = World::start().await;
    world.with_release("1.0.0").await;
    world.devices(1).await;
    let planned = on(&world, "PlanRollout", plan_of(json!({ "all": true }))).await.expect("a plan");
    let document = data_encoding::BASE64.decode(text(&planned["document"]).as_bytes()).expect("base 64");
    let document = String::from_utf8(document).expect("text");
    let edited = document.replace("attempt 1", "attempt 2");
    let answer = on(&world, "StartRollout", json!({ "document": base64(edited.as_bytes()) })).await;
    refuses(answer, "invalid_argument", "rollout.plan_edited");
    let mut plan = fleetd_actors::rollout::plan::Plan::from_text(&document).expect("it is a plan");
    plan.attempt = 2;
    let forged = plan.to_text();
    let answer = on(&world, "StartRollout", json!({ "document": base64(forged.as_bytes()) })).await;
    refuses(answer, "invalid_argument", "rollout.plan_edited");
    let answer = on(&world, "StartRollout", json!({ "document": base64(b"no plan") })).await;
    refuses(answer, "invalid_argument", "rollout.plan_unreadable");
}

#[tokio::test]
async fn a_plan_that_does_not_fit_the_fleet_any_more_is_refused() {
    let world = World::start().await;
    world.with_release("1.0.0").await;
    let names = world.devices(2).await;
    let planned = on(&world, "PlanRollout", plan_of(json!({ "selector": "shop=7" }))).await.expect("a plan");
    let labels = json!({ "device": names[0], "set": { "unrelated": "yes" } });
    world.call("device.v1.DeviceService/UpdateLabels", labels).await.expect("it is there");
    let hold = json!({ "device": names[1], "reason": "trade fair" });
    world.call("device.v1.DeviceService/HoldDevice", hold).await.expect("it is there");
    let answer = on(&world, "StartRollout", json!({ "planId": planned["plan"]["id"] })).await;
    let refused = refuses(answer, "failed_precondition", "rollout.plan_stale");
    assert_eq!(refused.details, format!("{}: planned was install, now it is blocked: held: trade fair", names[1]));
    assert!(count(&on(&world, "ListRollouts", json!({})).await.expect("a list")["rollouts"]) == 0);
}

#[tokio::test]
async fn a_watch_tells_of_a_rollout_to_its_end() {
    let world = World::start().await;
    world.with_release("1.0.0").await;
    world.devices(2).await;
    let mut asked = plan_of(json!({ "all": true }));
    asked["strategy"] = json!({ "waves": [{ "count": 1 }, { "rest": true }] });
    let planned = on(&world, "PlanRollout", asked).await.expect("a plan");
    let first = planned["devices"].as_array().expect("devices").iter().find(|device| device["wave"] == 1);
    let first = &first.expect("one goes first")["name"];
    let started = on(&world, "StartRollout", json!({ "planId": planned["plan"]["id"] })).await.expect("it fits");
    let id = &started["rollout"]["id"];
    let mut watch = world.open("rollout.v1.RolloutService/WatchRollout", &json!({ "rolloutId": id })).await;
    assert_eq!(watch.entry().await["rollout"]["id"], *id);
    let mut devices = 0;
    let complete = loop {
        let entry = watch.entry().await;
        if entry["snapshotComplete"].is_object() {
            break entry;
        }
        devices += 1;
    };
    assert_eq!(devices, 2);
    // Whoever comes back while it goes on is told what has changed since, and that alone.
    on(&world, "PauseRollout", json!({ "rolloutId": id, "reason": "lunch" })).await.expect("it runs");
    while watch.entry().await["rollout"]["state"] != "ROLLOUT_STATE_PAUSED" {}
    let request = json!({ "rolloutId": id, "resumeToken": complete["resumeToken"] });
    let mut resumed = world.open("rollout.v1.RolloutService/WatchRollout", &request).await;
    assert_eq!(resumed.entry().await["rollout"]["state"], "ROLLOUT_STATE_PAUSED");
    assert_eq!(resumed.entry().await["device"]["name"], *first, "the pause is no matter of the other one yet");
    assert!(resumed.entry().await["snapshotComplete"].is_object());
    let aborted =
        on(&world, "AbortRollout", json!({ "rolloutId": id, "reason": "wrong shop" })).await.expect("it runs");
    assert_eq!(aborted["rollout"]["state"], "ROLLOUT_STATE_ABORTED");
    let rest = watch.rest().await;
    let last = rest.iter().rev().find_map(|entry| entry.get("rollout")).expect("it ends with the rollout");
    assert_eq!((text(&last["state"]), text(&last["reason"])), ("ROLLOUT_STATE_ABORTED", "aborted by ana: wrong shop"));
    assert_eq!(last["counts"]["skipped"], 2);
    let request = json!({ "rolloutId": id, "resumeToken": complete["resumeToken"] });
    let again = world.open("rollout.v1.RolloutService/WatchRollout", &request).await.rest().await;
    assert_eq!(again[0]["rollout"]["state"], "ROLLOUT_STATE_ABORTED", "one that has ended is told and ends");
    let again = on(&world, "AbortRollout", json!({ "rolloutId": id })).await.expect("it is aborted already");
    assert_eq!(again["rollout"]["reason"], "aborted by ana: wrong shop");
    let unknown = json!({ "rolloutId": "rol_0000000000000000" });
    refuses(on(&world, "AbortRollout", unknown.clone()).await, "not_found", "rollout.unknown");
    refuses(on(&world, "GetRollout", unknown).await, "not_found", "rollout.unknown");
}
