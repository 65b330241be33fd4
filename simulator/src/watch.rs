//! Watching a run: single events, and what the actor that they happen to had in mind before and after.
//!
//! A watch changes nothing: a watched run has the same trace as one that nobody watches.

mod difference;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fleetd_sync_core::time::Monotonic;
use serde::{Deserialize, Serialize};

pub use self::difference::lines_changed;

/// Characters of an input's text that are shown: a frame of a megabyte says no more than its beginning.
const NOTE_CHARS_MAX: usize = 600;

/// One event, as it was watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Which one it was, counted from 1.
    pub number: u64,
    /// When, since the world began.
    pub at: Monotonic,
    /// When, since the fleet enrolled; nothing before.
    pub since_enrolled: Option<Duration>,
    /// To whom it happened.
    pub subject: String,
    /// What it was.
    pub what: String,
    /// What was said meanwhile: the input.
    pub notes: Vec<String>,
    /// What it changed in the actor's state, as lines that begin with `-` or `+`.
    pub changes: Vec<String>,
}

impl Seen {
    /// The event alone, without what it changed: what two runs are compared by.
    #[must_use]
    pub fn brief(&self) -> Brief {
        Brief { number: self.number, at_ns: self.at.0, subject: self.subject.clone(), what: self.what.clone() }
    }
}

/// An event, as two runs are compared by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brief {
    /// Which one it was, counted from 1.
    pub number: u64,
    /// When, since the world began, in nanoseconds.
    pub at_ns: u64,
    /// To whom it happened.
    pub subject: String,
    /// What it was.
    pub what: String,
}

impl fmt::Display for Brief {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = humantime::format_duration(Duration::from_nanos(self.at_ns));
        write!(f, "`{}` to {} at {at}", self.what, self.subject)
    }
}

/// Which events are watched.
#[derive(Clone, Debug)]
pub enum Selection {
    /// Those of one node.
    Node(String),
    /// Those with these numbers, whosever they are.
    Numbers(RangeInclusive<u64>),
}

type StateText = Box<dyn Fn() -> Option<String> + Send>;

struct Watching {
    selection: Selection,
    sink: Box<dyn FnMut(Seen) + Send>,
    states: BTreeMap<String, (StateText, String)>,
    open: Option<Seen>,
    enrolled: Option<Monotonic>,
}

/// Somebody who watches a run, or nobody. Clones are the same.
#[derive(Clone, Default)]
pub struct Watch {
    watching: Option<Arc<Mutex<Watching>>>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.watching.is_some() { "Watch(somebody)" } else { "Watch(nobody)" })
    }
}

impl Watch {
    /// Shows `sink` every event of a selection.
    #[must_use]
    pub fn new(selection: Selection, sink: impl FnMut(Seen) + Send + 'static) -> Self {
        let watching =
            Watching { selection, sink: Box::new(sink), states: BTreeMap::new(), open: None, enrolled: None };
        Self { watching: Some(Arc::new(Mutex::new(watching))) }
    }

    /// The node whose events are watched.
    pub(crate) fn node(&self) -> Option<String> {
        match &self.lock()?.selection {
            Selection::Node(node) => Some(node.clone()),
            Selection::Numbers(_) => None,
        }
    }

    /// Offers to tell an actor's state. One of the same name replaces it.
    pub(crate) fn offer(&self, subject: &str, state: impl Fn() -> Option<String> + Send + 'static) {
        let Some(mut watching) = self.lock() else { return };
        if watching.is_of_node(subject) {
            watching.states.insert(subject.to_owned(), (Box::new(state), String::new()));
        }
    }

    /// The fleet has enrolled: the scenario's own time begins.
    pub(crate) fn set_enrolled(&self, at: Monotonic) {
        if let Some(mut watching) = self.lock() {
            watching.enrolled = Some(at);
        }
    }

    /// An event begins.
    pub(crate) fn begin(&self, number: u64, at: Monotonic, subject: &str, what: &[u8]) {
        let Some(mut watching) = self.lock() else { return };
        let is_selected = match &watching.selection {
            Selection::Node(_) => watching.is_of_node(subject),
            Selection::Numbers(numbers) => numbers.contains(&number),
        };
        let since_enrolled = watching.enrolled.map(|enrolled| at.since(enrolled));
        watching.open = is_selected.then(|| Seen {
            number,
            at,
            since_enrolled,
            subject: subject.to_owned(),
            what: readable(what),
            notes: Vec::new(),
            changes: Vec::new(),
        });
    }

    /// Says more of the event that happens now.
    pub(crate) fn note(&self, text: impl FnOnce() -> String) {
        let Some(mut watching) = self.lock() else { return };
        if let Some(seen) = watching.open.as_mut() {
            seen.notes.push(shortened(&text()));
        }
    }

    /// The event is over.
    pub(crate) fn end(&self) {
        let Some(mut watching) = self.lock() else { return };
        let Some(mut seen) = watching.open.take() else { return };
        if let Some((state, before)) = watching.states.get_mut(&seen.subject)
            && let Some(after) = state()
        {
            // The first look is where the story begins: all of the state would hide it.
            if !before.is_empty() {
                seen.changes = lines_changed(before, &after);
            }
            *before = after;
        }
        (watching.sink)(seen);
    }

    /// Tells of something that is no event of the queue: a fault, or what an operator does.
    pub(crate) fn remark(&self, number: u64, at: Monotonic, subject: &str, what: &str) {
        let Some(mut watching) = self.lock() else { return };
        if matches!(watching.selection, Selection::Node(_)) {
            let (subject, what) = (subject.to_owned(), what.to_owned());
            let since_enrolled = watching.enrolled.map(|enrolled| at.since(enrolled));
            (watching.sink)(Seen { number, at, since_enrolled, subject, what, notes: Vec::new(), changes: Vec::new() });
        }
    }

    fn lock(&self) -> Option<MutexGuard<'_, Watching>> {
        self.watching.as_ref().map(|watching| watching.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Watching {
    fn is_of_node(&self, subject: &str) -> bool {
        let Selection::Node(node) = &self.selection else { return false };
        subject.strip_prefix(node.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// What an event is called: words as they are, hashes in hex.
fn readable(what: &[u8]) -> String {
    match str::from_utf8(what) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => what.iter().take(8).map(|byte| format!("{byte:02x}")).collect(),
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(NOTE_CHARS_MAX) {
        Some((end, _)) => format!("{}… ({} bytes)", text.split_at(end).0, text.len()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::World;

    fn watched(selection: Selection) -> Vec<String> {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&seen);
        let world = World::watched(1, Watch::new(selection, move |event| kept.lock().unwrap().push(event)));
        for subject in ["device-1/agent", "device-10", "device-1", "server"] {
            world.schedule(Duration::ZERO, subject, b"input", || {});
        }
        world.run_for(Duration::from_secs(1));
        let seen = seen.lock().unwrap();
        seen.iter().map(|event| format!("{} {} {}", event.number, event.subject, event.what)).collect()
    }

    #[test]
    fn one_node_is_watched_and_no_other_whose_name_begins_alike() {
        assert_eq!(watched(Selection::Node("device-1".to_owned())), ["1 device-1/agent input", "3 device-1 input"]);
        assert_eq!(watched(Selection::Numbers(2..=3)), ["2 device-10 input", "3 device-1 input"]);
    }

    #[test]
    fn an_actor_is_shown_by_what_changed_in_it() {
        let changes = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&changes);
        let selection = Selection::Node("device-1".to_owned());
        let world = World::watched(1, Watch::new(selection, move |event| kept.lock().unwrap().push(event.changes)));
        let state = Arc::new(Mutex::new(0));
        let told = Arc::clone(&state);
        world
            .watch()
            .offer("device-1/agent", move || Some(format!("Agent {{\n    count: {},\n}}", told.lock().unwrap())));
        for count in [1, 1, 2] {
            let state = Arc::clone(&state);
            world.schedule(Duration::ZERO, "device-1/agent", b"input", move || *state.lock().unwrap() = count);
        }
        world.run_for(Duration::from_secs(1));
        let changes = changes.lock().unwrap();
        assert_eq!(*changes, [vec![], vec![], vec!["-    count: 1,".to_owned(), "+    count: 2,".to_owned()]]);
    }

    #[test]
    fn hashes_are_shown_in_hex() {
        assert_eq!(readable(b"wake"), "wake");
        assert_eq!(readable(&[0xff; 32]), "ffffffffffffffff");
    }
}
