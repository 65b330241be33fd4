//! How a set stands, in a line: how far the oldest running seed is, how fast all of them are, and when they end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fleetd_simulator::run::{Outcome, Progress};

/// How a set stands.
#[derive(Debug)]
pub(super) struct Standing {
    begin: Instant,
    asked: usize,
    done: usize,
    events: u64,
    faults: usize,
    marks: usize,
    running: BTreeMap<usize, Progress>,
}

impl Standing {
    pub(super) fn new(asked: usize) -> Self {
        let (begin, running) = (Instant::now(), BTreeMap::new());
        Self { begin, asked, done: 0, events: 0, faults: 0, marks: 0, running }
    }

    pub(super) fn progress(&mut self, number: usize, progress: Progress) {
        self.marks = self.marks.max(progress.marks);
        self.running.insert(number, progress);
    }

    pub(super) fn ended(&mut self, number: usize, outcome: Option<&Outcome>) {
        self.running.remove(&number);
        self.done += 1;
        if let Some(outcome) = outcome {
            self.events += outcome.events;
            self.faults += outcome.faults.len();
            self.marks = self.marks.max(outcome.marks.len());
        }
    }

    /// The line, and how many seeds are done.
    pub(super) fn line(&self) -> (String, u64) {
        let elapsed = self.begin.elapsed();
        let running = self.running.values();
        let events = self.events + running.clone().map(|progress| progress.events).sum::<u64>();
        let faults = self.faults + running.clone().map(|progress| progress.faults).sum::<usize>();
        let a_second = u128::from(events) * 1000 / elapsed.as_millis().max(1);
        let mut parts = Vec::new();
        if let Some(oldest) = running.clone().next() {
            let [at, of] = [oldest.at_ms, oldest.of_ms].map(|milliseconds| span(Duration::from_millis(milliseconds)));
            parts.push(format!("vt {at}/{of}"));
        }
        parts.push(format!("{} ev/s", thousands(a_second)));
        if let Some(oldest) = running.clone().next() {
            parts.push(format!("{}/{} healthy", oldest.converged, oldest.devices));
        }
        parts.push(format!("faults {faults}"));
        parts.push(format!("marks {}", self.marks));
        if let Some(left) = self.left(elapsed) {
            parts.push(format!("eta {}", span(left)));
        }
        (parts.join(" | "), u64::try_from(self.done).unwrap_or(u64::MAX))
    }

    /// How long it will still take, if the rest is like what was.
    fn left(&self, elapsed: Duration) -> Option<Duration> {
        let part = |progress: &Progress| u128::from(progress.at_ms) * 1000 / u128::from(progress.of_ms.max(1));
        let done = self.done as u128 * 1000 + self.running.values().map(part).sum::<u128>();
        let left = (self.asked as u128 * 1000).saturating_sub(done);
        let milliseconds = (elapsed.as_millis() * left).checked_div(done)?;
        Some(Duration::from_millis(u64::try_from(milliseconds).ok()?))
    }
}

/// A span in its two largest units (`1h 5m`).
fn span(span: Duration) -> String {
    let text = humantime::format_duration(Duration::from_secs(span.as_secs())).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join("")
}

fn thousands(count: u128) -> String {
    if count < 10_000 { count.to_string() } else { format!("{}k", count / 1000) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_the_oldest_running_seed_and_the_sum_of_all() {
        let mut standing = Standing::new(4);
        let progress = |at_ms, events| Progress {
            at_ms,
            of_ms: 7_200_000,
            events,
            devices: 30,
            converged: 28,
            faults: 5,
            marks: 2,
        };
        standing.progress(1, progress(3_600_000, 100));
        standing.progress(2, progress(60_000, 50));
        let (line, done) = standing.line();
        assert!(line.starts_with("vt 1h/2h | "), "{line}");
        assert!(line.contains("28/30 healthy | faults 10 | marks 2"), "{line}");
        assert_eq!(done, 0);
        standing.ended(1, None);
        assert_eq!(standing.line().1, 1);
        assert!(standing.line().0.starts_with("vt 1m/2h"));
    }

    #[test]
    fn what_is_left_follows_from_what_was() {
        let mut standing = Standing::new(4);
        assert_eq!(standing.left(Duration::from_secs(10)), None, "nothing was yet");
        standing.ended(0, None);
        assert_eq!(standing.left(Duration::from_secs(10)), Some(Duration::from_secs(30)));
    }
}
