//! Why a rollout stands where it stands, in sentences for people.

use std::time::Duration;

use fleetd_sync_core::counted::Counted;
use fleetd_sync_core::time::Wall;

use super::plan::Plan;
use super::status::{RolloutCounts, RolloutHeader, RolloutPhase, Stage, StageTimer};

/// Where a wave stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaveState {
    /// Its turn has not come.
    Waiting,
    /// It is the newest one, and in this stage.
    Newest(Stage),
    /// Its gate has opened, or the rollout has ended after it.
    Passed,
    /// The rollout ended before its turn came.
    Skipped,
}

impl WaveState {
    /// Where a wave of a rollout stands.
    #[must_use]
    pub fn of(header: &RolloutHeader, wave: u32) -> Self {
        let is_newest = wave == header.wave.number;
        match (header.has_begun(wave), header.phase.is_ended()) {
            (true, false) if is_newest => Self::Newest(header.wave.stage),
            (true, _) => Self::Passed,
            (false, true) => Self::Skipped,
            (false, false) => Self::Waiting,
        }
    }
}

/// How many of the devices whose waves have begun have failed that nobody has accepted, and how many may.
#[must_use]
pub fn failures(header: &RolloutHeader, plan: &Plan, waves: &[RolloutCounts]) -> (usize, usize) {
    let begun = || (0..).zip(waves).filter(|(wave, _)| header.has_begun(*wave)).map(|(_, counts)| counts);
    let failures: usize = begun().map(RolloutCounts::failures).sum();
    let accepted = usize::try_from(header.failures_accepted).unwrap_or(usize::MAX);
    let allowed = plan.strategy.budget.allowed(begun().map(RolloutCounts::reached).sum());
    (failures.saturating_sub(accepted), allowed)
}

/// Says why a rollout stands where it stands, and what would bring it on.
#[must_use]
pub fn explain(header: &RolloutHeader, plan: &Plan, waves: &[RolloutCounts], now: Wall) -> Vec<String> {
    let mut said = Vec::new();
    let reason = if header.reason.is_empty() { String::new() } else { format!(": {}", header.reason) };
    let following: usize = waves.iter().map(|counts| counts.offline).sum();
    match header.phase {
        RolloutPhase::Running => running(header, plan, waves, now, &mut said),
        RolloutPhase::Paused => said.push(format!("It is stopped{reason}.")),
        RolloutPhase::Halted => said.push(format!("It stopped itself{reason}.")),
        RolloutPhase::Succeeded => {
            said.push("It has succeeded: every device that it could reach has ended.".to_owned())
        }
        RolloutPhase::Failed => said.push(format!("It has failed{reason}.")),
        RolloutPhase::Aborted => said.push(format!("It was aborted{reason}.")),
    }
    if let Some(by) = &header.taken_back {
        said.push(format!("It was taken back since: {by}. Whoever had not got the release does not get it any more."));
    }
    if header.phase.is_stopped() {
        said.push(
            "Nobody else is assigned. Whoever is and has not switched is held, and what is healthy stays.".to_owned(),
        );
    }
    if let Some(order) = &header.ordered {
        said.push(format!("It goes on once that ends: {}", order.lift));
    } else if header.phase.is_stopped() {
        let rollout = header.rollout;
        said.push(format!("Go on: fleetd rollout resume {rollout}. Take it back: fleetd rollout abort {rollout}"));
    }
    let (failed, allowed) = failures(header, plan, waves);
    if !header.phase.is_ended() {
        let accepted = match header.failures_accepted {
            0 => String::new(),
            accepted => format!(" since it was resumed, where {accepted} were accepted"),
        };
        let budget = &plan.strategy.budget;
        said.push(format!("{} failed{accepted}; {allowed} may now (budget {budget}).", Counted(failed, "device")));
    }
    if following > 0 && matches!(header.phase, RolloutPhase::Running | RolloutPhase::Succeeded) {
        let (they, keep) = if following == 1 {
            ("It follows when it is back", "keeps")
        } else {
            ("They follow when they are back", "keep")
        };
        said.push(format!("{} offline and {keep} nobody waiting. {they}.", are(following)));
    }
    said
}

fn running(header: &RolloutHeader, plan: &Plan, waves: &[RolloutCounts], now: Wall, said: &mut Vec<String>) {
    let (number, last) = (header.wave.number + 1, plan.wave_count());
    let counts = usize::try_from(header.wave.number).ok().and_then(|newest| waves.get(newest)).copied();
    let counts = counts.unwrap_or_default();
    let left = match header.wave.timer {
        StageTimer::Until(until) => Some(until - now),
        StageTimer::Unbounded | StageTimer::Left(_) => None,
    };
    let rollout = header.rollout;
    let next = if plan.strategy.approve_waves {
        format!("then somebody has to approve wave {}", number + 1)
    } else {
        format!("then wave {} begins", number + 1)
    };
    match header.wave.stage {
        Stage::Rolling => {
            let at_work = counts.under_way().saturating_sub(counts.queued + counts.waits);
            let all = Counted(counts.total(), "device");
            let ended = counts.ended();
            said.push(format!("Wave {number} of {last} is rolling: {ended} of its {all} have ended, {at_work} at work."));
            wait_for_windows(plan, &counts, header.wave.number, now, said);
            if counts.queued > 0 {
                said.push(format!("{} waiting for a place at work.", are(counts.queued)));
            }
            let is_proven = (0..).zip(waves).any(|(wave, counts)| header.has_begun(wave) && counts.healthy > 0);
            if counts.under_way() == 0 && !is_proven {
                said.push(format!(
                    "Nobody has proven the release yet, and nobody else can be reached: it waits for the first one{}.",
                    if number < last { format!(", or for your word: fleetd rollout approve {rollout}") } else { String::new() }
                ));
            } else if let Some(left) = left {
                let left = span(left);
                let but = if plan.strategy.terms.is_bounded() { ", unless it says that it waits" } else { "" };
                said.push(format!("Whoever acknowledged and has not ended in {left} has failed{but}."));
            }
        }
        Stage::Baking => {
            let left = span(left.unwrap_or_default());
            said.push(format!("Wave {number} of {last} has ended and bakes for another {left}; {next}."));
        }
        Stage::AwaitingApproval => said.push(format!(
            "Wave {number} of {last} has ended, and wave {} waits for somebody's word: fleetd rollout approve {rollout}",
            number + 1
        )),
    }
}

/// Says of a wave's devices that they wait for a time at which they may switch, and when that comes.
fn wait_for_windows(plan: &Plan, counts: &RolloutCounts, wave: u32, now: Wall, said: &mut Vec<String>) {
    if counts.in_queue > 0 {
        let queued = are(counts.in_queue);
        said.push(format!(
            "{queued} waiting for its turn on its device, where other workloads go first: fleetd device why"
        ));
    }
    if counts.ready > 0 {
        said.push(format!("{} ready and waiting for the other devices of its site", are(counts.ready)));
    }
    let waits = counts.waits - counts.in_queue - counts.ready;
    if waits == 0 {
        return;
    }
    let mut sentence = format!("{} waiting for a time at which to switch", are(waits));
    let openings = plan.openings(Some(wave), now).unwrap_or_default();
    if let Some(first) = openings.first() {
        let is_open = first.opens <= now;
        sentence += &if is_open {
            "; a window is open now".to_owned()
        } else {
            format!("; the next window opens {}", first.shown)
        };
    }
    if let (Some(last), true) = (openings.last(), openings.len() > 1) {
        sentence += &format!(", the last {}", last.shown);
    }
    said.push(sentence + ".");
}

fn are(devices: usize) -> String {
    format!("{} {}", Counted(devices, "device"), if devices == 1 { "is" } else { "are" })
}

/// A time as people say it, in its two largest units.
fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let units = [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];
    let mut parts = Vec::new();
    let mut rest = seconds;
    for (unit, size) in units {
        if rest >= size && parts.len() < 2 {
            parts.push(format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_said_in_its_two_largest_units() {
        let said = [0, 59, 61, 3600, 93_784].map(|seconds| span(Duration::from_secs(seconds)));
        assert_eq!(said, ["0s", "59s", "1m 1s", "1h", "1d 2h"]);
    }
}
