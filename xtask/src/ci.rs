//! Everything that a change must pass, in the order in which it fails soonest.

use std::env;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use xshell::{Shell, cmd};

use crate::source::Tree;

/// The version of the npm package `@bufbuild/buf` that lints the schemas; `.ci/run` installs the same.
pub(crate) const BUF_VERSION: &str = "1.75.0";

/// Where `npm install` puts it, relative to the root.
pub(crate) const BUF: &str = "node_modules/.bin/buf";

/// What `buf breaking` compares the schemas with.
const BASELINE: &str = "proto/baseline.binpb";

/// How one step ended, unless it failed.
pub(crate) enum Outcome {
    Passed,
    Skipped(String),
}

struct Step {
    name: &'static str,
    run: fn(&Shell) -> anyhow::Result<Outcome>,
}

const STEPS: [Step; 11] = [
    Step { name: "fmt", run: fmt },
    Step { name: "tidy", run: tidy },
    Step { name: "buf", run: buf },
    Step { name: "codegen", run: codegen },
    Step { name: "pure", run: pure },
    Step { name: "clippy", run: clippy },
    Step { name: "test", run: test },
    Step { name: "sim", run: sim },
    Step { name: "demo", run: demo },
    Step { name: "python", run: crate::python::run },
    Step { name: "oracles", run: crate::oracles::run },
];

/// Returns the root of the workspace.
pub(crate) fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// Runs the steps that are named in `only`, or all of them, and stops at the first that fails.
///
/// # Errors
/// When a step fails, or `only` names one that does not exist.
pub(crate) fn run(only: &[String]) -> anyhow::Result<()> {
    let known: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
    if let Some(unknown) = only.iter().find(|name| !known.contains(&name.as_str())) {
        anyhow::bail!("there is no step `{unknown}`; the steps are: {}", known.join(", "));
    }
    let shell = Shell::new().context("find the working folder")?;
    shell.change_dir(root());
    let mut rows = Vec::new();
    let mut failure = None;
    for step in STEPS.iter().filter(|step| only.is_empty() || only.iter().any(|name| name == step.name)) {
        println!("ci: {}", step.name);
        let start = Instant::now();
        let outcome = (step.run)(&shell);
        let verdict = match &outcome {
            Ok(Outcome::Passed) => "passed".to_owned(),
            Ok(Outcome::Skipped(reason)) => format!("skipped: {reason}"),
            Err(_) => "FAILED".to_owned(),
        };
        rows.push((step.name, start.elapsed(), verdict));
        if let Err(error) = outcome {
            failure =
                Some(error.context(format!("step `{}` failed; alone: `cargo xtask ci {}`", step.name, step.name)));
            break;
        }
    }
    print!("{}", table(&rows));
    println!("{}", closing_line(&rows));
    failure.map_or(Ok(()), Err)
}

fn fmt(shell: &Shell) -> anyhow::Result<Outcome> {
    cmd!(shell, "cargo fmt --all --check").run()?;
    Ok(Outcome::Passed)
}

fn tidy(_: &Shell) -> anyhow::Result<Outcome> {
    crate::tidy::run()?;
    Ok(Outcome::Passed)
}

/// Lints the schemas and compares them with the baseline.
fn buf(shell: &Shell) -> anyhow::Result<Outcome> {
    if !shell.path_exists("proto/buf.yaml") && !shell.path_exists("buf.yaml") {
        return Ok(Outcome::Skipped("there are no schemas yet".to_owned()));
    }
    if !shell.path_exists(BUF) {
        let install = format!("npm install --no-save --prefix . @bufbuild/buf@{BUF_VERSION}");
        let has_npm = cmd!(shell, "npm --version").quiet().ignore_stdout().ignore_stderr().run().is_ok();
        anyhow::ensure!(!has_npm && env::var_os("CI").is_none(), "buf is not installed; run `{install}`");
        return Ok(Outcome::Skipped("npm is not installed, so buf is not either".to_owned()));
    }
    let folder = if shell.path_exists("buf.yaml") { "." } else { "proto" };
    cmd!(shell, "{BUF} lint {folder}").run()?;
    cmd!(shell, "{BUF} format --diff --exit-code {folder}").run()?;
    cmd!(shell, "{BUF} breaking {folder} --against {BASELINE}").run()?;
    break_schemas(shell, folder)?;
    Ok(Outcome::Passed)
}

/// Sees the comparison refuse a copy of the schemas in which an RPC has another name.
fn break_schemas(shell: &Shell, folder: &str) -> anyhow::Result<()> {
    let copy = shell.create_temp_dir()?;
    let broken = copy.path().join("proto");
    cmd!(shell, "cp -r {folder} {broken}").run()?;
    let file = broken.join("fleetd/device/v1/device_service.proto");
    let schema = shell.read_file(&file)?;
    anyhow::ensure!(schema.contains("rpc RenameDevice("), "the RPC that is taken away is not there");
    shell.write_file(&file, schema.replace("rpc RenameDevice(", "rpc RenameNothing("))?;
    let compared = cmd!(shell, "{BUF} breaking {broken} --against {BASELINE}").quiet().ignore_stdout().run();
    anyhow::ensure!(compared.is_err(), "`buf breaking` did not see that an RPC is gone");
    Ok(())
}

/// Holds the committed Rust to the schemas that it was made from.
fn codegen(_: &Shell) -> anyhow::Result<Outcome> {
    crate::codegen::run(true)?;
    Ok(Outcome::Passed)
}

/// Builds the pure crates alone, so that nothing impure comes in through a neighbour's features.
fn pure(shell: &Shell) -> anyhow::Result<Outcome> {
    cmd!(shell, "cargo check --package fleetd-sync-core").run()?;
    cmd!(shell, "cargo check --package fleetd-actors --no-default-features").run()?;
    Ok(Outcome::Passed)
}

fn clippy(shell: &Shell) -> anyhow::Result<Outcome> {
    cmd!(shell, "cargo clippy --workspace --all-targets -- --deny warnings").run()?;
    Ok(Outcome::Passed)
}

/// Runs all tests, also after one has failed; what failed is said once more at the very end, where it is looked for.
fn test(_: &Shell) -> anyhow::Result<Outcome> {
    let mut cargo = Command::new("cargo")
        .args(["test", "--workspace", "--no-fail-fast"])
        .current_dir(root())
        .stdout(Stdio::piped())
        .spawn()
        .context("start `cargo test`")?;
    let mut failures = Failures::default();
    for line in BufReader::new(cargo.stdout.take().context("the tests' output")?).split(b'\n') {
        let line = String::from_utf8_lossy(&line.context("read the tests' output")?).into_owned();
        println!("{line}");
        failures.take(line);
    }
    let status = cargo.wait().context("wait for `cargo test`")?;
    anyhow::ensure!(status.success(), "`cargo test --workspace` ended with {status}\n{}", failures.said.join("\n"));
    Ok(Outcome::Passed)
}

/// What a test harness says of the tests that failed, in its part between `failures:` and `test result:`.
#[derive(Default)]
struct Failures {
    is_inside: bool,
    lines_of_one: usize,
    said: Vec<String>,
}

impl Failures {
    /// Lines that are kept of each test that failed.
    const LINES_MAX: usize = 30;

    fn take(&mut self, line: String) {
        if line == "failures:" {
            (self.is_inside, self.lines_of_one) = (true, 0);
        } else if line.starts_with("test result:") {
            self.is_inside = false;
        } else if self.is_inside {
            self.lines_of_one = if line.starts_with("---- ") { 1 } else { self.lines_of_one + 1 };
            if self.lines_of_one <= Self::LINES_MAX && !line.is_empty() {
                self.said.push(line);
            }
        }
    }
}

/// Runs seeds that are always the same, seeds that nobody has seen before, and compares processes of one seed.
fn sim(shell: &Shell) -> anyhow::Result<Outcome> {
    crate::soak::sim_in_ci(shell)?;
    Ok(Outcome::Passed)
}

fn demo(shell: &Shell) -> anyhow::Result<Outcome> {
    if !Tree::read(root())?.paths.contains("cli/src/demo.rs") {
        return Ok(Outcome::Skipped("there is no demo yet".to_owned()));
    }
    cmd!(shell, "cargo run -- demo").run()?;
    Ok(Outcome::Passed)
}

fn table(rows: &[(&str, Duration, String)]) -> String {
    let mut text = format!("\n{:<8} {:>7}\n", "step", "minutes");
    for (name, took, verdict) in rows {
        text.push_str(&format!("{name:<8} {:>7.1}  {verdict}\n", took.as_secs_f64() / 60.0));
    }
    let total: Duration = rows.iter().map(|(_, took, _)| *took).sum();
    text.push_str(&format!("{:<8} {:>7.1}\n\n", "all", total.as_secs_f64() / 60.0));
    text
}

/// The line that test runners of every language understand, counting steps.
fn closing_line(rows: &[(&str, Duration, String)]) -> String {
    let count = |start: &str| rows.iter().filter(|(_, _, verdict)| verdict.starts_with(start)).count();
    format!("{} passed, {} failed, {} skipped", count("passed"), count("FAILED"), count("skipped"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_names_each_step_its_minutes_and_the_counts() {
        let rows = [
            ("fmt", Duration::from_secs(6), "passed".to_owned()),
            ("buf", Duration::ZERO, "skipped: npm is not installed".to_owned()),
            ("test", Duration::from_secs(360), "FAILED".to_owned()),
        ];
        assert_eq!(closing_line(&rows), "1 passed, 1 failed, 1 skipped");
        let table = table(&rows);
        assert!(table.contains("test         6.0  FAILED"), "{table}");
        assert!(table.contains("all          6.1"), "{table}");
    }

    #[test]
    fn what_failed_is_kept_without_its_long_trace() {
        let mut failures = Failures::default();
        let said = "test a ... ok\ntest b ... FAILED\n\nfailures:\n\n---- b stdout ----\nleft: 1";
        let trace = "  frame\n".repeat(100);
        let end = "\nfailures:\n    b\n\ntest result: FAILED. 1 passed; 1 failed";
        format!("{said}\n{trace}{end}\nmore").lines().for_each(|line| failures.take(line.to_owned()));
        assert_eq!(failures.said.len(), Failures::LINES_MAX + 1);
        assert_eq!((failures.said[1].as_str(), failures.said.last().map(String::as_str)), ("left: 1", Some("    b")));
    }

    #[test]
    fn an_unknown_step_is_refused_with_the_known_ones() {
        let error = run(&["tset".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("`tset`") && error.contains("clippy, test, sim, demo, python, oracles"), "{error}");
    }

    #[test]
    fn ci_installs_the_very_version_of_buf_that_is_expected() {
        let script = std::fs::read_to_string(root().join(".ci/run")).unwrap();
        assert!(script.contains(&format!("@bufbuild/buf@{BUF_VERSION}")));
    }
}
