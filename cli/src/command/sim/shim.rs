//! Where the library lies that makes a worker's randomness a seed's, and how it gets into one.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::error::CommandError;

/// The file of the package `fleetd-simulator-shim`.
const FILE: &str = "libfleetd_simulator_shim.so";
/// The seed of a worker's randomness. Any does: two runs have to have the same.
const SEED: &str = "1";

/// What a worker's environment has besides.
///
/// # Errors
/// When this machine cannot preload the library, or it has not been built.
pub(super) fn environment() -> Result<Vec<(&'static str, OsString)>, CommandError> {
    if !cfg!(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64")) {
        let cause = "the library that makes randomness a seed's exists for Linux with glibc on x86-64 only";
        return Err(CommandError::new("sim.no_shim", "bytes cannot be compared on this machine")
            .cause(cause)
            .next_command("fleetd sim check --determinism --engine quic"));
    }
    let file = find().ok_or_else(|| {
        CommandError::new("sim.no_shim", format!("bytes cannot be compared without {FILE}"))
            .cause("it has to lie beside this program, and no release has it: it is built from the sources")
            .next_command("cargo build -p fleetd-simulator-shim")
    })?;
    Ok(vec![("LD_PRELOAD", file.into_os_string()), ("FLEETD_SIM_SHIM_SEED", SEED.into())])
}

fn find() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    Some(program.parent()?.join(FILE)).filter(|file| file.is_file())
}
