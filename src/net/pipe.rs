//! The ends of pipes: which descriptors may be one, and their system calls.
//!
//! Writing to a pipe without a reader is an error here because `std` has the process ignore
//! `SIGPIPE` from its start; a program that restores the signal's default is ended by it.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;

/// Takes a FIFO, a socket or a character device, and makes it non-blocking: for everybody who has
/// the same open file, such as other processes with the same terminal.
pub(crate) fn prepare(fd: OwnedFd) -> io::Result<OwnedFd> {
    let file = File::from(fd);
    let kind = file.metadata()?.file_type();
    if !(kind.is_fifo() || kind.is_socket() || kind.is_char_device()) {
        let message = "it is no FIFO, socket or character device";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    rustix::io::ioctl_fionbio(&file, true)?;
    Ok(file.into())
}

pub(crate) fn read(fd: impl AsFd, buf: &mut [u8]) -> io::Result<usize> {
    Ok(rustix::io::read(fd, buf)?)
}

pub(crate) fn write(fd: impl AsFd, data: &[u8]) -> io::Result<usize> {
    Ok(rustix::io::write(fd, data)?)
}

pub(crate) fn write_gathered(fd: impl AsFd, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    Ok(rustix::io::writev(fd, pieces)?)
}
