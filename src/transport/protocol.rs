//! The call-backs of PEP 3156: which bytes to transmit.

use std::any::Any;
use std::io;
use std::net::SocketAddr;

use crate::transport::datagram::DatagramTransport;
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
pub trait Protocol: Any {
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

    /// This protocol as one that lends its own buffer. [`Buffered`] answers so; asked when the
    /// protocol is given to a transport, and at each receive.
    #[doc(hidden)]
    fn as_buffered(&mut self) -> Option<&mut dyn BufferedProtocol> {
        None
    }
}

/// A [`Protocol`] that lends the buffer it is read into: bytes go where they belong without a copy.
///
/// In the place of `data_received` stand [`get_buffer`](BufferedProtocol::get_buffer) and
/// [`buffer_updated`](BufferedProtocol::buffer_updated), always in this order; all else is as for
/// [`Protocol`]. A panic of either, and a buffer without room, end the connection with an error.
///
/// Where a protocol is asked for, it is given as [`Buffered`].
///
/// ```
/// use garland::{Buffered, BufferedProtocol, ListenOptions, Transport};
///
/// /// Echoes records of eight bytes.
/// #[derive(Default)]
/// struct Records {
///     record: [u8; 8],
///     filled: usize,
/// }
///
/// impl BufferedProtocol for Records {
///     fn get_buffer(&mut self, _transport: &Transport, _hint: usize) -> &mut [u8] {
///         &mut self.record[self.filled..]
///     }
///
///     fn buffer_updated(&mut self, transport: &Transport, count: usize) {
///         self.filled += count;
///         if self.filled == self.record.len() {
///             transport.write(&self.record);
///             self.filled = 0;
///         }
///     }
/// }
///
/// let runtime = garland::Builder::new().loops(1).build()?;
/// let listen = "127.0.0.1:0".parse::<ListenOptions>()?;
/// let server = runtime.local().create_server(listen, || Buffered(Records::default()))?;
/// # runtime.block_on(async {
/// #     let client = garland::TcpStream::connect(server.local_addr()).await?;
/// #     client.write_all(b"a record and a half").await?;
/// #     let mut buf = [0; 16];
/// #     let mut count = 0;
/// #     while count < 16 {
/// #         count += client.read(&mut buf[count..]).await?;
/// #     }
/// #     assert_eq!(&buf, b"a record and a h");
/// #     Ok::<(), std::io::Error>(())
/// # })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait BufferedProtocol: Any {
    /// As [`Protocol::connection_made`].
    fn connection_made(&mut self, transport: &Transport) {
        let _ = transport;
    }

    /// Where the next bytes go: at least one byte of room. `hint` is how many the loop would read at
    /// once into a buffer of its own; more is as good, and so is less.
    fn get_buffer(&mut self, transport: &Transport, hint: usize) -> &mut [u8];

    /// The first `count` bytes of the buffer last lent were filled; at least one.
    fn buffer_updated(&mut self, transport: &Transport, count: usize);

    /// As [`Protocol::eof_received`].
    fn eof_received(&mut self, transport: &Transport) -> AfterEof {
        let _ = transport;
        AfterEof::Close
    }

    /// As [`Protocol::pause_writing`].
    fn pause_writing(&mut self, transport: &Transport) {
        let _ = transport;
    }

    /// As [`Protocol::resume_writing`].
    fn resume_writing(&mut self, transport: &Transport) {
        let _ = transport;
    }

    /// As [`Protocol::connection_lost`].
    fn connection_lost(&mut self, transport: &Transport, error: Option<&io::Error>) {
        let _ = (transport, error);
    }
}

/// A [`BufferedProtocol`], for wherever a [`Protocol`] is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Buffered<P>(pub P);

impl<P: BufferedProtocol> Protocol for Buffered<P> {
    fn connection_made(&mut self, transport: &Transport) {
        self.0.connection_made(transport);
    }

    /// Bytes that somebody else has received go the same way, by copying. A transport does not call
    /// this.
    ///
    /// # Panics
    /// The protocol lends a buffer without room.
    fn data_received(&mut self, transport: &Transport, mut data: &[u8]) {
        while !data.is_empty() {
            let room = self.0.get_buffer(transport, data.len());
            let count = room.len().min(data.len());
            assert!(count > 0, "get_buffer() returned no room");
            let (now, rest) = data.split_at(count);
            room[..count].copy_from_slice(now);
            self.0.buffer_updated(transport, count);
            data = rest;
        }
    }

    fn eof_received(&mut self, transport: &Transport) -> AfterEof {
        self.0.eof_received(transport)
    }

    fn pause_writing(&mut self, transport: &Transport) {
        self.0.pause_writing(transport);
    }

    fn resume_writing(&mut self, transport: &Transport) {
        self.0.resume_writing(transport);
    }

    fn connection_lost(&mut self, transport: &Transport, error: Option<&io::Error>) {
        self.0.connection_lost(transport, error);
    }

    fn as_buffered(&mut self) -> Option<&mut dyn BufferedProtocol> {
        Some(&mut self.0)
    }
}

/// A datagram endpoint, called by its loop.
///
/// The order is [`connection_made`](DatagramProtocol::connection_made) once, then
/// [`datagram_received`](DatagramProtocol::datagram_received) and
/// [`error_received`](DatagramProtocol::error_received) any number of times, then
/// [`connection_lost`](DatagramProtocol::connection_lost) once, and nothing after it. All on the home
/// loop, never two at a time, so a protocol need not be `Send`.
///
/// A panic of any of them is reported; the endpoint stays open, for the next datagram may come from
/// somebody else.
///
/// ```
/// use std::net::{SocketAddr, UdpSocket};
///
/// use garland::{DatagramProtocol, DatagramTransport, EndpointOptions};
///
/// struct Echo;
///
/// impl DatagramProtocol for Echo {
///     fn datagram_received(&mut self, to: &DatagramTransport, data: &[u8], addr: SocketAddr) {
///         to.send_to(data, addr);
///     }
/// }
///
/// let runtime = garland::Builder::new().loops(2).start()?;
/// // Called once on each loop, for that loop's socket.
/// let options = EndpointOptions::new().local("127.0.0.1:0".parse()?);
/// let server = runtime.handle().create_datagram_endpoint(options, |_local| Echo)?;
///
/// let client = UdpSocket::bind("127.0.0.1:0")?;
/// # client.set_read_timeout(Some(std::time::Duration::from_secs(20)))?;
/// client.send_to(b"garland", server.local_addr())?;
/// let mut buf = [0; 16];
/// assert_eq!(client.recv(&mut buf)?, 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait DatagramProtocol: 'static {
    /// The endpoint stands. Nothing is received before this returns.
    fn connection_made(&mut self, transport: &DatagramTransport) {
        let _ = transport;
    }

    /// A datagram has arrived, whole; it may be empty. The slice is the loop's buffer and is used
    /// again afterwards.
    fn datagram_received(&mut self, transport: &DatagramTransport, data: &[u8], addr: SocketAddr);

    /// The system has said something of a datagram that was sent: that nobody listens there, that it
    /// is too large, that there is no way. Which one is not always known. The endpoint is as good as
    /// before.
    ///
    /// Called inside the send call, or when a batch is sent; never while the protocol runs: then it
    /// comes in the next turn.
    fn error_received(&mut self, transport: &DatagramTransport, error: &io::Error) {
        let _ = (transport, error);
    }

    /// More waits to be sent than the high mark: stop sending until
    /// [`resume_writing`](DatagramProtocol::resume_writing). What is sent is still accepted, and kept.
    ///
    /// Called inside the send call; if that was made by this protocol's own call-back, right after
    /// the call-back returns.
    fn pause_writing(&mut self, transport: &DatagramTransport) {
        let _ = transport;
    }

    /// What waits has drained to the low mark.
    fn resume_writing(&mut self, transport: &DatagramTransport) {
        let _ = transport;
    }

    /// The endpoint is gone: without an error after a close or an abort. What is sent from here on is
    /// ignored.
    fn connection_lost(&mut self, transport: &DatagramTransport, error: Option<&io::Error>) {
        let _ = (transport, error);
    }
}
