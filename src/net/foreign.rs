//! A descriptor that belongs to somebody else, as a loop may watch it.
//!
//! The loop's own selector is the wrong place for it: whoever owns the descriptor may close it at any
//! time, its number then names something else, and what is said to the kernel by that number (go on
//! watching, stop watching) would hit the new owner. So each watch has an epoll instance of its own,
//! and the loop's selector watches that one.
//!
//! - To stop watching is to close the instance; the descriptor need not exist any more.
//! - A descriptor that is closed leaves the instance by itself, which then never reports again.
//! - Two watches of one descriptor know nothing of each other.
//! - The instance is level-triggered. The selector is told of each edge, and what is ready after that
//!   edge the instance tells when asked ([`Foreign::look`]).
//!
//! The price is one descriptor a watch.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{Timespec, epoll};

use crate::runtime::{Interest, Ready};

/// The watch of one descriptor, in one direction or both.
#[derive(Debug)]
pub(crate) struct Foreign {
    epoll: OwnedFd,
}

/// Directions that are watched.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Directions {
    pub(crate) read: bool,
    pub(crate) write: bool,
}

impl Directions {
    pub(crate) const NONE: Directions = Directions {
        read: false,
        write: false,
    };

    pub(crate) fn any(self) -> bool {
        self.read || self.write
    }

    pub(crate) fn and(mut self, interest: Interest) -> Self {
        match interest {
            Interest::Read => self.read = true,
            Interest::Write => self.write = true,
        }
        self
    }

    /// Errors and hang-ups are reported without being asked for.
    fn flags(self) -> epoll::EventFlags {
        let mut flags = epoll::EventFlags::empty();
        flags.set(epoll::EventFlags::IN, self.read);
        flags.set(epoll::EventFlags::OUT, self.write);
        flags
    }
}

/// An instance holds one descriptor: what it is called there does not matter.
const ONLY: u64 = 0;

impl Foreign {
    /// # Errors
    /// `EPERM` for what is always ready, as a regular file; no descriptor or memory left.
    pub(crate) fn new(fd: impl AsFd, directions: Directions) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let only = epoll::EventData::new_u64(ONLY);
        epoll::add(&epoll, fd, only, directions.flags())?;
        Ok(Foreign { epoll })
    }

    /// Watches other directions of the same descriptor; false if `fd` is another one that came to have
    /// its number.
    pub(crate) fn change(&self, fd: impl AsFd, directions: Directions) -> io::Result<bool> {
        let only = epoll::EventData::new_u64(ONLY);
        match epoll::modify(&self.epoll, fd, only, directions.flags()) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// What is ready now. An error or a hang-up is both readable and writable.
    pub(crate) fn look(&self) -> Ready {
        let mut buffer = [MaybeUninit::uninit()];
        let (events, _) = epoll::wait(&self.epoll, &mut buffer, Some(&Timespec::default()))
            .expect("an epoll instance of this process can be asked");
        let Some(event) = events.first() else {
            return Ready::NONE;
        };
        let flags = event.flags;
        let is_over = flags.intersects(epoll::EventFlags::ERR | epoll::EventFlags::HUP);
        Ready::NONE
            .or_if(
                flags.contains(epoll::EventFlags::IN) || is_over,
                Ready::READABLE,
            )
            .or_if(
                flags.contains(epoll::EventFlags::OUT) || is_over,
                Ready::WRITABLE,
            )
    }
}

/// The instance, which is readable when the descriptor is ready.
impl AsFd for Foreign {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}
