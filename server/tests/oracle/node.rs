//! `@connectrpc/connect-node`, with a client that `@bufbuild/protoc-gen-es` generated from the served descriptors.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::fleet::Fleet;
use super::{built, program};

/// All calls in all protocols take a few seconds; this is for a machine that does ten other things.
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connect_node_agrees_in_every_protocol() {
    let (Some(script), Some(node)) = (built("node", "node.mjs"), program(&["node"])) else { return };
    let fleet = Fleet::start().await;
    let child = Command::new(node)
        .arg(script)
        .env("FLEETD_FLEET", fleet.told_in_file())
        .env("FLEETD_CA", fleet.ca())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("node runs");
    let output = timeout(PATIENCE, child.wait_with_output()).await.expect("node ends").expect("its output");
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{complained}");
    assert_eq!(said.lines().count(), 9, "each protocol on each version of HTTP: {said}");
}
