//! The audit log of a server that is killed while it is told what to do.

use std::collections::BTreeMap;
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use fleetd_chaos_tests::cluster::{Cluster, PATIENCE, with_cluster};
use fleetd_chaos_tests::process::within;
use serde_json::Value;

use crate::material::random;

/// Times that the server is killed.
const KILLS: usize = 6;
/// Calls that are under way when it is.
const CALLS: usize = 6;

fn entries(cluster: &Cluster) -> anyhow::Result<Vec<Value>> {
    let listed = cluster.json(&["audit", "list", "--last", "0"])?;
    Ok(listed["auditEntries"].as_array().context("there are no entries")?.clone())
}

#[test]
fn every_change_has_its_trace_though_the_server_is_killed_again_and_again() {
    with_cluster(|cluster| {
        let mut head = noted(cluster)?;
        for kill in 0..KILLS {
            let mut calls = Vec::new();
            for call in 0..CALLS {
                let (name, arguments) = (format!("kill-{kill}-{call}"), ["access", "create"]);
                let mut command = cluster.command();
                command.args(["--json"]).args(arguments).args([name.as_str(), "--role", "viewer"]);
                calls.push(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
            }
            std::thread::sleep(std::time::Duration::from_millis(random() % 400));
            cluster.kill_server()?;
            for mut call in calls {
                call.kill()?;
                call.wait()?;
            }
            cluster.start_server()?;
            let (number, hash) = &head;
            let verified = cluster.json(&["audit", "verify", "--head", &format!("{number}:{hash}")])?;
            ensure!(verified["first"] == "1", "{verified:#}");
            head = noted(cluster)?;
        }
        // Who lost the server in the middle of it gets an outcome once nobody can be waiting for it any more.
        let all = within(PATIENCE, "every call to have its outcome", || {
            let all = entries(cluster)?;
            Ok(open(&all).is_empty().then_some(all))
        })?;
        let starts = all.iter().filter(|entry| entry["action"] == "server/start").count();
        ensure!(starts == KILLS + 1, "the server has started {starts} times, by its log");

        // What was made has its trace, and what the log says was made was made.
        let tokens = cluster.json(&["access", "list"])?;
        let made = tokens["accessTokens"].as_array().context("there are no tokens")?.iter();
        let mut made: Vec<String> = made.filter_map(|token| token["name"].as_str()).map(str::to_owned).collect();
        made.retain(|name| name.starts_with("kill-"));
        made.sort();
        let ends = all.iter().filter(|entry| entry["stage"] == "STAGE_OUTCOME");
        let mut traced: Vec<String> = ends
            .filter(|entry| entry["outcome"] == "OUTCOME_DONE" || entry["outcome"] == "OUTCOME_MADE")
            .filter_map(|entry| entry["subjects"][0].as_str())
            .filter(|name| name.starts_with("kill-"))
            .map(str::to_owned)
            .collect();
        traced.sort();
        ensure!(made == traced, "made: {made:?}\ntraced: {traced:?}");
        Ok(())
    });
}

/// The intents that have no outcome.
fn open(entries: &[Value]) -> BTreeMap<String, &Value> {
    let mut open = BTreeMap::new();
    for entry in entries {
        let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
        match entry["stage"].as_str() {
            Some("STAGE_INTENT") => drop(open.insert(text("number"), entry)),
            Some("STAGE_OUTCOME") => drop(open.remove(&text("intentNumber"))),
            _ => {}
        }
    }
    open
}

fn noted(cluster: &Cluster) -> anyhow::Result<(String, String)> {
    let head = cluster.json(&["audit", "head"])?;
    let text = |field: &str| head[field].as_str().map(str::to_owned).context("the head lacks something");
    Ok((text("number")?, text("hash")?))
}
