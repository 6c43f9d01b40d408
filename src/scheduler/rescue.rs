//! Rescue: a loop that does not sleep, or wakes for it, turns the driver of one that is stuck.
//!
//! ```text
//!   parked ──limit of its sleep──> look at the pulses ──all move──> park again
//!                                        │ one stands still for STUCK_AFTER, or was announced
//!                                        v
//!                  turn its driver: one poll without waiting, its due timers
//!                                        │
//!       movable wakes ──> own deque      │      callbacks' events and timers ──> inbox of their home
//!                                        v
//!                  park in a nest of both selectors, until the other moves again
//! ```
//!
//! Registrations stay where they are (I8): the next event is found by the home, if it is back. Only of one socket each
//! time it is stuck a loop is relieved: the task whose event came first is offered this loop for its socket, and takes
//! the offer when it waits again. So a loop that is stuck again and again has fewer and fewer to keep
//! waiting, and one whose core was taken away for a moment keeps the rest. No user code runs under a lock of the other's driver (I7), and its owner does not wait for one (I9). A connection that is
//! accepted by the rescuer gets it as home.
//!
//! Bounds (I5): a parked loop notices after [`STUCK_AFTER`], [`SHORT_STUCK_AFTER`] where steps are usually short, to
//! twice that time; when the watch was handed over without a word up to [`LATE_LOOK`] times as much later. From then on
//! the events of the stuck loop wake it directly. Busy loops look at each other every [`HELP_AFTER`].

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::driver::alarm::NEVER;
use crate::driver::{Source, TimerTarget};
use crate::scheduler::pulse::Beat;
use crate::scheduler::ready::Message;
use crate::scheduler::shared::Remote;
use crate::scheduler::watch::Sleep;
use crate::scheduler::worker::Worker;

/// A loop in one callback, or one step, for so long is stuck. Shorter costs: at a tenth of it the watch takes a
/// tenth of an echo server's throughput.
const STUCK_AFTER: u64 = ns(Duration::from_micros(500));
/// The same of a loop whose steps are short: likely it has lost its core for a time slice. To watch and to help such a
/// loop as eagerly takes a twentieth of an echo server's throughput.
const SHORT_STUCK_AFTER: u64 = ns(Duration::from_millis(2));
/// So many times as long sleeps a parked loop while another keeps watch.
const LATE_LOOK: u64 = 4;
/// A loop that is busy itself helps one that is stuck for so long.
const HELP_AFTER: u64 = ns(Duration::from_millis(10));
/// A busy loop asks the clock whether it is time to look only every so many turns.
const HELP_TURNS: u64 = 8;
/// Looks in a row that saw nothing move, after which a loop sleeps without a limit. Guessed: traffic with gaps
/// below eight milliseconds never pays for waking a watcher.
const RESTED_AFTER: u32 = 16;

/// So many sockets more than a stuck loop, and an eighth, may a loop have that relieves it of one. Guessed.
const SPARE: usize = 8;

const _: () =
    assert!(STUCK_AFTER < SHORT_STUCK_AFTER && LATE_LOOK * SHORT_STUCK_AFTER < HELP_AFTER);

const fn ns(span: Duration) -> u64 {
    span.as_nanos() as u64
}

/// What a loop knows of the others.
#[derive(Debug, Default)]
pub(super) struct Lookout {
    /// What it saw of each loop.
    seen: RefCell<Vec<Seen>>,
    /// Until when it may sleep; `None` when that is still to be reckoned.
    next_look: Cell<Option<NextLook>>,
    /// Looks in a row that saw nothing move.
    quiet: Cell<u32>,
    /// When it last looked although it was busy.
    helped_at: Cell<u64>,
    /// How many loops are known to be stuck.
    stuck: Cell<usize>,
    /// The last look saw one that is.
    saw_stuck: Cell<bool>,
}

#[derive(Clone, Copy, Debug)]
struct NextLook {
    at: u64,
    span: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    beat: Beat,
    since: u64,
    is_stuck: bool,
    is_reported: bool,
    /// It was relieved of a socket.
    is_relieved: bool,
}

impl Lookout {
    /// Whether to sleep in the nest.
    pub(super) fn knows_stuck(&self) -> bool {
        self.stuck.get() > 0
    }

    pub(super) fn saw_stuck(&self) -> bool {
        self.saw_stuck.get()
    }
}

impl Worker {
    /// Until when this loop may sleep, for the sake of the others.
    pub(super) fn sleep_limit(&self) -> u64 {
        if !self.shared().is_rescuing() {
            return NEVER;
        }
        self.remote().pulse.rest();
        let lookout = &self.lookout;
        let rested = lookout.quiet.get() >= RESTED_AFTER;
        let sleep = self
            .shared()
            .watch
            .fall_asleep(self.id(), rested, || self.nobody_runs());
        let span = match sleep {
            Sleep::Watch => self.watch_span(),
            Sleep::Late => LATE_LOOK * self.watch_span(),
            Sleep::Deep => {
                lookout.next_look.set(None);
                return NEVER;
            }
        };
        // Kept over the parks in between: the clock is read once a look.
        let next = lookout.next_look.get().filter(|next| next.span <= span);
        let next = next.unwrap_or_else(|| NextLook {
            at: self.driver().clock().now_ns() + span,
            span,
        });
        lookout.next_look.set(Some(next));
        next.at
    }

    /// How often the others have to be looked at: as often as the one that is to be helped soonest.
    fn watch_span(&self) -> u64 {
        let spans = self.others().map(|(_, remote)| stuck_after(remote));
        spans.min().unwrap_or(SHORT_STUCK_AFTER)
    }

    fn nobody_runs(&self) -> bool {
        self.others()
            .all(|(_, remote)| !remote.pulse.look().is_running())
    }

    fn others(&self) -> impl Iterator<Item = (usize, &Arc<Remote>)> {
        let loops = self.shared().loops.iter().enumerate();
        loops.filter(|(id, _)| *id != self.id())
    }

    /// After a sleep: the watch is over if it was this loop's and there are events of its own; else look at the others,
    /// if it is time to.
    pub(super) fn look_after_sleep(self: &Rc<Self>, events: usize) {
        if !self.shared().is_rescuing() {
            return;
        }
        self.shared().watch.wake(self.id());
        if events > 0 && !self.lookout.knows_stuck() {
            return;
        }
        let now = self.driver().clock().now_ns();
        let is_due = match self.lookout.next_look.get() {
            Some(next) => next.at <= now,
            None => true,
        };
        if is_due {
            self.lookout.next_look.set(None);
        }
        let moved = self.look(now, 0);
        if moved {
            self.lookout.quiet.set(0);
        } else if is_due {
            self.lookout.quiet.set(self.lookout.quiet.get() + 1);
        }
    }

    /// Before user code: another loop has to keep watch now, if all that are parked sleep deeply.
    pub(super) fn begin_to_run(&self) {
        let pulse = &self.remote().pulse;
        let has_slept = !pulse.look().is_running();
        pulse.beat();
        if has_slept && self.shared().is_rescuing() {
            self.leave_watch();
        }
    }

    /// After the last turn of a run: nobody turns this loop any more, so it keeps no watch either.
    pub(super) fn end_of_run(&self) {
        self.remote().pulse.rest();
        if !self.deque.is_empty() {
            self.notify_thieves();
        }
        if self.shared().watch.is_kept_by(self.id()) {
            self.leave_watch();
        }
    }

    fn leave_watch(&self) {
        if let Some(id) = self.shared().watch.leave(self.id()) {
            self.shared().wake(id);
        }
    }

    /// What runs now is known to take long: somebody who is parked shall serve this loop's sockets at once.
    pub(crate) fn announce_long(&self) {
        if self.shared().is_rescuing() {
            self.remote().pulse.announce_long();
            self.shared().notify();
        }
    }

    /// It is over. A loop that closes drops guards too, and is not to look as if it ran.
    pub(crate) fn end_long(&self) {
        self.remote().pulse.end_long();
    }

    /// A busy loop too must look at the others now and then: with all of them busy nobody would help.
    pub(super) fn help_now_and_then(self: &Rc<Self>) {
        if !self.shared().is_rescuing() || !self.counters().turns.get().is_multiple_of(HELP_TURNS) {
            return;
        }
        let now = self.driver().clock().now_ns();
        if now.saturating_sub(self.lookout.helped_at.get()) >= HELP_AFTER {
            self.lookout.helped_at.set(now);
            let _moved: bool = self.look(now, HELP_AFTER);
        }
    }

    /// Looks at the pulses, and helps whoever is stuck, and has been for so long at least. True if anything moved or runs.
    fn look(self: &Rc<Self>, now: u64, at_least: u64) -> bool {
        let mut moved = false;
        let mut stuck = Vec::new();
        let mut too_long = Vec::new();
        let mut seen = self.lookout.seen.borrow_mut();
        seen.resize(self.shared().loops.len(), Seen::default());
        for (id, remote) in self.others() {
            let beat = remote.pulse.look();
            let known = &mut seen[id];
            let is_same = beat.is_same(known.beat);
            moved |= !is_same || beat.is_running();
            if !is_same {
                if known.is_stuck {
                    self.leave_alone(remote);
                }
                *known = Seen {
                    beat,
                    since: now,
                    is_stuck: false,
                    is_reported: false,
                    is_relieved: false,
                };
            }
            let lasted = now.saturating_sub(known.since);
            let is_stuck = lasted >= stuck_after(remote).max(at_least) || beat.is_long();
            if !beat.is_running() || !is_stuck {
                continue;
            }
            if !known.is_stuck {
                known.is_stuck = self.watch_over(remote);
            }
            stuck.push(id);
            if !known.is_reported && !beat.is_long() && remote.is_out_of_patience(lasted) {
                known.is_reported = true;
                too_long.push((id, beat, lasted));
            }
        }
        drop(seen);
        self.lookout.saw_stuck.set(!stuck.is_empty());
        for (id, beat, lasted) in too_long {
            self.report_stuck(id, beat, Duration::from_nanos(lasted));
        }
        for id in stuck {
            self.rescue(id);
        }
        moved
    }

    /// From now on an event of the stuck loop ends the sleep of this one. False if the system has no descriptor for
    /// it: then the limit of the sleep has to do.
    fn watch_over(&self, remote: &Remote) -> bool {
        let nest = self.remote().nest.as_ref();
        let added = nest.map(|nest| nest.add(&remote.driver));
        let is_added = matches!(added, Some(Ok(())));
        if is_added {
            self.lookout.stuck.set(self.lookout.stuck.get() + 1);
        }
        is_added
    }

    /// It moves again.
    fn leave_alone(&self, remote: &Remote) {
        if let Some(nest) = &self.remote().nest {
            let removed = nest.remove(&remote.driver);
            removed.expect("it was added, and its descriptor lives as long as the runtime");
            self.lookout.stuck.set(self.lookout.stuck.get() - 1);
        }
    }

    /// Relieves a stuck loop of a socket, unless it was already, or has clearly fewer than this one.
    fn offer_home(&self, id: usize, source: &Source) {
        let relieved = &mut self.lookout.seen.borrow_mut()[id].is_relieved;
        if *relieved {
            return;
        }
        let there = self.shared().loops[id].driver.slots().len();
        let here = self.driver().slots().len();
        if here <= there + there / 8 + SPARE {
            *relieved = true;
            source.offer();
        }
    }

    /// One poll of the other's selector, and its timers that have come due.
    fn rescue(self: &Rc<Self>, id: usize) {
        self.counters().rescues.add(1);
        self.counters().polls.add(1);
        let victim = &self.shared().loops[id];
        let mut wakers = std::mem::take(&mut self.intake.borrow_mut().wakers);
        let mut news = Vec::new();
        let note = |key, ready| news.push(Message::Io(key, ready));
        let (events, first) = victim.driver.poll_for_other(note, &mut wakers);
        self.counters().events.add(events as u64);
        if let Some(source) = first {
            self.offer_home(id, &source);
        }
        let mut is_sent = false;
        for message in news {
            is_sent |= send_home(victim, message);
        }
        let mut due = std::mem::take(&mut self.intake.borrow_mut().due);
        if victim.driver.is_timer_due() {
            victim.driver.take_due(&mut due);
            self.counters().timers_fired.add(due.len() as u64);
        }
        for target in due.drain(..) {
            match target {
                TimerTarget::Task(waker) => wakers.push(Arc::new(waker)),
                TimerTarget::Local(key) => is_sent |= send_home(victim, Message::Timer(key)),
            }
        }
        self.intake.borrow_mut().due = due;
        // It was stuck when this loop looked, and may sleep by now, without what was sent to it.
        if is_sent {
            self.shared().wake(id);
        }
        // Or it rests in a foreign loop, and this poll has taken what made its descriptor readable.
        if !victim.pulse.look().is_running() {
            victim.driver.unpark();
        }
        self.wake(wakers);
    }
}

/// How long a loop may stand still before it is taken for stuck.
fn stuck_after(remote: &Remote) -> u64 {
    if remote.step_time.is_short() {
        SHORT_STUCK_AFTER
    } else {
        STUCK_AFTER
    }
}

/// False if the home is closing: what the message names is gone.
fn send_home(victim: &Remote, message: Message) -> bool {
    victim.inbox.push(message).is_ok()
}
