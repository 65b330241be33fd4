//! The agent's side of a shim's socket.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Take};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::shim::protocol::{MESSAGE_BYTES_MAX, Request, ShimState, encode_line};

/// A connection to a shim that tells its state whenever it changes.
#[derive(Debug)]
pub(super) struct Watching {
    reader: BufReader<Take<OwnedReadHalf>>,
    writer: OwnedWriteHalf,
    line: Vec<u8>,
}

impl Watching {
    /// Connects, and asks to be told.
    pub(super) async fn connect(socket: &Path) -> io::Result<Self> {
        let (reader, mut writer) = UnixStream::connect(socket).await?.into_split();
        writer.write_all(&encode_line(&Request::Watch)).await?;
        Ok(Self { reader: BufReader::new(reader.take(MESSAGE_BYTES_MAX)), writer, line: Vec::new() })
    }

    /// Returns the next state, or `None` when the shim has hung up. May be given up and called again.
    pub(super) async fn next(&mut self) -> Option<ShimState> {
        // What a call that was given up has read is still in `line`.
        let length = self.reader.read_until(b'\n', &mut self.line).await.ok()?;
        if length == 0 {
            return None;
        }
        let state = serde_json::from_slice(&self.line).ok();
        self.line.clear();
        self.reader.get_mut().set_limit(MESSAGE_BYTES_MAX);
        state
    }

    pub(super) async fn stop(&mut self, grace: Duration) -> io::Result<()> {
        self.writer.write_all(&stop_request(grace)).await
    }
}

fn stop_request(grace: Duration) -> Vec<u8> {
    encode_line(&Request::Stop { grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX) })
}

/// Stops a run that nobody follows.
pub(super) async fn stop(socket: &Path, grace: Duration) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(&stop_request(grace)).await?;
    // The shim reads it even if nobody waits, but an answer to `Status` shows that it has.
    stream.write_all(&encode_line(&Request::Status)).await?;
    let mut answer = Vec::new();
    BufReader::new(stream.take(MESSAGE_BYTES_MAX)).read_until(b'\n', &mut answer).await?;
    Ok(())
}
