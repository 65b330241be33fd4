//! The binaries under test, built by the tests themselves in the profile that the tests run in.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, ensure};

/// Builds `fleetd` once for each test process, and returns where it lies.
///
/// # Errors
/// When cargo cannot build it.
pub fn fleetd() -> anyhow::Result<&'static Path> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}"))) {
        Ok(path) => Ok(path),
        Err(cause) => anyhow::bail!("cannot build fleetd: {cause}"),
    }
}

fn build() -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").context("run the tests with cargo: CARGO is not set")?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the crate lies in the workspace")?;
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--package", "fleetd", "--message-format", "json-render-diagnostics"]);
    // Build scripts that look at what cargo says of the tests' package would run again: `ring`, and all above it.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            build.env_remove(name);
        }
    }
    let built = build.current_dir(root).output()?;
    ensure!(built.status.success(), "cargo build failed:\n{}", String::from_utf8_lossy(&built.stderr));
    String::from_utf8_lossy(&built.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "fleetd")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo built no binary called fleetd")
}
