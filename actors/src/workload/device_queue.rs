//! Whose turn it is on a device: one workload at a time is between the release that it ran and the one that it should run.
//!
//! A workload asks when nothing else keeps its release from being made the current one, and asks again until its turn has
//! come. The most urgent goes first, and of equally urgent ones who asked first. It has its turn from the switch until the
//! release has proven itself or the one before it is back, so that no two switch while both are unproven; one that is
//! stopped meanwhile gives its turn up, and proves itself beside the next once it is started. Downloads take no turn. The
//! queue is of one device and needs no link; an agent that starts anew fills it anew.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::planted::{Bug, is_planted};

use crate::rollout::strategy::Priority;

/// Who goes before a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ahead {
    /// The workload that has its turn, or is next.
    pub first: WorkloadName,
    /// How many go before it.
    pub before: u32,
}

/// The workloads of a device that switch, or want to.
#[derive(Debug, Default)]
pub struct DeviceQueue {
    at_work: BTreeSet<WorkloadName>,
    /// The more urgent first, and then who asked first.
    waiting: BTreeMap<WorkloadName, (Reverse<Priority>, u64)>,
    asked: u64,
}

impl DeviceQueue {
    /// Asks for a workload's turn; `None` when it has come. The workload has it until it leaves.
    pub fn ask(&mut self, workload: &WorkloadName, priority: Priority) -> Option<Ahead> {
        if self.at_work.contains(workload) {
            return None;
        }
        let since = self.waiting.get(workload).map_or(self.asked, |(_, since)| *since);
        self.asked = self.asked.saturating_add(1);
        let place = (Reverse(priority), since);
        self.waiting.insert(workload.clone(), place);
        let mut before: Vec<_> = self.waiting.iter().filter(|(_, other)| **other < place).collect();
        before.sort_by_key(|(_, place)| **place);
        let at_work = self.at_work.iter().filter(|_| !is_planted(Bug::TurnSkipped));
        let mut ahead = at_work.chain(before.into_iter().map(|(workload, _)| workload));
        let Some(first) = ahead.next() else {
            self.waiting.remove(workload);
            self.at_work.insert(workload.clone());
            return None;
        };
        Some(Ahead { first: first.clone(), before: u32::try_from(ahead.count()).unwrap_or(u32::MAX).saturating_add(1) })
    }

    /// Ends a workload's turn, or its wait for one.
    pub fn leave(&mut self, workload: &WorkloadName) {
        self.at_work.remove(workload);
        self.waiting.remove(workload);
    }

    /// Takes a workload up again that was loaded anew: one that had begun to switch is at work, whoever else is.
    pub fn take_up(&mut self, workload: &WorkloadName, is_at_work: bool) {
        self.leave(workload);
        if is_at_work {
            self.at_work.insert(workload.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> WorkloadName {
        text.parse().unwrap()
    }

    fn priority(number: u32) -> Priority {
        Priority::new(number).unwrap()
    }

    #[test]
    fn the_most_urgent_goes_first_and_then_who_asked_first() {
        let mut queue = DeviceQueue::default();
        let [coffee, tea, milk] = ["coffee", "tea", "milk"].map(name);
        assert_eq!(queue.ask(&coffee, priority(5)), None);
        assert_eq!(queue.ask(&coffee, priority(5)), None, "it has its turn until it leaves");
        let ahead = |first: &WorkloadName, before| Some(Ahead { first: first.clone(), before });
        assert_eq!(queue.ask(&tea, priority(5)), ahead(&coffee, 1));
        assert_eq!(queue.ask(&milk, priority(9)), ahead(&coffee, 1), "it is more urgent");
        assert_eq!(queue.ask(&tea, priority(5)), ahead(&coffee, 2));
        queue.leave(&coffee);
        assert_eq!(queue.ask(&coffee, priority(5)), ahead(&milk, 2), "it asked after the others");
        assert_eq!(queue.ask(&tea, priority(5)), ahead(&milk, 1), "and milk has not taken its turn yet");
        queue.leave(&milk);
        assert_eq!(queue.ask(&tea, priority(5)), None, "who does not want it any more stands in nobody's way");
    }

    #[test]
    fn who_had_begun_before_a_restart_is_at_work_after_it() {
        let mut queue = DeviceQueue::default();
        let [coffee, tea] = ["coffee", "tea"].map(name);
        queue.take_up(&coffee, true);
        queue.take_up(&tea, false);
        assert!(queue.ask(&tea, priority(9)).is_some());
        queue.take_up(&coffee, false);
        assert_eq!(queue.ask(&tea, priority(0)), None);
    }

    proptest! {
        #[test]
        fn one_at_a_time_has_its_turn_and_each_that_asks_gets_it(
            events in prop::collection::vec((0..4_usize, 0..10_u32, any::<bool>()), 0..60)
        ) {
            let names = ["coffee", "tea", "milk", "till"].map(name);
            let (mut queue, mut at_work) = (DeviceQueue::default(), None);
            for (number, urgency, asks) in events {
                if asks {
                    match queue.ask(&names[number], priority(urgency)) {
                        None => {
                            prop_assert!(at_work.is_none_or(|other| other == number), "two are at work");
                            at_work = Some(number);
                        }
                        Some(ahead) => prop_assert!(ahead.first != names[number] && ahead.before > 0),
                    }
                } else {
                    queue.leave(&names[number]);
                    at_work = at_work.filter(|other| *other != number);
                }
            }
            // Each asks until it had its turn, and gives it back.
            let mut had = BTreeSet::new();
            for _ in 0..8 {
                for (number, name) in names.iter().enumerate() {
                    if !had.contains(&number) && queue.ask(name, priority(5)).is_none() {
                        queue.leave(name);
                        had.insert(number);
                    }
                }
            }
            prop_assert_eq!(had.len(), names.len());
        }
    }
}
