//! The README, carried out.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use fleetd_chaos_tests::binary;
use fleetd_chaos_tests::cluster::{Cluster, with_cluster};
use serde_json::Value;

/// Stands between the answers of two lines.
const NEXT: &str = "\u{1e}next\n";

/// The lines of the block below a heading, but for comments.
fn block(heading: &str) -> anyhow::Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(path)?;
    let (_, section) = readme.split_once(&format!("\n## {heading}\n")).context("there is no such section")?;
    let (_, rest) = section.split_once("```sh\n").context("it has no lines")?;
    let (block, _) = rest.split_once("```").context("they have no end")?;
    Ok(block
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| format!("{line}\n"))
        .collect())
}

/// Runs lines in a shell as one of the cluster's operators, and gives what each printed but for those that only set
/// variables.
fn answers(cluster: &Cluster, lines: &str) -> anyhow::Result<Vec<Vec<u8>>> {
    let folder = binary::fleetd()?.parent().context("it lies in a folder")?;
    let path = std::env::var("PATH")?;
    let operator = cluster.command();
    let mut shell = Command::new("sh");
    shell.env("PATH", format!("{}:{path}", folder.display())).current_dir(cluster.path(""));
    for (name, value) in operator.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let asked = lines.lines().map(|line| {
        if line.starts_with("export ") { format!("{line}\n") } else { format!("{line}\nprintf '{NEXT}'\n") }
    });
    let output = shell.args(["-eu", "-c"]).arg(asked.collect::<String>()).output()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "a line failed: {complaint}\n{}", String::from_utf8_lossy(&output.stdout));
    let mut answers = Vec::new();
    let mut rest = output.stdout.as_slice();
    while let Some(at) = rest.windows(NEXT.len()).position(|bytes| bytes == NEXT.as_bytes()) {
        answers.push(rest.get(..at).unwrap_or_default().to_vec());
        rest = rest.get(at + NEXT.len()..).unwrap_or_default();
    }
    Ok(answers)
}

#[test]
fn the_curl_lines_of_the_readme_run_as_they_stand() {
    if Command::new("curl").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "there is no curl");
        // Past what is held back while a test passes.
        let _ = writeln!(std::io::stderr(), "left out: there is no curl");
        return;
    }
    with_cluster(|cluster| {
        cluster.add_agent()?;
        let announced: Value = serde_json::from_slice(&std::fs::read(cluster.path("serve.json"))?)?;
        let api = announced["apiAddress"].as_str().context("the server says where its API is")?;
        let (_, port) = api.rsplit_once(':').context("it is an address")?;
        let mut lines = block("By curl")?;
        // What differs is where this server is and where it keeps its data.
        for (written, here) in [("localhost:4800", format!("localhost:{port}")), ("fleet/keys", "server/keys".into())] {
            ensure!(lines.matches(written).count() == 1, "the README names {written} once");
            lines = lines.replace(written, &here);
        }
        let answers = answers(cluster, &lines)?;
        let [list, got, stream, error] = answers.as_slice() else {
            anyhow::bail!("{} lines instead of 4", answers.len());
        };
        let list: Value = serde_json::from_slice(list)?;
        ensure!(list["devices"].as_array().map(Vec::len) == Some(1), "{list:#}");
        let got: Value = serde_json::from_slice(got)?;
        ensure!(got.is_object() && got.get("code").is_none(), "{got:#}");
        let stream = String::from_utf8_lossy(stream);
        let name = list["devices"][0]["name"].as_str().context("it has a name")?;
        ensure!(stream.contains(name) && stream.contains("deadline_exceeded"), "{stream}");
        let error: Value = serde_json::from_slice(error)?;
        let help = error["details"][0]["debug"]["helpUrl"].as_str().unwrap_or_default();
        ensure!(error["code"] == "not_found" && help.ends_with("/errors/device.unknown"), "{error:#}");
        Ok(())
    });
}
