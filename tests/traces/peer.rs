//! The other end: a plain socket or pipe, which garland has no part in, and which blocks nobody.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use garland::sleep;
use rustix::io::Errno;
use socket2::SockRef;

use crate::actor::reason;
use crate::scenario::{data, number, show};
use crate::stage::Stage;

/// Between two looks at the peer, and at events that are waited for.
pub(crate) const POLL: Duration = Duration::from_millis(1);

/// Received at once, at most.
const BATCH: usize = 256 * 1024;

/// The peer of a scenario.
pub(crate) struct Peer {
    pub(crate) fd: OwnedFd,
    /// Where its datagrams go.
    pub(crate) to: Option<SocketAddr>,
}

impl Peer {
    pub(crate) fn new(fd: impl Into<OwnedFd>, to: Option<SocketAddr>) -> io::Result<Self> {
        let fd = fd.into();
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Peer { fd, to })
    }

    pub(crate) async fn act(self, stage: &Stage, action: &[&str]) -> io::Result<Option<Self>> {
        match action {
            ["send", bytes] => self.send(stage, &data(bytes)).await?,
            ["read", "all"] => self.read(stage, usize::MAX).await?,
            ["read", count] => self.read(stage, number(count)).await?,
            ["shutdown"] => rustix::net::shutdown(&self.fd, rustix::net::Shutdown::Write)?,
            ["close"] => return Ok(None),
            ["reset"] => {
                SockRef::from(&self.fd).set_linger(Some(Duration::ZERO))?;
                return Ok(None);
            }
            _ => stage.log(&format!("! peer {}: not an action", action.join(" "))),
        }
        Ok(Some(self))
    }

    async fn send(&self, stage: &Stage, mut bytes: &[u8]) -> io::Result<()> {
        if let Some(to) = self.to {
            SockRef::from(&self.fd).send_to(bytes, &to.into())?;
            return Ok(());
        }
        while !bytes.is_empty() {
            match unblocked(|| rustix::io::write(self.fd.as_fd(), bytes)).await {
                Ok(count) => bytes = &bytes[count..],
                Err(error) => {
                    stage.log_peer(format!("peer send {}", reason(Some(&error))));
                    break;
                }
            }
        }
        Ok(())
    }

    /// So many bytes, or all until the end; of datagrams the next one.
    async fn read(&self, stage: &Stage, limit: usize) -> io::Result<()> {
        let (mut all, mut end) = (Vec::new(), None);
        let mut buffer = vec![0; BATCH.min(limit)];
        while all.len() < limit && end.is_none() {
            let room = buffer.len().min(limit - all.len());
            match unblocked(|| rustix::io::read(self.fd.as_fd(), &mut buffer[..room])).await {
                Ok(0) if self.to.is_none() => end = Some("eof".to_owned()),
                Ok(count) => all.extend_from_slice(&buffer[..count]),
                Err(error) => end = Some(reason(Some(&error))),
            }
            if self.to.is_some() {
                break;
            }
        }
        if !all.is_empty() || self.to.is_some() {
            stage.log_peer(format!("peer read {}", show(&all)));
        }
        if let Some(end) = end {
            stage.log_peer(format!("peer {end}"));
        }
        Ok(())
    }
}

/// Repeats a call until it does not have to wait.
async fn unblocked<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::AGAIN) => sleep(POLL).await,
            result => return Ok(result?),
        }
    }
}
