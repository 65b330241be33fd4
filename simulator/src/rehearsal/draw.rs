//! What a seed does to a rehearsal: who goes away and comes back when, whose new release crashes, and how bad each link is.
//!
//! Each device has a stream of its own for each of these, by its name: one device more or less changes no other's fate.

use std::collections::BTreeMap;
use std::time::Duration;

use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::session::Class;
use fleetd_sync_core::time::Monotonic;

use super::{CopiedDevice, Rehearsal, Share};
use crate::fault::{Fault, FaultKind, Target};
use crate::network::{Passing, resent_after};

/// The earliest time at which a device goes away: a rollout is over fast where nothing has to be carried far.
const LEAVES_FIRST: Duration = Duration::from_millis(100);
/// The shortest time for which one goes away.
const AWAY_MIN: Duration = Duration::from_secs(10);
/// The least time for which an absent device counts as having been away.
const ABSENT_MIN: Duration = Duration::from_secs(60);
/// Parts that a uniform draw has.
const PARTS: u64 = 1 << 20;
/// The faults of a seed: links that are cut, each device of its own.
#[must_use]
pub fn faults(rehearsal: &Rehearsal, duration: Duration, entropy: &Entropy) -> Vec<Fault> {
    let copied_at_ms = rehearsal.copied_at_ms;
    let mut faults: Vec<Fault> = Vec::new();
    for (number, device) in rehearsal.devices.iter().enumerate() {
        let mut stream = entropy.stream(&format!("away {}", device.name));
        let absence = match device.offline_since_ms {
            Some(since_ms) => {
                let away_ms = u64::try_from(copied_at_ms.saturating_sub(since_ms)).unwrap_or(0);
                let away = Duration::from_millis(away_ms).max(ABSENT_MIN);
                Some((Duration::ZERO, comes_back(away, &mut stream)))
            }
            None if rehearsal.offline.draw(&mut stream) => {
                let leaves = log_uniform(LEAVES_FIRST, duration, &mut stream);
                Some((leaves, log_uniform(AWAY_MIN, duration.saturating_mul(2), &mut stream)))
            }
            None => None,
        };
        if let Some((at, lasting)) = absence {
            let lasting = Duration::from_millis(u64::try_from(lasting.as_millis()).unwrap_or(u64::MAX));
            faults.push(Fault { at, on: Target::Device(number), kind: FaultKind::LinkCut, lasting, value: 0 });
        }
    }
    faults.sort();
    faults
}

/// How much longer a device stays away that was away for so long.
///
/// Nothing is known of it but that. So the draw has no scale but that: half of the seeds bring it back within as long
/// again, one in ten only after nine times as long.
///
/// # Source
/// J. Richard Gott, "Implications of the Copernican principle for our future prospects", Nature 363, 1993.
fn comes_back(away: Duration, entropy: &mut Entropy) -> Duration {
    let part = u32::try_from(entropy.below(PARTS) + 1).unwrap_or(u32::MAX);
    let whole = u32::try_from(PARTS).unwrap_or(u32::MAX);
    // away * (1 / u - 1) with u uniform in (0, 1].
    away.saturating_mul(whole - part) / part
}

/// A span between two, each power of two as likely as any other: the first seconds of a rollout matter as much as its
/// last hour.
fn log_uniform(from: Duration, to: Duration, entropy: &mut Entropy) -> Duration {
    let from_ms = u64::try_from(from.as_millis()).unwrap_or(1).max(1);
    let to_ms = u64::try_from(to.as_millis()).unwrap_or(u64::MAX).max(from_ms + 1);
    let octaves = u64::from((to_ms / from_ms).max(1).ilog2());
    let low = from_ms << entropy.below(octaves + 1);
    let high = low.saturating_mul(2).min(to_ms).max(low + 1);
    Duration::from_millis(low + entropy.below(high - low))
}

/// Says whether the new release crashes on a device.
#[must_use]
pub(super) fn fails(rehearsal: &Rehearsal, device: &CopiedDevice, entropy: &Entropy) -> bool {
    rehearsal.fail.draw(&mut entropy.stream(&format!("fails {}", device.name)))
}

/// How long frames take on the links of one seed.
pub(super) struct Links {
    entropy: Entropy,
    loss: [Share; 2],
    transfer: Option<Transfer>,
    nodes: BTreeMap<String, Loss>,
    /// When the last frame of each kind arrives that is on its way from one node to another: a stream keeps its order.
    last: BTreeMap<(String, String, Class), Monotonic>,
}

struct Loss {
    share: Share,
    entropy: Entropy,
}

/// What stands for an artifact in the copy, and how long the artifact itself takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer {
    /// The size of what stands for it: no smaller frame carries one.
    pub(super) stand_in_bytes: usize,
    /// How long the artifact itself takes.
    pub(super) takes: Duration,
}

impl Links {
    pub(super) const fn new(rehearsal: &Rehearsal, transfer: Option<Transfer>, entropy: Entropy) -> Self {
        Self { entropy, loss: rehearsal.loss, transfer, nodes: BTreeMap::new(), last: BTreeMap::new() }
    }

    /// How long a frame takes.
    pub(super) fn takes(&mut self, frame: &Passing<'_>) -> Duration {
        let mut takes = frame.latency;
        if let Some(transfer) = &self.transfer
            && frame.class == Class::Artifacts
            && frame.bytes >= transfer.stand_in_bytes
        {
            takes += transfer.takes;
        }
        // The device's end is the bad one; a server's name begins no device's.
        let device = if frame.to.starts_with("device-") { frame.to } else { frame.from };
        let (entropy, [low, high]) = (&self.entropy, self.loss);
        let loss = self.nodes.entry(device.to_owned()).or_insert_with(|| {
            let mut stream = entropy.stream(&format!("loss {device}"));
            let room = u64::from(high.millionths().saturating_sub(low.millionths())) + 1;
            let drawn = u32::try_from(stream.below(room)).unwrap_or(0);
            Loss { share: Share::from_millionths(low.millionths().saturating_add(drawn)), entropy: stream }
        });
        takes += resent_after(frame.latency, || loss.share.draw(&mut loss.entropy));
        let place = (frame.from.to_owned(), frame.to.to_owned(), frame.class);
        let arrives = (frame.now + takes).max(self.last.get(&place).copied().unwrap_or(Monotonic(0)));
        self.last.insert(place, arrives);
        arrives.since(frame.now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entropy() -> Entropy {
        Entropy::from_seed([7; 32])
    }

    #[test]
    fn half_of_those_who_were_away_for_an_hour_are_back_within_one() {
        let (hour, mut entropy) = (Duration::from_secs(3600), entropy());
        let back = (0..1000).filter(|_| comes_back(hour, &mut entropy) <= hour).count();
        assert!((450..550).contains(&back), "{back}");
        let late = (0..1000).filter(|_| comes_back(hour, &mut entropy) > hour * 9).count();
        assert!((70..130).contains(&late), "{late}");
    }

    #[test]
    fn as_many_leave_in_the_first_seconds_as_in_the_last_half_hour() {
        let (hour, mut entropy) = (Duration::from_secs(3600), entropy());
        let drawn: Vec<Duration> = (0..1000).map(|_| log_uniform(LEAVES_FIRST, hour, &mut entropy)).collect();
        assert!(drawn.iter().all(|at| *at >= LEAVES_FIRST && *at <= hour), "{drawn:?}");
        let early = drawn.iter().filter(|at| **at < Duration::from_secs(4)).count();
        assert!((300..420).contains(&early), "{early}");
    }
}
