//! Requests on HTTP/1.1 that are answered before they have come whole: what is left of them is read and forgotten.
//!
//! Otherwise the connection would be closed while its client still writes, and many a client then tells of a broken pipe
//! and not of the answer that lies there for it. HTTP/2 has a word for it and needs none of this.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Version, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::runtime::Handle;
use tokio::time::timeout;

/// Bytes that are read of a request that has its answer: an artifact's last parts, which nobody needs any more.
const LEFT_BYTES_MAX: usize = 4 << 20;

/// Time for it.
const LEFT_TIMEOUT: Duration = Duration::from_secs(5);

/// Takes a request in.
pub(crate) fn taken(request: Request<Incoming>) -> Request<Body> {
    // Whoever waits to be told to go on is not told any more, and sends nothing.
    let lingers = request.version() < Version::HTTP_2 && !request.headers().contains_key(header::EXPECT);
    request.map(|body| if lingers { Body::new(Lingering(Some(body))) } else { Body::new(body) })
}

/// A body that is read to its end when it is dropped.
struct Lingering(Option<Incoming>);

impl HttpBody for Lingering {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.0.as_mut().map_or(Poll::Ready(None), |body| Pin::new(body).poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map(HttpBody::size_hint).unwrap_or_default()
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        let Some(body) = self.0.take().filter(|body| !body.is_end_stream()) else { return };
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(timeout(LEFT_TIMEOUT, forget(body)));
        }
    }
}

async fn forget(mut body: Incoming) {
    let mut left = LEFT_BYTES_MAX;
    while let Some(Ok(frame)) = body.frame().await {
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        if left == 0 {
            return;
        }
    }
}
