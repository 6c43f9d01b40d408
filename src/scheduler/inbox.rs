//! Messages to one loop from outside: other loops and foreign threads.
//!
//! Order of one sender is kept. Closing is exact: a message is either taken by the loop or comes back
//! to its sender, so nothing is ever left behind in an inbox (I10). A home closes its inbox only when all
//! its bound tasks have arrived: what comes back to a sender is never a future of another thread.
//!
//! Pure. Waking the loop is the sender's next step: push, then [`Idle::claim`], then unpark
//! (fence F1 is in `claim`).
//!
//! [`Idle::claim`]: crate::scheduler::idle::Idle::claim

use crate::atomics::{AtomicUsize, Mutex, MutexGuard, Ordering};

/// A queue of many writers and one reader.
#[derive(Debug)]
pub(crate) struct Inbox<M> {
    queue: Mutex<Queue<M>>,
    /// Length of the queue. Written under the lock, read by the home loop without it to save the
    /// lock on an empty inbox. A push is made visible to a parking loop by the fences F1 and F2, not
    /// by this counter's ordering.
    len: AtomicUsize,
}

#[derive(Debug)]
struct Queue<M> {
    messages: Vec<M>,
    closed: bool,
}

impl<M> Inbox<M> {
    pub(crate) fn new() -> Self {
        Inbox {
            queue: Mutex::new(Queue {
                messages: Vec::new(),
                closed: false,
            }),
            len: AtomicUsize::new(0),
        }
    }

    /// Appends a message; a closed inbox gives it back.
    pub(crate) fn push(&self, message: M) -> Result<(), M> {
        let mut queue = self.lock();
        if queue.closed {
            return Err(message);
        }
        queue.messages.push(message);
        self.len.store(queue.messages.len(), Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len.load(Ordering::Relaxed) == 0
    }

    /// Takes all messages, in the order of arrival, into an empty `into`.
    pub(crate) fn take(&self, into: &mut Vec<M>) {
        debug_assert!(into.is_empty(), "what was taken before has been handled");
        let mut queue = self.lock();
        std::mem::swap(&mut queue.messages, into);
        self.len.store(0, Ordering::Relaxed);
    }

    /// Refuses further messages and takes what is there.
    pub(crate) fn close(&self, into: &mut Vec<M>) {
        self.lock().closed = true;
        self.take(into);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn lock(&self) -> MutexGuard<'_, Queue<M>> {
        self.queue
            .lock()
            .expect("no code that can panic runs under this lock")
    }
}
