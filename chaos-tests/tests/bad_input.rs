//! Bad input to real processes, beside that of `refused`: each is named by a code of its own and says what to do, and
//! nothing of it is kept.

use std::fs;
use std::process::Output;

use anyhow::{Context as _, ensure};
use fleetd_chaos_tests::cluster::{Cluster, PATIENCE, with_cluster};
use fleetd_chaos_tests::process::within;
use fleetd_sync_core::enrolment::{EnrolmentToken, TokenSecret};
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::id::TokenId;
use serde_json::Value;

use crate::material::brewing;

#[test]
fn a_token_with_the_right_id_and_the_wrong_secret_admits_nobody() {
    with_cluster(|cluster| {
        let good: EnrolmentToken = cluster.token(&["--uses", "1"])?.parse()?;
        let mut entropy = Entropy::from_seed([5; 32]);
        let other = |id, secret| EnrolmentToken::new(good.addresses().to_vec(), good.fleet(), id, secret);
        let wrong = other(good.id(), TokenSecret::draw(&mut entropy))?;
        let unknown = other(TokenId::random(&mut entropy), good.secret().clone())?;
        for (token, code) in [(wrong, "secret is wrong"), (unknown, "no token of this fleet")] {
            let number = cluster.prepare_agent(&token.to_secret_text())?;
            cluster.start_agent(number)?;
            within(PATIENCE, "the agent to say why it is refused", || {
                Ok(cluster.log_of(number).contains(code).then_some(()))
            })?;
            cluster.kill_agent(number)?;
        }
        ensure!(cluster.devices()?.is_empty(), "somebody got in");
        // Neither has used the token up.
        let number = cluster.prepare_agent(&good.to_secret_text())?;
        cluster.start_agent(number)?;
        within(PATIENCE, "the good token to admit its device", || Ok((cluster.devices()?.len() == 1).then_some(())))?;
        Ok(())
    });
}

#[test]
fn a_token_of_another_fleet_is_not_shown_to_this_ones_server() {
    with_cluster(|cluster| {
        let mut other = Cluster::start()?;
        // The device believes the fleet id of its token, and hangs up before it shows the secret.
        let token = cluster.token(&["--uses", "1"])?;
        let number = other.prepare_agent(&token)?;
        other.start_agent(number)?;
        within(PATIENCE, "the agent to turn from the impostor", || {
            Ok(other.log_of(number).contains("wrong fleet").then_some(()))
        })?;
        ensure!(other.agent(number)?.process()?.is_running()?, "the right server may come, and it should wait");
        ensure!(other.devices()?.is_empty() && cluster.devices()?.is_empty(), "somebody got in");
        let pending = other.json(&["enroll", "list"])?;
        ensure!(pending["pendingDevices"].as_array().is_some_and(Vec::is_empty), "somebody asked: {pending}");
        Ok(())
    });
}

#[test]
fn a_release_that_may_not_be_is_refused_and_nothing_of_it_is_kept() {
    with_cluster(|cluster| {
        let (key, script) = (text(cluster, "ci.key"), text(cluster, "coffee.sh"));
        let program = std::env::current_exe()?.display().to_string();
        fs::write(&script, brewing("1.0.0"))?;
        cluster.json(&["key", "create", &key])?;
        let push = |artifact: &str| {
            ["release", "push", "coffee@1.0.0", "--artifact", artifact, "--key", &key].map(String::from)
        };
        let s390x = format!("linux/s390x={program}");
        let bogus = format!("bogus/x={script}");
        let absent = text(cluster, "not-built");
        let cases = [
            (script.clone(), "release.key_undelegated", "fleetd trust delegate", key.replace(".key", ".pub")),
            (s390x, "artifact.other_platform", "platform", program.clone()),
            (bogus, "artifact.platform_unknown", "header", script.clone()),
            (absent.clone(), "artifact.unreadable", "--artifact", absent),
        ];
        for (artifact, code, help, named) in cases {
            let error = refused(&cluster.run(&push(&artifact).each_ref().map(String::as_str))?, 1, code)?;
            ensure!(text_of(&error["nextCommand"]).contains(help), "{error:#} does not help with {help:?}");
            ensure!(error.to_string().contains(&named), "{error:#} does not name {named}");
            let kept = cluster.json(&["release", "list"])?;
            ensure!(kept["releases"].as_array().is_some_and(Vec::is_empty), "something was kept: {kept:#}");
        }
        // A version has one content for ever.
        cluster.delegate()?;
        cluster.push("1.0.0", &brewing("1.0.0"), &[])?;
        let before = cluster.json(&["release", "show", "coffee@1.0.0"])?;
        let (key, other) = (text(cluster, "release.key"), text(cluster, "other.sh"));
        fs::write(&other, brewing("other"))?;
        let output = cluster.run(&["release", "push", "coffee@1.0.0", "--artifact", &other, "--key", &key])?;
        let error = refused(&output, 1, "release.duplicate")?;
        ensure!(error["nextCommand"] == "fleetd release show coffee@1.0.0", "{error:#}");
        ensure!(cluster.json(&["release", "show", "coffee@1.0.0"])? == before, "the release was changed");
        Ok(())
    });
}

#[test]
fn a_plan_that_is_stale_edited_or_for_nobody_starts_nothing() {
    with_cluster(|cluster| {
        cluster.delegate()?;
        cluster.push("1.0.0", &brewing("1.0.0"), &[])?;
        let number = cluster.add_agent()?;
        let name = text_of(&cluster.device(number)?["name"]).to_owned();
        let file = text(cluster, "plan.txt");
        for (targets, exit, code) in [
            (["-l", ""], 2, "usage"),
            (["-l", " "], 2, "usage"),
            (["-l", "place="], 1, "selector.invalid"),
            (["-l", "place=elsewhere"], 1, "rollout.no_match"),
            (["-d", "nobody"], 1, "device.unknown"),
        ] {
            let plan = ["rollout", "plan", "coffee@1.0.0", targets[0], targets[1], "--out", &file];
            let error = refused(&cluster.run(&plan)?, exit, code)?;
            ensure!(exit != 2 || error.to_string().contains("the selector is empty"), "{error:#}");
            ensure!(fs::metadata(&file).is_err(), "a plan of nothing was written");
        }
        refused(&cluster.run(&["device", "show", "nobody"])?, 1, "device.unknown")?;
        let output = cluster.run(&["logs", &format!("{name}/coffe")])?;
        refused(&output, 1, "device.workload_unknown")?;

        cluster.json(&["rollout", "plan", "coffee@1.0.0", "--all", "--out", &file])?;
        let plan = fs::read_to_string(&file)?;
        fs::write(&file, plan.replacen("attempt 1", "attempt 2", 1))?;
        ensure!(fs::read_to_string(&file)? != plan, "there was nothing to edit in {plan}");
        refused(&cluster.run(&["rollout", "start", &file])?, 1, "rollout.plan_edited")?;
        fs::write(&file, &plan)?;
        cluster.json(&["device", "hold", &name, "--reason", "trade fair"])?;
        let error = refused(&cluster.run(&["rollout", "start", &file])?, 6, "rollout.plan_stale")?;
        ensure!(text_of(&error["cause"]).contains("held: trade fair"), "{error:#} does not say what has changed");
        let rollouts = cluster.json(&["rollout", "list"])?;
        ensure!(rollouts["rollouts"].as_array().is_some_and(Vec::is_empty), "something was started: {rollouts:#}");
        Ok(())
    });
}

/// Checks that a command was refused, and gives what it said of it; of what it should have done, it said nothing.
fn refused(output: &Output, exit: i32, code: &str) -> anyhow::Result<Value> {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = said.lines().rev().find(|line| line.starts_with('{')).with_context(|| format!("no error: {said}"))?;
    let error = serde_json::from_str::<Value>(line)?["error"].take();
    ensure!(error["code"] == code, "{error:#} is not {code}");
    ensure!(output.status.code() == Some(exit), "it ended with {}: {said}", output.status);
    ensure!(output.stdout.is_empty(), "an error is no data: {}", String::from_utf8_lossy(&output.stdout));
    Ok(error)
}

fn text(cluster: &Cluster, name: &str) -> String {
    cluster.path(name).display().to_string()
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
