//! What the operator does at a shell: whatever is signed is signed by the commands that everybody uses.

use std::process::Stdio;

use serde_json::Value;

use super::failure::StepError;
use super::stage::Stage;
use super::story::Story;

/// Runs a command of `fleetd` in the stage's directory, and returns the object that it prints.
pub(super) async fn fleetd(stage: &Stage, story: &Story<'_>, arguments: &[&str]) -> Result<Value, StepError> {
    let command = arguments.join(" ");
    story.tell(&format!("$ fleetd {command}"));
    quietly(stage, arguments).await
}

/// The same, for an answer that is no part of the story.
pub(super) async fn quietly(stage: &Stage, arguments: &[&str]) -> Result<Value, StepError> {
    let command = arguments.join(" ");
    let output = tokio::process::Command::new(stage.program())
        .arg("--json")
        .args(arguments)
        .env_clear()
        .envs(stage.surroundings())
        .current_dir(stage.directory())
        .stdin(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|source| StepError::Start { what: format!("`fleetd {command}`"), source })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
        return Err(StepError::Command { command, status: output.status, said });
    }
    serde_json::from_slice(&output.stdout).map_err(|_| StepError::Unsaid { command, field: "answer" })
}

/// A text field of what a program printed.
pub(super) fn text<'a>(answer: &'a Value, field: &'static str, command: &str) -> Result<&'a str, StepError> {
    answer
        .get(field)
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty())
        .ok_or_else(|| StepError::Unsaid { command: command.to_owned(), field })
}
