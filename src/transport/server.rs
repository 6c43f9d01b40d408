//! `create_server` and `create_connection`: sockets that get a protocol.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::error::NetError;
use crate::net::accept::{ACCEPTS_PER_TURN, AcceptError, Backoff, FULL_PAUSE};
use crate::net::server::{ListenerGuard, OpenGuard, Server, ServerCore};
use crate::net::socket::{self, ListenOptions, ListenSocket};
use crate::net::{SocketName, TcpStream};
use crate::runtime::{IoHandler, IoKey, LocalLoop, LoopHandle, Ready};
use crate::transport::connection::Connection;
use crate::transport::protocol::Protocol;
use crate::transport::stream::Transport;

/// Makes the protocol of each connection of one loop.
type Factory = Rc<RefCell<dyn FnMut() -> Box<dyn Protocol>>>;

impl LoopHandle {
    /// Serves TCP in the callback model on every loop. `make` is called once on each loop and returns
    /// that loop's factory, which is called for each connection accepted there; neither the factory
    /// nor the protocols need be `Send`.
    ///
    /// Returns once it listens. A connection stays on the loop that accepted it.
    ///
    /// # Errors
    /// An address that cannot be bound; then nothing listens.
    pub fn create_server<M, G, P>(
        &self,
        listen: impl Into<ListenOptions>,
        make: M,
    ) -> Result<Server, NetError>
    where
        M: Fn(&LocalLoop) -> G + Send + Sync + 'static,
        G: FnMut() -> P + 'static,
        P: Protocol,
    {
        let listen = listen.into();
        let mut rows = listen.bind(self.loops())?;
        let core = new_core(&listen, &rows);
        let make = Arc::new(make);
        for id in (0..self.loops()).rev() {
            let sockets: Vec<ListenSocket> = rows.iter_mut().filter_map(Vec::pop).collect();
            let (core, make) = (Arc::clone(&core), Arc::clone(&make));
            let guards: Vec<ListenerGuard> = sockets.iter().map(|_| core.add_listener()).collect();
            let home = self.on(id);
            let visited = home.visit(move |local| {
                let factory = boxed(make(local));
                for (socket, guard) in sockets.into_iter().zip(guards) {
                    start_listener(local, socket, guard, &core, &factory, listen.nodelay);
                }
            });
            if visited.is_err() {
                return Err(NetError::closed("serve on a loop", None));
            }
        }
        Ok(Server::new(core))
    }
}

impl LocalLoop {
    /// Serves TCP in the callback model on this loop alone.
    ///
    /// # Errors
    /// An address that cannot be bound; then nothing listens.
    pub fn create_server<G, P>(
        &self,
        listen: impl Into<ListenOptions>,
        factory: G,
    ) -> Result<Server, NetError>
    where
        G: FnMut() -> P + 'static,
        P: Protocol,
    {
        let listen = listen.into();
        if self.worker().is_closed() {
            return Err(NetError::closed("serve on a loop", None));
        }
        let rows = listen.bind(1)?;
        let core = new_core(&listen, &rows);
        let factory = boxed(factory);
        for socket in rows.into_iter().flatten() {
            let guard = core.add_listener();
            start_listener(self, socket, guard, &core, &factory, listen.nodelay);
        }
        Ok(Server::new(core))
    }

    /// Connects to the first address that answers, and gives the connection the protocol that
    /// `factory` makes. `connection_made` has been called when this returns.
    ///
    /// Dropping the future closes the socket. If the protocol exists by then, which is so for one
    /// turn, it is told `connection_made` and `connection_lost`.
    ///
    /// # Errors
    /// Those of [`TcpStream::connect`].
    pub async fn create_connection<P: Protocol>(
        &self,
        addrs: impl ToSocketAddrs,
        factory: impl FnOnce() -> P,
    ) -> Result<Transport, NetError> {
        let socket = TcpStream::connect(addrs).await?.into_fd();
        let peer = SocketName::of_peer(&socket);
        let peer = peer.map_err(|error| NetError::new("read the peer's address", None, error))?;
        Ok(Connection::open(self, socket, peer, Box::new(factory())).await)
    }
}

fn new_core(listen: &ListenOptions, rows: &[Vec<ListenSocket>]) -> Arc<ServerCore> {
    let addrs = rows.iter().map(|row| row[0].addr).collect();
    ServerCore::new(addrs, listen.max_connections)
}

fn boxed<G, P>(mut factory: G) -> Factory
where
    G: FnMut() -> P + 'static,
    P: Protocol,
{
    Rc::new(RefCell::new(move || -> Box<dyn Protocol> {
        Box::new(factory())
    }))
}

fn start_listener(
    local: &LocalLoop,
    socket: ListenSocket,
    guard: ListenerGuard,
    core: &Arc<ServerCore>,
    factory: &Factory,
    nodelay: bool,
) {
    let addr = socket.addr;
    let listener = Rc::new(Listener {
        local: local.clone(),
        socket: RefCell::new(Some((socket, guard))),
        core: Arc::clone(core),
        factory: Rc::clone(factory),
        nodelay,
        key: Cell::new(None),
        backoff: Cell::new(Backoff::new()),
        is_resting: Cell::new(false),
    });
    if let Err(error) = listener.register() {
        tracing::error!(%error, %addr, "a listener could not be registered");
        listener.release();
    }
}

/// The listener of one loop.
struct Listener {
    local: LocalLoop,
    socket: RefCell<Option<(ListenSocket, ListenerGuard)>>,
    core: Arc<ServerCore>,
    factory: Factory,
    nodelay: bool,
    key: Cell<Option<IoKey>>,
    backoff: Cell<Backoff>,
    /// A timer will look again; events meanwhile are ignored.
    is_resting: Cell<bool>,
}

impl Listener {
    fn register(self: &Rc<Self>) -> io::Result<()> {
        let key = self.local.insert_io(self.clone());
        self.key.set(Some(key));
        let home = self.local.handle();
        self.core.on_close(Box::new(move || {
            let told = home.visit(move |local| {
                local.requeue_io(key, Ready::READABLE);
            });
            if told.is_err() {
                tracing::debug!("the loop of a listener was closed before its server");
            }
        }));
        let socket = self.socket.borrow();
        let (socket, _) = socket.as_ref().expect("not released yet");
        self.local.watch_io(socket, key)
    }

    /// Accepts up to the budget of a turn.
    fn accept_batch(self: &Rc<Self>) {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(place) = self.core.reserve() else {
                return self.rest(FULL_PAUSE);
            };
            let accepted = match &*self.socket.borrow() {
                Some((listener, _)) => socket::accept(listener, self.nodelay),
                None => return,
            };
            let error = match accepted {
                Ok((socket, peer)) => {
                    self.backoff.set(Backoff::new());
                    self.connect(socket, peer, place.open());
                    continue;
                }
                Err(error) => error,
            };
            match AcceptError::of(&error) {
                AcceptError::WouldBlock => return self.release_if_closing(),
                AcceptError::Next => self.core.count_error(),
                AcceptError::Pause => {
                    self.core.count_error();
                    // SRV-10: what waits cannot be taken, and closing gives a descriptor back.
                    if self.core.is_closing() {
                        return self.release();
                    }
                    let mut backoff = self.backoff.get();
                    let pause = backoff.take();
                    self.backoff.set(backoff);
                    tracing::warn!(%error, ?pause, "accepting pauses");
                    return self.rest(pause);
                }
                AcceptError::Fatal => {
                    self.core.count_error();
                    tracing::error!(%error, "a listener broke");
                    return self.release();
                }
            }
        }
        // More may wait, and no edge will say so.
        self.look_again();
    }

    fn connect(&self, socket: OwnedFd, peer: SocketAddr, open: OpenGuard) {
        let factory = Rc::clone(&self.factory);
        let made = catch_unwind(AssertUnwindSafe(|| (factory.borrow_mut())()));
        match made {
            Ok(protocol) => {
                Connection::start(&self.local, socket, peer.into(), protocol, Some(open));
            }
            // SRV-11: that connection is closed, serving goes on.
            Err(payload) => self.local.report_panic(payload),
        }
    }

    fn look_again(&self) {
        if let Some(key) = self.key.get() {
            self.local.requeue_io(key, Ready::READABLE);
        }
    }

    fn rest(self: &Rc<Self>, pause: Duration) {
        self.core.count_pause();
        self.is_resting.set(true);
        let listener = Rc::clone(self);
        self.local.call_later(pause, move || {
            listener.is_resting.set(false);
            listener.look_again();
        });
    }

    fn release_if_closing(&self) {
        if self.core.is_closing() {
            self.release();
        }
    }

    fn release(&self) {
        if let Some(key) = self.key.take() {
            self.local.remove_io(key);
        }
        let socket = self.socket.borrow_mut().take();
        drop(socket);
    }
}

impl IoHandler for Listener {
    fn describe(&self) -> Cow<'static, str> {
        "a listener".into()
    }

    fn handle_ready(self: Rc<Self>, _ready: Ready) {
        if !self.is_resting.get() {
            self.accept_batch();
        }
    }

    fn handle_shutdown(self: Rc<Self>) {
        self.release();
    }
}
