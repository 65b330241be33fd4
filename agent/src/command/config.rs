//! `config show`: every value, and where it comes from.

use super::answer::{CommandError, answer, columns};
use super::{Invocation, block_on, read_config};
use crate::config::{Config, ConfigArguments};
use crate::local_api::{AskAgentError, LocalClient, ShownConfiguration};

pub(super) fn show(arguments: &ConfigArguments, origin: bool, invocation: &Invocation) -> Result<(), CommandError> {
    let config = read_config(arguments, invocation)?;
    let (values, is_running) = block_on(async { Ok(of_agent_or_own(&config).await) })?;
    let json = serde_json::json!({ "values": values, "agentRuns": is_running });
    let row = |value: &ShownConfiguration| {
        let mut row = vec![value.key.clone(), value.value.clone()];
        row.extend(origin.then(|| value.origin.clone()));
        row
    };
    let rows: Vec<_> = values.iter().map(row).collect();
    let note =
        if is_running { "" } else { "\n\nno agent answers; one that is started like this would read these values" };
    answer(invocation.json, &json, &format!("{}{note}", columns(&rows)))
}

/// What the agent runs with, if one answers; else what was read here.
pub(super) async fn of_agent_or_own(config: &Config) -> (Vec<ShownConfiguration>, bool) {
    let asked: Result<_, AskAgentError> = async {
        let mut client = LocalClient::connect(&config.socket.value).await?;
        client.configuration().await
    }
    .await;
    match asked {
        Ok(values) => (values, true),
        Err(_) => {
            let shown = config.show().into_iter().map(|setting| ShownConfiguration {
                key: setting.key,
                value: setting.value,
                origin: setting.origin.to_string(),
            });
            (shown.collect(), false)
        }
    }
}
