//! What a connection reads from and writes to, and the few system calls it makes of it.
//!
//! Would-block and interruption are errors here as in the kernel; what they mean is decided by the
//! [`Connection`](super::connection::Connection).

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::net::socket;

/// The descriptor of a stream: non-blocking, and closed when this is dropped.
#[derive(Debug)]
pub(crate) enum Descriptor {
    /// A connected stream socket: TCP or Unix.
    Socket(OwnedFd),
}

impl Descriptor {
    pub(crate) fn receive(&self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Descriptor::Socket(socket) => socket::recv(socket, buf),
        }
    }

    pub(crate) fn send(&self, data: &[u8]) -> io::Result<usize> {
        match self {
            Descriptor::Socket(socket) => socket::send(socket, data),
        }
    }

    /// Tells the peer that nothing more will come.
    pub(crate) fn shut_down_writing(&self) -> io::Result<()> {
        match self {
            Descriptor::Socket(socket) => socket2::SockRef::from(socket).shutdown(Shutdown::Write),
        }
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Descriptor::Socket(fd) => fd.as_fd(),
        }
    }
}

/// A connected stream socket.
impl From<OwnedFd> for Descriptor {
    fn from(socket: OwnedFd) -> Self {
        Descriptor::Socket(socket)
    }
}
