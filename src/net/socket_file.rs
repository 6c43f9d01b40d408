//! The file of a Unix listener: what may be in its way, and who removes it.
//!
//! Binding makes the file and nothing removes it but an unlink. So a server removes a file that a dead
//! one has left, and its own at its end; never one that somebody else serves or has put there. Between
//! looking at a file and removing it there is a moment in which it may be replaced; the kernel offers
//! no call without one.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use socket2::SockAddr;

use crate::net::socket;

/// Removes the file when it is dropped, if it is still the one that was there at the beginning
/// (UNIX-02).
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// The file at `path`, to which a socket has just been bound.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        // A daemon may change its directory.
        let path = std::path::absolute(path)?;
        let found = fs::symlink_metadata(&path)?;
        Ok(SocketFile {
            path,
            device: found.dev(),
            inode: found.ino(),
        })
    }

    fn is(&self, found: &Metadata) -> bool {
        (found.dev(), found.ino()) == (self.device, self.inode)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let removed = match fs::symlink_metadata(&self.path) {
            Ok(found) if self.is(&found) => fs::remove_file(&self.path),
            Ok(_another) => Ok(()),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, path = %self.path.display(), "a socket file is left behind");
            }
            _ => {}
        }
    }
}

/// Removes the socket file of a server that is gone; leaves everything else for `bind` to complain
/// about. Whether somebody listens is found out by a connection, which a live server accepts and sees
/// end: asyncio does not ask, and takes the name of a live server away.
pub(crate) fn remove_stale(path: &Path) {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if !is_socket || !is_refused(path) {
        return;
    }
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(%error, path = %path.display(), "a stale socket file cannot be removed");
    }
}

fn is_refused(path: &Path) -> bool {
    let connect = || socket::new_unix_stream()?.connect(&SockAddr::unix(path)?);
    connect().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}
