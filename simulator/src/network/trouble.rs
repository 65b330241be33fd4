//! What is wrong with a node's link, and what that does to a frame.

use std::collections::BTreeMap;
use std::time::Duration;

use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::time::Monotonic;

/// Losses of one packet in a row that are drawn: more do not happen before the connection is given up.
const LOSSES_MAX: u32 = 6;
/// Time until a sender takes a packet for lost, besides three times the way: to its end, back, and once more to its end.
///
/// # Source
/// RFC 9002, sections 6.1.2 and 6.2.1: a probe timeout is the round trip, its variance, of which there is none here but
/// the granularity of 1 ms, and the peer's ack delay of 25 ms.
const LOSS_NOTICED: Duration = Duration::from_millis(26);

/// What is wrong with a node's link. A frame meets what is wrong at both of its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing passes, in either direction.
    Cut,
    /// Nothing passes from the node.
    Mute,
    /// Nothing passes to the node.
    Deaf,
    /// Frames longer than this do not pass: a path that swallows large packets, and lets keep-alives through.
    Swallows {
        /// The longest frame that passes.
        bytes: usize,
    },
    /// Every frame takes so much longer.
    Slow(Duration),
    /// Every frame takes up to so much longer: frames of different classes overtake each other.
    Jitter(Duration),
    /// Of a hundred packets so many are lost. QUIC sends them again, so a frame comes later, and with it all that are
    /// behind it in its class.
    Lossy {
        /// How many of a hundred.
        percent: u64,
    },
    /// No more than this passes in a second, in each direction.
    Narrow {
        /// How much.
        bytes_per_second: u64,
    },
    /// Of a hundred frames from the node so many are changed before they are sent: its memory is bad, or its owner is.
    Mangles {
        /// How many of a hundred.
        percent: u64,
    },
}

/// In which direction a frame meets a node's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    From,
    To,
}

/// A node's link: its usual latency, and what is wrong with it.
#[derive(Debug, Default)]
pub(super) struct Path {
    pub(super) latency: Option<Duration>,
    /// By who imposed it, with when.
    pub(super) troubles: BTreeMap<u64, (Trouble, Monotonic)>,
    /// Frames to the node wait until it is heard from its new address.
    pub(super) is_lost: bool,
    /// Until when a narrow link is busy, from and to the node.
    busy_until: [Monotonic; 2],
}

impl Path {
    pub(super) fn is_sound(&self) -> bool {
        self.troubles.is_empty() && !self.is_lost
    }

    /// Says whether a frame of this length stays on the way.
    pub(super) fn blocks(&self, way: Way, length: usize) -> bool {
        let is_blocked = |trouble: &Trouble| match trouble {
            Trouble::Cut => true,
            Trouble::Mute => way == Way::From,
            Trouble::Deaf => way == Way::To,
            Trouble::Swallows { bytes } => length > *bytes,
            _ => false,
        };
        self.is_lost && way == Way::To || self.troubles.values().any(|(trouble, _)| is_blocked(trouble))
    }

    /// How much longer a frame takes than usual.
    pub(super) fn delay(
        &mut self,
        way: Way,
        length: usize,
        latency: Duration,
        now: Monotonic,
        entropy: &mut Entropy,
    ) -> Duration {
        let mut delay = Duration::ZERO;
        for (trouble, _) in self.troubles.values() {
            delay += match trouble {
                Trouble::Slow(span) => *span,
                Trouble::Jitter(span) => entropy.jitter(*span),
                Trouble::Lossy { percent } => resent_after(latency, || entropy.below(100) < *percent),
                Trouble::Narrow { bytes_per_second } => {
                    let length = u64::try_from(length).unwrap_or(u64::MAX);
                    let span = Duration::from_micros(length.saturating_mul(1_000_000) / (*bytes_per_second).max(1));
                    let [from, to] = &mut self.busy_until;
                    let busy = if way == Way::From { from } else { to };
                    *busy = (*busy).max(now) + span;
                    busy.since(now)
                }
                Trouble::Cut | Trouble::Mute | Trouble::Deaf | Trouble::Swallows { .. } | Trouble::Mangles { .. } => {
                    Duration::ZERO
                }
            };
        }
        delay
    }

    /// How many of a hundred frames from the node are changed.
    pub(super) fn mangled_percent(&self) -> u64 {
        let percents = self.troubles.values().map(|(trouble, _)| match trouble {
            Trouble::Mangles { percent } => *percent,
            _ => 0,
        });
        percents.max().unwrap_or(0)
    }
}

/// How much later a packet comes than it should that is lost, and sent again, until `is_lost` says that it came through.
/// Each probe waits twice as long as the one before.
pub(crate) fn resent_after(latency: Duration, mut is_lost: impl FnMut() -> bool) -> Duration {
    let mut timeout = latency * 3 + LOSS_NOTICED;
    let mut delay = Duration::ZERO;
    for _ in 0..LOSSES_MAX {
        if !is_lost() {
            break;
        }
        delay += timeout;
        timeout *= 2;
    }
    delay
}

/// Changes a frame as bad memory does, or somebody who means it: bits, its end, or what follows it.
pub(crate) fn mangle(frame: &[u8], entropy: &mut Entropy) -> Vec<u8> {
    let mut mangled = frame.to_vec();
    let place = |entropy: &mut Entropy, length: usize| {
        usize::try_from(entropy.below(u64::try_from(length).unwrap_or(u64::MAX))).unwrap_or(0)
    };
    match entropy.below(4) {
        0 => mangled.truncate(place(entropy, frame.len())),
        1 => {
            let more = 1 + entropy.below(32);
            mangled.extend((0..more).map(|_| u8::try_from(entropy.below(256)).unwrap_or(0)));
        }
        _ => {
            for _ in 0..=entropy.below(4) {
                let at = place(entropy, frame.len());
                if let Some(byte) = mangled.get_mut(at) {
                    *byte ^= 1 << entropy.below(8);
                }
            }
        }
    }
    mangled
}
