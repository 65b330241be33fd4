//! Whose word counts.

use fleetd_sync_core::trust::{Change, Role};
use serde_json::json;

use super::world::{World, base64, count, refuses, signer, text};

const ADD: &str = "trust.v1.TrustService/AddRootRecord";

#[tokio::test]
async fn a_root_record_that_follows_is_taken_and_shown() {
    let world = World::start().await;
    let key = signer(1);
    world.delegate(&key, &["coffee"]).await;
    let shown = world.call("trust.v1.TrustService/GetTrust", json!({})).await.expect("it is shown");
    assert_eq!((&shown["trust"]["version"], count(&shown["rootRecords"])), (&"2".into(), 2));
    let delegations = shown["trust"]["delegations"].as_array().expect("delegations");
    let given = delegations.iter().find(|given| given["keyId"] == key.id().to_string()).expect("it is there");
    assert_eq!((text(&given["role"]), &given["workloads"]), ("DELEGATION_ROLE_RELEASE", &json!(["coffee"])));
}

#[tokio::test]
async fn a_root_record_that_nobody_signed_or_that_skips_one_is_refused() {
    let world = World::start().await;
    let chain = world.node.shared.trust().chain.clone();
    let change = || Change::Delegate { key: signer(1).public(), role: Role::Bundle };
    let unsigned = chain.draft_next([change()]).expect("a draft");
    let answer = world.call(ADD, json!({ "rootRecord": base64(&unsigned.encode()) })).await;
    let refused = refuses(answer, "invalid_argument", "trust.record_refused");
    assert!(refused.details.contains("signed by 0 keys"), "{refused:?}");
    refuses(
        world.call(ADD, json!({ "rootRecord": base64(b"no record") })).await,
        "invalid_argument",
        "trust.record_unreadable",
    );
    world.delegate(&signer(2), &["coffee"]).await;
    let root = world.keys.root().expect("the root's key");
    let other = chain.draft_next([change()]).expect("a draft").sign(root);
    let answer = world.call(ADD, json!({ "rootRecord": base64(&other.encode()) })).await;
    refuses(answer, "already_exists", "trust.record_contradicts");
}

#[tokio::test]
async fn a_revoked_key_signs_nothing_new() {
    let world = World::start().await;
    let key = world.with_release("1.0.0").await;
    let request = json!({ "keyId": key.id().to_string(), "kind": "REVOCATION_KIND_RETIRED", "reason": "new machine" });
    let shown = world.call("trust.v1.TrustService/RevokeKey", request).await.expect("it is revoked");
    assert_eq!(shown["trust"]["revocations"][0]["keyId"], key.id().to_string());
    refuses(world.push(&key, "coffee", "1.1.0").await, "permission_denied", "release.key_retired");
    world.devices(1).await;
    let plan = json!({ "workload": "coffee", "version": "1.0.0", "targets": { "all": true } });
    let planned = world.call("rollout.v1.RolloutService/PlanRollout", plan).await.expect("a plan that shows why");
    assert_eq!(planned["devices"][0]["blockedReason"], "BLOCKED_REASON_UNSIGNED");
    let started = json!({ "planId": planned["plan"]["id"] });
    let answer = world.call("rollout.v1.RolloutService/StartRollout", started).await;
    refuses(answer, "permission_denied", "release.key_retired");
}
