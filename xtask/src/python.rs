//! Runs the device of `docs/examples/`, which shares no code with ours, against the real server.
//!
//! Its Python lives in `target/`, and is made anew when the packages that it needs have changed.

use std::env;

use anyhow::Context as _;
use xshell::{Shell, cmd};

use crate::ci::{Outcome, root};

/// Where the virtual environment lies, relative to the root.
const ENVIRONMENT: &str = "target/examples-python";
/// What it needs, each at one version.
const REQUIREMENTS: &str = "docs/examples/requirements.txt";
/// Set where it was found that no registry of Python packages can be reached.
const WITHOUT_PIP: &str = "FLEETD_CI_WITHOUT_PIP";
/// The oldest Python that the examples are written for.
const VERSION_MIN: (u8, u8) = (3, 11);

/// Checks the golden vectors in Python, then enrols the device of the examples with a server of its own.
///
/// # Errors
/// When either fails, or there is no Python to try it with where `CI` is set.
pub(crate) fn run(shell: &Shell) -> anyhow::Result<Outcome> {
    if let Err(missing) = prepare(shell) {
        let is_required = env::var_os("CI").is_some() && env::var_os(WITHOUT_PIP).is_none();
        anyhow::ensure!(!is_required, "{missing:#}");
        return Ok(Outcome::Skipped(format!("{missing:#}")));
    }
    cmd!(shell, "cargo build --package fleetd").run()?;
    let python = root().join(ENVIRONMENT).join("bin/python");
    let _folder = shell.push_dir("docs/examples");
    let _fleetd = shell.push_env("FLEETD", root().join("target/debug/fleetd"));
    cmd!(shell, "{python} -B -m unittest test_vectors test_device").run()?;
    Ok(Outcome::Passed)
}

/// Makes the virtual environment of the examples, unless it is there with these very packages.
fn prepare(shell: &Shell) -> anyhow::Result<()> {
    prepare_environment(shell, ENVIRONMENT, REQUIREMENTS)
}

/// Makes a virtual environment, unless it is there with these very packages.
///
/// # Errors
/// When there is no Python, or a package cannot be had.
pub(crate) fn prepare_environment(shell: &Shell, environment: &str, requirements: &str) -> anyhow::Result<()> {
    let (major, minor) = VERSION_MIN;
    let version = format!("import sys; sys.exit(sys.version_info < ({major}, {minor}))");
    let is_new_enough = cmd!(shell, "python3 -c {version}").quiet().ignore_stderr().run().is_ok();
    anyhow::ensure!(is_new_enough, "there is no python3 of {major}.{minor} or newer");
    let wanted = shell.read_file(requirements)?;
    let note = format!("{environment}/requirements.txt");
    if shell.read_file(&note).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    shell.remove_path(environment)?;
    let made = cmd!(shell, "python3 -m venv {environment}").run();
    made.context("python3 makes no virtual environment; install python3-venv")?;
    let options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"];
    cmd!(shell, "{environment}/bin/pip install {options...} --requirement {requirements}")
        .run()
        .with_context(|| format!("pip cannot install the packages of {requirements}"))?;
    // Last, so that an installation that was cut off is done again.
    shell.write_file(&note, wanted)?;
    Ok(())
}
