//! Bugs that are planted on purpose, one at a time, to see whether the simulator finds them and how soon.
//!
//! Only a build with the feature `planted-bugs` has them, and nothing that is shipped is one: `cargo xtask tidy` says
//! where the feature may be named, and `cargo xtask findability` builds with it. In every other build
//! [`is_planted`] is a constant, and each place that asks for it is as if it did not.

/// A bug that can be planted. Each is asked for in one place, where a line would be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bug {
    /// A workload starts its program and does not remember that.
    RecordDropped,
    /// An actor's effects happen before its records are durable.
    EffectBeforeRecord,
    /// A server acknowledges log records before they are durable.
    AckBeforeAppend,
    /// A lane takes a branch below its head.
    StaleAccepted,
    /// An envelope's signature is not looked at.
    SignatureUnchecked,
    /// An opener's state is laid over what was there in place of replacing it.
    SnapshotNotRefolded,
    /// A writer that starts goes on under the stamp that it had.
    StampKept,
    /// A hold has no effect.
    HoldLost,
    /// A restarted agent starts a program that already runs.
    DoubleStart,
    /// A restarted agent watches a program without a deadline.
    DeadlineLost,
    /// A release that failed is not replaced by the one before it.
    RestoreSkipped,
    /// A rollout calls a device healthy that is still on watch.
    HealthAssumed,
    /// A spool forgets records that were not acknowledged.
    ForgottenUnacked,
    /// A server stores records again that it has.
    StoredTwice,
    /// A server serves a device whose key is revoked.
    RevokedLetIn,
    /// One more device may fail than a rollout's budget allows.
    GateOffByOne,
    /// A rollout counts a device that never acknowledged as failed.
    OfflineFailed,
    /// What is assigned a second time is a new try.
    WaveTwice,
    /// A stopped rollout still sends assignments that were on their way.
    HoldOvertaken,
    /// A restarted rollout does not know by when its wave, or its bake, has to end.
    WaveDeadlineLost,
    /// A device reads its windows as if they were of another time zone.
    WindowZone,
    /// A rollout takes a device back that another one took over.
    SupersededReturns,
    /// A device that connects is not told which releases are denied.
    DeniedOffered,
    /// A device that connects is not told that the whole fleet is stopped.
    StopForgotten,
    /// A plan is started that does not fit its fleet any more.
    StalePlanStarted,
    /// A site switches as soon as one of its devices is ready.
    SiteSplit,
    /// A restarted agent does not know that somebody put updates off.
    DeferralLost,
    /// A workload switches while another of its device has not proven itself.
    TurnSkipped,
    /// One more device begins than may be at work at the same time.
    PlaceOffByOne,
    /// A wave that has baked is followed by the next without anybody's word.
    ApprovalSkipped,
    /// A release that is restored keeps the configuration of the one that failed.
    ConfigurationKept,
}

impl Bug {
    /// Every bug.
    pub const ALL: [Self; 31] = [
        Self::RecordDropped,
        Self::EffectBeforeRecord,
        Self::AckBeforeAppend,
        Self::StaleAccepted,
        Self::SignatureUnchecked,
        Self::SnapshotNotRefolded,
        Self::StampKept,
        Self::HoldLost,
        Self::DoubleStart,
        Self::DeadlineLost,
        Self::RestoreSkipped,
        Self::HealthAssumed,
        Self::ForgottenUnacked,
        Self::StoredTwice,
        Self::RevokedLetIn,
        Self::GateOffByOne,
        Self::OfflineFailed,
        Self::WaveTwice,
        Self::HoldOvertaken,
        Self::WaveDeadlineLost,
        Self::WindowZone,
        Self::SupersededReturns,
        Self::DeniedOffered,
        Self::StopForgotten,
        Self::StalePlanStarted,
        Self::SiteSplit,
        Self::DeferralLost,
        Self::TurnSkipped,
        Self::PlaceOffByOne,
        Self::ApprovalSkipped,
        Self::ConfigurationKept,
    ];

    /// What it is called.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RecordDropped => "record_dropped",
            Self::EffectBeforeRecord => "effect_before_record",
            Self::AckBeforeAppend => "ack_before_append",
            Self::StaleAccepted => "stale_accepted",
            Self::SignatureUnchecked => "signature_unchecked",
            Self::SnapshotNotRefolded => "snapshot_not_refolded",
            Self::StampKept => "stamp_kept",
            Self::HoldLost => "hold_lost",
            Self::DoubleStart => "double_start",
            Self::DeadlineLost => "deadline_lost",
            Self::RestoreSkipped => "restore_skipped",
            Self::HealthAssumed => "health_assumed",
            Self::ForgottenUnacked => "forgotten_unacked",
            Self::StoredTwice => "stored_twice",
            Self::RevokedLetIn => "revoked_let_in",
            Self::GateOffByOne => "gate_off_by_one",
            Self::OfflineFailed => "offline_failed",
            Self::WaveTwice => "wave_twice",
            Self::HoldOvertaken => "hold_overtaken",
            Self::WaveDeadlineLost => "wave_deadline_lost",
            Self::WindowZone => "window_zone",
            Self::SupersededReturns => "superseded_returns",
            Self::DeniedOffered => "denied_offered",
            Self::StopForgotten => "stop_forgotten",
            Self::StalePlanStarted => "stale_plan_started",
            Self::SiteSplit => "site_split",
            Self::DeferralLost => "deferral_lost",
            Self::TurnSkipped => "turn_skipped",
            Self::PlaceOffByOne => "place_off_by_one",
            Self::ApprovalSkipped => "approval_skipped",
            Self::ConfigurationKept => "configuration_kept",
        }
    }
}

#[cfg(feature = "planted-bugs")]
static PLANTED: std::sync::OnceLock<Bug> = std::sync::OnceLock::new();

/// Plants a bug in this process, for good; false when one is there already.
#[cfg(feature = "planted-bugs")]
pub fn plant(bug: Bug) -> bool {
    PLANTED.set(bug).is_ok()
}

/// Says whether a bug is planted in this process.
#[cfg(feature = "planted-bugs")]
#[must_use]
pub fn is_planted(bug: Bug) -> bool {
    PLANTED.get() == Some(&bug)
}

/// Says whether a bug is planted in this process: none ever is in this build.
#[cfg(not(feature = "planted-bugs"))]
#[must_use]
pub const fn is_planted(_bug: Bug) -> bool {
    false
}
