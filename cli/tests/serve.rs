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

/// What a command said that failed.
async fn refused(mut command: Command) -> (Option<i32>, Value) {
    let output = command.output().await.unwrap();
    let error = serde_json::from_slice(output.stderr.split(|byte| *byte == b'\n').next().unwrap()).unwrap();
    (output.status.code(), error)
}

#[tokio::test]
async fn a_port_in_use_leaves_nothing_of_a_new_fleet_behind() {
    let folder = tempfile::tempdir().unwrap();
    let api = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let sync = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let (api, sync) = (api.local_addr().unwrap().to_string(), (sync.local_addr().unwrap().to_string(), sync, api));
    let free = "127.0.0.1:0";
    for (api_address, sync_address) in [(api.as_str(), free), (free, sync.0.as_str())] {
        let mut command = fleetd(folder.path());
        command.args(["serve", "--api-address", api_address, "--sync-address", sync_address, "--data"]);
        command.arg(folder.path().join("one"));
        let (code, error) = refused(command).await;
        assert_eq!((code, &error["error"]["code"]), (Some(1), &"serve.port_in_use".into()), "{error}");
        assert!(!folder.path().join("one").exists(), "something was made for {api_address} and {sync_address}");
    }
}

#[tokio::test]
async fn a_server_that_ends_in_order_has_closed_its_store() {
    let folder = tempfile::tempdir().unwrap();
    let (server, _) = serve(folder.path(), "one").await;
    answer(folder.path(), &["enroll", "token", "create"]).await;
    end(server).await;
    let closed = std::fs::read_to_string(folder.path().join("one/store/CLOSED")).unwrap();
    assert!(closed.trim().parse::<u64>().is_ok_and(|revision| revision > 0), "{closed}");
}

/// The kernel refuses every write beyond what the files have: the store never takes anything again.
#[tokio::test]
async fn a_server_whose_store_fails_for_good_ends_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    // Whoever ignores the signal gets the error; what is ignored stays so in the program that is run.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_fleetd"), "--json", "serve"]);
    command.args(["--api-address", "127.0.0.1:0", "--sync-address", "127.0.0.1:0", "--data"]);
    command.arg(folder.path().join("one"));
    command.env("FLEETD_CONFIG_DIR", folder.path().join("config")).kill_on_drop(true);
    let mut server = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).await.unwrap();
    let pid = server.id().unwrap().to_string();
    let limited = Command::new("prlimit").args(["--pid", &pid, "--fsize=1"]).status().await.unwrap();
    assert!(limited.success());
    let made = fleetd(folder.path()).args(["enroll", "token", "create"]).output().await.unwrap();
    assert!(!made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
    let output = server.wait_with_output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("serve.store_failed"), "{:?}: {said}", output.status);
}
