//! Taking in: what the driver, other threads and the clock have for a loop becomes entries of its queues.

use std::rc::Rc;
use std::task::Waker;

use crate::driver::TimerTarget;
use crate::driver::selector::Collected;
use crate::scheduler::ready::{Handle, Message};
use crate::scheduler::worker::Worker;

/// Buffers for what a turn takes in, kept from turn to turn.
#[derive(Default)]
pub(super) struct Intake {
    pub(super) collected: Collected,
    pub(super) wakers: Vec<Waker>,
    pub(super) due: Vec<TimerTarget>,
    pub(super) messages: Vec<Message>,
}

impl Worker {
    /// Turns what the driver collected into entries of the queues.
    pub(super) fn dispatch(self: &Rc<Self>, events: usize) {
        self.last_batch.set(events);
        if events == 0 {
            return;
        }
        self.counters().events.add(events as u64);
        let mut intake = self.intake.borrow_mut();
        let mut ready = self.ready.borrow_mut();
        for (key, what) in intake.collected.local.drain(..) {
            ready.push_back(Handle::Io(key, what));
        }
        drop(ready);
        drop(intake);
        self.wake_collected();
    }

    pub(super) fn wake_collected(self: &Rc<Self>) {
        let mut intake = self.intake.borrow_mut();
        if intake.wakers.is_empty() {
            return;
        }
        // A waker may be foreign code, so no borrow is held while it runs.
        let mut wakers = std::mem::take(&mut intake.wakers);
        drop(intake);
        for waker in wakers.drain(..) {
            self.catch(|| waker.wake());
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
                Message::SharedCall(call) => ready.push_back(Handle::SharedCall(call)),
                Message::Visit(visit) => ready.push_back(Handle::Visit(visit)),
                Message::Task(task) => ready.push_back(Handle::Task(task)),
                Message::Root => ready.push_back(Handle::Root),
                Message::Failure(context) => ready.push_back(Handle::Failure(context)),
                Message::Io(key, what) => ready.push_back(Handle::Io(key, what)),
                Message::Timer(key) => {
                    if let Some((_, callback)) = self.timers.borrow_mut().remove(key) {
                        ready.push_back(Handle::Call(callback));
                    }
                }
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
                    let fired = self.timers.borrow_mut().remove(key);
                    if let Some((_, callback)) = fired {
                        self.push_ready(Handle::Call(callback));
                    }
                }
            }
        }
        self.intake.borrow_mut().due = due;
        has_fired
    }
}
