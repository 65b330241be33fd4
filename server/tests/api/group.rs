//! Groups, and conditions: which devices they mean, and what a plan makes of them.

use serde_json::{Value, json};

use super::world::{Refused, World, count, refuses, text};

async fn on(world: &World, rpc: &str, request: Value) -> Result<Value, Refused> {
    world.call(&format!("group.v1.GroupService/{rpc}"), request).await
}

async fn plan(world: &World, targets: Value) -> Result<Value, Refused> {
    let request = json!({ "workload": "coffee", "version": "1.0.0", "targets": targets });
    world.call("rollout.v1.RolloutService/PlanRollout", request).await
}

async fn start(world: &World, plan: &Value, only_planned: bool) -> Result<Value, Refused> {
    let request = json!({ "planId": plan["plan"]["id"], "onlyPlanned": only_planned });
    world.call("rollout.v1.RolloutService/StartRollout", request).await
}

fn names(answer: &Value) -> Vec<String> {
    answer["devices"].as_array().into_iter().flatten().map(|device| text(&device["name"]).to_owned()).collect()
}

fn sorted(names: &[String]) -> Vec<String> {
    let mut names = names.to_vec();
    names.sort_unstable();
    names
}

/// Three devices; of the second, its memory is known.
async fn fleet() -> (World, Vec<String>) {
    let world = World::start().await;
    world.with_release("1.0.0").await;
    let mut names = world.devices(2).await;
    let made = world.call("enrolment.v1.EnrolmentService/CreateEnrolmentToken", json!({})).await.expect("a token");
    let facts = json!({ "platform": "linux/arm64", "memoryBytes": "536870912" });
    let joined = world.register_with(text(&made["text"]), 50, facts).await.expect("it joins");
    names.push(text(&joined["registered"]["name"]).to_owned());
    (world, names)
}

#[tokio::test]
async fn a_condition_means_devices_by_what_they_say_and_a_plan_counts_those_that_say_nothing() {
    let (world, fleet) = fleet().await;
    let list = async |request: Value| world.call("device.v1.DeviceService/ListDevices", request).await;
    let has_memory = "facts.ram_bytes >= 536870912";
    assert_eq!(names(&list(json!({ "condition": has_memory })).await.expect("a list")), fleet[2..]);
    let both = json!({ "condition": has_memory, "selector": "shop=7" });
    assert_eq!(names(&list(both).await.expect("a list")), [""; 0], "both must hold");
    let besides = json!({ "condition": has_memory, "devices": [fleet[0]] });
    assert_eq!(names(&list(besides).await.expect("a list")), sorted(&[fleet[0].clone(), fleet[2].clone()]));

    let planned = plan(&world, json!({ "condition": has_memory })).await.expect("a plan");
    assert_eq!((&planned["plan"]["counts"]["matched"], &names(&planned)[..]), (&1.into(), &fleet[2..]));
    let undecided = &planned["plan"]["undecided"];
    assert_eq!((text(&undecided[0]["reason"]), &undecided[0]["devices"]), ("no facts.ram_bytes", &2.into()));
    let nobody = plan(&world, json!({ "condition": "facts.platform > 5" })).await;
    let refused = refuses(nobody, "failed_precondition", "rollout.no_match");
    assert!(refused.details.contains("'_>_' applied to '(string, int)' on 3 devices"), "{refused:?}");
}

#[tokio::test]
async fn what_is_no_condition_is_refused_before_any_device_is_asked() {
    let (world, _) = fleet().await;
    let sums = format!("name == {}'a'", "'a' + ".repeat(20));
    for (condition, code, said) in [
        ("facts.memory_bytes >=", "condition.invalid", "column 22"),
        ("shop == '7'", "condition.invalid", "column 1"),
        ("labels.exists(l, true)", "condition.invalid", "column 8"),
        (" ", "condition.empty", "never"),
        (sums.as_str(), "condition.too_long", "it may take 256"),
    ] {
        let refused = refuses(plan(&world, json!({ "condition": condition })).await, "invalid_argument", code);
        assert!(code == "condition.empty" || refused.details.contains(said), "{refused:?}");
        let group = on(&world, "CreateGroup", json!({ "name": "g", "condition": condition })).await;
        refuses(group, "invalid_argument", code);
    }
    assert_eq!(count(&on(&world, "ListGroups", json!({})).await.expect("a list")["groups"]), 0);
}

#[tokio::test]
async fn a_group_is_a_list_that_changes_or_what_a_selector_and_a_condition_mean() {
    let (world, fleet) = fleet().await;
    let fixed = on(&world, "CreateGroup", json!({ "name": "kiosks", "devices": [fleet[0]] })).await.expect("a group");
    assert_eq!(count(&fixed["group"]["localIds"]), 1);
    let twice = on(&world, "CreateGroup", json!({ "name": "kiosks" })).await;
    refuses(twice, "already_exists", "group.taken");
    let dynamic = json!({ "name": "big", "selector": "!shop", "condition": "facts.memory_bytes > 5" });
    on(&world, "CreateGroup", dynamic).await.expect("a group");
    let mixed = json!({ "name": "both", "selector": "shop=7", "devices": [fleet[0]] });
    refuses(on(&world, "CreateGroup", mixed).await, "invalid_argument", "request.field.invalid");

    let list = async |group: &str| {
        let answer = world.call("device.v1.DeviceService/ListDevices", json!({ "groups": [group] })).await;
        names(&answer.expect("a list"))
    };
    assert_eq!((list("kiosks").await, list("big").await), (fleet[..1].to_vec(), fleet[2..].to_vec()));
    let update = json!({ "name": "kiosks", "add": [fleet[1], fleet[2]], "remove": [fleet[0]] });
    on(&world, "UpdateGroup", update).await.expect("it is a list");
    assert_eq!(list("kiosks").await, sorted(&fleet[1..]));
    let update = json!({ "name": "big", "add": [fleet[0]] });
    refuses(on(&world, "UpdateGroup", update).await, "failed_precondition", "group.dynamic");
    let update = json!({ "name": "kiosks", "add": ["nobody"] });
    refuses(on(&world, "UpdateGroup", update).await, "not_found", "device.unknown");

    let groups = on(&world, "ListGroups", json!({})).await.expect("a list");
    let named: Vec<_> = groups["groups"].as_array().expect("groups").iter().map(|group| text(&group["name"])).collect();
    assert_eq!(named, ["big", "kiosks"]);
    on(&world, "DeleteGroup", json!({ "name": "big" })).await.expect("it is there");
    refuses(on(&world, "GetGroup", json!({ "name": "big" })).await, "not_found", "group.unknown");
    refuses(plan(&world, json!({ "groups": ["big"] })).await, "not_found", "group.unknown");
}

#[tokio::test]
async fn a_plan_is_stale_once_a_group_of_it_has_changed() {
    let (world, fleet) = fleet().await;
    for name in ["kiosks", "tills"] {
        on(&world, "CreateGroup", json!({ "name": name, "devices": [fleet[0]] })).await.expect("a group");
    }
    let planned = plan(&world, json!({ "groups": ["kiosks", "tills"] })).await.expect("a plan");
    assert_eq!(names(&planned), fleet[..1]);
    let update = json!({ "name": "kiosks", "add": [fleet[1]] });
    on(&world, "UpdateGroup", update).await.expect("it is a list");
    on(&world, "DeleteGroup", json!({ "name": "tills" })).await.expect("it is there");
    let refused = refuses(start(&world, &planned, false).await, "failed_precondition", "rollout.plan_stale");
    let said = format!("group kiosks changed\ngroup tills is deleted\n{} is new: install", fleet[1]);
    assert_eq!(refused.details, said);
    let again = plan(&world, json!({ "groups": ["kiosks"] })).await.expect("a plan");
    assert_eq!(count(&start(&world, &again, false).await.expect("it fits")["leftOut"]), 0);
}

#[tokio::test]
async fn a_start_with_only_what_was_planned_leaves_out_what_appeared_and_what_changed() {
    let (world, fleet) = fleet().await;
    world
        .call("device.v1.DeviceService/UpdateLabels", json!({ "device": fleet[2], "set": { "shop": "8" } }))
        .await
        .expect("it is there");
    let planned = plan(&world, json!({ "selector": "shop=7" })).await.expect("a plan");
    assert_eq!(names(&planned), sorted(&fleet[..2]));
    world
        .call("device.v1.DeviceService/UpdateLabels", json!({ "device": fleet[2], "set": { "shop": "7" } }))
        .await
        .expect("it is there");
    let hold = json!({ "device": fleet[1], "reason": "trade fair" });
    world.call("device.v1.DeviceService/HoldDevice", hold).await.expect("it is there");
    refuses(start(&world, &planned, false).await, "failed_precondition", "rollout.plan_stale");

    let started = start(&world, &planned, true).await.expect("one is left");
    let left_out: Vec<&str> = started["leftOut"].as_array().expect("some").iter().map(text).collect();
    let appeared = format!("{} is new: install", fleet[2]);
    let held = format!("{}: planned was install, now it is blocked: held: trade fair", fleet[1]);
    assert!(
        left_out.len() == 2 && left_out.contains(&appeared.as_str()) && left_out.contains(&held.as_str()),
        "{left_out:?}"
    );
    let shown = json!({ "rolloutId": started["rollout"]["id"] });
    let shown = world.call("rollout.v1.RolloutService/GetRollout", shown).await.expect("it is there");
    assert_eq!(names(&shown), fleet[..1]);
    for only_planned in [true, false] {
        refuses(start(&world, &planned, only_planned).await, "already_exists", "rollout.plan_started");
    }
}
