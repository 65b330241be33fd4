//! Who may join.

use fleetd_actors::registration;
use fleetd_sync_core::enrolment::{EnrolmentToken, TokenSecret};
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::id::{FleetId, LocalId, TokenId};
use serde_json::{Value, json};

use super::world::{Refused, World, count, device_key, refuses, text};

const CREATE: &str = "enrolment.v1.EnrolmentService/CreateEnrolmentToken";

#[tokio::test]
async fn the_fleet_shows_what_proves_it() {
    let world = World::start().await;
    let shown =
        world.call_as("", "registration.v1.RegistrationService/GetFleet", &json!({})).await.expect("it is open");
    assert_eq!(shown["fleetId"], world.keys.fleet().to_string());
    assert_eq!(shown["serverId"], world.keys.server_id().to_string());
    assert_eq!(shown["syncAddress"], "fleet.example:4433");
    assert!(text(&shown["caCertificatePem"]).starts_with("-----BEGIN CERTIFICATE-----"));
    assert_eq!(count(&shown["rootRecords"]), 1);
    let request = json!({ "trustVersion": "1" });
    let shown = world.call_as("", "registration.v1.RegistrationService/GetFleet", &request).await.expect("it is open");
    assert!(count(&shown["rootRecords"]) == 0, "the caller has it");
}

#[tokio::test]
async fn registering_twice_is_one_device_and_a_token_admits_as_many_as_it_was_made_for() {
    let world = World::start().await;
    let made = world.call(CREATE, json!({ "note": "till", "labels": { "shop": "7" } })).await.expect("a token");
    let token: EnrolmentToken = text(&made["text"]).parse().expect("a token");
    assert_eq!(token.addresses()[0].as_str(), "fleet.example:4433");
    let first = world.register(text(&made["text"]), 1).await.expect("it joins");
    let again = world.register(text(&made["text"]), 1).await.expect("it is known");
    assert_eq!(first["registered"]["name"], again["registered"]["name"]);
    assert_eq!(first["registered"]["localId"], LocalId::from(device_key(1).id()).to_string());
    assert_eq!(count(&first["registered"]["certificateChainDer"]), 1);
    let refused = world.register(text(&made["text"]), 2).await;
    refuses(refused, "permission_denied", "enrolment.token.used_up");
    let shown = world.call("device.v1.DeviceService/ListDevices", json!({})).await.expect("a list");
    assert_eq!(count(&shown["devices"]), 1);
    assert_eq!(shown["devices"][0]["labels"], json!({ "shop": "7" }));
}

#[tokio::test]
async fn tokens_that_do_not_count_are_refused() {
    let world = World::start().await;
    let made = world.call(CREATE, json!({ "usesMax": 9, "needsApproval": false })).await.expect("a token");
    let token: EnrolmentToken = text(&made["text"]).parse().expect("a token");
    let mut entropy = Entropy::from_seed([3; 32]);
    let other = |fleet: FleetId, id: TokenId, secret| {
        EnrolmentToken::new(token.addresses().to_vec(), fleet, id, secret).expect("a token").to_secret_text()
    };
    let wrong = other(token.fleet(), token.id(), TokenSecret::draw(&mut entropy));
    refuses(world.register(&wrong, 1).await, "permission_denied", "enrolment.token.wrong");
    let unknown = other(token.fleet(), TokenId::random(&mut entropy), token.secret().clone());
    refuses(world.register(&unknown, 1).await, "permission_denied", "enrolment.token.unknown");
    let foreign = other(FleetId::random(&mut entropy), token.id(), token.secret().clone());
    refuses(world.register(&foreign, 1).await, "invalid_argument", "request.field.invalid");
    let mut tampered = text(&made["text"]).to_owned();
    let last = if tampered.pop() == Some('a') { 'b' } else { 'a' };
    tampered.push(last);
    refuses(world.register(&tampered, 1).await, "invalid_argument", "request.field.invalid");
    world.clock.turn(25 * 3600 * 1000);
    refuses(world.register(text(&made["text"]), 1).await, "permission_denied", "enrolment.token.expired");
}

#[tokio::test]
async fn a_device_waits_for_approval_and_joins_after_it() {
    let world = World::start().await;
    let made = world.call(CREATE, json!({ "usesMax": 5 })).await.expect("a token");
    assert_eq!(made["enrolmentToken"]["needsApproval"], true, "tokens for several ask for it");
    let join = |seed| world.register(text(&made["text"]), seed);
    let waiting = join(1).await.expect("it may wait");
    assert!(waiting["pending"]["retryAfter"].is_string());
    join(2).await.expect("it may wait");
    let pending = || async {
        let list = world.call("enrolment.v1.EnrolmentService/ListPendingDevices", json!({})).await?;
        Ok::<_, Refused>(list["pendingDevices"].as_array().map_or(0, Vec::len))
    };
    assert_eq!(pending().await, Ok(2));
    let decide = |rpc: &str, device: &Value| {
        let request = json!({ "localId": device["pending"]["localId"] });
        let rpc = format!("enrolment.v1.EnrolmentService/{rpc}");
        let world = &world;
        async move { world.call(&rpc, request).await }
    };
    decide("ApproveDevice", &waiting).await.expect("it waits");
    assert!(join(1).await.expect("it joins")["registered"]["name"].is_string());
    let other = join(2).await.expect("it may wait");
    decide("DenyDevice", &other).await.expect("it waits");
    refuses(join(2).await, "permission_denied", "enrolment.denied");
    assert_eq!(pending().await, Ok(0));
    refuses(decide("ApproveDevice", &other).await, "not_found", "enrolment.not_pending");
}

#[tokio::test]
async fn a_device_gets_its_name_and_labels_with_the_approval_or_nothing_at_all() {
    let world = World::start().await;
    let taken = world.devices(1).await.remove(0);
    let made = world.call(CREATE, json!({ "usesMax": 5, "labels": { "shop": "7" } })).await.expect("a token");
    let join = |seed| world.register(text(&made["text"]), seed);
    let waiting = join(1).await.expect("it may wait");
    let approve = |request: Value| {
        let mut request = request;
        request["localId"] = waiting["pending"]["localId"].clone();
        let world = &world;
        async move { world.call("enrolment.v1.EnrolmentService/ApproveDevice", request).await }
    };
    let many: serde_json::Map<_, _> = (0..40).map(|index| (format!("key-{index}"), "x".into())).collect();
    for (request, kind, code) in [
        (json!({ "name": "Till 3" }), "invalid_argument", "request.field.invalid"),
        (json!({ "name": taken }), "already_exists", "device.name_taken"),
        (json!({ "name": "till-3", "labels": { "": "x" } }), "invalid_argument", "request.field.invalid"),
        (json!({ "name": "till-3", "labels": { "a": "b c" } }), "invalid_argument", "request.field.invalid"),
        (json!({ "name": "till-3", "labels": many }), "invalid_argument", "enrolment.too_many_labels"),
    ] {
        refuses(approve(request).await, kind, code);
    }
    assert!(join(1).await.expect("it may wait")["pending"].is_object(), "a refused approval lets nobody in");
    let given = json!({ "name": "till-3", "labels": { "floor": "2", "shop": "8" } });
    let approved = approve(given).await.expect("it waits");
    assert_eq!(
        (text(&approved["device"]["name"]), text(&approved["device"]["state"])),
        ("till-3", "DEVICE_STATE_PENDING")
    );
    assert_eq!(join(1).await.expect("it joins")["registered"]["name"], "till-3");
    let shown =
        world.call("device.v1.DeviceService/GetDevice", json!({ "device": "till-3" })).await.expect("it is there");
    assert_eq!(shown["device"]["labels"], json!({ "floor": "2", "shop": "8" }));
}

#[tokio::test]
async fn a_revoked_enrolment_token_admits_nobody_more() {
    let world = World::start().await;
    let made = world.call(CREATE, json!({ "usesMax": 5, "needsApproval": false })).await.expect("a token");
    let request = json!({ "tokenId": made["enrolmentToken"]["id"] });
    let revoked = world.call("enrolment.v1.EnrolmentService/RevokeEnrolmentToken", request).await.expect("it is known");
    assert!(revoked["enrolmentToken"]["revokedAt"].is_string());
    refuses(world.register(text(&made["text"]), 1).await, "permission_denied", "enrolment.token.revoked");
    let list =
        |ended: bool| world.call("enrolment.v1.EnrolmentService/ListEnrolmentTokens", json!({ "includeEnded": ended }));
    assert!(count(&list(false).await.expect("a list")["enrolmentTokens"]) == 0);
    assert_eq!(count(&list(true).await.expect("a list")["enrolmentTokens"]), 1);
}

#[tokio::test]
async fn a_device_that_waits_is_shown_to_need_another_token_when_its_own_has_ended() {
    let world = World::start().await;
    let made = world.call(CREATE, json!({ "usesMax": 1, "needsApproval": true })).await.expect("a token");
    assert!(world.register(text(&made["text"]), 1).await.expect("it may wait")["pending"].is_object());
    let list = || world.call("enrolment.v1.EnrolmentService/ListPendingDevices", json!({}));
    let listed = list().await.expect("a list");
    assert!(listed["pendingDevices"][0]["tokenEnded"].as_str().is_none_or(str::is_empty), "{listed}");
    let request = json!({ "tokenId": made["enrolmentToken"]["id"] });
    world.call("enrolment.v1.EnrolmentService/RevokeEnrolmentToken", request).await.expect("it is known");
    let listed = list().await.expect("a list");
    assert_eq!(text(&listed["pendingDevices"][0]["tokenEnded"]), "the enrolment token was revoked");
}

/// A device that this server has no record of has proven its certificate: it is shown, and nothing new is asked of it.
#[tokio::test]
async fn a_recovered_device_waits_for_an_operators_word() {
    let world = World::start().await;
    world.with_release("1.0.0").await;
    let key = device_key(9).public();
    let recover = registration::Input::Recover { device: key.id().into(), key };
    world.node.actors.registration.send(recover);
    let device = loop {
        let list = world.call("device.v1.DeviceService/ListDevices", json!({})).await.expect("a list");
        if count(&list["devices"]) == 1 {
            break list["devices"][0].clone();
        }
    };
    let name = text(&device["name"]);
    assert_eq!(text(&device["state"]), "DEVICE_STATE_RECOVERED");
    assert_eq!(text(&device["localId"]), LocalId::from(key.id()).to_string());
    let approve = format!("fleetd enroll approve {name}");
    let why = world.call("device.v1.DeviceService/ExplainDevice", json!({ "device": name })).await.expect("reasons");
    let reason = &why["explanation"]["reasons"][0];
    assert_eq!((text(&reason["kind"]), text(&reason["nextCommand"])), ("REASON_KIND_MEMBERSHIP", approve.as_str()));
    assert!(reason["since"].is_string(), "{reason}");
    let hold = world.call("device.v1.DeviceService/HoldDevice", json!({ "device": name, "reason": "no" })).await;
    assert_eq!(refuses(hold, "failed_precondition", "device.recovered").next_command, "fleetd enroll approve DEVICE");
    let plan = json!({ "workload": "coffee", "version": "1.0.0", "targets": { "all": true } });
    let plan = || world.call("rollout.v1.RolloutService/PlanRollout", plan.clone());
    let planned = plan().await.expect("a plan");
    assert_eq!(planned["plan"]["counts"]["blocked"], 1);
    assert!(planned["devices"][0].to_string().contains(&approve), "{planned}");

    let approved = world.call("enrolment.v1.EnrolmentService/ApproveDevice", json!({ "localId": name })).await;
    assert_eq!(approved.expect("it waits")["device"]["state"], "DEVICE_STATE_ENROLLED");
    let again = world.call("enrolment.v1.EnrolmentService/ApproveDevice", json!({ "localId": name })).await;
    refuses(again, "not_found", "enrolment.not_pending");
    let unknown = world.call("enrolment.v1.EnrolmentService/ApproveDevice", json!({ "localId": "nobody" })).await;
    refuses(unknown, "invalid_argument", "request.field.invalid");
    assert!(!plan().await.expect("a plan")["devices"][0].to_string().contains(&approve));
}
