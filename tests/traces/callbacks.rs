//! Actions on the loop itself: callbacks by name, and stopping.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::thread;

use garland::{CallHandle, TimerHandle};
use send_wrapper::SendWrapper;

use crate::stage::{Stage, milliseconds};

/// The callbacks that may be cancelled.
#[derive(Default)]
pub(crate) struct Callbacks(RefCell<HashMap<String, Scheduled>>);

enum Scheduled {
    Call(CallHandle),
    Timer(TimerHandle),
}

impl Callbacks {
    pub(crate) fn clear(&self) {
        for (_, scheduled) in self.0.take() {
            scheduled.cancel();
        }
    }

    fn insert(&self, name: &str, scheduled: Scheduled) {
        self.0.borrow_mut().insert(name.to_owned(), scheduled);
    }
}

impl Scheduled {
    fn cancel(&self) {
        match self {
            Scheduled::Call(handle) => handle.cancel(),
            Scheduled::Timer(handle) => handle.cancel(),
        };
    }
}

impl Stage {
    /// False: it is not an action on the loop.
    pub(crate) fn act_on_loop(self: &Rc<Self>, action: &[&str]) -> bool {
        let local = &self.local;
        match action {
            ["soon", name] => {
                let handle = local.call_soon(self.telling(name));
                self.callbacks.insert(name, Scheduled::Call(handle));
            }
            ["later", ms, name] => {
                let handle = local.call_later(milliseconds(ms), self.telling(name));
                self.callbacks.insert(name, Scheduled::Timer(handle));
            }
            ["at", ms, name] => {
                let when = self.began + milliseconds(ms);
                let handle = local.call_at(when, self.telling(name));
                self.callbacks.insert(name, Scheduled::Timer(handle));
            }
            ["threadsafe", name] => self.from_a_thread(&[name])(),
            ["thread", names @ ..] => {
                let calls = self.from_a_thread(names);
                let thread = thread::Builder::new().spawn(calls);
                let thread = thread.expect("the system has a thread");
                thread.join().expect("it only calls the loop");
            }
            ["cancel", name] if self.cancel_future(name) => {}
            ["cancel", name] => match self.callbacks.0.borrow().get(*name) {
                Some(scheduled) => scheduled.cancel(),
                None => self.log(&format!("! cancel {name}: nothing of that name")),
            },
            ["stop"] => local.stop(),
            ["watch_reader" | "watch_writer", name] => self.watch(action[0], name),
            ["unwatch_reader" | "unwatch_writer"] => {
                let peer = self.peer.borrow();
                let peer = peer.as_ref().expect("the peer is not busy");
                let was_there = match action[0] {
                    "unwatch_reader" => local.remove_reader(&peer.fd),
                    _ => local.remove_writer(&peer.fd),
                };
                self.log(&format!("{} {was_there}", action[0]));
            }
            _ => return false,
        }
        true
    }

    /// A callback that is an event by its name.
    pub(crate) fn telling(self: &Rc<Self>, name: &str) -> impl FnOnce() + use<> {
        let (stage, name) = (Rc::clone(self), name.to_owned());
        move || stage.event(&name, "")
    }

    /// Has the loop watch the peer's descriptor.
    fn watch(self: &Rc<Self>, how: &str, name: &str) {
        let (stage, name) = (Rc::clone(self), name.to_owned());
        let tell = move || stage.event(&name, "");
        let peer = self.peer.borrow();
        let fd = &peer.as_ref().expect("the peer is not busy").fd;
        let watched = match how {
            "watch_reader" => self.local.add_reader(fd, tell),
            _ => self.local.add_writer(fd, tell),
        };
        watched.expect("sockets can be watched");
    }

    /// Calls the loop once for each name, from any thread; the callbacks run on the loop, as all do.
    fn from_a_thread(self: &Rc<Self>, names: &[&str]) -> impl FnOnce() + Send + use<> {
        let handle = self.local.handle();
        let names = names.iter();
        let calls: Vec<_> = names
            .map(|name| SendWrapper::new(self.telling(name)))
            .collect();
        move || {
            for call in calls {
                let called = handle.call_soon_threadsafe(move || call.take()());
                called.expect("the loop is not closed");
            }
        }
    }
}
