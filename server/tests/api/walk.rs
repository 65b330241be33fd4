//! Every RPC that is served, called as it should not be, by Connect and by gRPC. What is called comes from the schemas,
//! and what it needs from the server's own table, so that no RPC can be forgotten here.

use bytes::Bytes;
use fleetd_server::connect::schemas;
use fleetd_server::edge::authenticate::Role;
use fleetd_server::edge::limit::Limits;
use fleetd_server::rpc::permission::{Permission, permission, services};
use fleetd_server::rpc::status::error_of;
use http_body_util::BodyExt as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor, Value as Field};
use serde_json::{Value, json};
use tonic::Code;

use super::field::whole_requests;
use super::packing::pack;
use super::world::{Refused, World, framed, patient_limits, refused, text};

/// Bytes of a message that a server of these tests takes.
const MESSAGE_BYTES_MAX: usize = 16 << 10;

/// Every RPC that is served, with what it asks of its caller.
fn served() -> Vec<(MethodDescriptor, Permission)> {
    let pool = schemas().expect("a valid set");
    let mut found = Vec::new();
    for service in services() {
        let service = pool.get_service_by_name(service).expect("what is served has a schema");
        for method in service.methods() {
            let needs = permission(&path(&method)).expect("what is served is in the table");
            found.push((method, needs));
        }
    }
    assert!(found.len() > 45, "only {} RPCs", found.len());
    found
}

/// What `buf breaking` compares with is written anew (`buf build proto -o proto/baseline.binpb`) when an RPC is added, so that it
/// cannot be broken unseen from then on.
#[test]
fn the_baseline_of_the_schemas_has_every_rpc() {
    let baseline =
        DescriptorPool::decode(include_bytes!("../../../proto/baseline.binpb").as_slice()).expect("a valid set");
    for (method, _) in served().iter().filter(|(method, _)| method.full_name().starts_with("fleetd.")) {
        let service = baseline.get_service_by_name(method.parent_service().full_name());
        let service = service.unwrap_or_else(|| panic!("the baseline lacks {}", method.parent_service().full_name()));
        let known = service.methods().any(|known| known.name() == method.name());
        assert!(known, "the baseline lacks {}", method.full_name());
    }
}

/// Those that need a credential, each with the role.
fn guarded() -> Vec<(MethodDescriptor, Role)> {
    let needs = |(method, needs)| match needs {
        Permission::Needs(role) => Some((method, role)),
        Permission::Open => None,
    };
    served().into_iter().filter_map(needs).collect()
}

fn path(method: &MethodDescriptor) -> String {
    format!("/{}/{}", method.parent_service().full_name(), method.name())
}

fn is_stream(method: &MethodDescriptor) -> bool {
    method.is_client_streaming() || method.is_server_streaming()
}

/// Calls an RPC by Connect, and says how it was refused, if it was.
async fn connect(world: &World, method: &MethodDescriptor, token: &str, body: Bytes) -> Option<Refused> {
    let (content_type, body) =
        if is_stream(method) { ("application/connect+json", framed(&body)) } else { ("application/json", body) };
    send(world, method, token, &[("content-type", content_type)], body).await
}

/// A message of a stream that says that it is packed.
fn framed_packed(message: &[u8]) -> Bytes {
    let mut framed = framed(message).to_vec();
    framed[0] = 1;
    framed.into()
}

/// The same, packed by gzip.
async fn connect_packed(world: &World, method: &MethodDescriptor, token: &str, body: &Bytes) -> Option<Refused> {
    let packed = pack("gzip", body);
    let (headers, body) = if is_stream(method) {
        ([("content-type", "application/connect+json"), ("connect-content-encoding", "gzip")], framed_packed(&packed))
    } else {
        ([("content-type", "application/json"), ("content-encoding", "gzip")], packed)
    };
    send(world, method, token, &headers, body).await
}

async fn send(
    world: &World,
    method: &MethodDescriptor,
    token: &str,
    headers: &[(&'static str, &str)],
    body: Bytes,
) -> Option<Refused> {
    // What has no end is cut off; it was let in then.
    let headers = [headers, &[("connect-timeout-ms", "300")]].concat();
    let response = world.send_to(token, &path(method), &headers, body).await;
    let is_ok = response.status().is_success();
    let mut body = response.into_body().collect().await.expect("a whole answer").to_bytes();
    if !is_stream(method) {
        let answer: Value = serde_json::from_slice(&body).expect("JSON");
        return (!is_ok).then(|| refused(&answer));
    }
    loop {
        let header = body.split_to(5);
        let message = body.split_to(u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize);
        if header[0] & 2 != 0 {
            let end: Value = serde_json::from_slice(&message).expect("JSON");
            return end.get("error").map(refused);
        }
    }
}

fn must_refuse(method: &MethodDescriptor, answer: Option<Refused>) -> Refused {
    answer.unwrap_or_else(|| panic!("{} did not refuse", method.full_name()))
}

/// Checks that an RPC is refused in the same way by Connect and by gRPC, whose request is empty.
async fn check(world: &World, method: &MethodDescriptor, token: &str, wanted: (&str, Code, &str)) {
    let (kind, grpc_code, code) = wanted;
    let by_connect = must_refuse(method, connect(world, method, token, "{}".into()).await);
    assert_eq!((by_connect.kind.as_str(), by_connect.code.as_str()), (kind, code), "{}", method.full_name());
    let by_grpc = world.grpc(&path(method), token, framed(b"")).await;
    let error = error_of(&by_grpc).unwrap_or_default();
    assert_eq!((by_grpc.code(), error.code.as_str()), (grpc_code, code), "{}: {by_grpc:?}", method.full_name());
}

async fn token(world: &World, role: &str, expires_at: Option<&str>) -> (String, String) {
    let request = json!({ "name": role, "role": role, "expiresAt": expires_at });
    let made = world.call("access.v1.AccessService/CreateAccessToken", request).await.expect("a token");
    (text(&made["text"]).to_owned(), text(&made["accessToken"]["id"]).to_owned())
}

#[tokio::test]
async fn every_guarded_rpc_refuses_who_has_no_token_that_counts() {
    let world = World::start().await;
    let (expired, _) = token(&world, "ROLE_ADMIN", Some("2027-01-15T08:00:01Z")).await;
    let (revoked, id) = token(&world, "ROLE_ADMIN", None).await;
    world.call("access.v1.AccessService/RevokeAccessToken", json!({ "accessId": id })).await.expect("it is revoked");
    world.clock.turn(2000);
    for (method, _) in guarded() {
        for (token, code) in [
            ("", "access.token.missing"),
            ("nobody-gave-this", "access.token.unknown"),
            (&expired, "access.token.expired"),
            (&revoked, "access.token.revoked"),
        ] {
            check(&world, &method, token, ("unauthenticated", Code::Unauthenticated, code)).await;
        }
    }
}

#[tokio::test]
async fn every_guarded_rpc_refuses_lower_roles_and_lets_its_own_in() {
    let world = World::start().await;
    let (viewer, _) = token(&world, "ROLE_VIEWER", None).await;
    let (deployer, _) = token(&world, "ROLE_DEPLOYER", None).await;
    let roles = [(Role::Viewer, &viewer), (Role::Deployer, &deployer), (Role::Admin, &world.admin)];
    let mut refusals = 0;
    for (method, needs) in guarded() {
        for (role, token) in roles {
            if role < needs {
                let wanted = ("permission_denied", Code::PermissionDenied, "access.role.too_low");
                check(&world, &method, token, wanted).await;
                refusals += 1;
            } else if role == needs {
                // With nothing in the request nothing is changed.
                let answer = connect(&world, &method, token, "{}".into()).await;
                let kind = answer.map(|refused| refused.kind).unwrap_or_default();
                let is_let_in = kind != "unauthenticated" && kind != "permission_denied";
                assert!(is_let_in, "{}: {kind}", method.full_name());
            }
        }
    }
    assert!(refusals > 30, "only {refusals} roles were too low");
}

#[tokio::test]
async fn every_rpc_refuses_a_message_that_is_too_long() {
    let limits = Limits { message_bytes_max: MESSAGE_BYTES_MAX, open_body_bytes_max: 1 << 10, ..patient_limits() };
    let world = World::start_with(limits).await;
    for (method, needs) in served() {
        let (token, bytes_max) = match needs {
            Permission::Open => ("", 1 << 10),
            Permission::Needs(_) => (world.admin.as_str(), MESSAGE_BYTES_MAX),
        };
        // No schema has this field, so that nothing but the length can be wrong with it.
        let long = json!({ "xxxx": "x".repeat(bytes_max) }).to_string();
        let long = Bytes::from(long);
        let by_connect = must_refuse(&method, connect(&world, &method, token, long.clone()).await);
        let by_packed = must_refuse(&method, connect_packed(&world, &method, token, &long).await);
        // What sends and receives at once asks for HTTP/2 first.
        let needs_http2 = method.is_client_streaming() && method.is_server_streaming();
        // Only reflection does, which is not our code: by gRPC it ends what it cannot read, and says nothing.
        let (wanted, grpc_wanted) =
            if needs_http2 { ("unimplemented", Code::Ok) } else { ("resource_exhausted", Code::OutOfRange) };
        for refused in [by_connect, by_packed] {
            assert_eq!(refused.kind, wanted, "{}: {refused:?}", method.full_name());
        }

        let header = Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff]);
        let by_grpc = world.grpc(&path(&method), token, header).await;
        assert_eq!(by_grpc.code(), grpc_wanted, "{}: {by_grpc:?}", method.full_name());
    }
}

#[tokio::test]
async fn every_list_refuses_a_page_that_no_server_offered() {
    let world = World::start().await;
    world.devices(1).await;
    world.with_release("1.0.0").await;
    let wish = json!({ "workload": "coffee", "version": "1.0.0", "targets": { "all": true } });
    let planned = world.call("rollout.v1.RolloutService/PlanRollout", wish).await.expect("a plan");
    let plan = text(&planned["plan"]["id"]).to_owned();
    let started =
        world.call("rollout.v1.RolloutService/StartRollout", json!({ "planId": plan })).await.expect("it runs");
    let rollout = text(&started["rollout"]["id"]).to_owned();
    let of_world = |request: &Value| {
        let text = request.to_string();
        let text = text.replace("pln_0000000000000000", &plan).replace("rol_0000000000000000", &rollout);
        serde_json::from_str::<Value>(&text).expect("JSON")
    };
    let requests = whole_requests();
    let mut lists = 0;
    for (method, _) in served() {
        for (field, name) in [("page_token", "pageToken"), ("resume_token", "resumeToken")] {
            if method.input().get_field_by_name(field).is_none() {
                continue;
            }
            lists += 1;
            let rpc = path(&method);
            let whole = requests.get(rpc.trim_start_matches("/fleetd.")).map_or_else(|| json!({}), of_world);
            for token in ["!", "a", "mzxw6ytb", "mzxw6ytbojrgs3thmjxw6ytb"] {
                let mut request = whole.clone();
                request[name] = token.into();
                let refused = connect(&world, &method, &world.admin, request.to_string().into()).await;
                let refused = must_refuse(&method, refused);
                let seen = (refused.kind.as_str(), refused.code.as_str(), refused.message);
                assert_eq!(seen, ("invalid_argument", "request.field.invalid", format!("{field} is invalid")), "{rpc}");
            }
        }
        if method.name().starts_with("List") {
            assert!(method.input().get_field_by_name("page_token").is_some(), "{} has no pages", method.full_name());
            let mut asked = DynamicMessage::new(method.input());
            asked.set_field_by_name("page_size", Field::U32(u32::MAX));
            let refused =
                world.grpc(&path(&method), &world.admin, framed(&prost::Message::encode_to_vec(&asked))).await;
            assert_eq!(refused.code(), Code::InvalidArgument, "{}", method.full_name());
            assert_eq!(error_of(&refused).unwrap_or_default().code, "request.field.invalid");
        }
    }
    assert!(lists > 6, "only {lists} lists");
}
