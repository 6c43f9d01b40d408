//! The call-backs of PEP 3156: which bytes to transmit.

use std::io;

use crate::transport::stream::Transport;

/// What happens to the connection when the peer has finished sending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AfterEof {
    /// What is buffered is sent, then the connection is closed.
    #[default]
    Close,
    /// It stays open for writing; closing it is up to the protocol.
    KeepOpen,
}

/// One end of a stream connection, called by its loop.
///
/// The order is [`connection_made`](Protocol::connection_made) once, then
/// [`data_received`](Protocol::data_received) any number of times, then
/// [`eof_received`](Protocol::eof_received) at most once, then
/// [`connection_lost`](Protocol::connection_lost) once, and nothing after it. All on the home loop,
/// never two at a time, so a protocol need not be `Send`.
///
/// A panic of `connection_made`, `data_received` or `eof_received` is reported and ends that
/// connection with an error; the loop goes on.
///
/// ```
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
/// let runtime = garland::Builder::new().loops(1).build()?;
/// // Called once on each loop, for that loop's factory.
/// let server = runtime
///     .handle()
///     .create_server("127.0.0.1:0".parse::<garland::ListenOptions>()?, |_local| || Echo)?;
/// # runtime.block_on(async {
/// #     let client = garland::TcpStream::connect(server.local_addr()).await?;
/// #     client.write_all(b"garland").await?;
/// #     let mut buf = [0; 7];
/// #     assert_eq!(client.read(&mut buf).await?, 7);
/// #     Ok::<(), std::io::Error>(())
/// # })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Protocol: 'static {
    /// The connection stands. Nothing is read before this returns.
    fn connection_made(&mut self, transport: &Transport) {
        let _ = transport;
    }

    /// Bytes have arrived, at least one. How the stream is cut into pieces means nothing. The slice
    /// is the loop's buffer and is used again afterwards.
    fn data_received(&mut self, transport: &Transport, data: &[u8]);

    /// The peer has finished sending.
    fn eof_received(&mut self, transport: &Transport) -> AfterEof {
        let _ = transport;
        AfterEof::Close
    }

    /// The write buffer has grown above its high mark: stop writing until
    /// [`resume_writing`](Protocol::resume_writing). Writes are still accepted, and buffered.
    ///
    /// Called inside the write call; if that was made by this protocol's own call-back, right after
    /// the call-back returns.
    fn pause_writing(&mut self, transport: &Transport) {
        let _ = transport;
    }

    /// The write buffer has drained to its low mark.
    fn resume_writing(&mut self, transport: &Transport) {
        let _ = transport;
    }

    /// The connection is gone: without an error after a close, an abort or the peer's orderly end.
    /// What is written from here on is ignored.
    fn connection_lost(&mut self, transport: &Transport, error: Option<&io::Error>) {
        let _ = (transport, error);
    }
}
