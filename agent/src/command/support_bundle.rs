//! `support-bundle`: how this device is, and what its workloads did last, in one file.

use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use fleetd_sync_core::time::Clock as _;
use fleetd_sync_transport::clock::SystemClock;

use super::answer::{CommandError, answer};
use super::config::of_agent_or_own;
use super::{Invocation, ask_error, block_on, connect, doctor, read_config};
use crate::config::ConfigArguments;
use crate::local_api::{RecordedFlight, ShownStatus};
use crate::support_bundle::{Bundle, README, WriteBundleError};

pub(super) fn run(
    arguments: &ConfigArguments,
    out: Option<&Path>,
    invocation: &Invocation,
) -> Result<(), CommandError> {
    let config = read_config(arguments, invocation)?;
    let asked: Result<(ShownStatus, Vec<RecordedFlight>), CommandError> = block_on(async {
        let mut client = connect(&config, invocation).await?;
        let failed = |error| ask_error(&error, invocation);
        Ok((client.status().await.map_err(failed)?, client.flights().await.map_err(failed)?))
    });
    let (settings, _) = block_on(async { Ok(of_agent_or_own(&config).await) })?;
    let name = asked.as_ref().map_or("device", |(status, _)| status.local_id.as_str());
    let path = out.map_or_else(|| PathBuf::from(format!("fleetd-support-{name}.tar")), Path::to_owned);

    let mut bundle = Bundle::new(README);
    bundle.add_json("about", &about(name, asked.is_ok(), invocation));
    bundle.add_json("config", &json(&settings)?);
    bundle.add_json("doctor", &doctor::to_json(&config, invocation)?);
    let mut recorded = Vec::new();
    if let Ok((status, flights)) = &asked {
        bundle.add_json("status", &json(status)?);
        for flight in flights {
            bundle.add_flight(&flight.workload, flight.recording.clone());
            recorded.push(flight.workload.clone());
        }
    }
    bundle.write(&path).map_err(|error| unwritten(&error))?;
    tell(&path, &recorded, asked.err(), invocation)
}

fn about(device: &str, agent_runs: bool, invocation: &Invocation) -> serde_json::Value {
    let date_ms = u64::try_from(SystemClock::default().now().wall.0).unwrap_or(0);
    let date = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(date_ms));
    serde_json::json!({
        "device": device,
        "program": invocation.program,
        "version": env!("CARGO_PKG_VERSION"),
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
        "writtenAt": date.to_string(),
        "agentRuns": agent_runs,
    })
}

fn json(value: &impl serde::Serialize) -> Result<serde_json::Value, CommandError> {
    serde_json::to_value(value)
        .map_err(|error| CommandError::new("output.failed", "the bundle cannot be written").caused_by(&error))
}

fn unwritten(error: &WriteBundleError) -> CommandError {
    let code = match error {
        WriteBundleError::Exists { .. } => "support.exists",
        WriteBundleError::Disk { .. } => "support.unwritten",
    };
    let error = CommandError::new(code, error.to_string()).caused_by_source(error);
    error.next_command("name another file: --out FILE")
}

fn tell(
    path: &Path,
    recorded: &[String],
    unasked: Option<CommandError>,
    invocation: &Invocation,
) -> Result<(), CommandError> {
    let (path, agent) = (path.display().to_string(), unasked.as_ref().map(ToString::to_string));
    let value = serde_json::json!({ "path": path, "workloads": recorded, "agentRuns": agent.is_none(), "note": agent });
    let text = match agent {
        Some(problem) => format!("wrote {path}, without the last steps of any workload: {problem}"),
        None if recorded.is_empty() => format!("wrote {path}; there is no workload"),
        None => format!(
            "wrote {path} with the last steps of {}\nsend it to whoever helps you; they run: fleetd support replay {path}",
            recorded.join(", ")
        ),
    };
    answer(invocation.json, &value, &text)
}
