//! Why what somebody wishes of a rollout is refused.

use fleetd_sync_core::id::{PlanId, RolloutId};
use fleetd_sync_core::name::DeviceName;

use super::plan::{Plan, Verdict};
use super::status::RolloutPhase;
use crate::orders::Standstill;

/// Why an operator's wish was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RolloutError {
    /// It carries out another plan.
    #[error("{rollout} carries out {running} already")]
    OtherPlan {
        /// The rollout.
        rollout: RolloutId,
        /// The plan that it carries out.
        running: PlanId,
    },
    /// Nobody would get the release.
    #[error("each device that lacks the release is blocked: {}", blocked.join("; "))]
    Blocked {
        /// The rollout that there is not.
        rollout: RolloutId,
        /// The plan.
        plan: PlanId,
        /// The first devices that are blocked, each with the reason.
        blocked: Vec<String>,
        /// The name of the first.
        first: DeviceName,
    },
    /// It was never started.
    #[error("{rollout} was not started")]
    NotStarted {
        /// The rollout.
        rollout: RolloutId,
    },
    /// An order over the whole fleet keeps it stopped.
    #[error("{}", standstill.reason)]
    Ordered {
        /// The rollout.
        rollout: RolloutId,
        /// The order.
        standstill: Standstill,
    },
    /// No gate waits for a word.
    #[error("nothing of {rollout} waits for an approval: {standing}")]
    NothingToApprove {
        /// The rollout.
        rollout: RolloutId,
        /// Where it stands.
        standing: String,
    },
    /// It has ended.
    #[error("{rollout} has ended: it {phase}")]
    Ended {
        /// The rollout.
        rollout: RolloutId,
        /// How.
        phase: RolloutPhase,
    },
}

/// Blocked devices that a refusal names.
const BLOCKED_NAMED: usize = 5;

/// Refuses a plan of which nobody would get the release: its rollout would succeed without having done anything.
pub(super) fn refuse_blocked(rollout: RolloutId, plan: &Plan) -> Option<RolloutError> {
    if !plan.is_blocked() {
        return None;
    }
    let blocked = plan.devices.iter().filter_map(|device| match &device.verdict {
        Verdict::Blocked { reason, .. } => Some((&device.name, reason)),
        Verdict::Update { .. } | Verdict::Install | Verdict::Unchanged => None,
    });
    let blocked: Vec<_> = blocked.collect();
    let first = blocked.first()?.0.clone();
    let mut named: Vec<_> =
        blocked.iter().take(BLOCKED_NAMED).map(|(name, reason)| format!("{name}: {reason}")).collect();
    if blocked.len() > BLOCKED_NAMED {
        named.push(format!("and {} more", blocked.len() - BLOCKED_NAMED));
    }
    Some(RolloutError::Blocked { rollout, plan: plan.id, blocked: named, first })
}
