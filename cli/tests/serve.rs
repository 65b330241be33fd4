//! A server of one's own: who is logged in there, and what a restart keeps.

use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

fn fleetd(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleetd"));
    command.arg("--json").env_clear().env("FLEETD_CONFIG_DIR", folder.join("config")).kill_on_drop(true);
    command
}

/// Starts a server and gives what it announces.
async fn serve(folder: &Path, data: &str) -> (Child, Value) {
    let mut command = fleetd(folder);
    command.args(["serve", "--api-address", "127.0.0.1:0", "--sync-address", "127.0.0.1:0", "--data"]);
    let mut server = command.arg(folder.join(data)).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).await.unwrap();
    (server, serde_json::from_str(&line).unwrap())
}

async fn end(mut server: Child) {
    let pid = server.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    assert_eq!(server.wait().await.unwrap().code(), Some(0), "it ends in order");
}

async fn answer(folder: &Path, arguments: &[&str]) -> Value {
    let output = fleetd(folder).args(arguments).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn whoever_runs_a_server_is_logged_in_there_across_its_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let (server, first) = serve(folder.path(), "one").await;
    assert_eq!((&first["contextName"], &first["isNewFleet"]), (&"local".into(), &true.into()));
    assert!(Path::new(first["rootKeyPath"].as_str().unwrap()).is_absolute());
    let me = answer(folder.path(), &["whoami"]).await;
    assert_eq!(me["accessToken"]["role"], "ROLE_ADMIN");
    end(server).await;

    let (server, again) = serve(folder.path(), "one").await;
    assert_eq!((&again["fleetId"], &again["isNewFleet"]), (&first["fleetId"], &false.into()));
    let still = answer(folder.path(), &["whoami"]).await;
    assert_eq!(still["accessToken"]["id"], me["accessToken"]["id"], "no second token was made");

    let (other, second) = serve(folder.path(), "two").await;
    let name = second["contextName"].as_str().unwrap();
    assert!(name.starts_with("local-"), "the other fleet keeps its name: {name}");
    assert_eq!(answer(folder.path(), &["whoami"]).await["fleetId"], second["fleetId"], "the new one is current");
    assert_eq!(answer(folder.path(), &["whoami", "--context", "local"]).await["fleetId"], first["fleetId"]);
    end(other).await;
    end(server).await;
}

#[tokio::test]
async fn a_data_folder_has_one_server_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let (server, _) = serve(folder.path(), "one").await;
    let mut command = fleetd(folder.path());
    command.args(["serve", "--api-address", "127.0.0.1:0", "--sync-address", "127.0.0.1:0", "--data"]);
    let output = command.arg(folder.path().join("one")).output().await.unwrap();
    let error: Value = serde_json::from_slice(output.stderr.split(|byte| *byte == b'\n').next().unwrap()).unwrap();
    assert_eq!((output.status.code(), &error["error"]["code"]), (Some(1), &"serve.data_in_use".into()), "{error}");
    end(server).await;
}
