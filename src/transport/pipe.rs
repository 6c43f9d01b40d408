//! `connect_read_pipe` and `connect_write_pipe`: one end of a pipe that calls a protocol.
//!
//! The state machine is that of a [socket](crate::transport::connection); a reading end has written
//! its last from the start, a writing end has read its last, and notices its reader's end by itself.

use std::io;
use std::os::fd::OwnedFd;

use crate::error::NetError;
use crate::net::{SocketName, pipe};
use crate::runtime::LocalLoop;
use crate::transport::connection::Connection;
use crate::transport::descriptor::Descriptor;
use crate::transport::protocol::Protocol;
use crate::transport::stream::Transport;

impl LocalLoop {
    /// Reads a pipe through the protocol that `factory` makes: a FIFO, a socket or a character
    /// device. `connection_made` has been called when this returns. After `eof_received`, whatever
    /// that answers, follows `connection_lost`; writing panics.
    ///
    /// The open file becomes non-blocking, for its other owners too. Dropping the future closes it.
    ///
    /// # Errors
    /// Any other kind of file. One that cannot be waited for, such as `/dev/null`, is told to the
    /// protocol by `connection_lost`.
    ///
    /// ```
    /// use garland::{LocalLoop, Protocol, Transport};
    ///
    /// struct Count(usize, std::rc::Rc<std::cell::Cell<usize>>);
    ///
    /// impl Protocol for Count {
    ///     fn data_received(&mut self, _transport: &Transport, data: &[u8]) {
    ///         self.0 += data.len();
    ///     }
    ///     fn connection_lost(&mut self, _: &Transport, _: Option<&std::io::Error>) {
    ///         self.1.set(self.0);
    ///     }
    /// }
    ///
    /// let runtime = garland::Builder::new().loops(1).build()?;
    /// let (reader, mut writer) = std::io::pipe()?;
    /// let total = std::rc::Rc::default();
    /// let counting = std::rc::Rc::clone(&total);
    /// runtime.block_on(async {
    ///     let local = LocalLoop::current().expect("block_on runs it on a loop");
    ///     local.connect_read_pipe(reader, || Count(0, counting)).await?;
    ///     std::io::Write::write_all(&mut writer, b"garland")?;
    ///     drop(writer);
    ///     while total.get() == 0 {
    ///         garland::yield_now().await;
    ///     }
    ///     Ok::<(), std::io::Error>(())
    /// })??;
    /// assert_eq!(total.get(), 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn connect_read_pipe<P: Protocol>(
        &self,
        pipe: impl Into<OwnedFd>,
        factory: impl FnOnce() -> P,
    ) -> Result<Transport, NetError> {
        let end = prepare("read a pipe", pipe.into())?;
        let protocol = Box::new(factory());
        let end = Descriptor::ReadingEnd(end);
        Ok(Connection::open(self, end, SocketName::Unnamed, protocol).await)
    }

    /// Writes a pipe: a FIFO, a socket or a character device. The protocol that `factory` makes hears
    /// when to pause, and of the end. `connection_made` has been called when this returns.
    /// [`write_eof`](Transport::write_eof) closes.
    ///
    /// When the last reader is gone `connection_lost` comes without a write: with a broken pipe if
    /// something was still buffered, else without an error.
    ///
    /// The open file becomes non-blocking, for its other owners too. Dropping the future closes it.
    ///
    /// # Errors
    /// Any other kind of file.
    pub async fn connect_write_pipe<P: Protocol>(
        &self,
        pipe: impl Into<OwnedFd>,
        factory: impl FnOnce() -> P,
    ) -> Result<Transport, NetError> {
        let end = prepare("write a pipe", pipe.into())?;
        let protocol = Box::new(factory());
        let end = Descriptor::WritingEnd(end);
        Ok(Connection::open(self, end, SocketName::Unnamed, protocol).await)
    }
}

fn prepare(tried: &'static str, fd: OwnedFd) -> Result<OwnedFd, NetError> {
    pipe::prepare(fd).map_err(|error: io::Error| NetError::new(tried, None, error))
}
