//! The program that the demo ships: a coffee machine's, as a script that every device can run.

use std::fs;
use std::io;
use std::path::Path;

/// The version that crashes.
pub(super) const CRASHING: &str = "1.2.0";

/// What every line of a version begins with.
pub(super) fn mark(version: &str) -> String {
    format!("coffee {version}:")
}

/// The program's text.
fn program(version: &str) -> String {
    let mark = mark(version);
    if version == CRASHING {
        return format!("#!/bin/sh\necho '{mark} the boiler is on fire' >&2\nsleep 0.3\nexit 1\n");
    }
    format!("#!/bin/sh\ncup=0\nwhile :; do\n  cup=$((cup + 1))\n  echo \"{mark} brewing cup $cup\"\n  sleep 1\ndone\n")
}

/// Writes a version's program below `directory`, and returns the file's name.
pub(super) fn write(directory: &Path, version: &str) -> io::Result<String> {
    let name = format!("coffee-{version}.sh");
    fs::write(directory.join(&name), program(version))?;
    Ok(name)
}
