//! `create_server`: listeners whose connections get a protocol.
//!
//! A listener lives on one loop, and so do the connections that it accepts (MC-07).

use std::any::Any;
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::error::NetError;
use crate::net::accept::{ACCEPTS_PER_TURN, AcceptError, Backoff, FULL_PAUSE};
use crate::net::listen::{Bound, ListenOptions, ListenSocket};
use crate::net::server::{EndClients, ListenerGuard, OpenGuard, Server, ServerCore};
use crate::net::{SocketName, UnixListenOptions, socket};
use crate::runtime::{IoHandler, IoKey, LocalLoop, LoopHandle, Ready};
use crate::transport::connection::Connection;
use crate::transport::protocol::Protocol;

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
        serve_on_every_loop(self, listen.into().bind(self.loops())?, make)
    }

    /// The same for Unix sockets. All loops accept from one queue, and the loop that comes first
    /// takes a connection.
    ///
    /// # Errors
    /// A path that cannot be bound; then nothing listens.
    pub fn create_unix_server<M, G, P>(
        &self,
        listen: impl Into<UnixListenOptions>,
        make: M,
    ) -> Result<Server, NetError>
    where
        M: Fn(&LocalLoop) -> G + Send + Sync + 'static,
        G: FnMut() -> P + 'static,
        P: Protocol,
    {
        serve_on_every_loop(self, listen.into().bind(self.loops())?, make)
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
        serve_on_this_loop(self, || listen.into().bind(1), factory)
    }

    /// Serves Unix sockets in the callback model on this loop alone.
    ///
    /// # Errors
    /// A path that cannot be bound; then nothing listens.
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use garland::{Protocol, Transport};
    ///
    /// struct Echo;
    ///
    /// impl Protocol for Echo {
    ///     fn data_received(&mut self, transport: &Transport, data: &[u8]) {
    ///         transport.write(data);
    ///     }
    /// }
    ///
    /// # let path = std::env::temp_dir().join(format!("garland-doc-{}", std::process::id()));
    /// let runtime = garland::Builder::new().loops(1).build()?;
    /// let server = runtime.local().create_unix_server(path.clone(), || Echo)?;
    /// runtime.block_on(async {
    ///     let client = garland::UnixStream::connect(&path).await?;
    ///     client.write_all(b"garland").await?;
    ///     let mut buf = [0; 7];
    ///     assert_eq!(client.read(&mut buf).await?, 7);
    ///     drop(client);
    ///     server.close();
    ///     server.wait_closed().await;
    ///     Ok::<(), std::io::Error>(())
    /// })??;
    /// assert!(!path.exists());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create_unix_server<G, P>(
        &self,
        listen: impl Into<UnixListenOptions>,
        factory: G,
    ) -> Result<Server, NetError>
    where
        G: FnMut() -> P + 'static,
        P: Protocol,
    {
        serve_on_this_loop(self, || listen.into().bind(1), factory)
    }
}

fn serve_on_every_loop<M, G, P>(
    handle: &LoopHandle,
    mut bound: Bound,
    make: M,
) -> Result<Server, NetError>
where
    M: Fn(&LocalLoop) -> G + Send + Sync + 'static,
    G: FnMut() -> P + 'static,
    P: Protocol,
{
    let loops = (0..handle.loops()).map(|id| handle.on(id)).collect();
    let core = new_core(&bound, loops);
    let make = Arc::new(make);
    let backlog = bound.common.backlog;
    for id in (0..handle.loops()).rev() {
        let sockets = bound.take_last();
        let (home, make) = (handle.on(id), Arc::clone(&make));
        core.on_start(Box::new(move |core| {
            sockets.iter().try_for_each(|one| one.listen(backlog))?;
            let guards: Vec<ListenerGuard> = sockets.iter().map(|_| core.add_listener()).collect();
            let core = Arc::clone(core);
            let visited = home.visit(move |local| {
                let factory = boxed(make(local));
                for (socket, guard) in sockets.into_iter().zip(guards) {
                    let socket = Arc::new(socket);
                    Listener::insert(local, socket, guard, &core, &factory).watch();
                }
            });
            visited.map_err(|_dropped| NetError::closed("serve on a loop", None))
        }));
    }
    Server::of(core, bound.common)
}

fn serve_on_this_loop<G, P>(
    local: &LocalLoop,
    bind: impl FnOnce() -> Result<Bound, NetError>,
    factory: G,
) -> Result<Server, NetError>
where
    G: FnMut() -> P + 'static,
    P: Protocol,
{
    let closed = || NetError::closed("serve on a loop", None);
    if local.worker().is_closed() {
        return Err(closed());
    }
    let mut bound = bind()?;
    let core = new_core(&bound, vec![local.handle()]);
    let factory = boxed(factory);
    let backlog = bound.common.backlog;
    for socket in bound.take_last() {
        let socket = Arc::new(socket);
        let guard = core.add_listener();
        // Whoever starts the server may be on another thread, where the factory may not go: so the
        // listener waits here, and is told by its key.
        let listener = Listener::insert(local, Arc::clone(&socket), guard, &core, &factory);
        let (home, key) = (local.handle(), listener.key.get());
        core.on_start(Box::new(move |_core| {
            socket.listen(backlog)?;
            let told = home.visit(move |local| Listener::wake(local, key));
            told.map_err(|_dropped| closed())
        }));
    }
    Server::of(core, bound.common)
}

/// A server with connections on these loops.
fn new_core(bound: &Bound, loops: Vec<LoopHandle>) -> Arc<ServerCore> {
    let end_clients = move |core: &Arc<ServerCore>, how| {
        for home in &loops {
            let core = Arc::clone(core);
            let told = home.visit(move |local| end_clients_here(local, &core, how));
            if told.is_err() {
                tracing::debug!("a loop was closed, and with it the connections of a server");
            }
        }
    };
    ServerCore::new(bound, Box::new(end_clients))
}

/// SRV-14. Nobody keeps a list of a server's connections: the loop knows all that it has.
fn end_clients_here(local: &LocalLoop, core: &Arc<ServerCore>, how: EndClients) {
    for handler in local.io_handlers() {
        let handler: Rc<dyn Any> = handler;
        if let Ok(connection) = handler.downcast::<Connection>() {
            connection.end_if_client_of(core, how);
        }
    }
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

/// The listener of one loop.
struct Listener {
    local: LocalLoop,
    socket: RefCell<Option<(Arc<ListenSocket>, ListenerGuard)>>,
    core: Arc<ServerCore>,
    factory: Factory,
    key: Cell<Option<IoKey>>,
    /// It listens, and the selector watches it.
    is_watched: Cell<bool>,
    backoff: Cell<Backoff>,
    /// A timer will look again; events meanwhile are ignored.
    is_resting: Cell<bool>,
}

impl Listener {
    /// Makes it known to its loop. It is watched once the socket listens.
    fn insert(
        local: &LocalLoop,
        socket: Arc<ListenSocket>,
        guard: ListenerGuard,
        core: &Arc<ServerCore>,
        factory: &Factory,
    ) -> Rc<Self> {
        let listener = Rc::new(Listener {
            local: local.clone(),
            socket: RefCell::new(Some((socket, guard))),
            core: Arc::clone(core),
            factory: Rc::clone(factory),
            key: Cell::new(None),
            is_watched: Cell::new(false),
            backoff: Cell::new(Backoff::new()),
            is_resting: Cell::new(false),
        });
        let key = Some(local.insert_io(listener.clone()));
        listener.key.set(key);
        let home = local.handle();
        core.on_close(Box::new(move || {
            if home.visit(move |local| Listener::wake(local, key)).is_err() {
                tracing::debug!("the loop of a listener was closed before its server");
            }
        }));
        listener
    }

    /// Has the listener behind `key` look at its server and its queue.
    fn wake(local: &LocalLoop, key: Option<IoKey>) {
        if let Some(key) = key {
            local.requeue_io(key, Ready::READABLE);
        }
    }

    fn watch(&self) {
        self.is_watched.set(true);
        let watched = match (self.key.get(), &*self.socket.borrow()) {
            (Some(key), Some((socket, _))) => self.local.watch_io(socket, key),
            _ => return,
        };
        if let Err(error) = watched {
            tracing::error!(%error, "a listener could not be registered");
            self.release();
        }
    }

    /// Accepts up to the budget of a turn.
    fn accept_batch(self: &Rc<Self>) {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(place) = self.core.reserve() else {
                return self.rest(FULL_PAUSE);
            };
            let accepted = match &*self.socket.borrow() {
                Some((listener, _)) => socket::accept(listener),
                None => return,
            };
            let named = accepted.and_then(|(socket, peer)| {
                let peer = SocketName::of_accepted(&socket, peer)?;
                Ok((socket, peer))
            });
            let error = match named {
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

    fn connect(&self, socket: OwnedFd, peer: SocketName, open: OpenGuard) {
        let factory = Rc::clone(&self.factory);
        let made = catch_unwind(AssertUnwindSafe(|| (factory.borrow_mut())()));
        match made {
            Ok(protocol) => {
                Connection::start(&self.local, socket, peer, protocol, Some(open));
            }
            // SRV-11: that connection is closed, serving goes on.
            Err(payload) => self.local.report_panic(payload),
        }
    }

    fn look_again(&self) {
        Listener::wake(&self.local, self.key.get());
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
        let Some((socket, guard)) = self.socket.borrow_mut().take() else {
            return;
        };
        // Not left to the closing: the loops may share the queue, and so may other processes.
        if self.is_watched.get()
            && let Err(error) = self.local.unwatch_io(&socket)
        {
            tracing::debug!(%error, name = %socket.name, "a listener was not watched");
        }
        // In this order: who waits for the server finds its address free.
        drop(socket);
        drop(guard);
    }
}

impl IoHandler for Listener {
    fn describe(&self) -> Cow<'static, str> {
        "a listener".into()
    }

    fn handle_ready(self: Rc<Self>, _ready: Ready) {
        if !self.is_watched.get() {
            match self.core.is_closing() {
                true => return self.release(),
                false => return self.watch(),
            }
        }
        // SRV-10: a server that closes does not wait for the retry.
        if !self.is_resting.get() || self.core.is_closing() {
            self.accept_batch();
        }
    }

    fn handle_shutdown(self: Rc<Self>) {
        self.release();
    }
}
