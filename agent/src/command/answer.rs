//! What goes where: answers on standard output, errors on standard error; for people or as JSON.

use std::error::Error;
use std::io::{self, Write as _};

use super::Invocation;
use crate::cause::cause_of;

/// Why a command did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CommandError {
    /// A stable name for this kind of error (`agent.not_running`).
    pub code: &'static str,
    /// One sentence that says what happened.
    pub message: String,
    /// What lies underneath, with the values that were seen.
    pub cause: Option<String>,
    /// The command that most likely helps.
    pub next_command: Option<String>,
}

impl CommandError {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), cause: None, next_command: None }
    }

    pub(super) fn caused_by(mut self, error: &dyn Error) -> Self {
        self.cause = Some(cause_of(error));
        self
    }

    pub(super) fn caused_by_source(mut self, error: &dyn Error) -> Self {
        self.cause = error.source().map(cause_of);
        self
    }

    pub(super) fn next_command(mut self, command: impl Into<String>) -> Self {
        self.next_command = Some(command.into());
        self
    }

    /// Writes the error where people and programs look for it.
    pub(super) fn report(&self, invocation: &Invocation) {
        let text = if invocation.json { format!("{}\n", self.to_json()) } else { self.to_text(invocation.explain) };
        // When standard error is gone there is nobody to tell.
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }

    fn to_json(&self) -> serde_json::Value {
        let mut error = serde_json::json!({ "code": self.code, "message": self.message, "exitCode": 1 });
        for (name, value) in [("cause", &self.cause), ("nextCommand", &self.next_command)] {
            if let (Some(fields), Some(value)) = (error.as_object_mut(), value) {
                fields.insert(name.to_owned(), value.clone().into());
            }
        }
        serde_json::json!({ "error": error })
    }

    fn to_text(&self, explain: Option<&str>) -> String {
        let mut text = format!("error[{}]: {}\n", self.code, self.message);
        let page = explain.map(|explain| format!("{explain} {}", self.code));
        for (name, value) in [("cause:", &self.cause), ("help: ", &self.next_command), ("docs: ", &page)] {
            if let Some(value) = value {
                text.push_str(&format!("  {name} {}\n", value.replace('\n', "\n         ")));
            }
        }
        text
    }
}

/// Writes an answer: `text` for people, or `json`.
pub(super) fn answer(wants_json: bool, json: &serde_json::Value, text: &str) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    let written = if wants_json { writeln!(out, "{json}") } else { writeln!(out, "{}", text.trim_end()) };
    match written.and_then(|()| out.flush()) {
        // Whoever read it has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(CommandError::new("output.failed", "standard output cannot be written").caused_by(&error)),
        Ok(()) => Ok(()),
    }
}

/// Lines up columns, each as wide as its widest cell.
pub(super) fn columns(rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let line = |row: &Vec<String>| {
        let cells = row.iter().enumerate().map(|(column, cell)| format!("{cell:<0$}", width(column).unwrap_or(0)));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_code_cause_and_what_to_do() {
        let error = CommandError::new("agent.not_running", "no agent answers on /run/fleetd/agent.sock")
            .caused_by(&io::Error::from(io::ErrorKind::NotFound))
            .next_command("fleetd-agent run");
        let expected = "error[agent.not_running]: no agent answers on /run/fleetd/agent.sock\n  \
                        cause: entity not found\n  help:  fleetd-agent run\n";
        assert_eq!(error.to_text(None), expected);
        let page = "  docs:  fleetd explain agent.not_running\n";
        assert_eq!(error.to_text(Some("fleetd explain")), format!("{expected}{page}"));
        assert_eq!(error.to_json()["error"]["nextCommand"], "fleetd-agent run");
    }

    #[test]
    fn columns_line_up() {
        let rows = [["WORKLOAD", "RUN"], ["tea", "running"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(columns(&rows), "WORKLOAD  RUN\ntea       running");
    }
}
