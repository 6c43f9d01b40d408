//! `create_server`: servers whose connections get a protocol.
//!
//! Accepting is the listener's matter; here is what it finds on the loop that is to be a connection's home: the factory
//! of the server, which is made and called there only, and so need not be `Send`. Connections stay on
//! that loop (MC-07).

use std::any::Any;
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

use crate::error::NetError;
use crate::net::listen::{Bound, ListenOptions};
use crate::net::listener::{Accepted, Greet, Homes, serve};
use crate::net::server::{EndClients, Server, ServerCore};
use crate::net::{SocketName, UnixListenOptions};
use crate::runtime::{IoHandler, IoKey, LocalLoop, LoopHandle, Ready};
use crate::transport::connection::Connection;
use crate::transport::protocol::Protocol;

impl LoopHandle {
    /// Serves TCP in the callback model on every loop. `make` is called once on each loop and returns
    /// that loop's factory, which is called for each connection accepted there; neither the factory
    /// nor the protocols need be `Send`.
    ///
    /// Returns once it listens. The loop that accepts a connection keeps it, unless it has
    /// [too many](ListenOptions::balance); from then on it stays where it is.
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
    /// takes a connection, unless it has too many.
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
    bound: Bound,
    make: M,
) -> Result<Server, NetError>
where
    M: Fn(&LocalLoop) -> G + Send + Sync + 'static,
    G: FnMut() -> P + 'static,
    P: Protocol,
{
    let loops: Vec<LoopHandle> = (0..handle.loops()).map(|id| handle.on(id)).collect();
    let seats = Arc::new(Seats {
        make: move |local: &LocalLoop| boxed(make(local)),
        of_loops: loops.iter().map(|_| OnceLock::new()).collect(),
    });
    let core = new_core(&bound, loops.clone());
    for home in loops {
        let seats = Arc::clone(&seats);
        core.on_start(Box::new(move |_core| {
            let visited = home.visit(move |local| {
                seats.here(local);
            });
            visited.map_err(|_dropped| NetError::closed("serve on a loop", None))
        }));
    }
    let greet: Arc<Greet> = Arc::new(move |local: &LocalLoop, accepted: Accepted| {
        seats.here(local).connect(local, accepted)
    });
    serve(Homes::All(handle.clone()), bound, core, greet)
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
    if local.worker().is_closed() {
        return Err(NetError::closed("serve on a loop", None));
    }
    let bound = bind()?;
    let core = new_core(&bound, vec![local.handle()]);
    // Whoever starts the server may be on another thread, where the factory may not go.
    let seat = Seat::take(local, boxed(factory));
    let greet: Arc<Greet> =
        Arc::new(move |local: &LocalLoop, accepted: Accepted| seat.connect(local, accepted));
    serve(Homes::One(local.handle()), bound, core, greet)
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

/// Makes the protocol of each connection of one loop.
type Factory = Box<dyn FnMut() -> Box<dyn Protocol>>;

fn boxed<G, P>(mut factory: G) -> Factory
where
    G: FnMut() -> P + 'static,
    P: Protocol,
{
    Box::new(move || -> Box<dyn Protocol> { Box::new(factory()) })
}

/// The factories of a server on all loops.
struct Seats<M> {
    make: M,
    /// By the loop's number; each is filled by that loop, on its thread.
    of_loops: Box<[OnceLock<Seat>]>,
}

impl<M: Fn(&LocalLoop) -> Factory> Seats<M> {
    /// That of this loop. It is made when the server starts, or by a connection that was earlier.
    fn here(&self, local: &LocalLoop) -> &Seat {
        let place = &self.of_loops[local.id().index()];
        match place.get() {
            Some(seat) => seat,
            None => {
                let seat = Seat::take(local, (self.make)(local));
                place.get_or_init(|| seat)
            }
        }
    }
}

/// Where the factory of a server is found on one loop. May be held anywhere; when it is dropped the factory is, at home.
struct Seat {
    home: LoopHandle,
    key: IoKey,
}

impl Seat {
    fn take(local: &LocalLoop, factory: Factory) -> Self {
        let seated = Rc::new(Seated {
            local: local.clone(),
            key: Cell::new(None),
            factory: RefCell::new(factory),
        });
        let key = local.insert_io(seated.clone());
        seated.key.set(Some(key));
        let table = local.attachment::<SeatedHere>();
        table.0.borrow_mut().insert(key, seated);
        Seat {
            home: local.handle(),
            key,
        }
    }

    /// At home.
    fn connect(&self, local: &LocalLoop, accepted: Accepted) -> io::Result<()> {
        let peer = SocketName::of_accepted(&accepted.socket, accepted.peer)?;
        let table = local.attachment::<SeatedHere>();
        let seated = table.0.borrow().get(&self.key).cloned();
        let seated = seated.expect("a seat is given up when it is dropped, or its loop closes");
        let protocol = (seated.factory.borrow_mut())();
        Connection::start(local, accepted.socket, peer, protocol, Some(accepted.open));
        Ok(())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let key = self.key;
        let told = self.home.visit(move |local| {
            local.remove_io(key);
            SeatedHere::give_up(local, key);
        });
        if told.is_err() {
            tracing::debug!("a loop was closed before a server on it");
        }
    }
}

/// The factories of all servers on one loop.
#[derive(Default)]
struct SeatedHere(RefCell<HashMap<IoKey, Rc<Seated>>>);

impl SeatedHere {
    fn give_up(local: &LocalLoop, key: IoKey) {
        let table = local.attachment::<SeatedHere>();
        let seated = table.0.borrow_mut().remove(&key);
        // Foreign code: not under the borrow.
        drop(seated);
    }
}

/// A factory, in the table of its loop so that it ends with it.
struct Seated {
    local: LocalLoop,
    key: Cell<Option<IoKey>>,
    factory: RefCell<Factory>,
}

impl IoHandler for Seated {
    fn describe(&self) -> Cow<'static, str> {
        "a server".into()
    }

    /// It has no descriptor, so nothing is ever reported.
    fn handle_ready(self: Rc<Self>, _ready: Ready) {}

    fn handle_shutdown(self: Rc<Self>) {
        if let Some(key) = self.key.get() {
            SeatedHere::give_up(&self.local, key);
        }
    }
}
