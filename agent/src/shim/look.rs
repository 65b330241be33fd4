//! Whether a workload's shim is alive, for whoever looks at the device and starts nothing.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use super::protocol::{MESSAGE_BYTES_MAX, Request, ShimState, encode_line};
use super::run_directory::{RunDirectory, read_json};
use super::spec::{ExitRecord, RunRecord};
use crate::facts;

/// Time in which a shim must say how its run is.
const PATIENCE: Duration = Duration::from_secs(2);

/// What there is of a workload's last run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShimLook {
    /// There was none since the device started.
    Nothing,
    /// A shim holds it, and answers.
    Alive {
        /// The workload's process, once it has been executed.
        pid: Option<u32>,
    },
    /// A shim holds it, and does not answer.
    Stuck {
        /// The shim's process.
        shim: Option<u32>,
    },
    /// It has ended, and its shim with it.
    Ended(ExitRecord),
    /// Its shim was killed, and it with its shim.
    Killed,
}

/// Looks at the last run of a workload.
pub(crate) async fn look(directory: &RunDirectory) -> io::Result<ShimLook> {
    let record: Option<RunRecord> = read_json(&directory.run_file())?;
    if directory.is_held()? {
        let asked = tokio::time::timeout(PATIENCE, ask(&directory.socket())).await;
        return Ok(match asked {
            Ok(Ok(state)) => ShimLook::Alive { pid: state.pid },
            Ok(Err(_)) | Err(_) => ShimLook::Stuck { shim: record.map(|record| record.shim.pid) },
        });
    }
    let boot = facts::boot_id().map(|boot| boot.to_string()).unwrap_or_default();
    Ok(match record.filter(|record| record.boot == boot) {
        None => ShimLook::Nothing,
        Some(RunRecord { exit: Some(exit), .. }) => ShimLook::Ended(exit),
        Some(RunRecord { exit: None, .. }) => ShimLook::Killed,
    })
}

async fn ask(socket: &Path) -> io::Result<ShimState> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(&encode_line(&Request::Status)).await?;
    let mut answer = Vec::new();
    BufReader::new(stream.take(MESSAGE_BYTES_MAX)).read_until(b'\n', &mut answer).await?;
    Ok(serde_json::from_slice(&answer)?)
}
