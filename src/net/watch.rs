//! Callbacks for descriptors that the loop does not own: `add_reader`, `add_writer`.
//!
//! Level-triggered, as in asyncio: a callback that does not read is called again in the next turn. The
//! selector reports edges, so after each call the descriptor is looked at, and if it is still ready
//! the handler queues itself: behind everything else that is ready, with a poll in between.
//!
//! What belongs to the caller stays there: nothing here reads, writes or closes.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::rc::Rc;

use crate::net::foreign::{Directions, Foreign};
use crate::runtime::{Interest, IoHandler, IoKey, LocalLoop, Ready, Repeating};

impl LocalLoop {
    /// Calls `callback` on this loop, once a turn, as long as `fd` is ready for reading, has failed
    /// or was hung up. It replaces the reader of `fd`, if there is one; a writer is another matter.
    ///
    /// The descriptor stays the caller's, who removes the reader before closing it. If it is closed
    /// first, the callback is never called again, unless a duplicate of the descriptor keeps the
    /// file open; it is dropped when it is removed, when its number is watched anew, or with the loop.
    ///
    /// # Errors
    /// A descriptor that is a socket of this runtime; one that cannot be waited for, as a regular
    /// file; no descriptor left for the watch; a closed loop.
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use std::os::unix::net::UnixStream;
    ///
    /// let (mut ours, mut theirs) = UnixStream::pair()?;
    /// theirs.write_all(b"hello")?;
    ///
    /// let runtime = garland::Builder::new().loops(1).build()?;
    /// let local = runtime.local().clone();
    /// runtime.local().add_reader(&ours.try_clone()?, move || {
    ///     let mut buf = [0; 5];
    ///     ours.read_exact(&mut buf).expect("it is ready");
    ///     assert_eq!(&buf, b"hello");
    ///     local.stop();
    /// })?;
    /// runtime.run_forever()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn add_reader(&self, fd: &impl AsFd, callback: impl FnMut() + 'static) -> io::Result<()> {
        self.add_watch(fd, Interest::Read, Box::new(callback))
    }

    /// Calls `callback` on this loop, once a turn, as long as `fd` is ready for writing, has failed or
    /// was hung up: otherwise as [`add_reader`](LocalLoop::add_reader).
    ///
    /// # Errors
    /// As for [`add_reader`](LocalLoop::add_reader).
    pub fn add_writer(&self, fd: &impl AsFd, callback: impl FnMut() + 'static) -> io::Result<()> {
        self.add_watch(fd, Interest::Write, Box::new(callback))
    }

    /// Drops the reader of `fd`: it is not called any more, even if its turn has come. False if there
    /// is none. A mere number will do: the descriptor may be closed already.
    pub fn remove_reader(&self, fd: &impl AsRawFd) -> bool {
        self.remove_watch(fd.as_raw_fd(), Interest::Read)
    }

    /// Drops the writer of `fd`, as [`remove_reader`](LocalLoop::remove_reader).
    pub fn remove_writer(&self, fd: &impl AsRawFd) -> bool {
        self.remove_watch(fd.as_raw_fd(), Interest::Write)
    }

    fn add_watch(&self, fd: &impl AsFd, interest: Interest, callback: Callback) -> io::Result<()> {
        self.check_open()?;
        let number = fd.as_fd().as_raw_fd();
        let watchers = self.attachment::<Watchers>();
        let known = watchers.get(number);
        if let Some(known) = known {
            let directions = known.directions().and(interest);
            if known.foreign.change(fd, directions)? {
                known.set(interest, callback);
                return Ok(());
            }
            // Closed without being removed, and the number given away.
            known.forget();
        }
        if self.is_watched(fd)? {
            return Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                format!("descriptor {number} is a socket of this runtime"),
            ));
        }
        let foreign = Foreign::new(fd, Directions::NONE.and(interest))?;
        let watcher = Watcher::new(self, number, foreign)?;
        watchers.0.borrow_mut().insert(number, Rc::clone(&watcher));
        watcher.set(interest, callback);
        Ok(())
    }

    fn remove_watch(&self, number: RawFd, interest: Interest) -> bool {
        let watchers = self.attachment::<Watchers>();
        let known = watchers.get(number);
        known.is_some_and(|watcher| watcher.unset(interest))
    }
}

type Callback = Box<dyn FnMut()>;

/// The watched descriptors of one loop, by number.
#[derive(Default)]
struct Watchers(RefCell<HashMap<RawFd, Rc<Watcher>>>);

impl Watchers {
    fn get(&self, number: RawFd) -> Option<Rc<Watcher>> {
        self.0.borrow().get(&number).cloned()
    }

    /// Its number may be watched anew already, by a destructor of the callback that was removed.
    fn remove(&self, watcher: &Watcher) -> Option<Rc<Watcher>> {
        let mut all = self.0.borrow_mut();
        let is_there = all
            .get(&watcher.number)
            .is_some_and(|one| one.key == watcher.key);
        is_there.then(|| all.remove(&watcher.number)).flatten()
    }
}

/// One watched descriptor.
struct Watcher {
    local: LocalLoop,
    number: RawFd,
    key: Cell<IoKey>,
    foreign: Foreign,
    reader: Repeating,
    writer: Repeating,
    /// Set while the handler stands in the ready queue by its own wish.
    is_queued: Cell<bool>,
}

impl Watcher {
    fn new(local: &LocalLoop, number: RawFd, foreign: Foreign) -> io::Result<Rc<Self>> {
        let watcher = Rc::new(Watcher {
            local: local.clone(),
            number,
            key: Cell::default(),
            foreign,
            reader: Repeating::default(),
            writer: Repeating::default(),
            is_queued: Cell::default(),
        });
        let handler = Rc::clone(&watcher);
        let key = local.insert_io(handler);
        watcher.key.set(key);
        if let Err(error) = local.watch_io(&watcher.foreign, key) {
            local.remove_io(key);
            return Err(error);
        }
        Ok(watcher)
    }

    fn callback(&self, interest: Interest) -> &Repeating {
        match interest {
            Interest::Read => &self.reader,
            Interest::Write => &self.writer,
        }
    }

    /// The directions that have a callback.
    fn directions(&self) -> Directions {
        Directions {
            read: self.reader.is_set(),
            write: self.writer.is_set(),
        }
    }

    fn set(&self, interest: Interest, callback: Callback) {
        self.callback(interest).set(callback);
        // What is ready already makes no edge.
        self.queue_if_callable();
    }

    /// The direction stays watched while the other one has a callback: an event too many is ignored,
    /// while telling the kernel would need a descriptor that still exists.
    fn unset(&self, interest: Interest) -> bool {
        let was_set = self.callback(interest).clear();
        if was_set && !self.directions().any() {
            self.forget();
        }
        was_set
    }

    fn forget(&self) {
        self.local.remove_io(self.key.get());
        let watchers = self.local.attachment::<Watchers>();
        let removed = watchers.remove(self);
        drop(removed);
        self.reader.clear();
        self.writer.clear();
    }

    /// The directions that are ready and have a callback, as of now.
    fn callable(&self) -> Directions {
        let ready = self.foreign.look();
        let Directions { read, write } = self.directions();
        Directions {
            read: read && ready.intersects(Ready::READABLE),
            write: write && ready.intersects(Ready::WRITABLE),
        }
    }

    /// Stays in the ready queue as long as there is something to call.
    fn queue_if_callable(&self) {
        if !self.is_queued.get() && self.callable().any() {
            self.is_queued.set(true);
            self.local.requeue_io(self.key.get(), Ready::NONE);
        }
    }
}

impl IoHandler for Watcher {
    /// Looks once more: what was queued a turn ago may have been read, or closed, since.
    fn handle_ready(self: Rc<Self>, ready: Ready) {
        if ready == Ready::NONE {
            self.is_queued.set(false);
        } else if self.is_queued.get() {
            // An edge of what will be looked at anyway: one call a turn.
            return;
        }
        let Directions { read, write } = self.callable();
        if read {
            self.reader.call(&self.local);
        }
        if write {
            self.writer.call(&self.local);
        }
        if read || write {
            self.queue_if_callable();
        }
    }

    fn handle_shutdown(self: Rc<Self>) {
        self.forget();
    }
}
