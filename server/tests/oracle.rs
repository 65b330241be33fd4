//! Clients that others wrote, against the real services on the real port.
//!
//! Those in Node and in a browser are built by `cargo xtask ci oracles`; without them their tests say so and pass,
//! except where [`REQUIRED`] names what they lack.

mod browser;
mod connectrpc;
mod fleet;
mod node;
mod reflection;

use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Names the programs, `node` and `chromium`, without which their tests must fail.
const REQUIRED: &str = "FLEETD_ORACLES_REQUIRED";

/// Where a client in JavaScript for a program lies, once it is built.
fn built(program: &str, name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/oracles/dist").join(name);
    if path.exists() {
        return Some(path);
    }
    left_out(program, &format!("{name} is not built; `cargo xtask ci oracles` does it"))
}

/// Finds a program by one of its names.
fn program(names: &[&str]) -> Option<PathBuf> {
    let folders: Vec<PathBuf> = std::env::var_os("PATH").iter().flat_map(std::env::split_paths).collect();
    let found = names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    let found = found.into_iter().find(|path| path.is_file());
    found.or_else(|| left_out(names[0], &format!("there is no {}", names.join(" or "))))
}

/// Says why a test does nothing, or fails where it may not.
fn left_out<T>(program: &str, reason: &str) -> Option<T> {
    let required = std::env::var(REQUIRED).unwrap_or_default();
    assert!(!required.split(',').any(|name| name == program), "{reason}, and {REQUIRED} is {required}");
    // Who runs the tests shall see what was not tested. What is printed by a macro is held back while a test passes.
    let _ = writeln!(std::io::stderr(), "left out: {reason}");
    None
}
