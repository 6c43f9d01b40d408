//! The end of one loop: nothing queued runs any more, and nothing it held is left (I10).
//!
//! On the loop's own thread, in this order: refuse, end the tasks, drop what is queued, let go of
//! timers and sockets. The phases of the whole runtime are in `runtime/shutdown.rs`.

use std::rc::Rc;

use crate::scheduler::context;
use crate::scheduler::ready::Message;
use crate::scheduler::worker::{Stage, Worker};

impl Worker {
    /// Ends everything that lives on this loop. A second call does nothing.
    pub(crate) fn close(self: &Rc<Self>) {
        if self.is_closed() {
            return;
        }
        self.leave_rest();
        self.stage.set(Stage::Closed);
        // Entered, so that wake-ups caused by destructors come here and are dropped. A loop that is
        // closed from inside another one does without: they then come through the inbox.
        let _entered = context::enter(self).ok();
        // The members of every loop, not only its own: a wake-up that comes while another loop has the
        // task in its queue is swallowed by the step that follows, after which the task waits again.
        // The last loop to close wakes it when no loop makes steps any more.
        let loops = self.shared().loops.iter();
        for waker in loops.flat_map(|remote| remote.members.close()) {
            self.catch(|| waker.wake());
        }
        let mut messages = Vec::new();
        loop {
            self.remote().inbox.take(&mut messages);
            self.discard_queued(&mut messages);
            if self.remote().members.bound() == 0 {
                break;
            }
            // A thread that wakes a bound task has it in its hands for some instructions: dropped
            // there, by a closed inbox, it would be dropped on the wrong thread. Few come here.
            std::thread::yield_now();
        }
        self.remote().inbox.close(&mut messages);
        self.discard_queued(&mut messages);
        let timers = std::mem::take(&mut *self.timers.borrow_mut());
        for (_, (timer, callback)) in timers {
            drop(self.driver().cancel_timer(timer));
            self.catch(|| {
                callback.cancel();
            });
        }
        let handlers = std::mem::take(&mut *self.io.borrow_mut());
        for (_, handler) in handlers {
            self.warn_of_open(&handler);
            self.catch(|| handler.handle_shutdown());
        }
        // Last, for it heard of the above; it may hold this very loop.
        let on_error = self.on_error.take();
        self.catch(|| drop(on_error));
    }

    /// Drops what is queued here, one by one: each may hold a destructor that panics, and two panics
    /// at once would abort.
    fn discard_queued(self: &Rc<Self>, messages: &mut Vec<Message>) {
        for message in messages.drain(..) {
            self.catch(|| message.discard());
        }
        for handle in self.ready.take() {
            self.catch(|| handle.discard());
        }
        while let Some(task) = self.deque.pop() {
            self.catch(|| drop(task));
        }
    }
}
