//! A stream connection as its protocol, and everybody else on its loop, sees it.
//!
//! What happens behind it is in [`connection`](super::connection).

use std::fmt;
use std::hash::{Hash, Hasher};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use crate::net::SocketName;
use crate::runtime::LocalLoop;
use crate::transport::connection::{CLOSING, Connection, READING_END, READING_PAUSED};
use crate::transport::flow::{InvalidLimits, WriteLimits};
use crate::transport::protocol::Protocol;

/// Pieces handed to the kernel in one call: a kibibyte of the stack. Guessed; the kernel's own limit
/// is 1024.
const GATHERED_MAX: usize = 64;

/// A stream connection, as its protocol sees it: TCP, a Unix socket, or a pipe. Clones are the same connection; one may be kept after
/// the connection is lost and then does nothing.
///
/// Not `Send`: a connection stays on its loop. Dropping it does not close the connection.
#[derive(Clone)]
pub struct Transport {
    pub(super) connection: Rc<Connection>,
}

impl Transport {
    pub(super) fn new(connection: Rc<Connection>) -> Self {
        Transport { connection }
    }

    /// Sends `data`: at once if nothing waits before it, else buffered. Never blocks; an error of the
    /// network ends the connection later. The bytes are copied where needed, the slice is free
    /// afterwards. After [`close`](Transport::close), [`abort`](Transport::abort) or the loss of the
    /// connection the data is ignored.
    ///
    /// # Panics
    /// After [`write_eof`](Transport::write_eof), as in asyncio: the stream was declared complete.
    pub fn write(&self, data: &[u8]) {
        self.connection.write(data);
    }

    /// Sends several pieces, in order and, if nothing waits before them, without copying them
    /// together. Empty ones are skipped.
    ///
    /// # Panics
    /// As for [`write`](Transport::write).
    #[doc(alias = "writelines")]
    pub fn write_lines<'a>(&self, pieces: impl IntoIterator<Item = &'a [u8]>) {
        self.connection.check_writable();
        // Gathered before anything of the connection is touched: the iterator is foreign code.
        let mut pieces = pieces.into_iter().filter(|piece| !piece.is_empty());
        let mut gathered = [IoSlice::new(&[]); GATHERED_MAX];
        loop {
            let mut count = 0;
            for (slot, piece) in gathered.iter_mut().zip(&mut pieces) {
                *slot = IoSlice::new(piece);
                count += 1;
            }
            if count > 0 {
                self.connection.write_gathered(&mut gathered[..count]);
            }
            if count < GATHERED_MAX {
                return;
            }
        }
    }

    /// Ends the writing direction when everything before it is sent; reading goes on. Twice, or while
    /// closing, it does nothing. For the writing end of a pipe it is [`close`](Transport::close).
    pub fn write_eof(&self) {
        self.connection.write_eof();
    }

    /// Whether [`write_eof`](Transport::write_eof) is possible: always, but at the reading end of a
    /// pipe.
    pub fn can_write_eof(&self) -> bool {
        !self.connection.has(READING_END)
    }

    /// Stops reading at once, sends what is buffered, then ends the connection. With a peer that
    /// never reads it waits for ever; [`abort`](Transport::abort) frees it.
    pub fn close(&self) {
        self.connection.close();
    }

    /// Throws the buffer away and ends the connection in the next turn.
    pub fn abort(&self) {
        self.connection.force_close(None);
    }

    /// True from [`close`](Transport::close), [`abort`](Transport::abort) or the first fatal error on.
    pub fn is_closing(&self) -> bool {
        self.connection.has(CLOSING)
    }

    /// No data after this returns, until [`resume_reading`](Transport::resume_reading). While paused,
    /// the peer's end and a reset go unnoticed. Twice does nothing. What has been received already, 16 KiB or a
    /// little more, is kept until then.
    pub fn pause_reading(&self) {
        if !self.is_closing() {
            self.connection.set(READING_PAUSED);
        }
    }

    /// Reading goes on. Twice, or while closing, it does nothing.
    pub fn resume_reading(&self) {
        self.connection.resume_reading();
    }

    /// Whether data may come.
    pub fn is_reading(&self) -> bool {
        self.connection.is_reading()
    }

    /// Sets the marks of the write buffer; may pause the protocol at once, never resumes it.
    ///
    /// # Errors
    /// A low mark above the high one; nothing is changed.
    #[doc(alias = "set_write_buffer_limits")]
    pub fn set_write_limits(&self, limits: WriteLimits) -> Result<(), InvalidLimits> {
        let call = self.connection.buffer.borrow_mut().set_limits(limits)?;
        self.connection.call_flow(call);
        Ok(())
    }

    /// The marks of the write buffer.
    #[doc(alias = "get_write_buffer_limits")]
    pub fn write_limits(&self) -> WriteLimits {
        self.connection.buffer.borrow().limits()
    }

    /// Bytes that wait to be sent.
    #[doc(alias = "get_write_buffer_size")]
    pub fn write_buffer_size(&self) -> usize {
        self.connection.buffer.borrow().len()
    }

    /// What the other end is called; also after the connection is lost.
    #[doc(alias = "get_extra_info")]
    #[doc(alias = "peername")]
    pub fn peer_name(&self) -> &SocketName {
        &self.connection.peer
    }

    /// The address of the other end, if it is an internet socket; also after the connection is lost.
    #[doc(alias = "get_extra_info")]
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.connection.peer.as_inet()
    }

    /// What this end is called. Until `connection_lost` has returned.
    ///
    /// # Errors
    /// The connection is lost.
    #[doc(alias = "get_extra_info")]
    #[doc(alias = "sockname")]
    pub fn local_name(&self) -> io::Result<SocketName> {
        let name = self.with_fd(|fd| SocketName::of_own(fd));
        name.unwrap_or_else(|| Err(io::ErrorKind::NotConnected.into()))
    }

    /// The address of this end, if it is an internet socket and the connection is not lost.
    #[doc(alias = "get_extra_info")]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.local_name().ok()?.as_inet()
    }

    /// Lends the descriptor, to look at it or set its options; `None` if the connection is lost.
    /// Who reads, writes or duplicates it gets into the way of the transport.
    #[doc(alias = "get_extra_info")]
    #[doc(alias = "socket")]
    pub fn with_fd<T>(&self, look: impl FnOnce(BorrowedFd<'_>) -> T) -> Option<T> {
        // A receive, a write and the end of the connection borrow it otherwise than shared: the first and the last begin
        // a handle of the loop, and a write tries.
        let descriptor = self.connection.descriptor.borrow();
        descriptor.fd().map(look)
    }

    /// Puts another protocol in the place of the present one: the next call-back goes to it, and the
    /// one before is dropped, when it returns if it is running. `connection_made` is not called again.
    /// When the connection is lost already, `protocol` is dropped.
    ///
    /// ```
    /// use garland::{Protocol, Transport};
    ///
    /// /// Takes one byte, then hands over.
    /// struct Greeting;
    /// struct Echo;
    ///
    /// impl Protocol for Greeting {
    ///     fn data_received(&mut self, transport: &Transport, data: &[u8]) {
    ///         transport.write(b"welcome ");
    ///         transport.set_protocol(Echo);
    ///         if data.len() > 1 {
    ///             transport.write(&data[1..]);
    ///         }
    ///     }
    /// }
    ///
    /// impl Protocol for Echo {
    ///     fn data_received(&mut self, transport: &Transport, data: &[u8]) {
    ///         transport.write(data);
    ///     }
    /// }
    ///
    /// let runtime = garland::Builder::new().loops(1).build()?;
    /// let listen = "127.0.0.1:0".parse::<garland::ListenOptions>()?;
    /// let server = runtime.local().create_server(listen, || Greeting)?;
    /// let answer = runtime.block_on(async {
    ///     let client = garland::TcpStream::connect(server.local_addr()).await?;
    ///     client.write_all(b"!").await?;
    ///     let mut buf = [0; 8];
    ///     client.read(&mut buf).await?;
    ///     Ok::<_, std::io::Error>(buf)
    /// })??;
    /// assert_eq!(&answer, b"welcome ");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_protocol(&self, protocol: impl Protocol) {
        self.connection.set_protocol(Box::new(protocol));
    }

    /// Calls `look` with the protocol, if that is a `P` and does not run just now; from inside of its
    /// own call-backs, and after the connection is lost, the answer is `None`.
    ///
    /// `look` must not run the loop.
    #[doc(alias = "get_protocol")]
    pub fn with_protocol<P: Protocol, T>(&self, look: impl FnOnce(&mut P) -> T) -> Option<T> {
        self.connection.protocol.look(self, look)
    }

    /// The loop it lives on.
    pub fn local_loop(&self) -> &LocalLoop {
        &self.connection.local
    }
}

/// Equal are the clones of one transport, so that a list of them can be searched for one.
impl PartialEq for Transport {
    fn eq(&self, other: &Transport) -> bool {
        Rc::ptr_eq(&self.connection, &other.connection)
    }
}

impl Eq for Transport {}

impl Hash for Transport {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Rc::as_ptr(&self.connection).hash(state);
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("peer", &self.connection.peer)
            .field("closing", &self.is_closing())
            .field("buffered", &self.write_buffer_size())
            .finish_non_exhaustive()
    }
}

/// A transport whose owner may give up before he gets it.
pub(super) struct Unclaimed(Option<Transport>);

impl Unclaimed {
    pub(super) fn new(transport: Transport) -> Self {
        Unclaimed(Some(transport))
    }

    pub(super) fn claim(mut self) -> Transport {
        self.0.take().expect("claimed only here")
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(transport) = &self.0 {
            transport.abort();
        }
    }
}
