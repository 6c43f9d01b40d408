//! `open_connection` and `start_server`, and their Unix twins: where readers and writers come from.

use std::io;
use std::path::Path;
use std::rc::Rc;

use crate::error::NetError;
use crate::net::{ConnectOptions, ListenOptions, Server, UnixListenOptions};
use crate::runtime::{ErrorContext, LocalLoop, LoopHandle};
use crate::streams::link::{Link, Serve, StreamProtocol};
use crate::streams::reader::StreamReader;
use crate::streams::writer::StreamWriter;
use crate::transport::Transport;

/// Connects to the first address that answers, on the loop that runs on this thread.
///
/// Dropping the future closes the socket. It is not `Send`: movable tasks use
/// [`TcpStream::connect`](crate::TcpStream::connect).
///
/// # Errors
/// Those of [`TcpStream::connect`](crate::TcpStream::connect).
///
/// # Panics
/// When polled outside a loop.
///
/// ```
/// # let runtime = garland::Builder::new().loops(1).build()?;
/// # let listen: garland::ListenOptions = "127.0.0.1:0".parse()?;
/// # let server = runtime.local().start_server(listen, async |mut reader, writer| {
/// #     writer.write(&reader.readline().await?.to_ascii_uppercase());
/// #     Ok(())
/// # })?;
/// # let addr = server.local_addr();
/// runtime.block_on(async {
///     let (mut reader, writer) = garland::open_connection(addr).await?;
///     writer.write(b"hello\n");
///     assert_eq!(reader.readline().await?, b"HELLO\n");
///     writer.close();
///     writer.wait_closed().await
/// })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub async fn open_connection(
    to: impl Into<ConnectOptions>,
) -> Result<(StreamReader, StreamWriter), NetError> {
    let local = LocalLoop::current().expect("a connection is opened inside a loop");
    let link = Link::new();
    let protocol = StreamProtocol::new(Rc::clone(&link), None);
    let transport = local.create_connection(to, || protocol).await?;
    Ok(ends(&transport, link))
}

/// The same for a Unix socket: a socket file, or an abstract name, which begins with a zero byte.
///
/// # Errors
/// Those of [`UnixStream::connect`](crate::UnixStream::connect).
///
/// # Panics
/// When polled outside a loop.
///
/// ```
/// # let runtime = garland::Builder::new().loops(1).build()?;
/// let path = std::env::temp_dir().join(format!("garland-doc-streams-{}", std::process::id()));
/// let server = runtime.local().start_unix_server(path.clone(), async |mut reader, writer| {
///     writer.write(&reader.readline().await?.to_ascii_uppercase());
///     Ok(())
/// })?;
/// runtime.block_on(async {
///     let (mut reader, writer) = garland::open_unix_connection(&path).await?;
///     writer.write(b"hello\n");
///     assert_eq!(reader.readline().await?, b"HELLO\n");
///     drop((reader, writer));
///     server.close();
///     server.wait_closed().await;
///     Ok::<(), std::io::Error>(())
/// })??;
/// assert!(!path.exists());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub async fn open_unix_connection(
    path: impl AsRef<Path>,
) -> Result<(StreamReader, StreamWriter), NetError> {
    let local = LocalLoop::current().expect("a connection is opened inside a loop");
    let link = Link::new();
    let protocol = StreamProtocol::new(Rc::clone(&link), None);
    let transport = local.create_unix_connection(path, || protocol).await?;
    Ok(ends(&transport, link))
}

/// [`LocalLoop::start_server`] on the loop that runs on this thread.
///
/// # Errors
/// An address that cannot be bound; then nothing listens.
///
/// # Panics
/// Outside a loop.
///
/// ```
/// # let runtime = garland::Builder::new().loops(1).build()?;
/// runtime.block_on(async {
///     let listen: garland::ListenOptions = "127.0.0.1:0".parse().expect("an address");
///     let server = garland::start_server(listen, async |mut reader, writer| {
///         writer.write(&reader.readline().await?);
///         Ok(())
///     })?;
///     let (mut reader, writer) = garland::open_connection(server.local_addr()).await?;
///     writer.write(b"hello\n");
///     assert_eq!(reader.readline().await?, b"hello\n");
///     Ok::<(), std::io::Error>(())
/// })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[track_caller]
pub fn start_server<C>(listen: impl Into<ListenOptions>, callback: C) -> Result<Server, NetError>
where
    C: AsyncFn(StreamReader, StreamWriter) -> io::Result<()> + 'static,
{
    let local = LocalLoop::current();
    let local = local.expect("start_server() is called inside a loop; elsewhere use a LoopHandle");
    local.start_server(listen, callback)
}

impl LocalLoop {
    /// Serves TCP on this loop alone, in tasks that stay on it: `callback` is called for each
    /// connection and its future becomes a loop-bound task. It may capture an `Rc`.
    ///
    /// A callback that returns an error or panics is reported to the
    /// [exception handler](LocalLoop::set_exception_handler), and its connection is closed.
    ///
    /// # Errors
    /// An address that cannot be bound; then nothing listens.
    ///
    /// ```
    /// let runtime = garland::Builder::new().loops(1).build()?;
    /// let listen: garland::ListenOptions = "127.0.0.1:0".parse()?;
    /// let server = runtime.local().start_server(listen, async |mut reader, writer| {
    ///     while let line = reader.readline().await? && !line.is_empty() {
    ///         writer.write(&line);
    ///         writer.drain().await?;
    ///     }
    ///     Ok(())
    /// })?;
    /// # runtime.block_on(async {
    /// #     let (mut reader, writer) = garland::open_connection(server.local_addr()).await?;
    /// #     writer.write(b"one\ntwo");
    /// #     writer.write_eof();
    /// #     assert_eq!(reader.read_to_end().await?, b"one\ntwo");
    /// #     Ok::<(), std::io::Error>(())
    /// # })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn start_server<C>(
        &self,
        listen: impl Into<ListenOptions>,
        callback: C,
    ) -> Result<Server, NetError>
    where
        C: AsyncFn(StreamReader, StreamWriter) -> io::Result<()> + 'static,
    {
        self.create_server(listen, serving(callback))
    }

    /// Serves Unix sockets on this loop alone, otherwise as [`start_server`](LocalLoop::start_server).
    ///
    /// # Errors
    /// A path that cannot be bound; then nothing listens.
    pub fn start_unix_server<C>(
        &self,
        listen: impl Into<UnixListenOptions>,
        callback: C,
    ) -> Result<Server, NetError>
    where
        C: AsyncFn(StreamReader, StreamWriter) -> io::Result<()> + 'static,
    {
        self.create_unix_server(listen, serving(callback))
    }
}

impl LoopHandle {
    /// Serves TCP on every loop, in tasks that stay on the loop of their connection.
    /// `make` is called once on each loop and returns that loop's callback, which is then called as
    /// by [`LocalLoop::start_server`]; neither the callback nor its futures need be `Send`.
    ///
    /// # Errors
    /// An address that cannot be bound; then nothing listens.
    pub fn start_server<M, C>(
        &self,
        listen: impl Into<ListenOptions>,
        make: M,
    ) -> Result<Server, NetError>
    where
        M: Fn(&LocalLoop) -> C + Send + Sync + 'static,
        C: AsyncFn(StreamReader, StreamWriter) -> io::Result<()> + 'static,
    {
        self.create_server(listen, move |local| serving(make(local)))
    }

    /// Serves Unix sockets on every loop, otherwise as [`start_server`](LoopHandle::start_server).
    ///
    /// # Errors
    /// A path that cannot be bound; then nothing listens.
    pub fn start_unix_server<M, C>(
        &self,
        listen: impl Into<UnixListenOptions>,
        make: M,
    ) -> Result<Server, NetError>
    where
        M: Fn(&LocalLoop) -> C + Send + Sync + 'static,
        C: AsyncFn(StreamReader, StreamWriter) -> io::Result<()> + 'static,
    {
        self.create_unix_server(listen, move |local| serving(make(local)))
    }
}

/// The factory of protocols that call `callback` for each connection.
fn serving<C>(callback: C) -> impl FnMut() -> StreamProtocol + 'static
where
    C: AsyncFn(StreamReader, StreamWriter) -> io::Result<()> + 'static,
{
    let callback = Rc::new(callback);
    let serve: Serve = Rc::new(move |transport, link| {
        let (callback, transport) = (Rc::clone(&callback), transport.clone());
        let local = transport.local_loop().clone();
        let (reader, writer) = ends(&transport, link);
        local.spawn_local(async move {
            let failing = CloseOnFailure(Some(transport.clone()));
            match callback(reader, writer).await {
                Ok(()) => failing.passed(),
                Err(error) => {
                    let failure = ErrorContext::new("the callback of a stream server failed");
                    let failure = failure.with_error(error).with_peer(transport.peer_name());
                    transport.local_loop().call_exception_handler(failure);
                }
            }
        });
    });
    move || StreamProtocol::new(Link::new(), Some(Rc::clone(&serve)))
}

fn ends(transport: &Transport, link: Rc<Link>) -> (StreamReader, StreamWriter) {
    let reader = StreamReader::new(Rc::clone(&link), transport.clone());
    (reader, StreamWriter::new(link, transport.clone()))
}

/// Closes the connection of a callback that fails, by an error, a panic or its cancellation: a clone
/// of the writer may live elsewhere.
struct CloseOnFailure(Option<Transport>);

impl CloseOnFailure {
    fn passed(mut self) {
        self.0 = None;
    }
}

impl Drop for CloseOnFailure {
    fn drop(&mut self) {
        if let Some(transport) = &self.0 {
            transport.close();
        }
    }
}
