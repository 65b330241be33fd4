//! How the demo tells what happens: a story for people, one object a line for programs.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde_json::{Value, json};

use super::step::Step;
use crate::output::{LiveLine, Output};

/// The story so far.
#[derive(Debug)]
pub(super) struct Story<'a> {
    output: &'a Output,
    begun: Instant,
    scene: Mutex<Scene>,
}

/// What is being told.
#[derive(Debug)]
struct Scene {
    step: Step,
    begun: Instant,
    awaited: String,
}

impl<'a> Story<'a> {
    pub(super) fn new(output: &'a Output) -> Self {
        let begun = Instant::now();
        let scene = Scene { step: Step::Serve, begun, awaited: String::new() };
        Self { output, begun, scene: Mutex::new(scene) }
    }

    /// Opens a step.
    pub(super) fn open(&self, step: Step) {
        *self.scene() = Scene { step, begun: Instant::now(), awaited: step.title().to_owned() };
        self.write(&json!({ "step": step.name(), "event": "begun", "text": step.title() }), || {
            format!("\n{}\n  {}", console::style(step.name()).bold(), step.title())
        });
    }

    /// Closes the step.
    pub(super) fn close(&self) {
        let (step, seconds) = {
            let scene = self.scene();
            (scene.step, scene.begun.elapsed().as_secs_f64())
        };
        self.write(&json!({ "step": step.name(), "event": "seen", "seconds": seconds }), || {
            format!("  {} seen after {seconds:.1} s", console::style("ok").green())
        });
    }

    /// Tells one thing that happened.
    pub(super) fn tell(&self, text: &str) {
        let step = self.scene().step;
        self.write(&json!({ "step": step.name(), "event": "told", "text": text }), || format!("    {text}"));
    }

    /// Ends the story.
    pub(super) fn end(&self, text: &str) {
        let seconds = self.begun.elapsed().as_secs_f64();
        self.write(&json!({ "event": "ended", "seconds": seconds, "text": text }), || format!("\n{text}"));
    }

    /// Says what is waited for, so that a wait in vain can name it.
    pub(super) fn awaits(&self, what: impl Into<String>) {
        self.scene().awaited = what.into();
    }

    /// What is waited for.
    pub(super) fn awaited(&self) -> String {
        self.scene().awaited.clone()
    }

    /// A line at the bottom of a terminal.
    pub(super) fn live_line(&self) -> LiveLine {
        self.output.live_line()
    }

    fn write(&self, json: &Value, text: impl FnOnce() -> String) {
        // A reader that has gone does not stop the story: it still ends as it must, and cleans up.
        let _ = self.output.answer(json, text);
    }

    fn scene(&self) -> std::sync::MutexGuard<'_, Scene> {
        // A scene is replaced in one step, so a panic elsewhere leaves it whole.
        self.scene.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
