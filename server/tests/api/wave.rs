//! Waves, and stops of a rollout, over the API.

use serde_json::{Value, json};

use super::world::{Refused, World, refuses};

async fn on(world: &World, method: &str, request: Value) -> Result<Value, Refused> {
    world.call(&format!("rollout.v1.RolloutService/{method}"), request).await
}

fn plan_of(strategy: Value) -> Value {
    json!({ "workload": "coffee", "version": "1.0.0", "targets": { "all": true }, "strategy": strategy })
}

/// The states of a rollout's waves.
fn states(rollout: &Value) -> Vec<&str> {
    let waves = rollout["waves"].as_array().expect("it has waves").iter();
    waves.map(|wave| wave["state"].as_str().expect("a state").trim_start_matches("ROLLOUT_WAVE_STATE_")).collect()
}

#[tokio::test]
async fn a_rollout_goes_wave_by_wave_and_is_paused_resumed_and_aborted() {
    let world = World::start().await;
    world.with_release("1.0.0").await;
    world.devices(4).await;
    let waves = json!([{ "count": 1 }, { "percent": 25 }, { "rest": true }]);
    let strategy = json!({ "waves": waves, "bake": "1800s", "approveWaves": true, "failedPercentMax": 2 });
    let planned = on(&world, "PlanRollout", plan_of(strategy.clone())).await.expect("a plan");
    let sizes: Vec<_> =
        planned["plan"]["waves"].as_array().expect("waves").iter().map(|wave| &wave["counts"]["matched"]).collect();
    assert_eq!(sizes, [1, 1, 2]);
    let first = planned["devices"].as_array().expect("devices").iter().find(|device| device["wave"] == 1);
    let first = first.expect("somebody goes first")["name"].clone();

    let started = on(&world, "StartRollout", json!({ "planId": planned["plan"]["id"] })).await.expect("it fits");
    let (rollout, id) = (&started["rollout"], &started["rollout"]["id"]);
    assert_eq!(states(rollout), ["ROLLING", "WAITING", "WAITING"]);
    assert_eq!((&rollout["wave"], &rollout["strategy"]["bake"]), (&json!(1), &json!("1800s")));
    let refused = on(&world, "ApproveRollout", json!({ "rolloutId": id, "wave": 3 })).await;
    refuses(refused, "failed_precondition", "rollout.not_awaited");
    // Nobody of the first wave can be reached: somebody's word stands in for its proof.
    let approved = on(&world, "ApproveRollout", json!({ "rolloutId": id, "wave": 2 })).await.expect("it is next");
    assert_eq!(states(&approved["rollout"]), ["PASSED", "ROLLING", "WAITING"]);

    let pause = json!({ "rolloutId": id, "reason": "shop 7 called" });
    let paused = on(&world, "PauseRollout", pause).await.expect("it runs");
    let paused = &paused["rollout"];
    assert_eq!(
        (&paused["state"], &paused["reason"]),
        (&json!("ROLLOUT_STATE_PAUSED"), &json!("paused by ana: shop 7 called"))
    );
    assert!(paused["holdId"].as_str().is_some_and(|hold| hold.starts_with("hld_")), "{paused}");
    let resumed = on(&world, "ResumeRollout", json!({ "rolloutId": id })).await.expect("it is paused");
    let resumed = &resumed["rollout"];
    assert_eq!((&resumed["state"], &resumed["holdId"]), (&json!("ROLLOUT_STATE_RUNNING"), &Value::Null));

    let aborted = on(&world, "AbortRollout", json!({ "rolloutId": id })).await.expect("it runs");
    assert_eq!(states(&aborted["rollout"]), ["PASSED", "PASSED", "SKIPPED"]);
    let ended = on(&world, "PauseRollout", json!({ "rolloutId": id })).await;
    refuses(ended, "failed_precondition", "rollout.ended");
    let again = on(&world, "PlanRollout", plan_of(strategy)).await.expect("nothing of the aborted one is in the way");
    assert_eq!(again["plan"]["counts"]["blocked"], Value::Null, "{first}: {again}");
}

#[tokio::test]
async fn devices_whose_turn_has_not_come_are_taken_by_no_less_urgent_rollout() {
    let world = World::start().await;
    world.with_release("1.0.0").await;
    world.devices(3).await;
    let strategy = json!({ "waves": [{ "count": 1 }, { "rest": true }] });
    let planned = on(&world, "PlanRollout", plan_of(strategy)).await.expect("a plan");
    let started = on(&world, "StartRollout", json!({ "planId": planned["plan"]["id"] })).await.expect("it fits");
    let id = started["rollout"]["id"].as_str().expect("an id");
    let other = on(&world, "PlanRollout", plan_of(json!({ "priority": 4 }))).await.expect("a plan");
    let reason = format!("{id} is at work on coffee with priority 5, and this has 4");
    let busy = other["devices"].as_array().expect("devices").iter().filter(|device| device["reason"] == reason);
    assert_eq!(busy.count(), 3, "{other}");
    refuses(
        on(&world, "StartRollout", json!({ "planId": other["plan"]["id"] })).await,
        "failed_precondition",
        "rollout.plan_blocked",
    );
    let unknown = on(&world, "PlanRollout", plan_of(json!({ "priority": 10 }))).await;
    refuses(unknown, "invalid_argument", "request.field.invalid");
}

#[tokio::test]
async fn a_newer_rollout_takes_devices_over_and_the_older_one_ends_without_them() {
    let world = World::start().await;
    world.with_release("1.0.0").await;
    let names = world.devices(3).await;
    let strategy = json!({ "waves": [{ "count": 1 }, { "rest": true }] });
    let planned = on(&world, "PlanRollout", plan_of(strategy.clone())).await.expect("a plan");
    let older = on(&world, "StartRollout", json!({ "planId": planned["plan"]["id"] })).await.expect("it fits");
    let older = older["rollout"]["id"].clone();
    let pause = json!({ "rolloutId": older });
    on(&world, "PauseRollout", pause).await.expect("it runs");

    let planned = on(&world, "PlanRollout", plan_of(strategy)).await.expect("a plan");
    let taken = planned["devices"].as_array().expect("devices").iter().filter(|device| device["supersedes"] == older);
    assert_eq!(taken.count(), 3, "{planned}");
    let newer = on(&world, "StartRollout", json!({ "planId": planned["plan"]["id"] })).await.expect("it fits");
    let newer = newer["rollout"].clone();
    assert_eq!((&newer["state"], &newer["strategy"]["priority"]), (&json!("ROLLOUT_STATE_RUNNING"), &json!(5)));
    let ended = on(&world, "GetRollout", json!({ "rolloutId": older })).await.expect("it is there");
    assert_eq!(ended["rollout"]["state"], "ROLLOUT_STATE_ABORTED");
    assert_eq!(ended["rollout"]["reason"], "other rollouts took all of its devices over");
    let why = format!("{} took its place", newer["id"].as_str().expect("an id"));
    assert!(ended["devices"].as_array().expect("devices").iter().all(|device| device["reason"] == why), "{ended}");
    let resumed = on(&world, "ResumeRollout", json!({ "rolloutId": older })).await;
    refuses(resumed, "failed_precondition", "rollout.ended");

    // No hold of the older one is left on any of them, wherever its turn in the newer one is.
    world.clock.turn(10_000);
    for name in &names {
        loop {
            let found = world.call("device.v1.DeviceService/GetDevice", json!({ "device": name })).await;
            if found.expect("it is there")["device"]["holds"] == Value::Null {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    on(&world, "AbortRollout", json!({ "rolloutId": newer["id"] })).await.expect("it runs");
    let again = on(&world, "GetRollout", json!({ "rolloutId": older })).await.expect("it is there");
    assert_eq!(again["devices"], ended["devices"], "what was given over does not come back");
}

#[tokio::test]
async fn waves_that_make_no_sense_start_nothing() {
    let world = World::start().await;
    world.with_release("1.0.0").await;
    world.devices(3).await;
    for (strategy, code, name) in [
        (json!({ "waves": [{ "count": 0 }, { "rest": true }] }), "invalid_argument", "rollout.waves_invalid"),
        (json!({ "waves": [{ "percent": 101 }] }), "invalid_argument", "rollout.waves_invalid"),
        (json!({ "waves": [{ "rest": true }, { "count": 1 }] }), "invalid_argument", "rollout.waves_invalid"),
        (json!({ "waves": [{ "percent": 60 }, { "percent": 60 }] }), "invalid_argument", "rollout.waves_invalid"),
        (json!({ "waves": [{ "count": 1 }] }), "invalid_argument", "rollout.waves_uncovered"),
        (json!({ "waves": [{}] }), "invalid_argument", "request.field.missing"),
        (json!({ "bake": "-5s" }), "invalid_argument", "request.field.invalid"),
        (json!({ "failedPercentMax": 200 }), "invalid_argument", "rollout.waves_invalid"),
        (json!({ "canarySelector": "channel=canary" }), "failed_precondition", "rollout.no_canary"),
    ] {
        refuses(on(&world, "PlanRollout", plan_of(strategy)).await, code, name);
    }
}
