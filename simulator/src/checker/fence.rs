//! Invariant 6, of plans: none is started that does not fit its fleet any more. The fleet is the one that the start was
//! looked at with; a naive planner says what would be done with it.

use std::sync::Arc;

use super::{Broken, Fact, Inspector, Scene};
use crate::observation::Observation;
use crate::reference::plan::differences;

/// Looks at every start of a plan that was made some time before.
#[derive(Debug)]
pub(super) struct FenceChecker;

impl Inspector for FenceChecker {
    fn invariant(&self) -> u8 {
        6
    }

    fn name(&self) -> &'static str {
        "fence"
    }

    fn learn(&mut self, scene: &Scene<'_>, node: &Arc<str>, fact: Fact<'_>) -> Result<(), Broken> {
        let Fact::Seen(Observation::PlanJudged { plan, rows, is_started, .. }) = fact else { return Ok(()) };
        let differences = differences(plan, rows);
        match (differences.first(), is_started) {
            (Some(first), true) => {
                let seen = format!(
                    "{} is started, and {} of its devices are not as planned: {first}",
                    plan.id,
                    differences.len()
                );
                Broken::on(node, seen)
            }
            (None, false) => Broken::on(node, format!("{} is refused, and nothing of it has changed", plan.id)),
            (None, true) => {
                scene.marks.reach("a plan of before was started");
                Ok(())
            }
            (Some(_), false) => {
                scene.marks.reach("a stale plan was refused");
                Ok(())
            }
        }
    }
}
