//! Holds no invariant: it sees what ought to happen in some run of a set, and marks it.

use std::sync::Arc;

use super::{Broken, Fact, Inspector, Scene};

/// Sees what ought to happen sometimes.
#[derive(Debug, Default)]
pub(super) struct Witness;

impl Inspector for Witness {
    fn invariant(&self) -> u8 {
        0
    }

    fn name(&self) -> &'static str {
        "witness"
    }

    fn learn(&mut self, _scene: &Scene<'_>, _node: &Arc<str>, _fact: Fact<'_>) -> Result<(), Broken> {
        Ok(())
    }
}
