//! Releases and their artifacts.

use fleetd_sync_core::id::{ArtifactDigest, FleetId};
use serde_json::json;

use super::world::{World, base64, count, refuses, release_request, signer, text};

const CREATE: &str = "release.v1.ReleaseService/CreateRelease";

#[tokio::test]
async fn a_signed_release_is_taken_once_and_its_manifest_is_an_artifact() {
    let world = World::start().await;
    let key = world.with_release("1.0.0").await;
    let again = world.push(&key, "coffee", "1.0.0").await.expect("the same content is the same release");
    assert_eq!(again["release"]["complete"], true);
    let shown = world.call("release.v1.ReleaseService/GetRelease", json!({ "workload": "coffee", "version": "1.0.0" }));
    let shown = shown.await.expect("it is there");
    let digest: ArtifactDigest = text(&shown["release"]["manifestDigest"]).parse().expect("a digest");
    let artifacts = &world.node.shared.seams.artifacts;
    let manifest = artifacts.read(digest, 0, 1 << 20).expect("devices fetch it");
    assert_eq!(ArtifactDigest::of(&manifest), digest);
    world.clock.turn(1000);
    world.push(&key, "coffee", "1.1.0").await.expect("it is taken");
    let list =
        world.call("release.v1.ReleaseService/ListReleases", json!({ "workload": "coffee" })).await.expect("a list");
    let versions: Vec<&str> =
        list["releases"].as_array().expect("releases").iter().map(|release| text(&release["version"])).collect();
    assert_eq!(versions, ["1.1.0", "1.0.0"]);
    let none = world.call("release.v1.ReleaseService/ListReleases", json!({ "workload": "tea" })).await;
    assert!(count(&none.expect("a list")["releases"]) == 0);
}

#[tokio::test]
async fn a_version_is_taken_with_one_content_only() {
    let world = World::start().await;
    let key = world.with_release("1.0.0").await;
    world.send_artifact(b"other").await;
    let signed = world.manifest("coffee", "1.0.0", b"other").sign(&key).expect("it may be signed");
    let refused = refuses(world.call(CREATE, release_request(&signed)).await, "already_exists", "release.duplicate");
    assert_eq!(refused.next_command, "fleetd release show coffee@1.0.0");
}

#[tokio::test]
async fn releases_that_no_device_would_run_are_refused() {
    let world = World::start().await;
    let key = world.with_release("1.0.0").await;
    world.send_artifact(b"x").await;
    let push = |workload: &str, version: &str, key: &fleetd_sync_core::key::SecretKey| {
        release_request(&world.manifest(workload, version, b"x").sign(key).expect("it may be signed"))
    };
    let undelegated = world.call(CREATE, push("coffee", "2", &signer(2))).await;
    refuses(undelegated, "permission_denied", "release.key_undelegated");
    let other_workload = world.call(CREATE, push("tea", "2", &key)).await;
    refuses(other_workload, "permission_denied", "release.key_undelegated");
    let reserved = world.call(CREATE, push("fleetd-agent", "2", &key)).await;
    refuses(reserved, "invalid_argument", "release.reserved");
    let mut foreign = world.manifest("coffee", "2", b"x");
    foreign.fleet = FleetId::from_bytes([9; 16]);
    let foreign = release_request(&foreign.sign(&key).expect("it may be signed"));
    refuses(world.call(CREATE, foreign).await, "invalid_argument", "release.foreign_fleet");
    let mut tampered = push("coffee", "2", &key);
    tampered["signedManifest"]["manifest"] =
        base64(&world.manifest("coffee", "3", b"x").encode().expect("it is valid")).into();
    refuses(world.call(CREATE, tampered).await, "invalid_argument", "release.signature");
    let mut cut = push("coffee", "2", &key);
    cut["signedManifest"]["signature"] = base64(&[1; 63]).into();
    refuses(world.call(CREATE, cut).await, "invalid_argument", "request.field.invalid");
    let mut unreadable = push("coffee", "2", &key);
    unreadable["signedManifest"]["manifest"] = base64(b"no manifest").into();
    refuses(world.call(CREATE, unreadable).await, "invalid_argument", "release.unreadable");
    let missing = world.manifest("coffee", "2", b"nobody sent this").sign(&key).expect("it may be signed");
    let refused =
        refuses(world.call(CREATE, release_request(&missing)).await, "failed_precondition", "release.incomplete");
    assert!(refused.details.contains("any b3_"), "{refused:?}");
    let unknown = world.call("release.v1.ReleaseService/GetRelease", json!({ "workload": "coffee", "version": "2" }));
    refuses(unknown.await, "not_found", "release.unknown");
}

#[tokio::test]
async fn an_upload_goes_on_where_it_was_and_comes_back_whole() {
    let world = World::start().await;
    let content: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let digest = ArtifactDigest::of(&content).to_string();
    let part = |offset: usize, length: usize| {
        let size = content.len().to_string();
        let content = base64(&content[offset..offset + length]);
        json!({ "requestId": "x", "digest": digest, "sizeBytes": size, "offsetBytes": offset.to_string(), "content": content })
    };
    let rpc = "artifact.v1.ArtifactService/UploadArtifact";
    let first = world.upload(rpc, &[part(0, 500_000), json!({ "content": base64(&content[500_000..600_000]) })]).await;
    assert_eq!(first, Ok(json!({ "receivedBytes": "600000" })));
    let held = world.call("artifact.v1.ArtifactService/GetUpload", json!({ "digest": digest })).await;
    assert_eq!(held, Ok(json!({ "receivedBytes": "600000" })));
    refuses(world.upload(rpc, &[part(500_000, 10)]).await, "out_of_range", "artifact.offset");
    let answer = world.call("artifact.v1.ArtifactService/UploadArtifactChunk", part(600_000, 600_000)).await;
    assert_eq!(answer, Ok(json!({ "receivedBytes": "1200000", "complete": true })));
    let request = json!({ "digest": digest, "offsetBytes": "100" });
    let parts = world.open("artifact.v1.ArtifactService/DownloadArtifact", &request).await.rest().await;
    assert_eq!(parts[0]["sizeBytes"], "1200000");
    let decode = |part: &serde_json::Value| data_encoding::BASE64.decode(text(&part["content"]).as_bytes());
    let got: Vec<u8> = parts.iter().flat_map(|part| decode(part).expect("base 64")).collect();
    assert_eq!(got, content[100..]);
    let unknown = json!({ "digest": ArtifactDigest::of(b"?").to_string() });
    let refused = world.open("artifact.v1.ArtifactService/DownloadArtifact", &unknown).await.next().await;
    refuses(refused.expect("an end"), "not_found", "artifact.unknown");
}
