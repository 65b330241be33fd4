//! What a node's endpoint stands on in the world, in place of the operating system.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use fleetd_sync_transport::endpoint::{Ground, Resolving, Task};
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::network::UdpNetwork;
use super::timer::Timers;

/// Tasks that may be over before one looks which are.
const TASKS_KEPT: usize = 64;

/// What one start of a node has under way. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Tasks {
    inner: Arc<Mutex<TaskList>>,
}

#[derive(Debug, Default)]
struct TaskList {
    is_over: bool,
    handles: Vec<AbortHandle>,
    sweep_at: usize,
}

impl Tasks {
    /// Ends all of it, and whatever is begun later.
    pub(super) fn end(&self) {
        let handles = {
            let mut list = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            list.is_over = true;
            std::mem::take(&mut list.handles)
        };
        handles.iter().for_each(AbortHandle::abort);
    }

    fn add(&self, handle: &AbortHandle) {
        let mut list = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if list.is_over {
            handle.abort();
            return;
        }
        if list.handles.len() >= list.sweep_at.max(TASKS_KEPT) {
            list.handles.retain(|handle| !handle.is_finished());
            list.sweep_at = list.handles.len() * 2;
        }
        list.handles.push(handle.clone());
    }
}

/// The ground of one start of a node.
pub(super) struct NodeGround {
    pub(super) node: String,
    pub(super) network: UdpNetwork,
    pub(super) timers: Timers,
    pub(super) runtime: Handle,
    pub(super) tasks: Tasks,
}

impl fmt::Debug for NodeGround {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeGround({})", self.node)
    }
}

impl Ground for NodeGround {
    fn start(&self, task: Task) -> AbortHandle {
        let handle = self.runtime.spawn(task).abort_handle();
        self.tasks.add(&handle);
        handle
    }

    fn bind(&self, address: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        self.network.bind(&self.node, address)
    }

    fn resolve<'a>(&'a self, address: &'a str) -> Resolving<'a> {
        Box::pin(std::future::ready(self.network.resolve(address).map(|found| vec![found])))
    }
}

impl Runtime for NodeGround {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        Box::pin(self.timers.timer(at))
    }

    fn spawn(&self, future: Task) {
        self.start(future);
    }

    fn wrap_udp_socket(&self, _: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        // A socket of the operating system is no part of the world.
        Err(io::ErrorKind::Unsupported.into())
    }

    fn now(&self) -> Instant {
        self.timers.now()
    }
}
