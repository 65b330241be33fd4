//! One attribute of all devices: each value once, and for each slot the number of its value.

use std::collections::BTreeMap;
use std::sync::Arc;

/// A column with fewer cells than a slot in so many is kept as a map.
const SPARSE_ONE_IN: usize = 8;

/// What each slot has of one attribute. Number 0 stands for nothing.
#[derive(Debug)]
pub(super) struct Column {
    cells: Cells,
    /// The values by their numbers, with the slots that have each.
    values: Vec<(Option<Arc<str>>, u32)>,
    numbers: BTreeMap<Arc<str>, u32>,
    free: Vec<u32>,
    filled: usize,
}

#[derive(Debug)]
enum Cells {
    Few(BTreeMap<u32, u32>),
    Many(Vec<u32>),
}

impl Default for Column {
    fn default() -> Self {
        Self {
            cells: Cells::Few(BTreeMap::new()),
            values: vec![(None, 0)],
            numbers: BTreeMap::new(),
            free: Vec::new(),
            filled: 0,
        }
    }
}

impl Column {
    /// The number of a slot's value.
    pub(super) fn code(&self, slot: u32) -> usize {
        let code = match &self.cells {
            Cells::Few(cells) => cells.get(&slot),
            Cells::Many(cells) => cells.get(slot as usize),
        };
        code.copied().unwrap_or_default() as usize
    }

    /// A slot's value.
    pub(super) fn value(&self, slot: u32) -> Option<&str> {
        self.values.get(self.code(slot))?.0.as_deref()
    }

    /// Asks something of every value, by their numbers, and of its absence.
    pub(super) fn ask<'c, T>(&'c self, answer: impl Fn(Option<&'c str>) -> T) -> Vec<T> {
        self.values.iter().map(|(value, _)| answer(value.as_deref())).collect()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Gives a slot a value.
    pub(super) fn set(&mut self, slot: u32, value: &str) {
        self.clear(slot);
        let code = self.numbers.get(value).copied().unwrap_or_else(|| self.number(value));
        if let Some((_, uses)) = self.values.get_mut(code as usize) {
            *uses += 1;
        }
        self.filled += 1;
        self.write(slot, code);
    }

    /// Takes a slot's value away.
    pub(super) fn clear(&mut self, slot: u32) {
        let code = self.code(slot);
        let Some((value, uses)) = self.values.get_mut(code).filter(|_| code != 0) else { return };
        *uses -= 1;
        if *uses == 0
            && let Some(value) = value.take()
        {
            self.numbers.remove(&value);
            self.free.extend(u32::try_from(code));
        }
        self.filled -= 1;
        self.write(slot, 0);
    }

    fn number(&mut self, value: &str) -> u32 {
        let value: Arc<str> = Arc::from(value);
        let code = self.free.pop().unwrap_or_else(|| {
            self.values.push((None, 0));
            u32::try_from(self.values.len() - 1).unwrap_or(u32::MAX)
        });
        if let Some(place) = self.values.get_mut(code as usize) {
            *place = (Some(Arc::clone(&value)), 0);
        }
        self.numbers.insert(value, code);
        code
    }

    fn write(&mut self, slot: u32, code: u32) {
        let place = slot as usize;
        match &mut self.cells {
            Cells::Few(cells) if code == 0 => drop(cells.remove(&slot)),
            Cells::Few(cells) => {
                cells.insert(slot, code);
                let last = cells.last_key_value().map_or(0, |(slot, _)| *slot as usize);
                if cells.len() * SPARSE_ONE_IN > last {
                    let mut many = vec![0; last + 1];
                    for (slot, code) in cells {
                        if let Some(cell) = many.get_mut(*slot as usize) {
                            *cell = *code;
                        }
                    }
                    self.cells = Cells::Many(many);
                }
            }
            Cells::Many(cells) => {
                let wanted = place + 1;
                if cells.len() < wanted && code != 0 {
                    if wanted > (self.filled + 1) * SPARSE_ONE_IN * 2 {
                        // A few early slots have it, and now a late one.
                        let few = (0_u32..).zip(cells.iter().copied()).filter(|(_, code)| *code != 0);
                        let mut few: BTreeMap<u32, u32> = few.collect();
                        few.insert(slot, code);
                        self.cells = Cells::Few(few);
                        return;
                    }
                    cells.resize(wanted, 0);
                }
                if let Some(cell) = cells.get_mut(place) {
                    *cell = code;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_column_has_what_was_written_last(
            changes in proptest::collection::vec((prop_oneof![0_u32..40, 0_u32..5000], 0_u8..6), 0..300),
        ) {
            let (mut column, mut naive) = (Column::default(), BTreeMap::new());
            for (slot, value) in changes {
                if value == 0 {
                    column.clear(slot);
                    naive.remove(&slot);
                } else {
                    column.set(slot, &value.to_string());
                    naive.insert(slot, value.to_string());
                }
            }
            for slot in 0..5000 {
                prop_assert_eq!(column.value(slot), naive.get(&slot).map(String::as_str));
            }
            prop_assert_eq!(column.filled, naive.len());
            let distinct: std::collections::BTreeSet<_> = naive.values().collect();
            prop_assert_eq!(column.numbers.len(), distinct.len());
            prop_assert_eq!(column.ask(|value| value.is_some()).into_iter().filter(|is_there| *is_there).count(), distinct.len());
        }
    }
}
