//! Asking the audit log for an entry, and waiting until it is durable.

use std::time::Duration;

use fleetd_actors::address::Address;
use fleetd_actors::audit::{Call, Input};
use fleetd_sync_core::audit::Outcome;
use fleetd_sync_core::id::OperationId;
use tokio::sync::oneshot;

use crate::node::Node;

/// Time in which an entry must be durable.
const NOTED_TIMEOUT: Duration = Duration::from_secs(10);

/// The audit log has not taken an entry; what it was to tell of is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the audit log takes no entry now, and without one nothing is changed")]
pub struct UnauditedError;

/// A call that is about to act, or acts: its intent is durable. When this is dropped before the call is concluded,
/// the audit log finds out later how it ended.
#[derive(Debug)]
pub struct Intent {
    number: u64,
    audit: Address<Input>,
    is_concluded: bool,
}

impl Drop for Intent {
    fn drop(&mut self) {
        if !self.is_concluded {
            self.audit.send(Input::Leave { intent: self.number });
        }
    }
}

impl Node {
    /// Notes that a call is about to act.
    ///
    /// # Errors
    /// [`UnauditedError`]: it may not act then.
    pub async fn intend(&self, call: Call, request_id: String) -> Result<Intent, UnauditedError> {
        let audit = self.actors.audit.clone();
        // An answer that nobody takes is dropped, and leaves with that.
        let intent = move |number| Intent { number, audit, is_concluded: false };
        self.noted(intent, |operation| Input::Intend { operation, call, request_id }).await
    }

    /// Notes how a call has ended, and what it turned out to be about.
    ///
    /// # Errors
    /// [`UnauditedError`]: the log will find out by itself.
    pub async fn conclude(
        &self,
        mut intent: Intent,
        subjects: Vec<String>,
        outcome: Outcome,
    ) -> Result<(), UnauditedError> {
        let number = intent.number;
        let conclude = |operation| Input::Conclude { operation, intent: number, subjects, outcome };
        self.noted(drop, conclude).await?;
        intent.is_concluded = true;
        Ok(())
    }

    /// Notes what is decided, and may be done then.
    ///
    /// # Errors
    /// [`UnauditedError`]: it may not be done then.
    pub async fn note(&self, call: Call, outcome: Outcome) -> Result<(), UnauditedError> {
        self.noted(drop, |operation| Input::Note { operation: Some(operation), call, outcome }).await
    }

    async fn noted<T: Send + 'static>(
        &self,
        answer: impl FnOnce(u64) -> T + Send + 'static,
        input: impl FnOnce(OperationId) -> Input,
    ) -> Result<T, UnauditedError> {
        let (reply, noted) = oneshot::channel();
        let operation = self.shared.audit_answers.open(Box::new(move |number| drop(reply.send(answer(number)))));
        self.actors.audit.send(input(operation));
        let answered = tokio::time::timeout(NOTED_TIMEOUT, noted).await;
        // A log that failed has lost what it was asked, and nobody will answer.
        self.shared.audit_answers.forget(operation);
        answered.ok().and_then(Result::ok).ok_or(UnauditedError)
    }
}
