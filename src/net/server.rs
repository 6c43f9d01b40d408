//! A server as its owner sees it: addresses, counts, closing. What its listeners do is decided by the
//! task model ([`serve`](super::serve)) or by the transports above.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::atomics::{AtomicBool, AtomicU64, Ordering};

/// A running server: one listener for each loop and address. Clones are the same server.
///
/// Dropping it changes nothing: the server serves until [`close`](Server::close) or the end of its
/// runtime.
#[derive(Clone)]
pub struct Server {
    core: Arc<ServerCore>,
}

/// What a server has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerStats {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections open now.
    pub open: u64,
    /// Connections that have ended.
    pub closed: u64,
    /// Errors of accept, apart from "nothing is waiting".
    pub accept_errors: u64,
    /// Times a listener paused, for want of descriptors or at the limit of connections.
    pub accept_pauses: u64,
    /// Listeners that still accept.
    pub listeners: u64,
}

impl Server {
    pub(crate) fn new(core: Arc<ServerCore>) -> Self {
        Server { core }
    }

    /// The addresses really bound, one for each address asked for.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.core.addrs
    }

    /// The first address bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.core.addrs[0]
    }

    /// What it has done so far.
    pub fn stats(&self) -> ServerStats {
        self.core.stats()
    }

    /// Stops accepting: what is in the accept queues is still taken, then the listeners are closed.
    /// Open connections go on. From any thread, returns at once; closing twice does nothing.
    pub fn close(&self) {
        self.core.close();
    }

    /// Blocks this thread until the listeners are closed and no connection is open, or until `limit`
    /// is over; true in the first case. Not for use on a loop: it would wait for itself.
    pub fn wait_idle(&self, limit: Duration) -> bool {
        self.core.wait_idle(limit)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("addrs", &self.core.addrs)
            .field("stats", &self.stats())
            .finish()
    }
}

/// Tells one listener to close.
type Closer = Box<dyn FnOnce() + Send>;

/// What the listeners and connections of one server share.
pub(crate) struct ServerCore {
    addrs: Vec<SocketAddr>,
    max_connections: u64,
    /// Set by `close` (Release), read by listeners (Acquire).
    closing: AtomicBool,
    accepted: AtomicU64,
    accept_errors: AtomicU64,
    accept_pauses: AtomicU64,
    live: Mutex<Live>,
    idle: Condvar,
}

struct Live {
    open: u64,
    /// Places kept for connections that are being accepted, if there is a limit.
    reserved: u64,
    closed: u64,
    listeners: u64,
    closers: Vec<Closer>,
}

impl ServerCore {
    pub(crate) fn new(addrs: Vec<SocketAddr>, max_connections: usize) -> Arc<Self> {
        Arc::new(ServerCore {
            addrs,
            max_connections: max_connections as u64,
            closing: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
            accept_errors: AtomicU64::new(0),
            accept_pauses: AtomicU64::new(0),
            live: Mutex::new(Live {
                open: 0,
                reserved: 0,
                closed: 0,
                listeners: 0,
                closers: Vec::new(),
            }),
            idle: Condvar::new(),
        })
    }

    /// Counts a listener in, until the guard is dropped.
    pub(crate) fn add_listener(self: &Arc<Self>) -> ListenerGuard {
        self.lock().listeners += 1;
        ListenerGuard(Arc::clone(self))
    }

    /// Has `closer` called when the server closes: at once, if it does so already.
    pub(crate) fn on_close(&self, closer: Closer) {
        let mut live = self.lock();
        if !self.is_closing() {
            return live.closers.push(closer);
        }
        drop(live);
        closer();
    }

    /// Keeps a place for the connection about to be accepted; `None` at the limit of connections.
    /// Asked before accepting, for several loops accept at the same time. A server that closes
    /// serves those who have come already, whatever the limit.
    pub(crate) fn reserve(self: &Arc<Self>) -> Option<Place> {
        let is_limited = self.max_connections != usize::MAX as u64;
        if is_limited {
            let mut live = self.lock();
            if live.open + live.reserved >= self.max_connections && !self.is_closing() {
                return None;
            }
            live.reserved += 1;
        }
        Some(Place {
            core: Arc::clone(self),
            is_limited,
        })
    }

    pub(crate) fn is_full(&self) -> bool {
        self.max_connections != usize::MAX as u64 && self.lock().open >= self.max_connections
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    pub(crate) fn count_error(&self) {
        self.accept_errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_pause(&self) {
        self.accept_pauses.fetch_add(1, Ordering::Relaxed);
    }

    fn close(&self) {
        let mut live = self.lock();
        self.closing.store(true, Ordering::Release);
        let closers = std::mem::take(&mut live.closers);
        drop(live);
        for closer in closers {
            closer();
        }
    }

    fn wait_idle(&self, limit: Duration) -> bool {
        let is_busy = |live: &mut Live| live.listeners > 0 || live.open > 0;
        let waited = self.idle.wait_timeout_while(self.lock(), limit, is_busy);
        let (_live, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        !timeout.timed_out()
    }

    fn stats(&self) -> ServerStats {
        let live = self.lock();
        ServerStats {
            accepted: self.accepted.load(Ordering::Relaxed),
            open: live.open,
            closed: live.closed,
            accept_errors: self.accept_errors.load(Ordering::Relaxed),
            accept_pauses: self.accept_pauses.load(Ordering::Relaxed),
            listeners: live.listeners,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn announce_if_idle(&self, live: &Live) {
        if live.listeners == 0 && live.open == 0 {
            self.idle.notify_all();
        }
    }
}

impl fmt::Debug for ServerCore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCore")
            .field("addrs", &self.addrs)
            .finish_non_exhaustive()
    }
}

/// One listener of a server.
#[derive(Debug)]
pub(crate) struct ListenerGuard(Arc<ServerCore>);

impl Drop for ListenerGuard {
    fn drop(&mut self) {
        let mut live = self.0.lock();
        live.listeners -= 1;
        self.0.announce_if_idle(&live);
    }
}

/// Room for one connection more; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    core: Arc<ServerCore>,
    /// Without a limit nothing is counted.
    is_limited: bool,
}

impl Place {
    /// Counts a connection in, until the guard is dropped.
    pub(crate) fn open(self) -> OpenGuard {
        self.core.accepted.fetch_add(1, Ordering::Relaxed);
        self.core.lock().open += 1;
        OpenGuard(Arc::clone(&self.core))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_limited {
            self.core.lock().reserved -= 1;
        }
    }
}

/// One open connection of a server.
#[derive(Debug)]
pub(crate) struct OpenGuard(Arc<ServerCore>);

impl Drop for OpenGuard {
    fn drop(&mut self) {
        let mut live = self.0.lock();
        live.open -= 1;
        live.closed += 1;
        self.0.announce_if_idle(&live);
    }
}
