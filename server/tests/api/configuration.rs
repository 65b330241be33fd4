//! Configurations, and plans of releases with one.

use fleetd_actors::report::{Phase, WorkloadReport};
use fleetd_sync_core::configuration::{ConfigurationId, pair_digest};
use fleetd_sync_core::envelope as wire;
use fleetd_sync_core::id::ArtifactDigest;
use fleetd_sync_core::limit;
use fleetd_sync_core::release::{EnvironmentValue, SignedManifest};
use fleetd_sync_core::resolve;
use serde_json::{Value, json};

use super::world::{Refused, World, count, refuses, release_request, signer, text};

const MENU: &[u8] = b"{\"menu\": [\"espresso\"]}";

async fn config(world: &World, rpc: &str, request: Value) -> Result<Value, Refused> {
    world.call(&format!("configuration.v1.ConfigurationService/{rpc}"), request).await
}

async fn rollout(world: &World, rpc: &str, request: Value) -> Result<Value, Refused> {
    world.call(&format!("rollout.v1.RolloutService/{rpc}"), request).await
}

fn configuration(name: &str, roast: &str) -> Value {
    let file = json!({
        "name": "MENU", "digest": ArtifactDigest::of(MENU).to_string(), "sizeBytes": MENU.len().to_string(),
    });
    json!({ "workload": "coffee", "name": name, "values": [{ "name": "ROAST", "value": roast }], "files": [file] })
}

fn plan_of(name: &str) -> Value {
    json!({ "workload": "coffee", "version": "1.0.0", "configuration": name, "targets": { "all": true } })
}

/// A release that leaves MENU and ROAST open, and fixes PORT.
async fn release(world: &World) -> SignedManifest {
    let (key, content) = (signer(1), b"#!/bin/sh\n".as_slice());
    world.delegate(&key, &["coffee"]).await;
    world.send_artifact(content).await;
    let mut manifest = world.manifest("coffee", "1.0.0", content);
    manifest.environment = ["MENU", "ROAST"].map(|name| (name.to_owned(), EnvironmentValue::FromConfig)).into();
    manifest.environment.insert("PORT".to_owned(), EnvironmentValue::Fixed("80".to_owned()));
    let signed = manifest.sign(&key).expect("it may be signed");
    world.call("release.v1.ReleaseService/CreateRelease", release_request(&signed)).await.expect("it is taken");
    signed
}

#[tokio::test]
async fn a_configuration_is_taken_once_with_one_content_and_all_its_files() {
    let world = World::start().await;
    let refused = config(&world, "CreateConfiguration", configuration("roast-1", "light")).await;
    let refused = refuses(refused, "failed_precondition", "configuration.incomplete");
    assert!(refused.details.contains("MENU b3_"), "{refused:?}");
    world.send_artifact(MENU).await;
    let mut wrong = configuration("roast-1", "light");
    wrong["files"][0]["sizeBytes"] = json!("7");
    refuses(config(&world, "CreateConfiguration", wrong).await, "invalid_argument", "request.field.invalid");
    let taken = config(&world, "CreateConfiguration", configuration("roast-1", "light")).await.expect("it is taken");
    assert_eq!(taken["configuration"]["complete"], true);
    let again = config(&world, "CreateConfiguration", configuration("roast-1", "light")).await;
    assert_eq!(again.as_ref(), Ok(&taken), "the same content is the same configuration");
    let other = config(&world, "CreateConfiguration", configuration("roast-1", "dark")).await;
    let refused = refuses(other, "already_exists", "configuration.duplicate");
    assert_eq!(refused.next_command, "fleetd config show coffee roast-1");
    let shown = config(&world, "GetConfiguration", json!({ "workload": "coffee", "name": "roast-1" })).await;
    assert_eq!(shown.as_ref(), Ok(&taken));
    world.clock.turn(1000);
    config(&world, "CreateConfiguration", configuration("roast-2", "dark")).await.expect("it is taken");
    let list = config(&world, "ListConfigurations", json!({ "workload": "coffee" })).await.expect("a list");
    let names: Vec<&str> =
        list["configurations"].as_array().expect("a list").iter().map(|found| text(&found["name"])).collect();
    assert_eq!(names, ["roast-2", "roast-1"]);
    assert_eq!(
        count(
            &config(&world, "ListConfigurations", json!({ "workload": "tea" })).await.expect("a list")["configurations"]
        ),
        0
    );
}

#[tokio::test]
async fn what_no_configuration_may_say_is_refused() {
    let world = World::start().await;
    let value = |name: &str, value: &str| json!({ "name": name, "value": value });
    let large = "x".repeat(1025);
    for (values, code) in [
        (json!([]), "configuration.invalid"),
        (json!([value("ROAST", &large)]), "configuration.invalid"),
        (json!([value("A=B", "x")]), "configuration.invalid"),
        (json!([value("ROAST", "a\0b")]), "configuration.invalid"),
        (json!([value("ROAST", "x"), value("ROAST", "y")]), "request.field.invalid"),
    ] {
        let request = json!({ "workload": "coffee", "name": "roast-1", "values": values });
        refuses(config(&world, "CreateConfiguration", request).await, "invalid_argument", code);
    }
    let reserved = json!({ "workload": "fleetd-agent", "name": "x", "values": [value("ROAST", "x")] });
    refuses(config(&world, "CreateConfiguration", reserved).await, "invalid_argument", "release.reserved");
    let unknown = json!({ "workload": "coffee", "name": "roast-1" });
    refuses(config(&world, "GetConfiguration", unknown).await, "not_found", "configuration.unknown");
}

#[tokio::test]
async fn a_plan_compares_devices_by_release_and_configuration_together() {
    let world = World::start().await;
    let manifest = release(&world).await.digest();
    world.send_artifact(MENU).await;
    let taken = config(&world, "CreateConfiguration", configuration("roast-1", "light")).await.expect("it is taken");
    config(&world, "CreateConfiguration", configuration("roast-2", "dark")).await.expect("it is taken");
    let first = ConfigurationId {
        name: "roast-1".parse().expect("a name"),
        digest: text(&taken["configuration"]["digest"]).parse().expect("a digest"),
    };
    for (seed, configuration) in [(1, None), (2, Some(first))] {
        let digest = pair_digest(manifest, configuration.as_ref().map(|configuration| configuration.digest));
        let release = Some("1.0.0".parse().expect("a version"));
        let report = WorkloadReport {
            release,
            configuration,
            digest: Some(digest),
            phase: Some(Phase::Healthy),
            attempt: 1,
            ..Default::default()
        };
        world.stored_device(seed, |record| drop(record.reports.insert("coffee".parse().expect("a name"), report)));
    }
    let told = async |name: &str| {
        let planned = rollout(&world, "PlanRollout", plan_of(name)).await.expect("a plan");
        let mut devices: Vec<_> = planned["devices"].as_array().expect("devices").clone();
        devices.sort_by_key(|device| text(&device["name"]).to_owned());
        let of_device = |device: &Value| format!("{} {}", device["verdict"], device["fromConfiguration"]);
        let told: Vec<String> = devices.iter().map(of_device).collect();
        (planned, told)
    };
    let (planned, told_of_first) = told("roast-1").await;
    assert_eq!(told_of_first, ["\"VERDICT_UPDATE\" null", "\"VERDICT_UNCHANGED\" null"]);
    assert_eq!(planned["plan"]["configuration"], "roast-1");
    assert_eq!(planned["plan"]["trafficBytes"], MENU.len().to_string(), "the program is there");
    let (second, told_of_second) = told("roast-2").await;
    assert_eq!(told_of_second, ["\"VERDICT_UPDATE\" null", "\"VERDICT_UPDATE\" \"roast-1\""]);
    // Another configuration is another thing to try; the same one again is the next try.
    assert_eq!((&planned["plan"]["attempt"], &second["plan"]["attempt"]), (&2.into(), &1.into()));
    assert_eq!(told("roast-2").await.0["plan"]["attempt"], 2);
    let (_, told_of_none) = told("").await;
    assert_eq!(told_of_none, ["\"VERDICT_UNCHANGED\" null", "\"VERDICT_UPDATE\" \"roast-1\""]);

    let started = rollout(&world, "StartRollout", json!({ "planId": second["plan"]["id"] })).await.expect("it starts");
    assert_eq!(started["rollout"]["configuration"], "roast-2");
    loop {
        let found = world.call("device.v1.DeviceService/GetDevice", json!({ "device": "otter-2" })).await;
        let found = found.expect("it is there");
        let workload = &found["device"]["workloads"][0];
        if workload["desiredConfiguration"] == "roast-2" {
            assert_eq!(
                (text(&workload["actualConfiguration"]), text(&workload["desiredRelease"])),
                ("roast-1", "1.0.0")
            );
            break;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_device_whose_document_has_no_room_for_another_workload_is_left_out_with_the_reason() {
    let world = World::start().await;
    release(&world).await;
    for (seed, others) in [(1, 6), (2, 5)] {
        world.stored_device(seed, |record| {
            for index in 0..others {
                let path = resolve::workload_path(&format!("tea-{index}").parse().expect("a name"), "config");
                record.wanted.insert(path, wire::Value::Bytes(vec![0; limit::CONFIGURATION_BYTES_MAX]));
            }
        });
    }
    let planned = rollout(&world, "PlanRollout", plan_of("")).await.expect("a plan");
    let mut devices: Vec<_> = planned["devices"].as_array().expect("devices").clone();
    devices.sort_by_key(|device| text(&device["name"]).to_owned());
    let [full, roomy] = devices.as_slice() else { panic!("there are two devices: {devices:?}") };
    assert_eq!(full["blockedReason"], "BLOCKED_REASON_ROOM");
    assert!(text(&full["reason"]).contains("bytes over the 12288 for all"), "{full}");
    assert_eq!(roomy["verdict"], "VERDICT_INSTALL");
}

#[tokio::test]
async fn a_configuration_that_fills_what_the_release_does_not_leave_open_is_not_planned() {
    let world = World::start().await;
    release(&world).await;
    let request = json!({
        "workload": "coffee", "name": "odd",
        "values": [{ "name": "PORT", "value": "81" }, { "name": "SUGAR", "value": "x" }, { "name": "ROAST", "value": "x" }],
    });
    config(&world, "CreateConfiguration", request).await.expect("no release is named yet");
    world.devices(1).await;
    let refused = rollout(&world, "PlanRollout", plan_of("odd")).await;
    let refused = refuses(refused, "failed_precondition", "configuration.undeclared");
    let said = "configuration odd fills PORT, SUGAR; the manifest of 1.0.0 leaves only MENU, ROAST open";
    assert!(refused.details.contains(said), "{refused:?}");
    refuses(rollout(&world, "PlanRollout", plan_of("roast-9")).await, "not_found", "configuration.unknown");
}
