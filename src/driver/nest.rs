//! A selector of selectors: one loop sleeps, and an event of another loop that is stuck wakes it at once.
//!
//! Used only while a loop is known to be stuck: sleeping in it costs more than in a selector alone. Nests are never
//! nested themselves, so two loops may watch each other without a cycle, which the kernel would refuse.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use crate::driver::Driver;

/// One per loop, where loops help each other.
#[derive(Debug)]
pub(crate) struct Nest {
    epoll: OwnedFd,
}

impl Nest {
    /// A nest with the loop's own selector in it.
    ///
    /// # Errors
    /// Those of `epoll_create` and `epoll_ctl`: no descriptor, no memory.
    pub(crate) fn new(own: &Driver) -> io::Result<Self> {
        let nest = Nest {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
        };
        nest.add(own)?;
        Ok(nest)
    }

    /// From now on an event of `other` ends the sleep too. Level-triggered: what nobody has taken yet counts.
    ///
    /// # Errors
    /// Those of `epoll_ctl`: no memory, or too many watches for this user.
    pub(crate) fn add(&self, other: &Driver) -> io::Result<()> {
        Ok(epoll::add(
            &self.epoll,
            other,
            EventData::new_u64(0),
            EventFlags::IN,
        )?)
    }

    pub(crate) fn remove(&self, other: &Driver) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, other)?)
    }

    /// Sleeps until any of the selectors has something.
    pub(super) fn wait(&self) {
        let mut event = Vec::with_capacity(1);
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut event),
            None,
        ) {
            // Interrupted: a signal handler ran, as if there had been something.
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            // EBADF, EFAULT or EINVAL: the descriptor is not what this code believes it is.
            Err(error) => panic!("the selector of a watching loop failed: {error}"),
        }
    }
}
