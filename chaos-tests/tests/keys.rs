//! Release keys that are revoked while real devices run what they signed.

use std::fs;

use anyhow::{Context as _, ensure};
use fleetd_chaos_tests::cluster::{Cluster, runs, with_cluster, workload};
use serde_json::Value;

use crate::material::brewing;

const CRASHING: &[u8] = b"#!/bin/sh\nexit 3\n";

#[test]
fn a_retired_key_still_counts_for_the_way_back_and_a_compromised_one_for_none() {
    with_cluster(|cluster| {
        let number = cluster.add_agent()?;
        let keys = ["old", "new", "last"].map(|name| Key::make(cluster, name));
        let [old, new, last] = keys.map(|key| key.context("a key"));
        let (old, new, last) = (old?, new?, last?);
        old.push(cluster, "1.0.0", &brewing("1.0.0"))?;
        cluster.roll_out("1.0.0")?;
        cluster.until_device(number, "the first release", |device| runs(device, "1.0.0"))?;
        new.push(cluster, "2.0.0", &brewing("2.0.0"))?;
        let second = cluster.roll_out("2.0.0")?;
        cluster.until_device(number, "the second release", |device| runs(device, "2.0.0"))?;

        // A build machine is replaced: its key signs nothing new, and what it signed is a way back.
        old.revoke(cluster, "retired")?;
        ensure!(signer_of(cluster, "1.0.0")? == "REVOCATION_KIND_RETIRED", "the list does not say that it is retired");
        let refused = old.push(cluster, "1.1.0", &brewing("1.1.0")).unwrap_err().to_string();
        ensure!(refused.contains("release.key_revoked"), "{refused}");
        cluster.until_rollout(&second, "it to end", |show| show["rollout"]["state"] == "ROLLOUT_STATE_SUCCEEDED")?;
        cluster.json(&["rollout", "rollback", &second, "--yes"])?;
        cluster.until_device(number, "the first release again", |device| runs(device, "1.0.0"))?;

        // There is nobody left whom a plan could keep it from, and it does not promise a start that is refused.
        let refused = cluster.run(&["rollout", "plan", "coffee@1.0.0", "--all"])?;
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(refused.status.code() == Some(4) && told.contains("release.key_retired"), "{told}");

        // A device goes back to it by itself, too.
        last.push(cluster, "3.0.0", CRASHING)?;
        cluster.roll_out("3.0.0")?;
        cluster.until_device(number, "the crash to be undone", |device| {
            workload(device)["phase"] == "WORKLOAD_PHASE_RESTORED" && workload(device)["actualRelease"] == "1.0.0"
        })?;

        // Somebody else may have the key: what runs goes on, and nothing goes back to it.
        old.revoke(cluster, "compromised")?;
        ensure!(signer_of(cluster, "1.0.0")? == "REVOCATION_KIND_COMPROMISED", "the list does not say that it is not");
        let device = cluster.device(number)?;
        ensure!(workload(&device)["runState"] == "RUN_STATE_RUNNING", "it was stopped: {device:#}");
        let name = device["name"].as_str().context("a name")?;
        explains(cluster, name, "signed, and that key is compromised: it is never restored")?;
        let plan = cluster.json(&["rollout", "plan", "coffee@1.0.0", "--all"])?;
        ensure!(plan["devices"][0]["blockedReason"] == "BLOCKED_REASON_UNSIGNED", "{plan:#}");
        last.push(cluster, "4.0.0", CRASHING)?;
        cluster.roll_out("4.0.0")?;
        let device = cluster.until_device(number, "the crash, with no way back", |device| {
            workload(device)["phase"] == "WORKLOAD_PHASE_FAILED"
        })?;
        explains(cluster, device["name"].as_str().context("a name")?, "none took its place")
    });
}

/// Checks that one of the reasons why a device is as it is says so.
fn explains(cluster: &Cluster, device: &str, words: &str) -> anyhow::Result<()> {
    let why = cluster.json(&["device", "why", device])?;
    let reasons = why["reasons"].as_array().context("reasons")?;
    let said = |reason: &Value| reason["message"].as_str().is_some_and(|text| text.contains(words));
    ensure!(reasons.iter().any(said), "it does not say `{words}`: {why:#}");
    Ok(())
}

/// How the signer of a release came to count no more, as the list of releases says it.
fn signer_of(cluster: &Cluster, version: &str) -> anyhow::Result<Value> {
    let listed = cluster.json(&["release", "list"])?;
    let releases = listed["releases"].as_array().context("releases")?;
    let release = releases.iter().find(|release| release["version"] == version).context("it is not listed")?;
    Ok(release["signerRevocation"].clone())
}

/// A key that may sign releases.
struct Key {
    id: String,
    path: String,
}

impl Key {
    fn make(cluster: &Cluster, name: &str) -> anyhow::Result<Self> {
        let [path, public] = ["key", "pub"].map(|end| cluster.path(&format!("{name}.{end}")).display().to_string());
        let made = cluster.json(&["key", "create", &path])?;
        let id = made["keyId"].as_str().with_context(|| format!("no id: {made:#}"))?.to_owned();
        let root = cluster.root_key_path();
        cluster.json(&["trust", "delegate", &public, "--role", "release", "--workload", "coffee", "--root", root])?;
        Ok(Self { id, path })
    }

    fn push(&self, cluster: &Cluster, version: &str, program: &[u8]) -> anyhow::Result<()> {
        let path = cluster.path(&format!("coffee-{version}"));
        fs::write(&path, program)?;
        let (release, path) = (format!("coffee@{version}"), path.display().to_string());
        let push = ["release", "push", &release, "--artifact", &path, "--key", &self.path, "--grace", "1s"];
        cluster.json(&push).map(drop)
    }

    fn revoke(&self, cluster: &Cluster, kind: &str) -> anyhow::Result<()> {
        cluster.json(&["trust", "revoke", &self.id, "--kind", kind, "--reason", "a test", "--yes"]).map(drop)
    }
}
