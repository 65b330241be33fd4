//! Ctrl-C: the first one stops waiting, and nothing else; a second one ends the process.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::error::CommandError;
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
        let told = async {
            if pressed.wait_for(|pressed| *pressed).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let mut told = pin!(told);
        // Those who wait are told one after another: one that is asked before its turn must know it all the same.
        poll_fn(|context| if *self.pressed.borrow() { Poll::Ready(()) } else { told.as_mut().poll(context) }).await;
    }

    /// Runs something that may listen itself, and then has the last word; what does not is dropped where it stands.
    ///
    /// # Errors
    /// Those of `running`, or that it was interrupted.
    pub async fn heeded_by<T>(
        &self,
        running: impl Future<Output = Result<T, CommandError>>,
    ) -> Result<T, CommandError> {
        let mut running = pin!(running);
        tokio::select! {
            biased;
            result = &mut running => return result,
            () = self.pressed() => {}
        }
        // The key may have been pressed after it was asked.
        tokio::select! {
            biased;
            result = &mut running => result,
            () = std::future::ready(()) => {
                Err(CommandError::new("interrupted", "interrupted").exit(Exit::Interrupted))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ends in words of its own when the key is pressed.
    async fn listening(interrupt: Interrupt) -> Result<(), CommandError> {
        interrupt.pressed().await;
        Err(CommandError::new("interrupted", "it goes on").exit(Exit::Interrupted))
    }

    #[tokio::test]
    async fn whoever_listens_has_the_last_word_whoever_is_told_first() {
        let (key, pressed) = watch::channel(false);
        let interrupt = Interrupt { pressed };
        let mut running = pin!(listening(interrupt.clone()));
        assert!(poll_fn(|context| Poll::Ready(running.as_mut().poll(context).is_pending())).await);
        // Pressed, and it has not been told yet.
        key.send_if_modified(|pressed| {
            *pressed = true;
            false
        });
        assert_eq!(interrupt.heeded_by(running).await.unwrap_err().message, "it goes on");
    }

    #[tokio::test]
    async fn whoever_listens_has_the_last_word_when_the_key_is_pressed_just_after_it_was_asked() {
        let (key, pressed) = watch::channel(false);
        let interrupt = Interrupt { pressed };
        let mut running = pin!(listening(interrupt.clone()));
        let asked_too_early = poll_fn(|context| {
            let polled = running.as_mut().poll(context);
            key.send_replace(true);
            polled
        });
        assert_eq!(interrupt.heeded_by(asked_too_early).await.unwrap_err().message, "it goes on");
    }

    #[tokio::test]
    async fn what_does_not_listen_is_dropped() {
        let (key, pressed) = watch::channel(false);
        key.send_replace(true);
        let error = Interrupt { pressed }.heeded_by(std::future::pending::<Result<(), _>>()).await.unwrap_err();
        assert_eq!((error.message.as_str(), error.exit), ("interrupted", Exit::Interrupted));
    }
}
