//! One scenario while it is played on garland: its trace, and all that has a name in it.
//!
//! The script and the tasks of a scenario run on loop 0, as the call-backs do: no lock, and no order that
//! is left to luck. No borrow is held while an action runs.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::panic::{self, resume_unwind};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use garland::{DatagramTransport, LocalLoop, StreamReader, StreamWriter, Transport};

use crate::callbacks::Callbacks;
use crate::futures::Futures;
use crate::peer::Peer;
use crate::scenario::{Action, Scenario, show};

/// Garland's end of the connection.
#[derive(Clone)]
pub(crate) enum End {
    Stream(Transport),
    Datagram(DatagramTransport),
}

/// Why the rest of a list of actions is not played.
#[derive(Debug)]
pub(crate) enum Left {
    Failed,
    Returned(String),
}

pub(crate) struct Stage {
    pub(crate) local: LocalLoop,
    pub(crate) scenario: Rc<Scenario>,
    pub(crate) began: Instant,
    pub(crate) end: RefCell<Option<End>>,
    pub(crate) peer: RefCell<Option<Peer>>,
    /// Out of its place while it is read from.
    pub(crate) reader: RefCell<Option<StreamReader>>,
    pub(crate) writer: RefCell<Option<Rc<StreamWriter>>>,
    pub(crate) keeps_open: Cell<bool>,
    pub(crate) callbacks: Callbacks,
    pub(crate) futures: Futures,
    trace: RefCell<Trace>,
    counts: RefCell<HashMap<String, usize>>,
    /// Reactions for the first time only that have had it.
    used: RefCell<HashSet<usize>>,
    is_over: Cell<bool>,
    /// The action of the script that is played just now.
    pub(crate) at: RefCell<String>,
}

/// What the loop did, and what the peer saw: between the two there is no order.
#[derive(Default)]
struct Trace {
    lines: Vec<String>,
    peer_lines: Vec<String>,
    /// Data events that follow each other are one line.
    joined: Option<(String, Vec<u8>)>,
}

impl Trace {
    fn flush(&mut self) {
        if let Some((name, data)) = self.joined.take() {
            self.lines.push(format!("{name} {}", show(&data)));
        }
    }
}

impl Stage {
    pub(crate) fn new(local: &LocalLoop, scenario: &Rc<Scenario>) -> Rc<Self> {
        Rc::new(Stage {
            local: local.clone(),
            scenario: Rc::clone(scenario),
            began: local.time(),
            end: RefCell::default(),
            peer: RefCell::default(),
            reader: RefCell::default(),
            writer: RefCell::default(),
            keeps_open: Cell::default(),
            callbacks: Callbacks::default(),
            futures: Futures::default(),
            trace: RefCell::default(),
            counts: RefCell::default(),
            used: RefCell::default(),
            is_over: Cell::default(),
            at: RefCell::default(),
        })
    }

    pub(crate) fn enters(&self, end: End) {
        *self.end.borrow_mut() = Some(end);
    }

    pub(crate) fn keeps_open(&self) -> bool {
        self.keeps_open.get()
    }

    pub(crate) fn count(&self, event: &str) -> usize {
        self.counts.borrow().get(event).copied().unwrap_or(0)
    }

    pub(crate) fn log(&self, line: &str) {
        if !self.is_over.get() {
            let mut trace = self.trace.borrow_mut();
            trace.flush();
            trace.lines.push(line.to_owned());
        }
    }

    pub(crate) fn log_peer(&self, line: String) {
        self.trace.borrow_mut().peer_lines.push(line);
    }

    /// Something the loop tells us.
    ///
    /// # Panics
    /// A reaction says so.
    pub(crate) fn event(self: &Rc<Self>, name: &str, detail: &str) {
        self.log(format!("{name} {detail}").trim_end());
        self.happened(name, 1);
    }

    pub(crate) fn data(self: &Rc<Self>, name: &str, data: &[u8]) {
        let mut trace = self.trace.borrow_mut();
        if trace.joined.as_ref().is_none_or(|(last, _)| last != name) {
            trace.flush();
            trace.joined = Some((name.to_owned(), Vec::new()));
        }
        let (_, joined) = trace.joined.as_mut().expect("just made");
        joined.extend_from_slice(data);
        drop(trace);
        self.happened(name, data.len());
    }

    /// Counts an event and plays the reactions to it.
    pub(crate) fn happened(self: &Rc<Self>, name: &str, count: usize) {
        *self.counts.borrow_mut().entry(name.to_owned()).or_default() += count;
        let scenario = Rc::clone(&self.scenario);
        for (index, reaction) in scenario.reactions.iter().enumerate() {
            if reaction.event != name || self.is_over.get() {
                continue;
            }
            if !self.used.borrow_mut().insert(index) && reaction.is_once {
                continue;
            }
            for action in &reaction.actions {
                if self.act(action).is_err() {
                    failing();
                }
            }
        }
    }

    /// Plays an action that acts at once.
    pub(crate) fn act(self: &Rc<Self>, action: &Action) -> Result<(), Left> {
        let words: Vec<&str> = action.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["note", text @ ..] => {
                let text = text.iter().map(|word| word.trim_start_matches('"'));
                self.log(&text.fold("note".to_owned(), |line, word| format!("{line} {word}")));
            }
            ["block", ms] => thread::sleep(milliseconds(ms)),
            ["fail"] => return Err(Left::Failed),
            ["return", value] => return Err(Left::Returned((*value).to_owned())),
            words => {
                let is_known =
                    self.act_on_end(words) || self.act_on_loop(words) || self.act_on_future(words);
                if !is_known {
                    self.log(&format!("! {}: not an action here", words[0]));
                }
            }
        }
        Ok(())
    }

    /// Ends the recording; what comes from now on is cleaning up.
    pub(crate) fn finish(&self) -> Vec<String> {
        self.is_over.set(true);
        let mut trace = self.trace.take();
        trace.flush();
        trace.lines.append(&mut trace.peer_lines);
        let mistakes = take_panics().into_iter();
        trace.lines.extend(mistakes.map(|what| format!("! {what}")));
        self.callbacks.clear();
        self.futures.clear();
        if let Some(peer) = self.peer.take() {
            self.local.remove_reader(&peer.fd);
            self.local.remove_writer(&peer.fd);
        }
        drop((self.reader.take(), self.writer.take()));
        match self.end.take() {
            Some(End::Stream(transport)) => transport.abort(),
            Some(End::Datagram(transport)) => transport.abort(),
            None => {}
        }
        trace.lines
    }
}

thread_local! {
    /// While a scenario is played here: the panics there were.
    static PANICS: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// From now on a panic of this thread is kept and not printed; those of other threads are printed.
pub(crate) fn keep_panics() {
    PANICS.set(Some(Vec::new()));
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let payload = info.payload();
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        let text = text.unwrap_or("a panic");
        let place = info.location().map(|at| format!(", {at}"));
        let line = format!("{text}{}", place.unwrap_or_default());
        let is_kept = PANICS.with_borrow_mut(|panics| match panics {
            Some(panics) => {
                panics.push(line);
                true
            }
            None => false,
        });
        if !is_kept {
            before(info);
        }
    }));
}

/// The panics since the last time.
pub(crate) fn take_panics() -> Vec<String> {
    PANICS.with_borrow_mut(|panics| panics.as_mut().map(std::mem::take).unwrap_or_default())
}

/// A panic that is part of the scenario: no hook hears of it.
pub(crate) fn failing() -> ! {
    resume_unwind(Box::new("the action `fail`"))
}

pub(crate) fn milliseconds(word: &str) -> Duration {
    let ms: f64 = word
        .parse()
        .unwrap_or_else(|_| panic!("not a number: {word}"));
    Duration::from_secs_f64(ms.max(0.0) / 1000.0)
}
