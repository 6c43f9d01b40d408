//! A server as its owner sees it: addresses, counts, starting and ending. What its listeners do is in
//! [`listener`](super::listener); what becomes of a connection is decided by the task model
//! ([`serve`](super::serve)) or by the transports above.
//!
//! ```text
//!   bound ──start_serving()──> serving ──close()──> closing ──accept queues empty──> closed
//!     └──────────────────close()────────────────────────────────────────────────────^
//! ```

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use event_listener::{Event, EventListener, Listener};

use crate::atomics::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::error::NetError;
use crate::net::accept::AcceptErrors;
use crate::net::listen::{Bound, Common};
use crate::net::name::SocketName;
use crate::net::placement::Share;

/// A running server: one listener for each loop and address. Clones are the same server, on any
/// thread.
///
/// Dropping it changes nothing: the server serves until [`close`](Server::close) or the end of its
/// runtime; [`scope`](Server::scope) ties it to a piece of code.
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
    /// Errors of accept, apart from "nothing is waiting": the sum of [`Server::accept_errors`].
    pub accept_errors: u64,
    /// Times a listener paused, for want of descriptors or at the limit of connections.
    pub accept_pauses: u64,
    /// Connections that the loop which accepted them gave to one that had fewer.
    pub handed_over: u64,
    /// Connections that were offered to another loop and taken back, for that one did not come to
    /// them in time: it is stuck, or the machine is busy.
    pub taken_back: u64,
    /// Listeners that are not closed.
    pub listeners: u64,
}

impl Server {
    /// A server whose listeners are known to `core`; serving, if it is to serve at once.
    pub(crate) fn of(core: Arc<ServerCore>, common: Common) -> Result<Self, NetError> {
        let server = Server { core };
        if common.start_serving {
            server.start_serving()?;
        }
        Ok(server)
    }

    /// The addresses really bound, one for each address asked for. Still known when they are closed;
    /// none for a server of Unix sockets.
    #[doc(alias = "sockets")]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.core.addrs
    }

    /// The first address bound.
    ///
    /// # Panics
    /// For a server of Unix sockets, which has a [`local_name`](Server::local_name) only.
    pub fn local_addr(&self) -> SocketAddr {
        let first = self.core.addrs.first();
        *first.expect("a server of Unix sockets has no address")
    }

    /// What the first socket is called: its address, or the socket file of a server of Unix sockets.
    pub fn local_name(&self) -> &SocketName {
        &self.core.names[0]
    }

    /// What it has done so far.
    pub fn stats(&self) -> ServerStats {
        self.core.stats()
    }

    /// How often accepting failed, by the error number of the system; in the order of the numbers.
    pub fn accept_errors(&self) -> Vec<(i32, u64)> {
        self.core.accept_errors.by_number()
    }

    /// Whether new connections are accepted: not before [`start_serving`](Server::start_serving), and
    /// not from [`close`](Server::close) on.
    pub fn is_serving(&self) -> bool {
        let live = self.core.lock();
        live.phase == Phase::Serving && live.listeners > 0
    }

    /// Begins to listen, if it was made with `start_serving(false)`. Returns once it listens; while it
    /// serves already it does nothing.
    ///
    /// # Errors
    /// The server is closed, its runtime is, or the system refuses; then nothing listens.
    pub fn start_serving(&self) -> Result<(), NetError> {
        let (starters, _not_over) = self.core.begin_serving()?;
        starters
            .into_iter()
            .try_for_each(|start| start(&self.core))
            .inspect_err(|_| self.close())?;
        self.core.listens();
        Ok(())
    }

    /// Begins to listen if need be, and serves until the server is closed, by whomever, and its last
    /// connection has ended: give that wait a [`timeout`](crate::timeout()), or end the connections by
    /// [`close_clients`](Server::close_clients).
    ///
    /// Dropping the future closes the server and leaves its connections alone.
    ///
    /// # Errors
    /// Those of [`start_serving`](Server::start_serving), and a second call while one is waiting.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # let runtime = garland::Builder::new().loops(1).build()?;
    /// let listen: garland::ListenOptions = "127.0.0.1:0".parse()?;
    /// let server = runtime.handle().serve(listen, |_stream| async {})?;
    /// let closer = server.clone();
    /// runtime.local().call_later(Duration::from_millis(1), move || closer.close());
    /// runtime.block_on(server.serve_forever())??;
    /// assert!(!server.is_serving());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn serve_forever(&self) -> Result<(), NetError> {
        let _turn = ForeverGuard::enter(self)?;
        self.start_serving()?;
        self.wait_closed().await;
        Ok(())
    }

    /// Runs `body`, then closes the server and waits for its connections. Begins to listen if need
    /// be. Dropping the future closes the server.
    ///
    /// # Errors
    /// Those of [`start_serving`](Server::start_serving); then `body` is dropped.
    #[doc(alias = "__aexit__")]
    pub async fn scope<F: Future>(&self, body: F) -> Result<F::Output, NetError> {
        let closing = CloseGuard(self);
        self.start_serving()?;
        let output = body.await;
        drop(closing);
        self.wait_closed().await;
        Ok(output)
    }

    /// Stops accepting: what is in the accept queues is still taken, then the listeners are closed.
    /// Open connections go on. From any thread, returns at once; closing twice does nothing.
    pub fn close(&self) {
        self.core.close();
    }

    /// Closes every connection that is open now: what they have buffered is still sent. New ones are
    /// accepted as before. From any thread, returns at once.
    ///
    /// A task of [`serve`](crate::LoopHandle::serve) has no buffer that outlives it, so it ends as by
    /// [`abort_clients`](Server::abort_clients).
    pub fn close_clients(&self) {
        self.core.end_clients(EndClients::Close);
    }

    /// Ends every connection that is open now; what they have buffered is thrown away. New ones are
    /// accepted as before. From any thread, returns at once.
    ///
    /// A task of [`serve`](crate::LoopHandle::serve) is dropped where it waits, as by a cancel.
    pub fn abort_clients(&self) {
        self.core.end_clients(EndClients::Abort);
    }

    /// Waits until the server is closed and no connection is open. Any number of tasks may wait, on
    /// any loop or none; afterwards it returns at once. Dropping the future changes nothing.
    pub async fn wait_closed(&self) {
        if let Some(closed) = self.core.listen_until_closed() {
            closed.await;
        }
    }

    /// Blocks this thread until the server is closed and no connection is open, or until `limit` is
    /// over; true in the first case. Not for use on a loop: it would wait for itself.
    pub fn wait_idle(&self, limit: Duration) -> bool {
        let Some(closed) = self.core.listen_until_closed() else {
            return true;
        };
        // What is over stays over: one notice is enough.
        closed.wait_timeout(limit).is_some() || self.core.listen_until_closed().is_none()
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("names", &self.core.names)
            .field("stats", &self.stats())
            .finish()
    }
}

/// Closes the server at the end of a scope, however it ends.
struct CloseGuard<'a>(&'a Server);

impl Drop for CloseGuard<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The one `serve_forever` of a server.
struct ForeverGuard<'a>(&'a Server);

impl<'a> ForeverGuard<'a> {
    fn enter(server: &'a Server) -> Result<Self, NetError> {
        let mut live = server.core.lock();
        if live.serves_forever {
            return Err(server.core.misused("serve_forever() is waiting already"));
        }
        live.serves_forever = true;
        Ok(ForeverGuard(server))
    }
}

impl Drop for ForeverGuard<'_> {
    fn drop(&mut self) {
        self.0.core.lock().serves_forever = false;
        self.0.close();
    }
}

/// Makes the sockets of one loop listen.
type Starter = Box<dyn FnOnce(&Arc<ServerCore>) -> Result<(), NetError> + Send>;

/// Tells one listener to close.
type Closer = Box<dyn FnOnce() + Send>;

/// Ends the connections of a server, as its model does that.
type ClientEnder = Box<dyn Fn(&Arc<ServerCore>, EndClients) + Send + Sync>;

/// How connections are ended for their server's sake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndClients {
    Close,
    Abort,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Bound,
    /// Its listeners are on their way.
    Starting,
    Serving,
    Closing,
}

/// What the listeners and connections of one server share.
pub(crate) struct ServerCore {
    names: Vec<SocketName>,
    /// Those of the names that are addresses.
    addrs: Vec<SocketAddr>,
    max_connections: u64,
    /// Set by `close` (Release), read by listeners (Acquire).
    closing: AtomicBool,
    /// How often the clients were ended. Written by any thread (Release), read by the connections of
    /// the task model (Acquire), each of which remembers what it was at its beginning.
    clients_ended: AtomicU32,
    accepted: AtomicU64,
    accept_errors: AcceptErrors,
    accept_pauses: AtomicU64,
    handed_over: AtomicU64,
    taken_back: AtomicU64,
    /// Loops give connections to each other.
    pub(super) is_balancing: bool,
    end_clients: ClientEnder,
    live: Mutex<Live>,
    /// Notified when the last listener or connection is gone, and by `close`.
    idle: Event,
}

struct Live {
    phase: Phase,
    serves_forever: bool,
    open: u64,
    /// Places kept for connections that are being accepted, if there is a limit.
    reserved: u64,
    closed: u64,
    listeners: u64,
    starters: Vec<Starter>,
    closers: Vec<Closer>,
}

impl Live {
    fn is_over(&self) -> bool {
        self.phase != Phase::Bound && self.listeners == 0 && self.open == 0
    }
}

impl ServerCore {
    pub(crate) fn new(bound: &Bound, end_clients: ClientEnder) -> Arc<Self> {
        Arc::new(ServerCore {
            addrs: bound.names.iter().filter_map(SocketName::as_inet).collect(),
            names: bound.names.clone(),
            max_connections: bound.common.max_connections as u64,
            closing: AtomicBool::new(false),
            clients_ended: AtomicU32::new(0),
            accepted: AtomicU64::new(0),
            accept_errors: AcceptErrors::default(),
            accept_pauses: AtomicU64::new(0),
            handed_over: AtomicU64::new(0),
            taken_back: AtomicU64::new(0),
            is_balancing: bound.common.balance,
            end_clients,
            live: Mutex::new(Live {
                phase: Phase::Bound,
                serves_forever: false,
                open: 0,
                reserved: 0,
                closed: 0,
                listeners: 0,
                starters: Vec::new(),
                closers: Vec::new(),
            }),
            idle: Event::new(),
        })
    }

    /// Counts a listener in, until the guard is dropped.
    pub(crate) fn add_listener(self: &Arc<Self>) -> ListenerGuard {
        self.lock().listeners += 1;
        ListenerGuard(Arc::clone(self))
    }

    /// Has `starter` called when the server begins to serve. Only while the server is made.
    pub(crate) fn on_start(&self, starter: Starter) {
        self.lock().starters.push(starter);
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

    pub(crate) fn count_error(&self, error: &io::Error) {
        self.accept_errors.count(error);
    }

    pub(crate) fn count_pause(&self) {
        self.accept_pauses.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_hand_over(&self) {
        self.handed_over.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_taken_back(&self) {
        self.taken_back.fetch_add(1, Ordering::Relaxed);
    }

    /// Changes whenever the clients there are shall end.
    pub(crate) fn clients_ended(&self) -> u32 {
        self.clients_ended.load(Ordering::Acquire)
    }

    /// What makes it serve, and a guard as of a listener: until the listeners are there it must not
    /// seem to be over.
    fn begin_serving(self: &Arc<Self>) -> Result<(Vec<Starter>, ListenerGuard), NetError> {
        let mut live = self.lock();
        let starters = match live.phase {
            Phase::Bound => std::mem::take(&mut live.starters),
            Phase::Starting | Phase::Serving => Vec::new(),
            Phase::Closing => return Err(self.misused("the server is closed; make a new one")),
        };
        if live.phase == Phase::Bound {
            live.phase = Phase::Starting;
        }
        live.listeners += 1;
        Ok((starters, ListenerGuard(Arc::clone(self))))
    }

    /// The listeners are there.
    fn listens(&self) {
        let mut live = self.lock();
        if live.phase == Phase::Starting {
            live.phase = Phase::Serving;
        }
    }

    fn misused(&self, what: &'static str) -> NetError {
        let error = io::Error::new(io::ErrorKind::InvalidInput, what);
        NetError::new("serve on", &self.names[0], error)
    }

    fn close(&self) {
        let mut live = self.lock();
        self.closing.store(true, Ordering::Release);
        live.phase = Phase::Closing;
        let starters = std::mem::take(&mut live.starters);
        let closers = std::mem::take(&mut live.closers);
        self.announce(live);
        // Sockets that have never listened.
        drop(starters);
        for closer in closers {
            closer();
        }
    }

    fn end_clients(self: &Arc<Self>, how: EndClients) {
        self.clients_ended.fetch_add(1, Ordering::Release);
        (self.end_clients)(self, how);
    }

    /// `None` when the server is closed and nothing is open any more.
    fn listen_until_closed(&self) -> Option<EventListener> {
        if self.lock().is_over() {
            return None;
        }
        let closed = self.idle.listen();
        // It may have ended in between.
        (!self.lock().is_over()).then_some(closed)
    }

    fn stats(&self) -> ServerStats {
        let live = self.lock();
        ServerStats {
            accepted: self.accepted.load(Ordering::Relaxed),
            open: live.open,
            closed: live.closed,
            accept_errors: self.accept_errors.sum(),
            accept_pauses: self.accept_pauses.load(Ordering::Relaxed),
            handed_over: self.handed_over.load(Ordering::Relaxed),
            taken_back: self.taken_back.load(Ordering::Relaxed),
            listeners: live.listeners,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes those who wait for the end, if this is it; not under the lock.
    fn announce(&self, live: MutexGuard<'_, Live>) {
        let is_over = live.is_over();
        drop(live);
        if is_over {
            self.idle.notify(usize::MAX);
        }
    }
}

impl fmt::Debug for ServerCore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCore")
            .field("names", &self.names)
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
        self.0.announce(live);
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
    /// Counts a connection in, until the guard is dropped, as one of this share.
    pub(crate) fn open(self, share: &Arc<Share>) -> OpenGuard {
        self.core.accepted.fetch_add(1, Ordering::Relaxed);
        self.core.lock().open += 1;
        share.open.fetch_add(1, Ordering::Relaxed);
        OpenGuard(Arc::clone(share))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_limited {
            self.core.lock().reserved -= 1;
        }
    }
}

/// One open connection of a server. As small as a reference, for every connection has one.
#[derive(Debug)]
pub(crate) struct OpenGuard(Arc<Share>);

impl OpenGuard {
    pub(crate) fn server(&self) -> &Arc<ServerCore> {
        &self.0.core
    }

    /// Counts it for another loop.
    pub(crate) fn move_to(&mut self, share: &Arc<Share>) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        share.open.fetch_add(1, Ordering::Relaxed);
        self.0 = Arc::clone(share);
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        let mut live = self.server().lock();
        live.open -= 1;
        live.closed += 1;
        self.server().announce(live);
    }
}
