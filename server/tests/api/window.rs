//! Maintenance windows, over the API.

use serde_json::{Value, json};

use super::world::{Refused, World, refuses};

async fn plan(world: &World, strategy: Value) -> Result<Value, Refused> {
    let request = json!({ "workload": "coffee", "version": "1.0.0", "targets": { "all": true }, "strategy": strategy });
    world.call("rollout.v1.RolloutService/PlanRollout", request).await
}

#[tokio::test]
async fn a_plan_says_when_the_devices_of_each_zone_may_begin() {
    let world = World::start().await;
    world.with_release("1.0.0").await;
    world.devices(2).await;
    let nights = json!({ "windows": ["0 2 * * * 3h"], "vetoLimit": "7200s" });
    let planned = plan(&world, nights).await.expect("a plan")["plan"].clone();
    let (strategy, opening) = (&planned["strategy"], &planned["openings"][0]);
    assert_eq!((&strategy["windowZone"], &strategy["vetoLimit"]), (&json!("device"), &json!("7200s")));
    // Nobody knows where these devices are.
    assert_eq!((&opening["zone"], &opening["devices"]), (&Value::Null, &json!(2)));
    assert!(opening["opensLocal"].as_str().is_some_and(|shown| shown.ends_with(" UTC")), "{opening}");
    assert_eq!(planned["waves"][0]["opensLocal"], opening["opensLocal"]);

    let tokyo = json!({ "windows": ["0 2 * * * 3h"], "windowZone": "Asia/Tokyo" });
    let planned = plan(&world, tokyo).await.expect("a plan")["plan"].clone();
    let opening = &planned["openings"][0];
    assert!(opening["opensLocal"].as_str().is_some_and(|shown| shown.ends_with(" 02:00 JST")), "{opening}");

    let any_time = plan(&world, json!({})).await.expect("a plan")["plan"].clone();
    assert_eq!(any_time["openings"], Value::Null);
}

#[tokio::test]
async fn windows_that_make_no_sense_plan_nothing() {
    let world = World::start().await;
    world.with_release("1.0.0").await;
    world.devices(2).await;
    for strategy in [
        json!({ "windows": ["0 2 * * *"] }),
        json!({ "windows": ["0 25 * * * 3h"] }),
        json!({ "windows": ["0 2 * * * 0h"] }),
        json!({ "windows": ["0 0 30 2 * 3h"] }),
        json!({ "windows": ["0 * * * * 3h"] }),
        json!({ "windows": vec!["0 2 * * * 3h"; 9] }),
        json!({ "windows": ["0 2 * * * 3h"], "windowZone": "Europe/Atlantis" }),
        json!({ "blackouts": ["2026-12-24..2026-12-23"] }),
        json!({ "windows": ["0 2 * * * 3h"], "blackouts": ["2000-01-01..9000-12-31"] }),
        json!({ "vetoLimit": "99999999s" }),
    ] {
        refuses(plan(&world, strategy).await, "invalid_argument", "rollout.window_invalid");
    }
}
