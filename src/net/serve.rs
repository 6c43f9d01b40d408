//! The server of the task model: one accept task for each loop and address, one task a connection.
//!
//! The accept task is movable: a listener's event makes it ready, and whichever loop runs it becomes
//! the home of the connections it accepts.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use atomic_waker::AtomicWaker;
use pin_project_lite::pin_project;

use crate::driver::Registration;
use crate::error::NetError;
use crate::net::accept::{ACCEPTS_PER_TURN, AcceptError, Backoff, FULL_PAUSE};
use crate::net::listen::{Bound, ListenOptions, ListenSocket};
use crate::net::server::{ListenerGuard, OpenGuard, Server, ServerCore};
use crate::net::socket;
use crate::net::stream::Stream;
use crate::net::tcp::{TcpStream, poll_accept};
use crate::net::unix::{UnixListenOptions, UnixStream};
use crate::runtime::{LocalLoop, LoopHandle, spawn, yield_now};
use crate::time::sleep;

impl LoopHandle {
    /// Serves TCP in the task model: `handler` is called for each connection, and its future becomes
    /// a movable task. One listener a loop shares the port; the kernel spreads connections over them.
    ///
    /// Returns once it listens. It serves until [`Server::close`] or the end of the runtime.
    ///
    /// # Errors
    /// An address that cannot be bound; then nothing listens.
    ///
    /// ```
    /// use garland::{ListenOptions, TcpStream};
    ///
    /// let runtime = garland::Builder::new().loops(1).build()?;
    /// let listen: ListenOptions = "127.0.0.1:0".parse()?;
    /// let server = runtime.handle().serve(listen, |stream: TcpStream| async move {
    ///     let mut buf = [0; 1024];
    ///     while let Ok(n @ 1..) = stream.read(&mut buf).await {
    ///         if stream.write_all(&buf[..n]).await.is_err() {
    ///             break;
    ///         }
    ///     }
    /// })?;
    /// runtime.block_on(async {
    ///     let client = TcpStream::connect(server.local_addr()).await?;
    ///     client.write_all(b"garland").await?;
    ///     let mut buf = [0; 7];
    ///     assert_eq!(client.read(&mut buf).await?, 7);
    ///     Ok::<(), std::io::Error>(())
    /// })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn serve<H, F>(
        &self,
        listen: impl Into<ListenOptions>,
        handler: H,
    ) -> Result<Server, NetError>
    where
        H: Fn(TcpStream) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let bound = listen.into().bind(self.loops())?;
        serve_on(self, bound, TcpStream::from, handler)
    }

    /// The same for Unix sockets. All loops accept from one queue, and the loop that comes first
    /// takes a connection.
    ///
    /// # Errors
    /// A path that cannot be bound.
    pub fn serve_unix<H, F>(
        &self,
        listen: impl Into<UnixListenOptions>,
        handler: H,
    ) -> Result<Server, NetError>
    where
        H: Fn(UnixStream) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let bound = listen.into().bind(self.loops())?;
        serve_on(self, bound, UnixStream::from, handler)
    }
}

fn serve_on<S, H, F>(
    handle: &LoopHandle,
    mut bound: Bound,
    of_kind: fn(Stream) -> S,
    handler: H,
) -> Result<Server, NetError>
where
    S: 'static,
    H: Fn(S) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let everyone = handle.clone();
    // Each connection sees, when it is polled, that it is to end.
    let core = ServerCore::new(&bound, Box::new(move |_core, _how| everyone.wake_tasks()));
    for id in (0..handle.loops()).rev() {
        let sockets = bound.take_last();
        let (home, handler) = (handle.on(id), handler.clone());
        core.on_start(Box::new(move |core| {
            for socket in sockets {
                let name = socket.name.clone();
                socket.listen(bound.common.backlog)?;
                let registered = home.register(socket);
                let socket = registered.map_err(|error| NetError::new("register", &name, error))?;
                let handler = handler.clone();
                let listener = TaskListener::new(socket, core);
                let serving = listener.run(move |stream| handler(of_kind(stream)));
                if home.spawn(serving).id().is_none() {
                    return Err(NetError::closed("serve on", &name));
                }
            }
            Ok(())
        }));
    }
    Server::of(core, bound.common)
}

/// What a listener meets next.
enum Next {
    Connection(OwnedFd, OpenGuard),
    /// As many connections are open as may be.
    Full,
    Failed(io::Error),
}

/// The listener of one loop.
struct TaskListener {
    socket: Registration<ListenSocket>,
    core: Arc<ServerCore>,
    /// Woken by `Server::close`.
    closed: Arc<AtomicWaker>,
    _guard: ListenerGuard,
}

impl TaskListener {
    fn new(socket: Registration<ListenSocket>, core: &Arc<ServerCore>) -> Self {
        let closed = Arc::new(AtomicWaker::new());
        let closer = Arc::clone(&closed);
        core.on_close(Box::new(move || closer.wake()));
        TaskListener {
            socket,
            core: Arc::clone(core),
            closed,
            _guard: core.add_listener(),
        }
    }

    async fn run<H, F>(self, handler: H)
    where
        H: Fn(Stream) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        let mut backoff = Backoff::new();
        let mut accepted_in_turn = 0;
        while let Some(next) = poll_fn(|cx| self.poll_next(cx)).await {
            let pause = match next {
                Next::Connection(fd, open) => {
                    backoff.reset();
                    self.hand_over(fd, open, &handler);
                    None
                }
                Next::Full => Some(FULL_PAUSE),
                Next::Failed(error) => {
                    self.core.count_error();
                    match AcceptError::of(&error) {
                        AcceptError::Next | AcceptError::WouldBlock => None,
                        // SRV-10: what waits cannot be taken, and closing gives a descriptor back.
                        AcceptError::Pause if self.core.is_closing() => return,
                        AcceptError::Pause => Some(backoff.take()),
                        AcceptError::Fatal => {
                            tracing::error!(%error, name = %self.socket.io().name, "listener broken");
                            return;
                        }
                    }
                }
            };
            if let Some(pause) = pause {
                self.core.count_pause();
                self.rest(pause).await;
            }
            accepted_in_turn += 1;
            if accepted_in_turn % ACCEPTS_PER_TURN == 0 {
                yield_now().await;
            }
        }
    }

    /// The next connection; `None` when the server closes and the queue is empty.
    fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Next>> {
        self.closed.register(cx.waker());
        let Some(place) = self.core.reserve() else {
            return Poll::Ready(Some(Next::Full));
        };
        let accepted = match poll_accept(&self.socket, cx) {
            Poll::Ready(accepted) => accepted,
            Poll::Pending if self.core.is_closing() => {
                // The queue itself is asked: the loop that would tell of a connection may be stuck,
                // or not have looked since it came (MC-08).
                match socket::accept(self.socket.io()) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        return Poll::Ready(None);
                    }
                    accepted => accepted,
                }
            }
            Poll::Pending => return Poll::Pending,
        };
        Poll::Ready(Some(match accepted {
            Ok((fd, _peer)) => Next::Connection(fd, place.open()),
            Err(error) => Next::Failed(error),
        }))
    }

    /// Waits until there may be room again, or the server closes.
    async fn rest(&self, first: Duration) {
        self.pause(first).await;
        while self.core.is_full() && !self.core.is_closing() {
            self.pause(FULL_PAUSE).await;
        }
    }

    async fn pause(&self, pause: Duration) {
        let mut timer = pin!(sleep(pause));
        poll_fn(|cx| {
            self.closed.register(cx.waker());
            if self.core.is_closing() {
                return Poll::Ready(());
            }
            timer.as_mut().poll(cx)
        })
        .await;
    }

    fn hand_over<H, F>(&self, fd: OwnedFd, open: OpenGuard, handler: &H)
    where
        H: Fn(Stream) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        match Stream::register(fd) {
            Ok(stream) => match catch_unwind(AssertUnwindSafe(|| handler(stream))) {
                // Detached: it ends by itself, or with the runtime.
                Ok(connection) => drop(spawn(Serving {
                    connection,
                    clients_ended: self.core.clients_ended(),
                    open,
                })),
                // SRV-11: that connection is closed, serving goes on.
                Err(payload) => report_panic(payload),
            },
            Err(error) => {
                self.core.count_error();
                tracing::warn!(%error, "an accepted connection could not be registered");
            }
        }
    }
}

fn report_panic(payload: Box<dyn Any + Send>) {
    let local = LocalLoop::current();
    let local = local.expect("a listener is a task, and tasks run on loops");
    local.report_panic(payload);
}

pin_project! {
    /// One connection and its count. A type of its own, for an async block would hold the handler's
    /// future twice: as what it captured and as what it awaits.
    struct Serving<F> {
        #[pin]
        connection: F,
        // What it was when the connection began.
        clients_ended: u32,
        open: OpenGuard,
    }
}

impl<F: Future<Output = ()>> Future for Serving<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.open.server().clients_ended() != *this.clients_ended {
            // SRV-14: ending it drops the connection.
            return Poll::Ready(());
        }
        this.connection.poll(cx)
    }
}
