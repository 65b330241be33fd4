//! Servers that are killed.

use anyhow::ensure;
use fleetd_chaos_tests::cluster::{PATIENCE, runs, with_cluster, workload};
use fleetd_chaos_tests::process::within;

use crate::material::brewing;

#[test]
fn a_server_killed_in_mid_rollout_brings_it_to_its_end() {
    with_cluster(|cluster| {
        cluster.delegate()?;
        for version in ["1.0.0", "1.1.0"] {
            // Long enough that a rollout has a middle.
            cluster.push(version, &brewing(version), &["--grace", "3s", "--stop-grace", "1s"])?;
        }
        let agents = [cluster.add_agent()?, cluster.add_agent()?];
        let first = cluster.roll_out("1.0.0")?;
        cluster.until_rollout(&first, "the first rollout to end well", |show| {
            show["rollout"]["state"] == "ROLLOUT_STATE_SUCCEEDED"
        })?;

        let rollout = cluster.roll_out("1.1.0")?;
        cluster.until_rollout(&rollout, "devices to be at work", |show| {
            show["rollout"]["counts"]["installing"].as_u64().unwrap_or_default() > 0
        })?;
        cluster.kill_server()?;
        cluster.start_server()?;
        let end = cluster.until_rollout(&rollout, "the rollout to end well", |show| {
            show["rollout"]["state"] == "ROLLOUT_STATE_SUCCEEDED" && show["rollout"]["counts"]["healthy"] == 2
        })?;
        ensure!(end["rollout"]["attempt"] == 1, "it was tried again: {end:#}");
        for number in agents {
            let device = cluster.until_device(number, "it to run 1.1.0", |device| runs(device, "1.1.0"))?;
            ensure!(workload(&device)["restarts"] == 0, "it was started again: {device:#}");
        }
        within(PATIENCE, "lines of the new release from both", || {
            let mut heard = Vec::new();
            for number in agents {
                heard.push(cluster.lines(number)?.iter().any(|line| line == "coffee 1.1.0"));
            }
            Ok(heard.iter().all(|heard| *heard).then_some(()))
        })
    });
}
