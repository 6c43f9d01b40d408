//! What a connection reads from and writes to, and the few system calls it makes of it.
//!
//! Would-block and interruption are errors here as in the kernel; what they mean is decided by the
//! [`Connection`](super::connection::Connection). In the library's own tests a script may stand in
//! the kernel's place (`script`).

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::net::socket;

/// The descriptor of a stream: non-blocking, and closed when this is dropped.
pub(crate) enum Descriptor {
    /// A connected stream socket: TCP or Unix.
    Socket(OwnedFd),
    /// What can only be read: a pipe, or a terminal.
    ReadingEnd(OwnedFd),
    /// What can only be written.
    WritingEnd(OwnedFd),
    /// It was given back.
    Closed,
    /// A kernel that does what a test says.
    #[cfg(all(test, not(garland_loom)))]
    Script(std::rc::Rc<crate::transport::script::Script>),
}

/// The errors are the kernel's numbers: what most of them mean is decided by looking at two.
impl Descriptor {
    pub(crate) fn receive(&self, buf: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Descriptor::Socket(fd) => {
                let (_, received) = rustix::net::recv(fd, buf, RecvFlags::empty())?;
                Ok(received)
            }
            _ => self.receive_otherwise(buf),
        }
    }

    // Cold: inlined, it makes every request ask first whether this is a pipe (4 instructions).
    #[cold]
    fn receive_otherwise(&self, buf: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Descriptor::ReadingEnd(fd) | Descriptor::WritingEnd(fd) => rustix::io::read(fd, buf),
            Descriptor::Socket(_) | Descriptor::Closed => Err(Errno::AGAIN),
            #[cfg(all(test, not(garland_loom)))]
            Descriptor::Script(script) => script.receive(buf),
        }
    }

    /// Without a signal if the peer of a socket is gone: the error says so. That a pipe without a reader gives an error
    /// too is because `std` has the process ignore `SIGPIPE` from its start; a program that restores the signal's
    /// default is ended by it.
    pub(crate) fn send(&self, data: &[u8]) -> Result<usize, Errno> {
        match self {
            Descriptor::Socket(fd) => rustix::net::send(fd, data, SendFlags::NOSIGNAL),
            _ => self.send_otherwise(data),
        }
    }

    // As for `receive_otherwise`.
    #[cold]
    fn send_otherwise(&self, data: &[u8]) -> Result<usize, Errno> {
        match self {
            Descriptor::ReadingEnd(fd) | Descriptor::WritingEnd(fd) => rustix::io::write(fd, data),
            Descriptor::Socket(_) | Descriptor::Closed => Err(Errno::AGAIN),
            #[cfg(all(test, not(garland_loom)))]
            Descriptor::Script(script) => script.send(data.len()),
        }
    }

    /// Several pieces in one call, otherwise as [`send`](Descriptor::send).
    pub(crate) fn send_gathered(&self, pieces: &[IoSlice<'_>]) -> Result<usize, Errno> {
        match self {
            Descriptor::Socket(fd) => socket::send_gathered(fd, pieces),
            Descriptor::ReadingEnd(fd) | Descriptor::WritingEnd(fd) => {
                rustix::io::writev(fd, pieces)
            }
            Descriptor::Closed => Err(Errno::AGAIN),
            #[cfg(all(test, not(garland_loom)))]
            Descriptor::Script(script) => script.send(pieces.iter().map(|piece| piece.len()).sum()),
        }
    }

    /// Tells the peer that nothing more will come. The ends of a pipe do so by closing.
    pub(crate) fn shut_down_writing(&self) -> io::Result<()> {
        match self {
            Descriptor::Socket(fd) => socket2::SockRef::from(fd).shutdown(Shutdown::Write),
            Descriptor::ReadingEnd(_) | Descriptor::WritingEnd(_) | Descriptor::Closed => Ok(()),
            #[cfg(all(test, not(garland_loom)))]
            Descriptor::Script(script) => script.shut_down_writing(),
        }
    }

    /// `None` when it is closed.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Descriptor::Socket(fd) | Descriptor::ReadingEnd(fd) | Descriptor::WritingEnd(fd) => {
                Some(fd.as_fd())
            }
            Descriptor::Closed => None,
            #[cfg(all(test, not(garland_loom)))]
            Descriptor::Script(script) => Some(script.as_fd()),
        }
    }
}

/// A connected stream socket.
impl From<OwnedFd> for Descriptor {
    fn from(socket: OwnedFd) -> Self {
        Descriptor::Socket(socket)
    }
}
