//! What stands over the whole fleet: stops, denied releases; and pins of single devices.

use serde_json::{Value, json};

use super::world::{Refused, World, refuses, text};

async fn rollouts(world: &World, rpc: &str, request: Value) -> Result<Value, Refused> {
    world.call(&format!("rollout.v1.RolloutService/{rpc}"), request).await
}

async fn plan(world: &World, version: &str) -> Value {
    let request = json!({ "workload": "coffee", "version": version, "targets": { "all": true } });
    rollouts(world, "PlanRollout", request).await.expect("a plan")
}

async fn start(world: &World, plan: &Value) -> Result<Value, Refused> {
    rollouts(world, "StartRollout", json!({ "planId": plan["plan"]["id"] })).await
}

async fn shown(world: &World, id: &str) -> Value {
    rollouts(world, "GetRollout", json!({ "rolloutId": id })).await.expect("it is there")["rollout"].clone()
}

/// Looks until a rollout is in a state: it is told of an order after whoever gave it has the answer.
async fn until(world: &World, id: &str, state: &str) -> Value {
    loop {
        let rollout = shown(world, id).await;
        if rollout["state"] == state {
            return rollout;
        }
        tokio::task::yield_now().await;
    }
}

async fn why(world: &World, device: &str) -> Vec<(String, String)> {
    let answer = world.call("device.v1.DeviceService/ExplainDevice", json!({ "device": device })).await;
    let reasons = answer.expect("it is there")["explanation"]["reasons"].as_array().cloned().unwrap_or_default();
    let told = reasons.iter().filter(|reason| reason["kind"] == "REASON_KIND_HELD");
    told.map(|reason| (text(&reason["message"]).to_owned(), text(&reason["nextCommand"]).to_owned())).collect()
}

#[tokio::test]
async fn a_stop_of_the_fleet_stops_rollouts_and_starts_until_it_is_lifted() {
    let world = World::start().await;
    world.with_release("1.0.0").await;
    let devices = world.devices(2).await;
    let planned = plan(&world, "1.0.0").await;
    let started = start(&world, &planned).await.expect("it starts");
    let id = text(&started["rollout"]["id"]).to_owned();
    let next = plan(&world, "1.0.0").await;

    let stop = rollouts(&world, "StopFleet", json!({ "reason": "smoke" })).await.expect("it is stopped");
    let hold = text(&stop["stop"]["holdId"]).to_owned();
    let rollout = until(&world, &id, "ROLLOUT_STATE_PAUSED").await;
    assert_eq!(rollout["reason"], "the whole fleet is stopped: smoke");
    assert_eq!(rollout["orderedHoldId"], hold.as_str());
    let lift = format!("fleetd rollout stop --lift {hold}");
    let told = rollout["explanation"].to_string();
    assert!(told.contains(&lift) && !told.contains("rollout resume"), "{told}");

    let refused = refuses(start(&world, &next).await, "failed_precondition", "rollout.standstill");
    assert_eq!((refused.message.as_str(), &refused.next_command), ("the whole fleet is stopped: smoke", &lift));
    let resumed = rollouts(&world, "ResumeRollout", json!({ "rolloutId": id })).await;
    refuses(resumed, "failed_precondition", "rollout.standstill");
    let late = world.devices(3).await.remove(2);
    for device in devices.iter().chain([&late]) {
        assert_eq!(
            why(&world, device).await[0],
            ("it is kept as it is: the whole fleet is stopped: smoke".to_owned(), lift.clone())
        );
        let found = world.call("device.v1.DeviceService/GetDevice", json!({ "device": device })).await;
        let hold = found.expect("it is there")["device"]["holds"][0].clone();
        assert_eq!((&hold["fleet"], &hold["id"]), (&true.into(), &stop["stop"]["holdId"]), "{device}");
    }

    let second = rollouts(&world, "StopFleet", json!({})).await.expect("it is stopped twice");
    let all = rollouts(&world, "GetFleetStops", json!({})).await.expect("an answer");
    assert_eq!(all["stops"].as_array().map(Vec::len), Some(2));
    rollouts(&world, "LiftFleetStop", json!({ "holdId": hold })).await.expect("it stood");
    refuses(rollouts(&world, "LiftFleetStop", json!({ "holdId": hold })).await, "not_found", "fleet.stop_unknown");
    assert_eq!(shown(&world, &id).await["state"], "ROLLOUT_STATE_PAUSED", "the other one stands");
    rollouts(&world, "LiftFleetStop", json!({ "holdId": second["stop"]["holdId"] })).await.expect("it stood");
    until(&world, &id, "ROLLOUT_STATE_RUNNING").await;
    assert!(why(&world, &devices[0]).await.is_empty());
}

#[tokio::test]
async fn a_denied_release_is_planned_for_nobody_and_its_rollouts_stop() {
    let world = World::start().await;
    world.with_release("1.0.0").await;
    let device = world.devices(1).await.remove(0);
    let planned = plan(&world, "1.0.0").await;
    let started = start(&world, &plan(&world, "1.0.0").await).await.expect("it starts");
    let id = text(&started["rollout"]["id"]).to_owned();
    let denial = json!({ "workload": "coffee", "version": "1.0.0", "reason": "leaks" });
    let denied = world.call("release.v1.ReleaseService/DenyRelease", denial).await.expect("it is denied");
    assert_eq!(denied["release"]["deniedReason"], "leaks");
    let rollout = until(&world, &id, "ROLLOUT_STATE_PAUSED").await;
    assert_eq!(rollout["reason"], "coffee@1.0.0 is denied: leaks");
    let blocked = plan(&world, "1.0.0").await;
    let of_device = &blocked["devices"][0];
    assert_eq!(
        (&of_device["blockedReason"], &of_device["reason"]),
        (&"BLOCKED_REASON_DENIED".into(), &"denied: leaks".into())
    );
    let refused = refuses(start(&world, &planned).await, "failed_precondition", "rollout.standstill");
    assert_eq!(refused.next_command, "fleetd release allow coffee@1.0.0");
    // The device is away: what it was assigned is held when it comes.
    assert_eq!(why(&world, &device).await[0].1, "fleetd release allow coffee@1.0.0");
    let unknown = json!({ "workload": "coffee", "version": "9.9.9" });
    refuses(world.call("release.v1.ReleaseService/DenyRelease", unknown).await, "not_found", "release.unknown");
    let release = json!({ "workload": "coffee", "version": "1.0.0" });
    let allowed = world.call("release.v1.ReleaseService/AllowRelease", release.clone()).await.expect("it was denied");
    assert_eq!(allowed["release"]["deniedAt"], Value::Null);
    until(&world, &id, "ROLLOUT_STATE_RUNNING").await;
    let again = world.call("release.v1.ReleaseService/AllowRelease", release).await;
    refuses(again, "failed_precondition", "release.not_denied");
}

#[tokio::test]
async fn a_pinned_workload_gets_no_other_version() {
    let world = World::start().await;
    world.with_release("1.0.0").await;
    let device = world.devices(1).await.remove(0);
    let pin = json!({ "device": device, "workload": "coffee", "version": "0.9.0", "reason": "certified" });
    let pinned = world.call("device.v1.DeviceService/PinWorkload", pin).await.expect("it is there");
    assert_eq!(pinned["device"]["pins"][0]["version"], "0.9.0");
    let blocked = plan(&world, "1.0.0").await;
    let of_device = &blocked["devices"][0];
    assert_eq!(of_device["blockedReason"], "BLOCKED_REASON_PINNED");
    assert_eq!(of_device["reason"], "pinned at 0.9.0: certified");
    refuses(start(&world, &blocked).await, "failed_precondition", "rollout.plan_blocked");
    let unpin = json!({ "device": device, "workload": "coffee" });
    let unpinned = world.call("device.v1.DeviceService/UnpinWorkload", unpin.clone()).await.expect("it was pinned");
    assert_eq!(unpinned["device"]["pins"], Value::Null);
    start(&world, &plan(&world, "1.0.0").await).await.expect("it starts");
    let again = world.call("device.v1.DeviceService/UnpinWorkload", unpin).await;
    refuses(again, "failed_precondition", "device.not_pinned");
}

#[tokio::test]
async fn nobody_goes_back_where_nothing_ran_before() {
    let world = World::start().await;
    world.with_release("1.0.0").await;
    let device = world.devices(1).await.remove(0);
    let started = start(&world, &plan(&world, "1.0.0").await).await.expect("it starts");
    let back = json!({ "rolloutId": started["rollout"]["id"] });
    let refused = loop {
        // Until the device has its assignment, the rollout has not reached it.
        let refused =
            refuses(rollouts(&world, "PlanRollback", back.clone()).await, "failed_precondition", "rollout.no_way_back");
        if !refused.details.starts_with("it reached no device") {
            break refused;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(refused.details, format!("{device}: nothing ran there before"));
    let unknown = json!({ "rolloutId": "rol_0000000000000000" });
    refuses(rollouts(&world, "PlanRollback", unknown).await, "not_found", "rollout.unknown");
}
