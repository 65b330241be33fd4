//! Progress: a bar on a terminal, one plain line per change elsewhere.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Output, bytes};

/// Something that comes along.
#[derive(Debug)]
pub struct Progress {
    output: Output,
    what: String,
    bar: ProgressBar,
    total: u64,
    /// The tenth that was last written as a line.
    tenth: u64,
}

impl Progress {
    pub(super) fn start(output: Output, what: &str, total: u64) -> Self {
        let target = if output.is_live() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total), target).with_message(what.to_owned());
        if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {eta}") {
            bar.set_style(style);
        }
        Self { output, what: what.to_owned(), bar, total, tenth: 0 }
    }

    /// Says how far it has come.
    pub fn set(&mut self, done: u64) {
        self.bar.set_position(done);
        let tenth = done.saturating_mul(10).checked_div(self.total).unwrap_or(10);
        if tenth > self.tenth && !self.output.is_live() {
            self.tenth = tenth;
            self.output.note(&format!("{} {}/{}", self.what, bytes(done), bytes(self.total)));
        }
    }

    /// Ends it.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}

/// One line at the bottom of a terminal that says how things stand; elsewhere nothing.
#[derive(Debug)]
pub struct LiveLine {
    bar: ProgressBar,
}

impl LiveLine {
    pub(super) fn start(output: &Output) -> Self {
        let target = if output.is_live() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(1), target);
        if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} {wide_msg}") {
            bar.set_style(style);
        }
        Self { bar }
    }

    /// Says how things stand.
    pub fn set(&self, message: &str, done: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(done);
        self.bar.set_message(message.trim_end().to_owned());
    }

    /// Takes the line away while something else is written.
    pub fn suspend<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bar.suspend(write)
    }
}

impl Drop for LiveLine {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
