//! Taking in: what the driver, other threads and the clock have for a loop becomes entries of its queues.

use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use crate::driver::{LocalTimerKey, TimerTarget};
use crate::scheduler::news::News;
use crate::scheduler::ready::{Handle, Message};
use crate::scheduler::worker::Worker;

/// Buffers for what a turn takes in, kept from turn to turn.
#[derive(Default)]
pub(super) struct Intake {
    pub(super) wakers: Vec<Arc<Waker>>,
    pub(super) due: Vec<TimerTarget>,
    pub(super) messages: Vec<Message>,
}

impl Worker {
    /// Before each poll of the own selector.
    pub(super) fn count_poll(&self) {
        self.counters().polls.add(1);
        self.tasks_since_poll.set(0);
    }

    /// Lends `poll` the list for the news of callbacks' sockets, which come to stand in line together, and room
    /// for wakers; then wakes those. Once a turn: the list is empty before.
    pub(super) fn take_events(
        self: &Rc<Self>,
        poll: impl FnOnce(&mut Vec<News>, &mut Vec<Arc<Waker>>) -> usize,
    ) -> usize {
        let mut wakers = std::mem::take(&mut self.intake.borrow_mut().wakers);
        let mut news = self.news.take();
        let events = poll(&mut news, &mut wakers);
        if !news.is_empty() {
            self.ready.borrow_mut().push(Handle::News);
        }
        self.news.set(news);
        self.last_batch.set(events);
        self.counters().events.add(events as u64);
        self.wake(wakers);
        events
    }

    /// Wakes all of them, and keeps the room they were in. A waker may be foreign code, so no borrow is held
    /// while it runs.
    pub(super) fn wake(self: &Rc<Self>, mut wakers: Vec<Arc<Waker>>) {
        // In most turns of a quiet loop there are none.
        if !wakers.is_empty() {
            self.catch_each(wakers.drain(..), |waker| waker.wake_by_ref());
        }
        self.intake.borrow_mut().wakers = wakers;
    }

    pub(super) fn append_messages(&self) {
        if self.remote().inbox.is_empty() {
            return;
        }
        let mut intake = self.intake.borrow_mut();
        self.remote().inbox.take(&mut intake.messages);
        self.counters().messages.add(intake.messages.len() as u64);
        let mut ready = self.ready.borrow_mut();
        for message in intake.messages.drain(..) {
            match message {
                Message::SharedCall(call) => ready.push(Handle::SharedCall(call)),
                Message::Visit(visit) => ready.push(Handle::Visit(visit)),
                Message::Task(task) => ready.push(Handle::Task(task)),
                Message::Root => ready.push(Handle::Root),
                Message::Failure(context) => ready.push(Handle::Failure(context)),
                Message::Io(key, what) => ready.push(Handle::Io(key, what)),
                Message::Timer(key) => ready.extend(self.take_fired(key)),
                Message::Stop => self.stopping.set(true),
            }
        }
    }

    /// False if none is due.
    pub(super) fn append_due_timers(self: &Rc<Self>) -> bool {
        if !self.driver().is_timer_due() {
            return false;
        }
        let mut due = std::mem::take(&mut self.intake.borrow_mut().due);
        self.driver().take_due(&mut due);
        let has_fired = !due.is_empty();
        self.counters().timers_fired.add(due.len() as u64);
        for target in due.drain(..) {
            match target {
                // As above: it may be foreign code, and that may panic.
                TimerTarget::Task(waker) => self.catch(|| waker.wake()),
                TimerTarget::Local(key) => {
                    if let Some(call) = self.take_fired(key) {
                        self.push_ready(call);
                    }
                }
            }
        }
        self.intake.borrow_mut().due = due;
        has_fired
    }

    /// The callback of a timer that has come due, as it stands in line; `None` if it was cancelled since.
    fn take_fired(&self, key: LocalTimerKey) -> Option<Handle> {
        let (_, callback) = self.timers.borrow_mut().remove(key)?;
        Some(Handle::Call(callback))
    }
}
