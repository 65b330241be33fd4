//! Connections for which nobody has vouched: no request on them had a credential that counts yet.
//!
//! There may be so many of them, and so many from one source. One more is let in all the same, and the oldest goes in its
//! place: whoever holds all places with silence does not keep anybody out who has something to say.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// The connections.
#[derive(Debug)]
pub(crate) struct Strangers {
    all_max: usize,
    each_max: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    next: u64,
    by_age: BTreeMap<u64, (Option<IpAddr>, Arc<Notify>)>,
}

/// One connection's place among them. It is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Stranger {
    strangers: Arc<Strangers>,
    number: u64,
    leave: Arc<Notify>,
}

impl Strangers {
    pub(crate) fn new(all_max: usize, each_max: usize) -> Arc<Self> {
        Arc::new(Self { all_max: all_max.max(1), each_max: each_max.max(1), held: Mutex::default() })
    }

    /// Gives a new connection its place. Where there is none, the oldest of its source goes, or the oldest of all.
    pub(crate) fn admit(self: &Arc<Self>, source: Option<IpAddr>) -> Stranger {
        let leave = Arc::new(Notify::new());
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let of_source = || held.by_age.iter().filter(|(_, (other, _))| *other == source);
        let oldest = if of_source().count() >= self.each_max {
            of_source().next().map(|(number, _)| *number)
        } else if held.by_age.len() >= self.all_max {
            held.by_age.keys().next().copied()
        } else {
            None
        };
        if let Some((_, leave)) = oldest.and_then(|number| held.by_age.remove(&number)) {
            leave.notify_one();
        }
        let number = held.next;
        held.next += 1;
        held.by_age.insert(number, (source, Arc::clone(&leave)));
        drop(held);
        Stranger { strangers: Arc::clone(self), number, leave }
    }
}

impl Stranger {
    /// Somebody vouches for the connection: it is no stranger's any more.
    pub(crate) fn vouch(&self) {
        let mut held = self.strangers.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.by_age.remove(&self.number);
    }

    /// Ends when the connection must go.
    pub(crate) async fn must_leave(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.vouch();
    }
}
