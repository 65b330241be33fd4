//! Checkers: each holds one invariant of the design against everything that happens in a run.
//!
//! A checker is incremental: it sees every observation once, in order, and remembers what it needs. It reads from no
//! node what the node could not have told anybody: its word against the node's own.

mod position;

use std::fmt;
use std::sync::Arc;

use fleetd_sync_core::time::Monotonic;

use crate::fleet::Fleet;
use crate::mark::Marks;
use crate::observation::Observation;

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Violation {
    /// The invariant's number in ARCHITECTURE.md; 0 for a broken assertion or a fleet that does not converge.
    pub invariant: u8,
    /// Which checker found it.
    pub checker: String,
    /// On which node.
    pub node: String,
    /// What was seen.
    pub seen: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invariant {} ({}) does not hold on {}: {}", self.invariant, self.checker, self.node, self.seen)
    }
}

/// One invariant's checker.
pub trait Checker {
    /// Which invariant of ARCHITECTURE.md it holds.
    fn invariant(&self) -> u8;

    /// What it is called in reports.
    fn name(&self) -> &'static str;

    /// Takes one observation.
    ///
    /// # Errors
    /// The node on which the invariant does not hold, and what was seen.
    fn observe(&mut self, at: Monotonic, observation: &Observation, marks: &Marks) -> Result<(), Broken>;

    /// Looks at the whole fleet once more when a run has ended and its core has converged.
    ///
    /// # Errors
    /// As [`observe`](Self::observe).
    fn conclude(&mut self, fleet: &Fleet, marks: &Marks) -> Result<(), Broken> {
        let _ = (fleet, marks);
        Ok(())
    }
}

/// Where an invariant does not hold, and what was seen.
#[derive(Clone, Debug)]
pub struct Broken {
    /// On which node.
    pub node: Arc<str>,
    /// What was seen.
    pub seen: String,
}

/// All checkers of a run.
pub struct Checkers {
    checkers: Vec<Box<dyn Checker>>,
    marks: Marks,
}

impl fmt::Debug for Checkers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.checkers.iter().map(|checker| checker.name())).finish()
    }
}

impl Checkers {
    /// Every checker that there is.
    #[must_use]
    pub fn all(marks: Marks) -> Self {
        Self { checkers: vec![Box::new(position::PositionChecker::default())], marks }
    }

    /// These, and more besides.
    #[must_use]
    pub fn and(mut self, more: Vec<Box<dyn Checker>>) -> Self {
        self.checkers.extend(more);
        self
    }

    /// Shows every checker what happened.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn observe(&mut self, at: Monotonic, observations: &[Observation]) -> Result<(), Violation> {
        for observation in observations {
            for checker in &mut self.checkers {
                checker.observe(at, observation, &self.marks).map_err(|broken| violation(checker.as_ref(), broken))?;
            }
        }
        Ok(())
    }

    /// Lets every checker look at the fleet when the run has ended.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn conclude(&mut self, fleet: &Fleet) -> Result<(), Violation> {
        for checker in &mut self.checkers {
            checker.conclude(fleet, &self.marks).map_err(|broken| violation(checker.as_ref(), broken))?;
        }
        Ok(())
    }
}

fn violation(checker: &dyn Checker, broken: Broken) -> Violation {
    Violation {
        invariant: checker.invariant(),
        checker: checker.name().to_owned(),
        node: broken.node.to_string(),
        seen: broken.seen,
    }
}
