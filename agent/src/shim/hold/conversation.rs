//! The shim's side of its socket.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use crate::shim::protocol::{MESSAGE_BYTES_MAX, Request, ShimState, encode_line};

/// Pause after a connection that could not be accepted, for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What somebody asks of the shim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Stop the run.
    Stop { grace: Duration },
    /// The second stage has become the workload.
    Executed,
    /// The second stage could not.
    ExecuteFailed { cause: String },
}

/// Accepts connections for as long as the shim lives.
pub(super) async fn accept(listener: UnixListener, ask: mpsc::Sender<Asked>, state: watch::Receiver<ShimState>) {
    loop {
        match listener.accept().await {
            Ok((stream, _address)) => {
                let (ask, state) = (ask.clone(), state.clone());
                tokio::spawn(async move {
                    // One who hangs up in the middle of a word has nothing more to say.
                    let _hung_up = converse(stream, ask, state).await;
                });
            }
            Err(_error) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn converse(
    stream: UnixStream,
    ask: mpsc::Sender<Asked>,
    mut state: watch::Receiver<ShimState>,
) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader.take(MESSAGE_BYTES_MAX));
    let mut line = Vec::new();
    let (mut watching, mut executing) = (false, false);
    loop {
        tokio::select! {
            biased;
            // Not read as text: a read that is given up for a change of state keeps what it has in `line`.
            length = reader.read_until(b'\n', &mut line) => {
                if length? == 0 {
                    break;
                }
                let request = serde_json::from_slice(&line);
                line.clear();
                reader.get_mut().set_limit(MESSAGE_BYTES_MAX);
                match request {
                    Ok(Request::Status) => {
                        let answer = encode_line(&*state.borrow());
                        writer.write_all(&answer).await?;
                    }
                    Ok(Request::Watch) => {
                        watching = true;
                        state.mark_changed();
                    }
                    Ok(Request::Stop { grace_ms }) => {
                        let _ended = ask.send(Asked::Stop { grace: Duration::from_millis(grace_ms) }).await;
                    }
                    Ok(Request::Executing) => executing = true,
                    Ok(Request::ExecuteFailed { cause }) => {
                        let _ended = ask.send(Asked::ExecuteFailed { cause }).await;
                        // The second stage waits for the hang-up, so that its end is not seen before its word.
                        return Ok(());
                    }
                    Err(_not_understood) => break,
                }
            }
            changed = state.changed(), if watching => {
                if changed.is_err() {
                    break;
                }
                let answer = encode_line(&*state.borrow_and_update());
                writer.write_all(&answer).await?;
            }
        }
    }
    if executing {
        let _ended = ask.send(Asked::Executed).await;
    }
    Ok(())
}
