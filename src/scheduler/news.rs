//! What a poll has found for the sockets that callbacks own, and how those are called.

use std::rc::Rc;

use crate::driver::{IoKey, Ready};
use crate::scheduler::ready::{Handle, IoHandler};
use crate::scheduler::worker::Worker;

/// The most that are received before the first is told.
const MOST_AHEAD: usize = 16;
/// Bytes that each of them may receive. The rest of a longer message is received as if it came alone, in the next turn.
// A line more than a power of two: their beginnings would meet in one set of the first-level cache.
const ROOM_AHEAD: usize = 16 * 1024 + 64;

/// What a poll has found: a socket that a callback owns, and what the kernel has to say about it.
///
/// Not a [`Handle`] each: these are many, small, and have nothing to drop. To put them among the handles and to
/// take them out again was a tenth of what a request costs the loop.
#[derive(Clone, Copy)]
pub(super) struct News {
    pub(super) key: IoKey,
    pub(super) ready: Ready,
}

impl News {
    /// Appends each to the list.
    pub(super) fn note(list: &mut Vec<News>) -> impl FnMut(IoKey, Ready) {
        // Not `push`: growing is no rare thing to it, and each event saves registers for it (6 instructions).
        |key, ready| list.extend([News { key, ready }])
    }
}

/// Where a cohort receives: all of its pages are zero until they are used.
pub(super) fn rooms_ahead() -> Vec<u8> {
    vec![0; MOST_AHEAD * ROOM_AHEAD]
}

impl Worker {
    /// What the last poll has found, each as a handle of its own. In debug mode none goes with others, so that each
    /// can be timed.
    pub(super) fn run_news(self: &Rc<Self>, root: &mut dyn FnMut()) {
        let mut batch = self.news.take();
        // What stands in the ready queue for all of them is counted already.
        self.counters().handles_run.add(batch.len() as u64 - 1);
        for news in batch.chunks(MOST_AHEAD) {
            if self.debug.is_on.get() {
                self.catch_each(news.iter(), |&News { key, ready }| {
                    self.run_handle_watched(Handle::Io(key, ready), root);
                });
            } else if self.is_cohort_of_callbacks(news.len()) {
                self.run_cohort(news);
            } else {
                self.catch_each(news.iter(), |&News { key, ready }| {
                    self.remote().pulse.beat();
                    self.run_io(key, ready);
                });
            }
        }
        batch.clear();
        self.news.set(batch);
    }

    /// All of them receive, then each is told; one that does not receive in this way is served when its turn comes.
    fn run_cohort(self: &Rc<Self>, news: &[News]) {
        // Held all the while: nobody else comes here, for one handle runs at a time.
        let mut buffer = self.ahead.borrow_mut();
        let mut received = [None; MOST_AHEAD];
        let io = self.io.borrow_mut();
        let rooms = buffer.chunks_exact_mut(ROOM_AHEAD);
        for ((news, room), received) in news.iter().zip(rooms).zip(&mut received) {
            let handler = io.get(news.key);
            *received = handler.and_then(|handler| handler.receive_ahead(news.ready, room));
        }
        drop(io);
        let rooms = buffer.chunks_exact(ROOM_AHEAD);
        self.catch_each(
            news.iter().zip(rooms).zip(&received),
            |((news, room), received)| {
                self.remote().pulse.beat();
                // None: closed by an earlier one.
                let Some(handler) = self.handler_of(news.key) else {
                    return;
                };
                match received {
                    Some(received) => handler.handle_received(news.ready, *received, room),
                    None => handler.handle_ready(news.ready),
                }
            },
        );
    }

    pub(super) fn run_io(&self, key: IoKey, ready: Ready) {
        // None: closed by an earlier handle of this batch.
        if let Some(handler) = self.handler_of(key) {
            handler.handle_ready(ready);
        }
    }

    fn handler_of(&self, key: IoKey) -> Option<Rc<dyn IoHandler>> {
        // As if to change it: half the instructions of a shared borrow.
        self.io.borrow_mut().get(key).cloned()
    }
}
