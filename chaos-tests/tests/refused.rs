//! What is refused: tokens, ports and files that are not as they should be. Each says what is wrong, and leaves
//! nothing half-written.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::process::Output;

use anyhow::{Context as _, ensure};
use fleetd_chaos_tests::cluster::{Cluster, PATIENCE, with_cluster};
use fleetd_chaos_tests::process::{Process, within};
use serde_json::Value;

#[test]
fn a_wrong_token_admits_nobody() {
    with_cluster(|cluster| {
        let good = cluster.token(&["--uses", "1"])?;
        // A token with one character changed is damaged, and the agent knows without asking anybody.
        let tampered = flipped(&good);
        for (token, words) in [("sesame", "no enrolment token"), (tampered.as_str(), "damaged")] {
            let number = cluster.prepare_agent(token)?;
            let status = run_to_its_end(cluster, number)?;
            let log = cluster.log_of(number);
            ensure!(!status && log.contains(words), "the agent took {token:?}, or said something else:\n{log}");
        }
        ensure!(cluster.devices()?.is_empty(), "somebody got in");
        Ok(())
    });
}

#[test]
fn a_token_that_is_used_up_or_expired_admits_nobody() {
    with_cluster(|cluster| {
        let once = cluster.token(&["--uses", "1", "--label", "place=0"])?;
        let number = cluster.prepare_agent(&once)?;
        cluster.start_agent(number)?;
        cluster.device(number)?;
        let expired = cluster.token(&["--expires", "500ms", "--note", "short"])?;
        within(PATIENCE, "the token to expire", || {
            let tokens = cluster.json(&["enroll", "token", "list"])?;
            Ok((!tokens.to_string().contains("short")).then_some(()))
        })?;
        for (token, words) in [(once, "used up"), (expired, "expired")] {
            let number = cluster.prepare_agent(&token)?;
            cluster.start_agent(number)?;
            within(PATIENCE, "the agent to say why it is refused", || {
                Ok(cluster.log_of(number).contains(words).then_some(()))
            })?;
            ensure!(cluster.agent(number)?.process()?.is_running()?, "it may be let in later, and should wait");
        }
        ensure!(cluster.devices()?.len() == 1, "somebody got in");
        Ok(())
    });
}

#[test]
fn a_revoked_device_is_turned_away() {
    with_cluster(|cluster| {
        let number = cluster.add_agent()?;
        let name = cluster.device(number)?["name"].as_str().context("a device without a name")?.to_owned();
        cluster.json(&["device", "revoke", &name, "--reason", "stolen", "--yes"])?;
        within(PATIENCE, "the agent to hear that it is revoked", || {
            Ok(cluster.log_of(number).contains("revoked").then_some(()))
        })?;
        // Nor does another token help: the key is refused for ever.
        cluster.kill_agent(number)?;
        let token = cluster.token(&[])?;
        let path = cluster.agent(number)?.configuration();
        let text = fs::read_to_string(&path)?;
        let old = text.lines().find(|line| line.starts_with("enroll-token")).context("no token")?;
        fs::write(&path, text.replace(old, &format!("enroll-token = {token:?}")))?;
        let refusals = |cluster: &Cluster| cluster.log_of(number).matches("revoked").count();
        let before = refusals(cluster);
        cluster.start_agent(number)?;
        within(PATIENCE, "the agent to be turned away again", || Ok((refusals(cluster) > before).then_some(())))?;
        let devices = cluster.json(&["device", "list", "--ended"])?;
        let device = &devices["devices"][0];
        let is_out = device["state"] == "DEVICE_STATE_REVOKED" && device["presence"] != "PRESENCE_ONLINE";
        ensure!(is_out && devices["devices"].as_array().is_some_and(|devices| devices.len() == 1), "{devices:#}");
        Ok(())
    });
}

#[test]
fn a_port_in_use_is_named() {
    with_cluster(|cluster| {
        let (api, sync) = (TcpListener::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
        let cases = [
            ("--api-address", api.local_addr()?.to_string(), "--sync-address"),
            ("--sync-address", sync.local_addr()?.to_string(), "--api-address"),
        ];
        for (flag, taken, other) in cases {
            let data = cluster.path("second").display().to_string();
            let output = cluster.run(&["serve", "--data", &data, flag, &taken, other, "127.0.0.1:0"])?;
            let error = error_of(&output)?;
            ensure!(output.status.code() == Some(1), "it ended with {}", output.status);
            ensure!(error.to_string().contains(&taken), "{error:#} does not name {taken}");
        }
        Ok(())
    });
}

#[test]
fn a_configuration_that_cannot_be_read_is_named_with_its_line_and_key() {
    with_cluster(|cluster| {
        let file = cluster.path("broken.toml");
        let path = file.display().to_string();
        let cases = [
            ("data-directory = '/tmp'\n\nservice = 'x'\n", ":3", "service"),
            ("data-directory = '/tmp'\nspool-bytes-max = 'many'\n", ":2", "spool-bytes-max"),
            ("servers = [\n", ":", "servers"),
            ("log-level = 'info\n", ":1", "log-level"),
            ("[workload.coffee.environment]\nROAST = 3\n", ":2", "workload.coffee.environment.ROAST"),
        ];
        for (text, line, key) in cases {
            fs::write(&file, text)?;
            let output = cluster.run(&["agent", "run", "--config", &path])?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(!output.status.success(), "it took {text:?}");
            ensure!(said.contains(&format!("{path}{line}")) && said.contains(key), "{text:?} gave {said}");
        }
        fs::remove_file(&file)?;
        let output = cluster.run(&["agent", "run", "--config", &path])?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success() && said.contains(&path), "a missing file gave {said}");
        Ok(())
    });
}

/// Runs an agent that should end by itself; says whether it ended well.
fn run_to_its_end(cluster: &mut Cluster, number: usize) -> anyhow::Result<bool> {
    cluster.start_agent(number)?;
    let process: &mut Process = cluster.agent(number)?.process()?;
    Ok(process.ended(PATIENCE)?.success())
}

/// Changes one character in the middle of a text to another letter.
fn flipped(text: &str) -> String {
    let middle = text.len() / 2;
    let changed = |character| if character == 'a' { 'b' } else { 'a' };
    text.chars().enumerate().map(|(at, character)| if at == middle { changed(character) } else { character }).collect()
}

/// The error that a command wrote to its standard error.
fn error_of(output: &Output) -> anyhow::Result<Value> {
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().rev().find(|line| line.starts_with('{')).with_context(|| format!("no error: {text}"))?;
    let value: Value = serde_json::from_str(line)?;
    ensure!(value["error"]["code"].is_string(), "an error without a code: {value}");
    Ok(value["error"].clone())
}
