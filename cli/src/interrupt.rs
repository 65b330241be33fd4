//! Ctrl-C: the first one stops waiting, and nothing else; a second one ends the process.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::exit::Exit;

/// Knows whether Ctrl-C was pressed.
#[derive(Clone, Debug)]
pub struct Interrupt {
    pressed: watch::Receiver<bool>,
}

impl Interrupt {
    /// Listens from now on. Where signals cannot be had, Ctrl-C keeps its usual effect: it ends the process.
    #[must_use]
    pub fn listen() -> Self {
        // Taken before anything else is done, so that no early Ctrl-C falls into the default.
        let Ok(mut signals) = signal(SignalKind::interrupt()) else { return Self::never() };
        let (sender, pressed) = watch::channel(false);
        tokio::spawn(async move {
            signals.recv().await;
            // The command may have ended, and then nobody needs to know.
            let _ = sender.send(true);
            signals.recv().await;
            std::process::exit(i32::from(Exit::Interrupted.code()));
        });
        Self { pressed }
    }

    /// One that nobody presses, for waiting without a terminal.
    #[must_use]
    pub fn never() -> Self {
        Self { pressed: watch::channel(false).1 }
    }

    /// Waits until it is pressed.
    pub async fn pressed(&self) {
        let mut pressed = self.pressed.clone();
        if pressed.wait_for(|pressed| *pressed).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
