//! Programs that the tests ship, and what they ask of them.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};

use anyhow::{Context as _, ensure};

/// Writes its process id and a number, ten times a second; ends with 7 once there is a file `end` beside it.
pub(crate) const COUNTING: &str = "#!/bin/sh\necho $$ >> started\ncount=0\nwhile [ ! -e end ]; do\n  \
    count=$((count + 1))\n  echo \"$$ $count\"\n  sleep 0.1\ndone\nexit 7\n";

/// A program that says its version once a second.
pub(crate) fn brewing(version: &str) -> Vec<u8> {
    format!("#!/bin/sh\nwhile :; do\n  echo 'coffee {version}'\n  sleep 1\ndone\n").into_bytes()
}

/// The same, with so many random bytes behind it that no compression shortens.
pub(crate) fn brewing_large(version: &str, padding_bytes: usize) -> Vec<u8> {
    let mut program = brewing(version);
    program.extend_from_slice(b"exit 0\n");
    let (mut state, length) = (random(), program.len() + padding_bytes);
    while program.len() < length {
        // Any bytes do, as long as they are many and different.
        state = next_random(state);
        program.extend_from_slice(&state.to_le_bytes());
    }
    program
}

/// The number after this one, which is not 0.
///
/// # Source
/// xorshift64 (Marsaglia 2003).
pub(crate) fn next_random(mut state: u64) -> u64 {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    state
}

/// A number that is another one at each run.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish() | 1
}

/// Reads what the counting program wrote, and checks that nothing is missing, doubled or from another process.
///
/// # Errors
/// When something is.
pub(crate) fn check_counted(lines: &[String]) -> anyhow::Result<(u32, usize)> {
    let mut process = None;
    for (index, line) in lines.iter().enumerate() {
        let (pid, number) = line.split_once(' ').with_context(|| format!("no counting line: {line:?}"))?;
        let (pid, number): (u32, usize) = (pid.parse()?, number.parse()?);
        ensure!(*process.get_or_insert(pid) == pid, "line {line:?} is from another process than {process:?}");
        ensure!(number == index + 1, "line {} says {line:?}", index + 1);
    }
    Ok((process.context("there are no lines")?, lines.len()))
}
