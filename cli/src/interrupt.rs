//! Ctrl-C: the first one stops waiting, and nothing else; a second one ends the process.

use tokio::sync::watch;

use crate::exit::Exit;

/// Knows whether Ctrl-C was pressed.
#[derive(Clone, Debug)]
pub struct Interrupt {
    pressed: watch::Receiver<bool>,
}

impl Interrupt {
    /// Listens from now on.
    #[must_use]
    pub fn listen() -> Self {
        let (sender, pressed) = watch::channel(false);
        tokio::spawn(async move {
            // Where signals cannot be had, Ctrl-C keeps its usual effect: it ends the process.
            if tokio::signal::ctrl_c().await.is_ok() {
                let _ = sender.send(true);
                let _ = tokio::signal::ctrl_c().await;
                std::process::exit(i32::from(Exit::Interrupted.code()));
            }
            std::future::pending::<()>().await;
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
