//! What this program was built from, and whether a seed belongs to it.

use fleetd_simulator::origin::{Build, SeedName};

use crate::command::Session;
use crate::error::CommandError;

/// This build.
pub(in crate::command) fn this_build() -> Build {
    let [commit, arch, profile] = [env!("FLEETD_COMMIT"), env!("FLEETD_ARCH"), env!("FLEETD_PROFILE")];
    Build { commit: commit.to_owned(), arch: arch.to_owned(), profile: profile.to_owned() }
}

/// Refuses a seed of another build, unless the caller wants to see what this one makes of it.
pub(in crate::command) fn accept(session: &Session<'_>, name: &SeedName, any_build: bool) -> Result<(), CommandError> {
    let Err(foreign) = this_build().accept(name) else { return Ok(()) };
    if any_build {
        session
            .output
            .note(&format!("warning: {foreign}; what follows may be another run than the one that was meant"));
        return Ok(());
    }
    let next = match foreign.part {
        "commit" => format!("git switch --detach {}", name.commit.split('+').next().unwrap_or_default()),
        _ => format!("fleetd sim replay {name} --any-build"),
    };
    let cause = "a seed draws the same run only from the code that it was drawn for; --any-build runs it all the same";
    Err(CommandError::new("sim.foreign_seed", foreign.to_string()).cause(cause).next_command(next))
}
