//! The server of the task model: one task a connection.
//!
//! Accepting is the listener's matter ([`listener`](super::listener)).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use crate::error::NetError;
use crate::net::listen::{Bound, ListenOptions};
use crate::net::listener::{Accepted, Greet, Homes, serve};
use crate::net::server::{OpenGuard, Server, ServerCore};
use crate::net::stream::Stream;
use crate::net::tcp::TcpStream;
use crate::net::unix::{UnixListenOptions, UnixStream};
use crate::runtime::{LocalLoop, LoopHandle, spawn};

impl LoopHandle {
    /// Serves TCP in the task model: `handler` is called for each connection, and its future becomes
    /// a movable task. One listener a loop shares the port; the kernel spreads connections over them,
    /// and a loop that gets too many [gives some away](ListenOptions::balance).
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
        H: Fn(TcpStream) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let bound = listen.into().bind(self.loops())?;
        serve_on(self, bound, TcpStream::from, handler)
    }

    /// The same for Unix sockets. All loops accept from one queue, and the loop that comes first
    /// takes a connection, unless it has too many.
    ///
    /// # Errors
    /// A path that cannot be bound.
    pub fn serve_unix<H, F>(
        &self,
        listen: impl Into<UnixListenOptions>,
        handler: H,
    ) -> Result<Server, NetError>
    where
        H: Fn(UnixStream) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let bound = listen.into().bind(self.loops())?;
        serve_on(self, bound, UnixStream::from, handler)
    }
}

fn serve_on<S, H, F>(
    handle: &LoopHandle,
    bound: Bound,
    of_kind: fn(Stream) -> S,
    handler: H,
) -> Result<Server, NetError>
where
    S: 'static,
    H: Fn(S) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let everyone = handle.clone();
    // Each connection sees, when it is polled, that it is to end.
    let end_clients = Box::new(move |_core: &Arc<ServerCore>, _how| everyone.wake_tasks());
    let core = ServerCore::new(&bound, end_clients);
    let greet: Arc<Greet> = Arc::new(move |_here: &LocalLoop, accepted: Accepted| {
        let stream = Stream::register(accepted.socket)?;
        let connection = handler(of_kind(stream));
        // Detached: it ends by itself, or with the runtime.
        drop(spawn(Serving {
            clients_ended: accepted.clients_ended,
            open: accepted.open,
            connection: Some(connection),
        }));
        Ok(())
    });
    serve(Homes::All(handle.clone()), bound, core, greet)
}

pin_project! {
    /// One connection and its count. A type of its own, for an async block would hold the handler's
    /// future twice: as what it captured and as what it awaits.
    // In this order: what each step looks at stands beside the task's own, not behind the buffers of the handler.
    #[repr(C)]
    struct Serving<F> {
        // What it was when the connection began.
        clients_ended: u32,
        open: OpenGuard,
        // None only while it is dropped.
        #[pin]
        connection: Option<F>,
    }

    impl<F> PinnedDrop for Serving<F> {
        fn drop(this: Pin<&mut Self>) {
            // Closed first, then counted as closed.
            this.project().connection.set(None);
        }
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
        match this.connection.as_pin_mut() {
            Some(connection) => connection.poll(cx),
            None => Poll::Ready(()),
        }
    }
}
