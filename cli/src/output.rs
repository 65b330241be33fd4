//! What goes where: data on standard output, for people or as JSON; messages and progress on standard error.

mod moment;
mod progress;
mod quantity;
mod table;

use std::io::{IsTerminal as _, Write as _};

pub use moment::Moment;
pub use progress::{LiveLine, Progress};
pub use quantity::bytes;
pub use table::{markdown, markdown_table, table};

use crate::error::{self, CommandError};

/// Where a command's words go.
#[derive(Clone, Debug)]
pub struct Output {
    json: bool,
    coloured_messages: bool,
    live: bool,
}

impl Output {
    /// The process's own streams.
    #[must_use]
    pub fn for_process(json: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { json, coloured_messages: terminal && console::colors_enabled_stderr(), live: terminal && !json }
    }

    /// Whether answers are JSON.
    #[must_use]
    pub const fn is_json(&self) -> bool {
        self.json
    }

    /// Writes an answer: `json` when the caller asked for JSON, else `text`.
    ///
    /// # Errors
    /// When standard output is closed or full.
    pub fn answer(&self, json: &serde_json::Value, text: impl FnOnce() -> String) -> Result<(), CommandError> {
        if self.json {
            return write_out(&format!("{json}\n"));
        }
        let text = text();
        if text.is_empty() || text.ends_with('\n') { write_out(&text) } else { write_out(&format!("{text}\n")) }
    }

    /// Writes a message for people. With JSON there is nobody to read it.
    pub fn note(&self, message: &str) {
        if !self.json {
            write_message(&format!("{message}\n"));
        }
    }

    /// Writes an error.
    pub fn report(&self, error: &CommandError) {
        if error.is_silent() {
            return;
        }
        if self.json {
            write_message(&format!("{}\n", error.to_json()));
        } else {
            write_message(&error::draw(error, self.coloured_messages));
        }
    }

    /// Shows how something comes along.
    #[must_use]
    pub fn progress(&self, what: &str, total: u64) -> Progress {
        Progress::start(self.clone(), what, total)
    }

    /// Shows how things stand, below what is written.
    #[must_use]
    pub fn live_line(&self) -> LiveLine {
        LiveLine::start(self)
    }

    /// Whether standard error is a terminal on which lines may be redrawn.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        self.live
    }
}

fn write_out(text: &str) -> Result<(), CommandError> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => CommandError::output_closed(),
        _ => CommandError::new("output.failed", "standard output could not be written").caused_by(&error),
    })
}

/// Writes to standard error, whose loss nothing can be told of.
fn write_message(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
