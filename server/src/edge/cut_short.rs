//! Answers that end before their own end: at their caller's deadline, or once its credential counts no more. A stream may go
//! on for days.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, Request};
use hyper::body::{Body as HttpBody, Frame};
use tokio::time::sleep;
use tonic::Status;

use super::deadline::{Deadline, passed};

/// Looks again whether a caller's credential counts. A request carries it to where its answer is made.
#[derive(Clone)]
pub(crate) struct Credential {
    /// How often it is looked at.
    pub(crate) interval: Duration,
    /// Why it counts no more.
    pub(crate) check: Arc<dyn Fn() -> Result<(), Status> + Send + Sync>,
}

impl Credential {
    /// Waits until it counts no more.
    async fn refused(&self) -> Status {
        loop {
            sleep(self.interval).await;
            if let Err(status) = (self.check)() {
                return status;
            }
        }
    }
}

/// Ends an answer of gRPC when it is time, however much of it is still to come.
pub(crate) async fn keep(request: Request<Body>, next: Next) -> Response {
    let deadline = request.extensions().get::<Deadline>().map(|deadline| sleep(deadline.0));
    let credential = request.extensions().get::<Credential>().cloned();
    let end = Box::pin(async move {
        let late = async {
            match deadline {
                Some(deadline) => deadline.await,
                None => pending().await,
            }
            passed()
        };
        let refused = async {
            match credential {
                Some(credential) => credential.refused().await,
                None => pending().await,
            }
        };
        tokio::select! {
            status = late => status,
            status = refused => status,
        }
    });
    next.run(request).await.map(|body| Body::new(Kept { body: Some(body), end }))
}

/// A body until its end comes; then the trailers that say why.
struct Kept<E> {
    body: Option<Body>,
    end: Pin<Box<E>>,
}

impl<E: Future<Output = Status>> HttpBody for Kept<E> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(body) = self.body.as_mut() else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(context) {
            return Poll::Ready(frame);
        }
        let Poll::Ready(status) = self.end.as_mut().poll(context) else { return Poll::Pending };
        // With the body goes the call: whoever made it ready for this caller stops.
        self.body = None;
        let mut trailers = HeaderMap::new();
        let added = status.add_header(&mut trailers);
        Poll::Ready(Some(added.map(|()| Frame::trailers(trailers)).map_err(axum::Error::new)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }
}
