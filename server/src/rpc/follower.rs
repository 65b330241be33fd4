//! Following the store's feed: for streams that go on as long as their caller listens.

use std::sync::Arc;

use fleetd_sync_store::feed::Subscription;
use fleetd_sync_store::state_store::{Change, Cursor, FeedError, ReadError, StateStore};
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::call_error::CallError;
use crate::record::ReadRecordError;

/// Changes that are taken at once.
const FEED_CHANGES: usize = 256;
/// Messages that wait for a slow caller before its stream waits too.
const STREAM_MESSAGES: usize = 64;

/// A place in the feed that moves on with it.
pub(crate) struct Follower {
    store: Arc<dyn StateStore>,
    cursor: Cursor,
    woken: Arc<Notify>,
    _subscription: Subscription,
}

impl Follower {
    /// Starts at the feed's end: what is read from the store afterwards misses nothing.
    pub(crate) fn start(store: Arc<dyn StateStore>) -> Self {
        let woken = Arc::new(Notify::new());
        let waker = Arc::clone(&woken);
        let subscription = store.subscribe(Arc::new(move || waker.notify_one()));
        let cursor = store.feed_end();
        Self { store, cursor, woken, _subscription: subscription }
    }

    /// Waits for the next changes.
    ///
    /// # Errors
    /// [`FeedError::TooOld`]: some were missed; it stands at the feed's end again, and its owner scans.
    pub(crate) async fn next(&mut self) -> Result<Vec<Change>, FeedError> {
        loop {
            match self.store.feed(self.cursor, FEED_CHANGES) {
                Ok(feed) if feed.changes.is_empty() => self.woken.notified().await,
                Ok(feed) => {
                    self.cursor = feed.cursor;
                    return Ok(feed.changes);
                }
                Err(error) => {
                    self.cursor = self.store.feed_end();
                    return Err(error);
                }
            }
        }
    }
}

/// A stream of messages to one caller.
pub(crate) type Messages<T> = ReceiverStream<Result<T, Status>>;

/// Where a stream's messages are put. Sending fails when the caller has gone.
pub(crate) struct Outlet<T>(mpsc::Sender<Result<T, Status>>);

/// The caller has gone.
pub(crate) struct Gone;

impl<T> Outlet<T> {
    pub(crate) async fn send(&self, message: T) -> Result<(), Gone> {
        self.0.send(Ok(message)).await.map_err(|_| Gone)
    }

    /// Waits for the next changes, or for the caller to go.
    pub(crate) async fn next_changes(&self, follower: &mut Follower) -> Result<Result<Vec<Change>, FeedError>, Gone> {
        tokio::select! {
            biased;
            () = self.0.closed() => Err(Gone),
            changes = follower.next() => Ok(changes),
        }
    }
}

/// Why a stream ends before its own end.
pub(crate) enum StreamEnd {
    /// The caller has gone.
    Gone,
    /// It cannot go on.
    Failed(Status),
}

impl From<Gone> for StreamEnd {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl From<CallError> for StreamEnd {
    fn from(error: CallError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<ReadError> for StreamEnd {
    fn from(error: ReadError) -> Self {
        CallError::from(error).into()
    }
}

impl From<ReadRecordError> for StreamEnd {
    fn from(error: ReadRecordError) -> Self {
        CallError::from(error).into()
    }
}

/// Opens a stream that `fill` fills.
pub(crate) fn stream<T, F>(fill: impl FnOnce(Outlet<T>) -> F) -> Messages<T>
where
    T: Send + 'static,
    F: Future<Output = Result<(), StreamEnd>> + Send + 'static,
{
    let (sender, messages) = mpsc::channel(STREAM_MESSAGES);
    let filling = fill(Outlet(sender.clone()));
    tokio::spawn(async move {
        if let Err(StreamEnd::Failed(status)) = filling.await {
            // A caller who has gone needs no word.
            let _ = sender.send(Err(status)).await;
        }
    });
    ReceiverStream::new(messages)
}
