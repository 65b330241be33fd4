//! Builds the clients in `server/tests/oracle/node/`, which others wrote the libraries for, and runs them against the
//! real server: in Node, and in a headless Chromium.
//!
//! Their packages lie in `target/`, and are fetched anew when the lock file has changed. The client for our own schemas
//! is generated each time from the descriptors that the server reflects; that it compiles is part of the check.

use std::env;

use anyhow::Context as _;
use xshell::{Shell, cmd};

use crate::ci::{BUF, Outcome, root};

/// Where the clients are written.
const SOURCES: &str = "server/tests/oracle/node";
/// Where they are built, relative to the root; `server/tests/oracle.rs` looks for them there.
const BUILT: &str = "target/oracles";
/// What the schemas are, compiled.
const DESCRIPTORS: &str = "proto/src/gen/descriptors.binpb";
/// Names to the tests the programs without which they must fail.
const REQUIRED: &str = "FLEETD_ORACLES_REQUIRED";
/// Set where it was found that no Chromium can be installed.
const WITHOUT_CHROMIUM: &str = "FLEETD_CI_WITHOUT_CHROMIUM";

/// Builds the clients, and runs those tests of the server that need them.
///
/// # Errors
/// When there is no npm, when a client does not compile, or when a test fails or has to be left out.
pub(crate) fn run(shell: &Shell) -> anyhow::Result<Outcome> {
    let has_npm = cmd!(shell, "npm --version").quiet().ignore_stdout().ignore_stderr().run().is_ok();
    anyhow::ensure!(has_npm, "there is no npm to fetch the oracles' packages with");
    build(shell)?;
    let is_without_chromium = env::var_os(WITHOUT_CHROMIUM).is_some();
    let _required = shell.push_env(REQUIRED, if is_without_chromium { "node" } else { "node,chromium" });
    // The whole workspace, as the tests before it: with the features of one crate, most would be built once more.
    cmd!(shell, "cargo test --workspace --test runner oracle::").run()?;
    if is_without_chromium {
        return Ok(Outcome::Skipped("the browser's part: Chromium cannot be installed; the others passed".to_owned()));
    }
    Ok(Outcome::Passed)
}

fn build(shell: &Shell) -> anyhow::Result<()> {
    let buf = root().join(BUF);
    anyhow::ensure!(buf.exists(), "buf is not installed; `cargo xtask ci buf` says how");
    let built = root().join(BUILT);
    shell.create_dir(built.join("src"))?;
    for file in shell.read_dir(SOURCES)?.into_iter().chain(shell.read_dir(format!("{SOURCES}/src"))?) {
        let name = file.strip_prefix(root().join(SOURCES)).unwrap_or(&file).to_owned();
        if file.is_file() {
            shell.copy_file(&file, built.join(name))?;
        }
    }
    let _folder = shell.push_dir(&built);
    let lock = shell.read_file("package-lock.json")?;
    if shell.read_file("installed.json").ok().as_ref() != Some(&lock) {
        cmd!(shell, "npm ci --ignore-scripts --no-audit --no-fund").run().context("npm cannot fetch the packages")?;
        // Last, so that an installation that was cut off is done again.
        shell.write_file("installed.json", lock)?;
    }
    let descriptors = root().join(DESCRIPTORS);
    cmd!(shell, "{buf} generate {descriptors}").run()?;
    cmd!(shell, "node_modules/.bin/tsc").run().context("the generated client or its caller does not compile")?;
    for bundle in [
        ["src/node.ts", "--platform=node", "--outfile=dist/node.mjs"],
        ["src/browser.ts", "--platform=browser", "--outfile=dist/browser.js"],
    ] {
        cmd!(shell, "node_modules/.bin/esbuild {bundle...} --bundle --format=esm --target=es2022 --log-level=warning")
            .run()?;
    }
    Ok(())
}
