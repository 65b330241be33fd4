//! What a link does to the packets of a node, besides delaying them.

use std::time::Duration;

use fleetd_sync_core::entropy::Entropy;

use crate::network::Trouble;

/// How long a packet may wait for a slow link before it is lost: about what home routers buffer.
pub(super) const QUEUE_MAX: Duration = Duration::from_millis(500);
/// Chances are in parts of a million.
const ALL: u64 = 1_000_000;
/// How much later a copy comes that a link made.
const COPY_LATER_MAX: Duration = Duration::from_millis(20);

/// What a link does to the packets of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// Nothing passes, either way.
    pub is_cut: bool,
    /// What the node sends does not pass, and what is sent to it does.
    pub is_mute: bool,
    /// What is sent to the node does not pass, and what it sends does.
    pub is_deaf: bool,
    /// The longest packet that passes, either way; any passes when there is none.
    pub size_max: Option<usize>,
    /// How much longer each packet takes, either way.
    pub slower: Duration,
    /// How many of a million packets are lost, each way.
    pub loss_ppm: u64,
    /// How many of a million packets come twice.
    pub copied_ppm: u64,
    /// How many of a million packets are overtaken by those behind them.
    pub late_ppm: u64,
    /// How much later those come, at most.
    pub late_by: Duration,
    /// Bytes a second that the node can send; as many as it likes when there is none.
    pub bytes_per_second: Option<u64>,
    /// How many of a hundred frames the node changes before it sends them.
    pub mangled_percent: u64,
}

/// The smaller of two limits, where there is one.
fn least<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    one.into_iter().chain(other).min()
}

/// What becomes of one packet.
pub(super) struct Fate {
    pub(super) is_lost: bool,
    pub(super) later: Duration,
    pub(super) copy: Option<Duration>,
}

impl From<Trouble> for Condition {
    /// What a trouble of frames is to packets.
    fn from(trouble: Trouble) -> Self {
        let even = Self::default();
        match trouble {
            Trouble::Cut => Self { is_cut: true, ..even },
            Trouble::Mute => Self { is_mute: true, ..even },
            Trouble::Deaf => Self { is_deaf: true, ..even },
            Trouble::Swallows { bytes } => Self { size_max: Some(bytes), ..even },
            Trouble::Slow(slower) => Self { slower, ..even },
            Trouble::Jitter(late_by) => Self { late_ppm: ALL, late_by, ..even },
            Trouble::Lossy { percent } => Self { loss_ppm: percent.saturating_mul(ALL / 100), ..even },
            Trouble::Narrow { bytes_per_second } => Self { bytes_per_second: Some(bytes_per_second), ..even },
            Trouble::Mangles { percent } => Self { mangled_percent: percent, ..even },
        }
    }
}

impl Condition {
    /// What two conditions come to that hold at once.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self {
            is_cut: self.is_cut || other.is_cut,
            is_mute: self.is_mute || other.is_mute,
            is_deaf: self.is_deaf || other.is_deaf,
            size_max: least(self.size_max, other.size_max),
            slower: self.slower + other.slower,
            loss_ppm: self.loss_ppm.max(other.loss_ppm),
            copied_ppm: self.copied_ppm.max(other.copied_ppm),
            late_ppm: self.late_ppm.max(other.late_ppm),
            late_by: self.late_by.max(other.late_by),
            bytes_per_second: least(self.bytes_per_second, other.bytes_per_second),
            mangled_percent: self.mangled_percent.max(other.mangled_percent),
        }
    }

    pub(super) fn stops_leaving(&self, size: usize) -> bool {
        self.is_cut || self.is_mute || self.size_max.is_some_and(|max| size > max)
    }

    pub(super) fn stops_coming(&self, size: usize) -> bool {
        self.is_cut || self.is_deaf || self.size_max.is_some_and(|max| size > max)
    }

    /// Says whether every packet fares alike: nothing needs to be drawn.
    pub(super) const fn is_even(&self) -> bool {
        self.loss_ppm == 0 && self.copied_ppm == 0 && self.late_ppm == 0
    }

    /// Draws what becomes of a packet.
    pub(super) fn fate(&self, draws: &mut Entropy) -> Fate {
        let mut happens = |ppm| draws.below(ALL) < ppm;
        let (is_lost, is_late, is_copied) = (happens(self.loss_ppm), happens(self.late_ppm), happens(self.copied_ppm));
        let later = if is_late { draws.jitter(self.late_by) } else { Duration::ZERO };
        Fate { is_lost, later, copy: is_copied.then(|| draws.jitter(COPY_LATER_MAX)) }
    }

    /// How long the link is busy with a packet of `size` bytes; nothing where it is never busy.
    pub(super) fn sending_time(&self, size: usize) -> Option<Duration> {
        let per_second = self.bytes_per_second?.max(1);
        let bytes = u64::try_from(size).unwrap_or(u64::MAX);
        Some(Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / per_second))
    }
}
