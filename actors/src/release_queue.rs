//! Which effects may happen: those of turns that are durable, in the order of the turns.

use std::collections::VecDeque;

/// The number of a turn within one incarnation of its actor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TurnNumber(u64);

#[derive(Debug)]
struct Waiting<E> {
    turn: TurnNumber,
    durable: bool,
    effects: Vec<E>,
}

/// Turns whose effects have not happened yet.
#[derive(Debug)]
pub struct ReleaseQueue<E> {
    next: TurnNumber,
    waiting: VecDeque<Waiting<E>>,
}

impl<E> Default for ReleaseQueue<E> {
    fn default() -> Self {
        Self { next: TurnNumber::default(), waiting: VecDeque::new() }
    }
}

impl<E> ReleaseQueue<E> {
    /// Appends a turn that has records to wait for.
    pub fn push_pending(&mut self, effects: Vec<E>) -> TurnNumber {
        self.push(effects, false)
    }

    /// Appends a turn without records: it waits for the turns before it only.
    pub fn push_durable(&mut self, effects: Vec<E>) -> TurnNumber {
        self.push(effects, true)
    }

    fn push(&mut self, effects: Vec<E>, durable: bool) -> TurnNumber {
        let turn = self.next;
        self.next = TurnNumber(turn.0 + 1);
        self.waiting.push_back(Waiting { turn, durable, effects });
        turn
    }

    /// Notes that a turn's records are durable. A turn that is not waiting is ignored: it is of a past incarnation.
    pub fn mark_durable(&mut self, turn: TurnNumber) {
        if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.turn == turn) {
            waiting.durable = true;
        }
    }

    /// Takes the effects of the next turn that may happen.
    pub fn pop_ready(&mut self) -> Option<Vec<E>> {
        let ready = self.waiting.front().is_some_and(|waiting| waiting.durable);
        if ready { self.waiting.pop_front().map(|waiting| waiting.effects) } else { None }
    }

    /// Gives up the room that it has beyond what waits.
    pub fn shrink(&mut self) {
        self.waiting.shrink_to_fit();
    }

    /// Says whether every turn's effects have happened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(queue: &mut ReleaseQueue<u32>) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop_ready()).flatten().collect()
    }

    #[test]
    fn effects_wait_for_their_records_and_for_every_turn_before() {
        let mut queue = ReleaseQueue::default();
        let first = queue.push_pending(vec![1]);
        let second = queue.push_pending(vec![2, 3]);
        queue.push_durable(vec![4]);
        assert_eq!(drain(&mut queue), [0; 0]);
        queue.mark_durable(second);
        assert_eq!(drain(&mut queue), [0; 0]);
        queue.mark_durable(first);
        assert_eq!(drain(&mut queue), [1, 2, 3, 4]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_turn_of_a_past_incarnation_releases_nothing() {
        let mut past = ReleaseQueue::default();
        past.push_pending(vec![0]);
        let late = past.push_pending(vec![1]);
        let mut queue = ReleaseQueue::default();
        queue.push_pending(vec![9]);
        queue.mark_durable(late);
        assert_eq!(drain(&mut queue), [0; 0]);
    }
}
