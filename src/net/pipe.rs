//! The ends of pipes: which descriptors may be one.
//!
//! How they are read and written stands in `transport/descriptor.rs`.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
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
