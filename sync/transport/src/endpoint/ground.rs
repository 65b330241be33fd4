//! What an endpoint stands on: sockets, time, names and tasks.
//!
//! The product stands on the operating system ([`OsGround`]), a simulator on its world. Everything in this module's
//! parent that waits does so on the ground's own timers ([`within`]), never on the runtime's: else a simulated endpoint
//! would have two clocks, and the runtime's would have to be moved along with the world's.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

/// Work in the background.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;
/// The addresses of a name, when they are known.
pub type Resolving<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'a>>;

/// What an endpoint stands on. The time and the timers are those of QUIC itself, [`quinn::Runtime`].
pub trait Ground: Runtime {
    /// Starts work in the background.
    fn start(&self, task: Task) -> AbortHandle;

    /// Binds a socket. The ground chooses the port where none is asked for.
    ///
    /// # Errors
    /// Those of the ground, when the address is taken or none of its own.
    fn bind(&self, address: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>>;

    /// Finds the addresses of `host:port`.
    fn resolve<'a>(&'a self, address: &'a str) -> Resolving<'a>;
}

/// Waits for something for at most `span`; nothing when that has passed first.
pub(super) async fn within<F: Future>(ground: &dyn Ground, span: Duration, future: F) -> Option<F::Output> {
    let now = ground.now();
    // A span beyond the end of time is as good as a day.
    let end = now.checked_add(span).unwrap_or(now + Duration::from_secs(24 * 60 * 60));
    let mut timer = ground.new_timer(end);
    let mut future = pin!(future);
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => timer.as_mut().poll(context).map(|()| None),
    })
    .await
}

/// The operating system, and a tokio runtime that waits for it.
#[derive(Clone)]
pub struct OsGround {
    runtime: Handle,
}

impl fmt::Debug for OsGround {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OsGround")
    }
}

impl OsGround {
    /// The operating system, with all work on `runtime`.
    #[must_use]
    pub const fn new(runtime: Handle) -> Self {
        Self { runtime }
    }
}

impl Ground for OsGround {
    fn start(&self, task: Task) -> AbortHandle {
        self.runtime.spawn(task).abort_handle()
    }

    fn bind(&self, address: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        self.wrap_udp_socket(UdpSocket::bind(address)?)
    }

    fn resolve<'a>(&'a self, address: &'a str) -> Resolving<'a> {
        Box::pin(async move { Ok(tokio::net::lookup_host(address).await?.collect()) })
    }
}

// quinn's own runtime needs a tokio runtime around each call, and a node calls from wherever it is.
impl Runtime for OsGround {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        let _runtime = self.runtime.enter();
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: Task) {
        self.runtime.spawn(future);
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let _runtime = self.runtime.enter();
        TokioRuntime.wrap_udp_socket(socket)
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}
