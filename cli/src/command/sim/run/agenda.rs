//! Which seeds a set runs: one after the other, or also neighbours of those that showed something new.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fleetd_simulator::swarm;

/// Neighbours that are run of a seed that showed something new: its faults as often, at other times.
const NEIGHBOURS: u64 = 2;

/// The seeds of a set, in the order in which they are begun.
#[derive(Debug)]
pub(super) struct Agenda {
    seeds_max: usize,
    next: u64,
    explores: bool,
    begun: Vec<u64>,
    neighbours: VecDeque<u64>,
    variations: BTreeMap<u64, u64>,
    known: BTreeSet<String>,
}

impl Agenda {
    /// So many seeds from `first` on; with `explores`, seeds that show something new are followed by neighbours.
    pub(super) fn new(first: u64, seeds_max: usize, explores: bool) -> Self {
        let (begun, neighbours, variations) = (Vec::new(), VecDeque::new(), BTreeMap::new());
        Self { seeds_max, next: first, explores, begun, neighbours, variations, known: BTreeSet::new() }
    }

    /// The seed to begin now.
    pub(super) fn begin(&mut self) -> Option<u64> {
        if self.begun.len() >= self.seeds_max {
            return None;
        }
        let seed = self.neighbours.pop_front().unwrap_or_else(|| {
            let seed = self.next;
            self.next = seed.wrapping_add(1);
            seed
        });
        self.begun.push(seed);
        Some(seed)
    }

    /// The seed that was begun as number so many.
    pub(super) fn seed(&self, number: usize) -> u64 {
        self.begun.get(number).copied().unwrap_or_default()
    }

    /// Takes what a seed has shown.
    pub(super) fn hear(&mut self, seed: u64, shown: &BTreeSet<String>) {
        let is_first = self.known.is_empty();
        let known = self.known.len();
        self.known.extend(shown.iter().cloned());
        // To whoever knows nothing, everything is new.
        if !self.explores || is_first || self.known.len() == known {
            return;
        }
        let base = swarm::base_of(seed);
        for _ in 0..NEIGHBOURS {
            let variation = self.variations.entry(base).or_default();
            *variation += 1;
            self.neighbours.push_back(swarm::neighbour(base, *variation));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(pairs: &[&str]) -> BTreeSet<String> {
        pairs.iter().map(|pair| (*pair).to_owned()).collect()
    }

    #[test]
    fn a_seed_that_shows_something_new_is_followed_by_its_neighbours() {
        let mut agenda = Agenda::new(7, 6, true);
        assert_eq!([agenda.begin(), agenda.begin()], [Some(7), Some(8)]);
        agenda.hear(7, &shown(&["a"]));
        assert_eq!(agenda.begin(), Some(9));
        agenda.hear(8, &shown(&["a", "b"]));
        let neighbours = [agenda.begin(), agenda.begin()].map(Option::unwrap);
        assert!(neighbours.iter().all(|seed| swarm::base_of(*seed) == 8 && *seed != 8), "{neighbours:?}");
        assert_eq!([agenda.begin(), agenda.begin()], [Some(10), None]);
        assert_eq!(agenda.seed(1), 8);
    }

    #[test]
    fn a_set_that_does_not_explore_runs_one_seed_after_the_other() {
        let mut agenda = Agenda::new(1, 3, false);
        assert_eq!(agenda.begin(), Some(1));
        agenda.hear(1, &shown(&["a"]));
        agenda.hear(1, &shown(&["b"]));
        assert_eq!([agenda.begin(), agenda.begin(), agenda.begin()], [Some(2), Some(3), None]);
    }
}
