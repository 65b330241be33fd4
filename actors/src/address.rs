//! Where an actor's inputs go, whatever engine runs it.

use std::fmt;
use std::sync::Arc;

/// Called once when an input has been taken from the mailbox, or was dropped with it: a connection's credit comes
/// back this way, and is never lost.
pub struct Taken(Option<Box<dyn FnOnce() + Send>>);

impl Taken {
    /// Calls `back` when it is dropped.
    #[must_use]
    pub fn new(back: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(back)))
    }
}

impl fmt::Debug for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Taken")
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(back) = self.0.take() {
            back();
        }
    }
}

type Deliver<I> = dyn Fn(I, Option<Taken>) + Send + Sync;

/// An actor's address: sending to it never blocks and never fails. What is sent to an actor that is being restarted
/// may be dropped with its queue; whoever needs an answer asks again after a deadline.
pub struct Address<I> {
    deliver: Arc<Deliver<I>>,
}

impl<I> Clone for Address<I> {
    fn clone(&self) -> Self {
        Self { deliver: Arc::clone(&self.deliver) }
    }
}

impl<I> fmt::Debug for Address<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Address")
    }
}

impl<I: 'static> Address<I> {
    /// Makes an address from the function that delivers.
    #[must_use]
    pub fn new(deliver: impl Fn(I, Option<Taken>) + Send + Sync + 'static) -> Self {
        Self { deliver: Arc::new(deliver) }
    }

    /// Sends an input.
    pub fn send(&self, input: I) {
        (self.deliver)(input, None);
    }

    /// Sends an input and learns when the actor has taken it.
    pub fn send_then(&self, input: I, taken: Taken) {
        (self.deliver)(input, Some(taken));
    }

    /// Gives an address for something that becomes an input here.
    #[must_use]
    pub fn map<J: 'static>(&self, into: impl Fn(J) -> I + Send + Sync + 'static) -> Address<J> {
        let deliver = Arc::clone(&self.deliver);
        Address::new(move |input, taken| deliver(into(input), taken))
    }
}
