//! Coverage: which inputs each kind of machine was given in the middle of what.
//!
//! It is taken where an engine hands an input over, and changes nothing of what happens.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of an input's name that are kept: the longest has 19.
const NAME_BYTES: usize = 24;

/// One thing that a run has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    machine: &'static str,
    phase: &'static str,
    input: Name,
}

/// The first word of what something says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    bytes: [u8; NAME_BYTES],
    length: usize,
}

impl Name {
    /// The name of an enum's variant: the rest of it is not even written.
    fn of(input: &dyn fmt::Debug) -> Self {
        let mut name = Self::default();
        // It ends by an error, at the first character that is of no name.
        let _ = write!(name, "{input:?}");
        name
    }

    fn as_str(&self) -> &str {
        self.bytes.get(..self.length).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }
}

impl fmt::Write for Name {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            let is_of_name = byte.is_ascii_alphanumeric() || byte == b'_';
            let place = self.bytes.get_mut(self.length).filter(|_| is_of_name).ok_or(fmt::Error)?;
            *place = byte;
            self.length += 1;
        }
        Ok(())
    }
}

/// What a run has shown. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    pairs: Arc<Mutex<BTreeSet<Pair>>>,
}

impl Coverage {
    /// Notes that a machine of a type is given an input, or its time when there is none.
    pub(crate) fn note(&self, machine: &'static str, phase: &'static str, input: Option<&dyn fmt::Debug>) {
        let pair = Pair { machine: short_name(machine), phase, input: input.map_or_else(Name::default, Name::of) };
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner).insert(pair);
    }

    /// Every pair of a machine's phase and an input, in words.
    #[must_use]
    pub fn pairs(&self) -> BTreeSet<String> {
        let pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        let words = pairs.iter().map(|Pair { machine, phase, input }| {
            let input = if input.length == 0 { "its time" } else { input.as_str() };
            if phase.is_empty() { format!("{machine}: {input}") } else { format!("{machine}, {phase}: {input}") }
        });
        words.collect()
    }
}

/// The name of a type without where it is from.
fn short_name(name: &'static str) -> &'static str {
    name.rsplit("::").next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::any::type_name;

    use fleetd_actors::log_stream::{Input, LogStore};
    use fleetd_sync_core::entropy::Entropy;
    use fleetd_sync_core::id::OperationId;

    use super::*;

    #[test]
    fn an_input_is_counted_by_its_name_alone() {
        let coverage = Coverage::default();
        let mut entropy = Entropy::from_seed([1; 32]);
        for _ in 0..2 {
            let input = Input::Follow { operation: OperationId::random(&mut entropy) };
            coverage.note(type_name::<LogStore>(), "", Some(&input));
        }
        coverage.note(type_name::<LogStore>(), "", None);
        assert_eq!(coverage.pairs().into_iter().collect::<Vec<_>>(), ["LogStore: Follow", "LogStore: its time"]);
    }
}
