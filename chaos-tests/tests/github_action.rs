//! The action for GitHub: its script, as a job runs it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, ensure};
use fleetd_chaos_tests::cluster::{Cluster, runs, with_cluster};
use serde_json::Value;

use crate::material::brewing;

const ACTION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.github/actions/rollout");

#[test]
fn a_job_pushes_a_release_shows_its_plan_and_starts_it() {
    with_cluster(|cluster| {
        cluster.delegate()?;
        let agent = cluster.add_agent()?;
        let job = Job::prepare(cluster)?;
        fs::write(job.path("coffee.sh"), brewing("1.0.0"))?;
        let program = job.path("coffee.sh").display().to_string();
        let key = fs::read_to_string(cluster.path("release.key"))?;
        let push = [("RELEASE", "coffee@1.0.0"), ("RELEASE_ARTIFACTS", &program), ("RELEASE_KEY", &key)];
        let flags = [("PUSH_FLAGS", "--grace\n1s\n"), ("TARGETS", "--selector\nplace in (0,1)"), ("START", "false")];
        let planned = job.run(cluster, &[&push[..], &flags[..]].concat())?;
        ensure!(planned.status.success(), "{}", String::from_utf8_lossy(&planned.stderr));
        let summary = fs::read_to_string(job.path("summary.md"))?;
        ensure!(summary.contains("### coffee 1.0.0") && summary.contains("Install: 1"), "{summary}");
        let outputs = job.outputs()?;
        ensure!(outputs["plan"].starts_with("pln_") && !outputs.contains_key("rollout"), "{outputs:?}");
        let none = cluster.json(&["rollout", "list"])?;
        ensure!(none["rollouts"].as_array().is_some_and(Vec::is_empty), "it was started: {none:#}");

        // The release is there: a job that runs again may send it again.
        let start = [("START", "true"), ("WAIT", "60s"), ("PLAN_FLAGS", "--max-failed\n0"), ("TARGETS", "--all")];
        let started = job.run(cluster, &[&push[..], &flags[..1], &start[..]].concat())?;
        ensure!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
        let outputs = job.outputs()?;
        let show = cluster.json(&["rollout", "show", &outputs["rollout"]])?;
        ensure!(show["rollout"]["state"] == "ROLLOUT_STATE_SUCCEEDED", "{show:#}");
        cluster.until_device(agent, "it to run 1.0.0", |device| runs(device, "1.0.0"))?;

        // What goes wrong ends the job, and says how.
        let bad = job.run(cluster, &[("RELEASE", "coffee@9.9.9"), ("TARGETS", "--all")])?;
        let said = String::from_utf8_lossy(&bad.stderr).into_owned();
        ensure!(bad.status.code() == Some(1) && said.contains("coffee@9.9.9"), "{said}");
        let silent = job.run(cluster, &[("RELEASE", "coffee@1.0.0")])?;
        let said = String::from_utf8_lossy(&silent.stderr).into_owned();
        ensure!(silent.status.code() == Some(2) && said.contains("TARGETS"), "{said}");
        ensure!(fs::read_dir(job.path("tmp"))?.next().is_none(), "a job left its login or its key behind");
        Ok(())
    });
}

#[test]
fn the_script_is_given_every_input_that_the_action_takes() {
    let action = fs::read_to_string(Path::new(ACTION).join("action.yml")).unwrap();
    let script = fs::read_to_string(Path::new(ACTION).join("rollout.sh")).unwrap();
    let (inputs, rest) = action.split_once("\noutputs:").unwrap();
    let names = inputs.lines().skip_while(|line| *line != "inputs:").filter_map(|line| {
        let name = line.strip_prefix("  ")?.strip_suffix(':')?;
        (!name.starts_with(' ')).then_some(name)
    });
    let mut count = 0;
    for name in names {
        count += 1;
        let given = rest.lines().find(|line| line.contains(&format!("${{{{ inputs.{name} }}}}")));
        let variable = given.and_then(|line| line.trim().split_once(':')).map(|(variable, _)| variable);
        let variable = variable.unwrap_or_else(|| panic!("{name} is not handed on"));
        assert!(script.contains(variable), "the script does not look at {variable}");
    }
    assert_eq!(count, 11);
}

/// A job's folder and login.
struct Job {
    directory: PathBuf,
    given: Vec<(&'static str, String)>,
}

impl Job {
    fn prepare(cluster: &Cluster) -> anyhow::Result<Self> {
        let directory = cluster.path("job");
        fs::create_dir_all(directory.join("tmp"))?;
        let announced = fs::read_to_string(cluster.path("serve.json"))?;
        let announced: Value = serde_json::from_str(announced.lines().next().context("nothing was announced")?)?;
        let text = |of: &Value, name: &str| of[name].as_str().map(str::to_owned).with_context(|| format!("no {name}"));
        let access = cluster.json(&["access", "create", "ci", "--role", "deployer"])?;
        let server = format!("https://{}", text(&announced, "apiAddress")?);
        let token = text(&access, "text")?;
        let given =
            vec![("FLEETD_SERVER", server), ("FLEETD_FLEET", text(&announced, "fleetId")?), ("FLEETD_TOKEN", token)];
        Ok(Self { directory, given })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Runs the script with these variables and no others of the action's.
    fn run(&self, cluster: &Cluster, variables: &[(&str, &str)]) -> anyhow::Result<Output> {
        let fleetd = cluster.command().get_program().to_owned();
        let folder = Path::new(&fleetd).parent().context("the program has no folder")?;
        let mut search = vec![folder.to_path_buf()];
        search.extend(std::env::split_paths(&std::env::var_os("PATH").context("there is no PATH")?));
        let mut script = Command::new("bash");
        script.arg(Path::new(ACTION).join("rollout.sh")).env("PATH", std::env::join_paths(search)?);
        script.env("TMPDIR", self.path("tmp")).env_remove("FLEETD_CONTEXT").env_remove("FLEETD_CONFIG_DIR");
        script.env("GITHUB_STEP_SUMMARY", self.path("summary.md")).env("GITHUB_OUTPUT", self.path("outputs"));
        script.envs(self.given.iter().map(|(name, value)| (name, value))).envs(variables.iter().copied());
        Ok(script.output()?)
    }

    fn outputs(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let text = fs::read_to_string(self.path("outputs"))?;
        Ok(text.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
    }
}
