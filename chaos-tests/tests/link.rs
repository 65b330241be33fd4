//! Links that are cut.

use anyhow::ensure;
use fleetd_chaos_tests::cluster::{PATIENCE, is_online, runs, with_cluster, workload};
use fleetd_chaos_tests::process::within;

use crate::material::{COUNTING, brewing_large, check_counted};

/// The artifact's size: large enough that a link can be cut in the middle of it.
const LARGE_BYTES: usize = 2 << 20;

#[test]
fn a_device_cut_off_through_a_rollout_follows_by_itself() {
    with_cluster(|cluster| {
        cluster.delegate()?;
        cluster.push("1.0.0", COUNTING.as_bytes(), &["--grace", "1s", "--stop-grace", "1s"])?;
        cluster.push("1.1.0", &brewing_large("1.1.0", LARGE_BYTES), &["--grace", "1s", "--stop-grace", "1s"])?;
        let (near, far) = (cluster.add_agent()?, cluster.add_agent()?);
        let first = cluster.roll_out("1.0.0")?;
        cluster
            .until_rollout(&first, "the first rollout to end well", |show| show["rollout"]["counts"]["healthy"] == 2)?;

        cluster.agent(far)?.link.cut_after(u64::try_from(LARGE_BYTES / 2)?);
        let rollout = cluster.roll_out("1.1.0")?;
        within(PATIENCE, "the download to be cut", || Ok(cluster.agents[far].link.is_cut().then_some(())))?;
        cluster.until_device(near, "it to run 1.1.0", |device| runs(device, "1.1.0"))?;
        // What it runs goes on, and what that writes is kept, link or no link.
        let device = cluster.device(far)?;
        ensure!(workload(&device)["actualRelease"] == "1.0.0", "it cannot have more than half of it: {device:#}");

        cluster.agent(far)?.link.heal();
        cluster.until_device(far, "it to run 1.1.0", |device| is_online(device) && runs(device, "1.1.0"))?;
        cluster.until_rollout(&rollout, "both to be healthy", |show| show["rollout"]["counts"]["healthy"] == 2)?;
        within(PATIENCE, "lines of the new release", || {
            let lines = cluster.lines(far)?;
            let Some(end) = lines.iter().position(|line| line == "coffee 1.1.0") else { return Ok(None) };
            check_counted(&lines[..end])?;
            Ok(Some(()))
        })
    });
}
