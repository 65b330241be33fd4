//! Agents that are killed, again and again, and what runs under them.

use std::path::Path;
use std::{fs, io};

use anyhow::{Context as _, ensure};
use fleetd_chaos_tests::cluster::{Cluster, PATIENCE, is_online, runs, with_cluster, workload};
use fleetd_chaos_tests::process::{is_alive, kill_all_of, processes_of, within};

use crate::material::{COUNTING, brewing, brewing_large, check_counted, next_random, random};

/// Deaths in one download.
const DEATHS: u64 = 50;
/// Bytes that come in one life: from so many, in which a download has at least begun …
const LIFE_BYTES_MIN: u64 = 80 << 10;
/// … to so many. What is verified is durable every 256 KiB, so that lives without and with progress are drawn.
const LIFE_BYTES_MAX: u64 = 900 << 10;
/// The artifact's size: more than fifty lives bring in, as long as each ends soon after it should.
const LARGE_BYTES: usize = 40 << 20;
/// Deaths that there must have been when a machine that is late with each lets the download end before its last.
const DEATHS_MIN: u64 = 25;
/// What one death may cost: groups that no mark vouches for yet, the values of all groups, and what was on its way.
const DEATH_BYTES_MAX: u64 = (256 << 10) + (64 << 10) + (512 << 10);

#[test]
fn a_download_goes_on_where_it_was_after_fifty_deaths_at_random_points() {
    with_cluster(|cluster| {
        let seed = random();
        println!("seed {seed}");
        let program = brewing_large("1.0.0", LARGE_BYTES);
        cluster.delegate()?;
        cluster.push("1.0.0", &program, &["--grace", "1s"])?;
        let number = cluster.add_agent()?;
        let begin = cluster.agent(number)?.link.received_bytes();
        let mut draw = seed;
        let mut lives = Vec::new();
        let mut at = begin;
        let rollout = cluster.roll_out("1.0.0")?;
        for death in 0..DEATHS {
            draw = next_random(draw);
            let life = LIFE_BYTES_MIN + draw % (LIFE_BYTES_MAX - LIFE_BYTES_MIN);
            let link = &cluster.agent(number)?.link;
            ensure!(link.wait_for(at + life, PATIENCE), "death {death} of seed {seed}: {life} bytes never came");
            cluster.kill_agent(number)?;
            let link = &cluster.agent(number)?.link;
            // What the server still sends to the dead is not counted.
            link.cut();
            let received = link.received_bytes();
            lives.push(received - at);
            at = received;
            let whole = artifacts(cluster, number)?.into_iter().filter(|name| !name.contains('.')).count();
            cluster.agent(number)?.link.heal();
            cluster.start_agent(number)?;
            if whole > 0 {
                ensure!(death >= DEATHS_MIN, "death {death} of seed {seed} came after the download: {lives:?}");
                break;
            }
        }
        let seen = cluster.until_device(number, "it to run 1.0.0", |device| runs(device, "1.0.0"));
        let device = seen.with_context(|| format!("seed {seed}, lives of {lives:?} bytes"))?;
        cluster.until_rollout(&rollout, "the rollout to end well", |show| {
            show["rollout"]["state"] == "ROLLOUT_STATE_SUCCEEDED"
        })?;
        ensure!(workload(&device)["restarts"] == 0, "it was started again: {device:#}");
        let received = cluster.agent(number)?.link.received_bytes() - begin;
        let limit = u64::try_from(LARGE_BYTES)? + DEATHS * DEATH_BYTES_MAX;
        ensure!(received < limit, "{received} bytes came, {limit} may; seed {seed}, lives of {lives:?} bytes");

        let folder = cluster.agent(number)?.data_directory().join("workloads").join("coffee");
        ensure!(fs::read(folder.join("current/artifact"))? == program, "other bytes are installed; seed {seed}");
        let left: Vec<_> = artifacts(cluster, number)?.into_iter().filter(|name| name.contains('.')).collect();
        ensure!(left.is_empty(), "{left:?} was left half-written; seed {seed}");
        let releases = names_in(&folder.join("releases"))?;
        ensure!(releases.len() == 1 && releases.iter().all(|name| name.starts_with("1.0.0-")), "{releases:?}");
        Ok(())
    });
}

#[test]
fn a_workload_outlives_twenty_deaths_of_its_agent() {
    with_cluster(|cluster| {
        cluster.delegate()?;
        cluster.push("1.0.0", COUNTING.as_bytes(), &["--grace", "1s"])?;
        let number = cluster.add_agent()?;
        cluster.roll_out("1.0.0")?;
        cluster.until_device(number, "it to run 1.0.0", |device| runs(device, "1.0.0"))?;
        let pid = only_start(cluster, number)?;
        for _death in 0..20 {
            cluster.kill_agent(number)?;
            ensure!(is_alive(pid), "the workload died with its agent");
            cluster.start_agent(number)?;
            within(PATIENCE, "the agent to answer again", || Ok(cluster.agents[number].answers().then_some(())))?;
        }
        cluster.until_device(number, "it to be online again", |device| is_online(device) && runs(device, "1.0.0"))?;
        ensure!(only_start(cluster, number)? == pid, "another process runs");

        // Its end, seen by nobody but its shim.
        cluster.kill_agent(number)?;
        fs::write(cluster.agent(number)?.workload_directory().join("end"), "")?;
        within(PATIENCE, "the workload to end", || Ok((!is_alive(pid)).then_some(())))?;
        cluster.start_agent(number)?;
        cluster.until_device(number, "its exit code to be known", |device| workload(device)["exitStatus"] == 7)?;
        let written = within(PATIENCE, "every line to arrive", || {
            let lines = cluster.lines(number)?;
            let (from, count) = check_counted(&lines)?;
            ensure!(from == pid, "the lines are from {from}, not from {pid}");
            // Twenty deaths take several seconds, in which it wrote ten lines each.
            Ok((count >= 20).then_some(count))
        })?;
        ensure!(written >= 20, "{written} lines");
        Ok(())
    });
}

#[test]
fn a_reboot_with_no_link_brings_workloads_back() {
    with_cluster(|cluster| {
        cluster.delegate()?;
        cluster.push("1.0.0", COUNTING.as_bytes(), &["--grace", "1s"])?;
        let number = cluster.add_agent()?;
        cluster.roll_out("1.0.0")?;
        cluster.until_device(number, "it to run 1.0.0", |device| runs(device, "1.0.0"))?;
        let before = only_start(cluster, number)?;

        let agent = cluster.agent(number)?;
        agent.link.cut();
        let (directory, run) = (agent.directory().to_owned(), agent.run_directory());
        cluster.kill_agent(number)?;
        kill_all_of(&directory, PATIENCE)?;
        fs::remove_dir_all(&run)?;
        fs::create_dir(&run)?;
        cluster.start_agent(number)?;

        let after = within(PATIENCE, "the workload to run again", || {
            let starts = starts(cluster, number)?;
            Ok(starts.get(1).copied().filter(|pid| is_alive(*pid)))
        })?;
        ensure!(after != before, "no process can have survived");
        cluster.agent(number)?.link.heal();
        cluster.until_device(number, "it to be back", |device| is_online(device) && runs(device, "1.0.0"))?;
        ensure!(starts(cluster, number)? == [before, after], "it was started once more when it had its link again");
        Ok(())
    });
}

#[test]
fn what_an_operator_stopped_stays_stopped_across_a_reboot() {
    with_cluster(|cluster| {
        cluster.delegate()?;
        cluster.push("1.0.0", &brewing("1.0.0"), &["--grace", "1s"])?;
        let number = cluster.add_agent()?;
        cluster.roll_out("1.0.0")?;
        let device = cluster.until_device(number, "it to run 1.0.0", |device| runs(device, "1.0.0"))?;
        let name = device["name"].as_str().context("a device without a name")?.to_owned();
        cluster.json(&["device", "stop", &format!("{name}/coffee")])?;
        let is_stopped = |device: &serde_json::Value| workload(device)["runState"] == "RUN_STATE_STOPPED";
        cluster.until_device(number, "it to be stopped", is_stopped)?;

        let directory = cluster.agent(number)?.directory().to_owned();
        cluster.kill_agent(number)?;
        kill_all_of(&directory, PATIENCE)?;
        fs::remove_dir_all(cluster.agent(number)?.run_directory())?;
        cluster.start_agent(number)?;
        cluster.until_device(number, "it to be back, stopped", |device| is_online(device) && is_stopped(device))?;
        let shims: Vec<_> =
            processes_of(&directory).into_iter().filter(|(_, command)| command.contains(" shim ")).collect();
        ensure!(shims.is_empty(), "something runs: {shims:?}");

        cluster.json(&["device", "start", &format!("{name}/coffee")])?;
        cluster
            .until_device(number, "it to run again", |device| workload(device)["runState"] == "RUN_STATE_RUNNING")?;
        Ok(())
    });
}

/// The processes as which the counting program was started, in their order.
fn starts(cluster: &Cluster, number: usize) -> anyhow::Result<Vec<u32>> {
    let path = cluster.agents[number].workload_directory().join("started");
    let text = fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    text.lines().map(|line| Ok(line.parse()?)).collect()
}

fn only_start(cluster: &Cluster, number: usize) -> anyhow::Result<u32> {
    match starts(cluster, number)?.as_slice() {
        [pid] => Ok(*pid),
        starts => anyhow::bail!("the workload was started as {starts:?}, not once"),
    }
}

/// What lies in an agent's folder of artifacts: whole ones by their digests alone.
fn artifacts(cluster: &Cluster, number: usize) -> anyhow::Result<Vec<String>> {
    names_in(&cluster.agents[number].data_directory().join("artifacts"))
}

/// The names in a folder that may not be there.
fn names_in(folder: &Path) -> anyhow::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}
