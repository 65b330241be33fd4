//! Ways back, and what else a plan makes of devices that have run things.

use fleetd_actors::device::wanted::{self, RolloutAssignment};
use fleetd_actors::report::{Fault, FaultKind, Phase, WorkloadReport};
use fleetd_actors::window::DeviceTerms;
use fleetd_sync_core::id::ArtifactDigest;
use fleetd_sync_core::name::WorkloadName;
use serde_json::{Value, json};

use super::world::{World, count, refuses, text};

async fn on(world: &World, rpc: &str, request: Value) -> Value {
    world.call(&format!("rollout.v1.RolloutService/{rpc}"), request).await.expect("an answer")
}

/// A device that runs a release well.
fn runs(version: &str, digest: ArtifactDigest) -> WorkloadReport {
    let release = Some(version.parse().expect("a version"));
    WorkloadReport { release, digest: Some(digest), phase: Some(Phase::Healthy), attempt: 1, ..Default::default() }
}

/// Two devices that run 1.0.0 and 1.5.0, and a rollout of 2.0.0 that both are assigned.
async fn two_under_way(world: &World) -> String {
    let key = world.with_release("2.0.0").await;
    for (seed, version) in [(1, "1.0.0"), (2, "1.5.0")] {
        world.push(&key, "coffee", version).await.expect("it is taken");
        let report = runs(version, world.manifest_digest(&key, "coffee", version));
        world.stored_device(seed, |record| drop(record.reports.insert("coffee".parse().expect("a name"), report)));
    }
    let plan = json!({ "workload": "coffee", "version": "2.0.0", "targets": { "all": true } });
    let planned = on(world, "PlanRollout", plan).await;
    assert_eq!(planned["plan"]["counts"]["update"], 2, "{planned}");
    let started = on(world, "StartRollout", json!({ "planId": planned["plan"]["id"] })).await;
    for device in ["otter-1", "otter-2"] {
        until_desired(world, device, "2.0.0").await;
    }
    text(&started["rollout"]["id"]).to_owned()
}

/// Looks until a device should have a version.
async fn until_desired(world: &World, device: &str, version: &str) {
    loop {
        let found = world.call("device.v1.DeviceService/GetDevice", json!({ "device": device })).await;
        if text(&found.expect("it is there")["device"]["workloads"][0]["desiredRelease"]) == version {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn devices_that_came_from_different_releases_all_go_back() {
    let world = World::start().await;
    let rollout = two_under_way(&world).await;
    let back = on(&world, "PlanRollback", json!({ "rolloutId": rollout })).await;
    let plans: Vec<&Value> = back["rollbacks"].as_array().expect("plans").iter().map(|one| &one["plan"]).collect();
    assert_eq!(plans.iter().map(|plan| text(&plan["version"])).collect::<Vec<_>>(), ["1.0.0", "1.5.0"]);
    on(&world, "StartRollout", json!({ "planId": plans[0]["id"] })).await;
    // What the first one ended is taken back from the other device, too.
    until_desired(&world, "otter-2", "").await;
    on(&world, "StartRollout", json!({ "planId": plans[1]["id"] })).await;
    until_desired(&world, "otter-1", "1.0.0").await;
    until_desired(&world, "otter-2", "1.5.0").await;
    let shown = on(&world, "GetRollout", json!({ "rolloutId": rollout })).await;
    assert_eq!(shown["rollout"]["state"], "ROLLOUT_STATE_ABORTED");
}

#[tokio::test]
async fn one_wave_and_one_device_go_back_and_the_others_stay() {
    let world = World::start().await;
    let rollout = two_under_way(&world).await;
    let of_device = json!({ "rolloutId": rollout, "devices": ["otter-2"] });
    let back = on(&world, "PlanRollback", of_device).await;
    assert_eq!(count(&back["rollbacks"]), 1, "{back}");
    assert_eq!(back["rollbacks"][0]["devices"][0]["name"], "otter-2");
    on(&world, "StartRollout", json!({ "planId": back["rollbacks"][0]["plan"]["id"] })).await;
    until_desired(&world, "otter-2", "1.5.0").await;
    until_desired(&world, "otter-1", "2.0.0").await;
    let shown = on(&world, "GetRollout", json!({ "rolloutId": rollout })).await;
    assert_eq!(shown["rollout"]["state"], "ROLLOUT_STATE_RUNNING", "a part of it leaves it going");

    let of_wave = on(&world, "PlanRollback", json!({ "rolloutId": rollout, "wave": 1 })).await;
    assert_eq!(of_wave["rollbacks"][0]["devices"][0]["name"], "otter-1", "{of_wave}");
    assert_eq!(count(&of_wave["rollbacks"]), 1);
    assert!(text(&of_wave["leftOut"][0]).starts_with("otter-2: rol_"), "another took its place: {of_wave}");
}

#[tokio::test]
async fn who_gets_it_later_is_named_when_a_part_goes_back() {
    let world = World::start().await;
    let key = world.with_release("2.0.0").await;
    world.push(&key, "coffee", "1.0.0").await.expect("it is taken");
    for seed in 1..=2 {
        let report = runs("1.0.0", world.manifest_digest(&key, "coffee", "1.0.0"));
        world.stored_device(seed, |record| drop(record.reports.insert("coffee".parse().unwrap(), report)));
    }
    let strategy = json!({ "waves": [{ "count": 1 }, { "rest": true }] });
    let plan = json!({
        "workload": "coffee", "version": "2.0.0", "targets": { "all": true }, "strategy": strategy,
    });
    let planned = on(&world, "PlanRollout", plan).await;
    let devices = planned["devices"].as_array().expect("devices");
    let first = devices.iter().find(|device| device["wave"] == 1).map(|device| text(&device["name"])).expect("a wave");
    let started = on(&world, "StartRollout", json!({ "planId": planned["plan"]["id"] })).await;
    until_desired(&world, first, "2.0.0").await;
    let both = json!({ "rolloutId": started["rollout"]["id"], "devices": ["otter-1", "otter-2"] });
    let back = on(&world, "PlanRollback", both).await;
    assert_eq!(back["rollbacks"][0]["devices"][0]["name"], first);
    let told = text(&back["leftOut"][0]);
    assert!(told.contains("its turn is to come; fleetd rollout pause rol_"), "{back}");
}

#[tokio::test]
async fn a_device_that_the_rollout_came_to_since_makes_the_way_back_from_it_stale() {
    let world = World::start().await;
    let key = world.with_release("2.0.0").await;
    world.push(&key, "coffee", "1.0.0").await.expect("it is taken");
    let before = || runs("1.0.0", world.manifest_digest(&key, "coffee", "1.0.0"));
    for seed in 1..=2 {
        world.stored_device(seed, |record| drop(record.reports.insert("coffee".parse().unwrap(), before())));
    }
    let strategy = json!({ "waves": [{ "count": 1 }, { "rest": true }] });
    let plan = json!({ "workload": "coffee", "version": "2.0.0", "targets": { "all": true }, "strategy": strategy });
    let planned = on(&world, "PlanRollout", plan).await;
    let in_wave = |wave: u32| {
        let mut devices = planned["devices"].as_array().expect("devices").iter();
        text(&devices.find(|device| device["wave"] == wave).expect("each wave has one")["name"]).to_owned()
    };
    let started = on(&world, "StartRollout", json!({ "planId": planned["plan"]["id"] })).await;
    let rollout = text(&started["rollout"]["id"]).to_owned();
    until_desired(&world, &in_wave(1), "2.0.0").await;
    let back = on(&world, "PlanRollback", json!({ "rolloutId": rollout })).await;
    let late = in_wave(2);
    let seed = late.trim_start_matches("otter-").parse().expect("a number");
    let manifest = world.manifest_digest(&key, "coffee", "2.0.0");
    world.stored_device(seed, |record| {
        let workload: WorkloadName = "coffee".parse().unwrap();
        record.reports.insert(workload.clone(), before());
        let (rollout, version) = (rollout.parse().unwrap(), "2.0.0".parse().unwrap());
        let (attempt, configuration, terms) = (1, None, DeviceTerms::default());
        wanted::assign(
            &mut record.wanted,
            &RolloutAssignment { rollout, attempt, workload, version, manifest, configuration, terms },
        );
    });
    let start = json!({ "planId": back["rollbacks"][0]["plan"]["id"] });
    let refused = world.call("rollout.v1.RolloutService/StartRollout", start).await;
    let refused = refuses(refused, "failed_precondition", "rollout.plan_stale");
    assert!(refused.details.contains(&format!("{late} is new: update from 2.0.0")), "{refused:?}");
    let shown = on(&world, "GetRollout", json!({ "rolloutId": rollout })).await;
    assert_eq!(shown["rollout"]["state"], "ROLLOUT_STATE_RUNNING", "nothing was ended");
    let again = on(&world, "PlanRollback", json!({ "rolloutId": rollout })).await;
    assert_eq!(count(&again["rollbacks"][0]["devices"]), 2);
    on(&world, "StartRollout", json!({ "planId": again["rollbacks"][0]["plan"]["id"] })).await;
}

#[tokio::test]
async fn a_device_that_had_what_the_server_does_not_know_keeps_nobody_from_going_back() {
    let world = World::start().await;
    let key = world.with_release("2.0.0").await;
    world.push(&key, "coffee", "1.0.0").await.expect("it is taken");
    for (seed, version) in [(1, "1.0.0"), (2, "0.9.0")] {
        let report = runs(version, world.manifest_digest(&key, "coffee", version));
        world.stored_device(seed, |record| drop(record.reports.insert("coffee".parse().unwrap(), report)));
    }
    let plan = json!({ "workload": "coffee", "version": "2.0.0", "targets": { "all": true } });
    let planned = on(&world, "PlanRollout", plan).await;
    let started = on(&world, "StartRollout", json!({ "planId": planned["plan"]["id"] })).await;
    for device in ["otter-1", "otter-2"] {
        until_desired(&world, device, "2.0.0").await;
    }
    let rollout = json!({ "rolloutId": started["rollout"]["id"] });
    let back = on(&world, "PlanRollback", rollout.clone()).await;
    assert_eq!(count(&back["rollbacks"]), 1, "{back}");
    assert_eq!(back["rollbacks"][0]["devices"][0]["name"], "otter-1");
    assert!(text(&back["leftOut"][0]).starts_with("otter-2: "), "{back}");
    let alone = json!({ "rolloutId": started["rollout"]["id"], "devices": ["otter-2"] });
    let refused = world.call("rollout.v1.RolloutService/PlanRollback", alone).await;
    refuses(refused, "failed_precondition", "rollout.no_way_back");
}

#[tokio::test]
async fn a_device_that_claims_an_absurd_attempt_uses_up_nobody_elses() {
    let world = World::start().await;
    let key = world.with_release("1.0.0").await;
    let report = |attempt| WorkloadReport {
        attempt,
        phase: Some(Phase::Restored),
        ..runs("1.0.0", world.manifest_digest(&key, "coffee", "1.0.0"))
    };
    let plan = json!({ "workload": "coffee", "version": "1.0.0", "targets": { "all": true } });
    for (seed, attempt, next) in [(1, u32::MAX, 1), (2, 7, 8)] {
        world.stored_device(seed, |record| drop(record.reports.insert("coffee".parse().unwrap(), report(attempt))));
        assert_eq!(on(&world, "PlanRollout", plan.clone()).await["plan"]["attempt"], next, "{attempt}");
    }
}

#[tokio::test]
async fn a_device_that_cannot_fetch_what_it_should_have_says_so() {
    let world = World::start().await;
    let rollout = two_under_way(&world).await;
    let digest = world.manifest_digest(&super::world::signer(1), "coffee", "2.0.0");
    let fault = Fault::new(FaultKind::Fetch, "the server does not have it");
    world.stored_device(3, |record| {
        let assignment = RolloutAssignment {
            rollout: rollout.parse().unwrap(),
            attempt: 1,
            workload: "coffee".parse().unwrap(),
            version: "2.0.0".parse().unwrap(),
            manifest: digest,
            configuration: None,
            terms: Default::default(),
        };
        wanted::assign(&mut record.wanted, &assignment);
        let report = WorkloadReport {
            phase: Some(Phase::Pending),
            rollout: Some(assignment.rollout),
            error: Some(fault),
            ..runs("1.0.0", digest)
        };
        record.reports.insert(assignment.workload, report);
    });
    let why = world.call("device.v1.DeviceService/ExplainDevice", json!({ "device": "otter-3" })).await;
    let told = why.expect("it is there")["explanation"]["reasons"].to_string();
    assert!(told.contains("tries again after fetch: the server does not have it"), "{told}");
}
