//! What a connection reads from and writes to, and the few system calls it makes of it.
//!
//! Would-block and interruption are errors here as in the kernel; what they mean is decided by the
//! [`Connection`](super::connection::Connection). In the library's own tests a script may stand in
//! the kernel's place (`script`).

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::net::{pipe, socket};

/// The descriptor of a stream: non-blocking, and closed when this is dropped.
pub(crate) enum Descriptor {
    /// A connected stream socket: TCP or Unix.
    Socket(OwnedFd),
    /// What can only be read: a pipe, or a terminal.
    ReadingEnd(OwnedFd),
    /// What can only be written.
    WritingEnd(OwnedFd),
    /// A kernel that does what a test says.
    #[cfg(all(test, not(garland_loom)))]
    Script(std::rc::Rc<crate::transport::script::Script>),
}

impl Descriptor {
    pub(crate) fn receive(&self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Descriptor::Socket(fd) => socket::recv(fd, buf),
            Descriptor::ReadingEnd(fd) | Descriptor::WritingEnd(fd) => pipe::read(fd, buf),
            #[cfg(all(test, not(garland_loom)))]
            Descriptor::Script(script) => script.receive(buf),
        }
    }

    pub(crate) fn send(&self, data: &[u8]) -> io::Result<usize> {
        match self {
            Descriptor::Socket(fd) => socket::send(fd, data),
            Descriptor::ReadingEnd(fd) | Descriptor::WritingEnd(fd) => pipe::write(fd, data),
            #[cfg(all(test, not(garland_loom)))]
            Descriptor::Script(script) => script.send(data.len()),
        }
    }

    pub(crate) fn send_gathered(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Descriptor::Socket(fd) => socket::send_gathered(fd, pieces),
            Descriptor::ReadingEnd(fd) | Descriptor::WritingEnd(fd) => {
                pipe::write_gathered(fd, pieces)
            }
            #[cfg(all(test, not(garland_loom)))]
            Descriptor::Script(script) => script.send(pieces.iter().map(|piece| piece.len()).sum()),
        }
    }

    /// Tells the peer that nothing more will come. The ends of a pipe do so by closing.
    pub(crate) fn shut_down_writing(&self) -> io::Result<()> {
        match self {
            Descriptor::Socket(fd) => socket2::SockRef::from(fd).shutdown(Shutdown::Write),
            Descriptor::ReadingEnd(_) | Descriptor::WritingEnd(_) => Ok(()),
            #[cfg(all(test, not(garland_loom)))]
            Descriptor::Script(script) => script.shut_down_writing(),
        }
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Descriptor::Socket(fd) | Descriptor::ReadingEnd(fd) | Descriptor::WritingEnd(fd) => {
                fd.as_fd()
            }
            #[cfg(all(test, not(garland_loom)))]
            Descriptor::Script(script) => script.as_fd(),
        }
    }
}

/// A connected stream socket.
impl From<OwnedFd> for Descriptor {
    fn from(socket: OwnedFd) -> Self {
        Descriptor::Socket(socket)
    }
}
