//! Following a rollout to its end, and saying by the exit code how it ended.

use std::collections::BTreeMap;
use std::time::Duration;

use fleetd_proto::fleetd::rollout::v1::watch_rollout_response::Event;
use fleetd_proto::fleetd::rollout::v1::{
    Rollout, RolloutDevice, RolloutDeviceState, RolloutState, WatchRolloutRequest, WatchRolloutResponse,
};

use super::view;
use crate::client::FleetClient;
use crate::client::json::json as message_json;
use crate::client::watch::Told;
use crate::command::Session;
use crate::error::CommandError;
use crate::exit::Exit;
use crate::output::{LiveLine, Moment};

/// Failed devices that an error names; the rest are in `rollout show`.
const FAILURES_NAMED: usize = 3;

/// Follows a rollout until it ends, halts, or the time is over. Ctrl-C leaves it; nothing here ends it.
///
/// # Errors
/// When the rollout does not end well (exit code 5), the time is over (7), on Ctrl-C (130), and when the server
/// cannot be reached or refuses.
pub async fn follow(
    session: &Session<'_>,
    client: &FleetClient,
    rollout_id: &str,
    timeout: Option<Duration>,
) -> Result<(), CommandError> {
    let request = WatchRolloutRequest { rollout_id: rollout_id.to_owned(), ..Default::default() };
    let mut watch = client.follow(request);
    let mut view = Progress::new(session);
    let expiry = async {
        match timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    let mut expiry = std::pin::pin!(expiry);
    let again = format!("fleetd rollout watch {rollout_id}");
    loop {
        let told = tokio::select! {
            biased;
            () = session.interrupt.pressed() => {
                return Err(CommandError::new("interrupted", format!("no longer watching {rollout_id}; it goes on"))
                    .next_command(again)
                    .exit(Exit::Interrupted));
            }
            () = &mut expiry => {
                return Err(CommandError::new("rollout.wait_expired", format!("the time to wait for {rollout_id} is over"))
                    .cause("the rollout goes on without us")
                    .next_command(again)
                    .exit(Exit::WaitExpired));
            }
            told = watch.next() => told?,
        };
        match told {
            Told::Entry(response) => {
                view.show(&response)?;
                if let Some(end) = view.end() {
                    return end;
                }
            }
            Told::Lost(error) => session.output.note(&format!("{error}; connecting again")),
            Told::End => return view.last_word(),
        }
    }
}

/// What has been seen of a rollout, and what was said of it.
struct Progress<'a, 's> {
    session: &'a Session<'s>,
    line: LiveLine,
    rollout: Option<Rollout>,
    devices: BTreeMap<String, RolloutDevice>,
    is_complete: bool,
}

impl<'a, 's> Progress<'a, 's> {
    fn new(session: &'a Session<'s>) -> Self {
        let line = session.output.live_line();
        Self { session, line, rollout: None, devices: BTreeMap::new(), is_complete: false }
    }

    /// Shows one event: as it is in JSON; for people a line when something changed that is worth one.
    fn show(&mut self, response: &WatchRolloutResponse) -> Result<(), CommandError> {
        if self.session.output.is_json() {
            self.session.output.answer(&message_json(response), String::new)?;
        }
        match &response.event {
            Some(Event::Rollout(rollout)) => {
                let before = self.rollout.replace(rollout.clone());
                if before.is_none_or(|before| {
                    (before.state, before.counts, &before.waves) != (rollout.state, rollout.counts, &rollout.waves)
                }) {
                    self.say(&view::summary(rollout))?;
                }
                let counts = rollout.counts.unwrap_or_default();
                self.line.set(&view::summary(rollout), u64::from(counts.healthy), view::device_count(&counts));
            }
            Some(Event::Device(device)) => {
                let before = self.devices.insert(device.device_id.clone(), device.clone());
                let changed = before.is_none_or(|before| {
                    (before.state, before.phase, &before.reason) != (device.state, device.phase, &device.reason)
                });
                if changed {
                    self.say(&view::device(device, Moment::now()))?;
                }
            }
            Some(Event::SnapshotComplete(_)) => self.is_complete = true,
            None => {}
        }
        Ok(())
    }

    fn say(&self, text: &str) -> Result<(), CommandError> {
        if self.session.output.is_json() {
            return Ok(());
        }
        let line = format!("{} {}", Moment::now().absolute(), text.trim_end());
        self.line.suspend(|| self.session.output.answer(&serde_json::Value::Null, || line))
    }

    /// How the rollout ended, once it has.
    fn end(&self) -> Option<Result<(), CommandError>> {
        let rollout = self.rollout.as_ref().filter(|_| self.is_complete)?;
        match RolloutState::try_from(rollout.state) {
            Ok(RolloutState::Unspecified | RolloutState::Running | RolloutState::Paused) | Err(_) => None,
            Ok(RolloutState::Succeeded) => Some(Ok(())),
            Ok(RolloutState::Halted | RolloutState::Failed | RolloutState::Aborted | RolloutState::Superseded) => {
                Some(Err(failure(rollout, self.devices.values())))
            }
        }
    }

    /// The server has no more to say; it should only stop at the end.
    fn last_word(mut self) -> Result<(), CommandError> {
        self.is_complete = true;
        self.end().unwrap_or_else(|| {
            Err(CommandError::new("rollout.unfinished", "the server ended the watch before the rollout had ended")
                .next_command("fleetd rollout list"))
        })
    }
}

/// Says which way a rollout went wrong.
pub fn failure<'a>(rollout: &Rollout, devices: impl IntoIterator<Item = &'a RolloutDevice>) -> CommandError {
    let bad = |device: &&RolloutDevice| {
        matches!(
            RolloutDeviceState::try_from(device.state),
            Ok(RolloutDeviceState::Failed | RolloutDeviceState::Restored)
        )
    };
    let failed: Vec<&RolloutDevice> = devices.into_iter().filter(bad).collect();
    let named = failed.iter().take(FAILURES_NAMED).map(|device| view::failed(device));
    let mut causes: Vec<String> = std::iter::once(rollout.reason.clone()).chain(named).collect();
    if failed.len() > FAILURES_NAMED {
        causes.push(format!("and {} more", failed.len() - FAILURES_NAMED));
    }
    causes.retain(|cause| !cause.is_empty());
    let state = super::super::wording::rollout_state(rollout.state);
    let code = match RolloutState::try_from(rollout.state) {
        Ok(RolloutState::Halted) => "rollout.halted",
        Ok(RolloutState::Aborted) => "rollout.aborted",
        Ok(RolloutState::Superseded) => "rollout.superseded",
        _ => "rollout.failed",
    };
    let next = match failed.first() {
        Some(device) => format!("fleetd device why {}", device.name),
        None => format!("fleetd rollout show {}", rollout.id),
    };
    let brought = super::super::wording::with_configuration(&rollout.version, &rollout.configuration);
    let message = format!("{} of {} {brought} is {state}", rollout.id, rollout.workload);
    CommandError::new(code, message).cause(causes.join("\n")).next_command(next).exit(Exit::RolloutFailed)
}
