//! The real program against real ports: whom it believes, what it tells them, and how it ends.

use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Child;

use crate::server::{Ca, Claim, Fleet, Server, TOKEN, nobody};

/// Starts `fleetd` with its configuration in `folder`, and errors as JSON.
fn start(folder: &Path, arguments: &[&str]) -> Child {
    tokio::process::Command::new(env!("CARGO_BIN_EXE_fleetd"))
        .arg("--json")
        .args(arguments)
        .env_clear()
        .env("FLEETD_CONFIG_DIR", folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// Runs `fleetd` to its end with the token on its standard input.
async fn fleetd(folder: &Path, arguments: &[&str]) -> Output {
    let mut child = start(folder, arguments);
    let mut stdin = child.stdin.take().unwrap();
    // A program that does not want it may be gone by now.
    let _ = stdin.write_all(TOKEN.as_bytes()).await;
    drop(stdin);
    child.wait_with_output().await.unwrap()
}

/// Checks how a command ended and gives what it said of its error.
fn failed(output: &Output, exit: i32, code: &str) -> Value {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(exit), "{text}");
    assert!(output.stdout.is_empty(), "an error is no data");
    let error: Value = serde_json::from_str(text.trim()).unwrap();
    assert_eq!(error["error"]["code"], code, "{text}");
    assert_eq!(error["error"]["exitCode"], exit, "{text}");
    assert!(error["error"]["nextCommand"].is_string(), "no next command: {text}");
    error
}

async fn log_in(folder: &Path, address: &str, fleet: &str) -> Output {
    fleetd(folder, &["login", address, "--fleet", fleet, "--token", "-", "--name", "shop"]).await
}

#[tokio::test]
async fn a_server_that_proves_its_fleet_gets_the_token_and_is_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let fleet = Fleet::new(1);
    let server = Server::start(&Claim::honest(&fleet)).await;
    let output = log_in(folder.path(), &server.address.to_string(), &fleet.id.to_string()).await;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&answer["context"], &answer["accessToken"]["role"]), (&"shop".into(), &"ROLE_ADMIN".into()));
    let output = fleetd(folder.path(), &["whoami"]).await;
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["fleetId"], fleet.id.to_string());
    let output = fleetd(folder.path(), &["context", "list"]).await;
    assert!(!String::from_utf8_lossy(&output.stdout).contains(TOKEN), "a list shows no secret");
    assert_eq!(fleetd(folder.path(), &["logout"]).await.status.code(), Some(0));
    failed(&fleetd(folder.path(), &["whoami"]).await, 4, "context.none");
}

#[tokio::test]
async fn a_server_of_another_fleet_is_told_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (fleet, expected) = (Fleet::new(1), Fleet::new(2));
    let server = Server::start(&Claim::honest(&fleet)).await;
    let output = log_in(folder.path(), &server.address.to_string(), &expected.id.to_string()).await;
    let error = failed(&output, 1, "login.other_fleet");
    assert!(error["error"]["message"].as_str().unwrap().contains(&fleet.id.to_string()));
    assert_eq!(server.tokens(), Vec::<String>::new());
    assert!(!folder.path().join("contexts.toml").exists());
}

#[tokio::test]
async fn an_impostor_with_the_fleets_public_records_is_told_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (fleet, own) = (Fleet::new(1), Ca::new());
    for claim in [
        Claim { issuing_ca: &own, ..Claim::honest(&fleet) },
        Claim { issuing_ca: &own, shown_ca: &own, ..Claim::honest(&fleet) },
        Claim { kind: "device", ..Claim::honest(&fleet) },
    ] {
        let server = Server::start(&claim).await;
        let output = log_in(folder.path(), &server.address.to_string(), &fleet.id.to_string()).await;
        failed(&output, 1, "login.impostor");
        assert_eq!(server.tokens(), Vec::<String>::new());
        assert!(!folder.path().join("contexts.toml").exists());
    }
}

#[tokio::test]
async fn a_server_that_changed_its_certificate_is_told_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (fleet, own) = (Fleet::new(1), Ca::new());
    let honest = Server::start(&Claim::honest(&fleet)).await;
    let output = log_in(folder.path(), &honest.address.to_string(), &fleet.id.to_string()).await;
    assert_eq!(output.status.code(), Some(0));
    let impostor = Server::start(&Claim { issuing_ca: &own, ..Claim::honest(&fleet) }).await;
    let path = folder.path().join("contexts.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace(&honest.address.to_string(), &impostor.address.to_string())).unwrap();
    failed(&fleetd(folder.path(), &["whoami"]).await, 1, "server.not_believed");
    assert_eq!(impostor.tokens(), Vec::<String>::new());
}

#[tokio::test]
async fn no_server_and_no_tls_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let fleet = Fleet::new(1).id.to_string();
    failed(&log_in(folder.path(), &nobody().to_string(), &fleet).await, 1, "server.unreachable");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    failed(&log_in(folder.path(), &address, &fleet).await, 1, "server.no_tls");
}

#[tokio::test]
async fn a_token_that_does_not_count_ends_with_four() {
    let folder = tempfile::tempdir().unwrap();
    let fleet = Fleet::new(1);
    let server = Server::start(&Claim::honest(&fleet)).await;
    let output = log_in(folder.path(), &server.address.to_string(), &fleet.id.to_string()).await;
    assert_eq!(output.status.code(), Some(0));
    let path = folder.path().join("contexts.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace(TOKEN, "stolen")).unwrap();
    let output = fleetd(folder.path(), &["whoami"]).await;
    assert_eq!(output.status.code(), Some(4), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(server.tokens(), [TOKEN, "stolen"]);
}

#[tokio::test]
async fn doctor_names_what_is_wrong_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let fleet = Fleet::new(1);
    let server = Server::start(&Claim::honest(&fleet)).await;
    log_in(folder.path(), &server.address.to_string(), &fleet.id.to_string()).await;
    let output = fleetd(folder.path(), &["doctor"]).await;
    assert_eq!(output.status.code(), Some(1), "this server tells neither its time nor its sync address");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = answer["findings"].as_array().unwrap();
    let found = findings.iter().map(|finding| (finding["check"].as_str().unwrap(), finding["state"].as_str().unwrap()));
    let expected = [
        ("context", "ok"),
        ("server", "ok"),
        ("fleet", "ok"),
        ("clock", "fail"),
        ("sync address", "fail"),
        ("certificate", "ok"),
        ("token", "ok"),
    ];
    assert_eq!(found.collect::<Vec<_>>(), expected);
    assert_eq!(answer["failed"], serde_json::json!(["clock", "sync address"]));
}

#[tokio::test]
async fn what_is_not_understood_ends_with_two() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [
        &["rollout", "plan", "coffee@1.8.0"][..],
        &["release", "push", "coffee", "--artifact", "x", "--key", "k"],
        &["login", "http://fleet.example"],
        &["login", "fleet.example", "--token", "fdt_seen"],
        &["device", "revoke", "brisk-otter"],
        &["brew"],
    ] {
        let output = fleetd(folder.path(), arguments).await;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(serde_json::from_str::<Value>(text.trim()).unwrap()["error"]["message"].is_string(), "{text}");
        assert!(!text.contains("fdt_seen"), "a secret is not repeated: {text}");
    }
}

#[tokio::test]
async fn ctrl_c_ends_a_wait_with_130() {
    let folder = tempfile::tempdir().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let fleet = Fleet::new(1).id.to_string();
    let child = start(folder.path(), &["login", &address, "--fleet", &fleet, "--token", "-"]);
    // It is connected, and this server never says a word.
    let silent = listener.accept().await.unwrap();
    let pid = child.id().unwrap().to_string();
    let killed = tokio::process::Command::new("kill").args(["-INT", &pid]).status().await.unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(130), "{text}");
    assert!(text.contains("\"code\":\"interrupted\""), "{text}");
    drop(silent);
}
