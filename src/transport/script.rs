//! A kernel that does what a test says.
//!
//! Tests only. [`Script`] stands in a connection's [`Descriptor`]; the connection, its loop and the
//! queues are the real ones. A case is a table of [`Row`]s: what happens, what the kernel answers to
//! the calls that follow *in this turn*, and what has come of it when the turn is over. A call for
//! which there is no answer, and an answer for which there is no call, are failures.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use rustix::io::Errno;

use crate::config::Pin;
use crate::net::SocketName;
use crate::runtime::{Builder, IoHandler, Ready, yield_now};
use crate::transport::connection::Connection;
use crate::transport::descriptor::Descriptor;
use crate::transport::protocol::{AfterEof, Buffered, BufferedProtocol, Protocol};
use crate::transport::stream::Transport;

/// What the kernel answers to one call.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer {
    /// A receive brings so many bytes.
    Brings(usize),
    /// A receive fills whatever buffer it gets.
    Fills,
    /// A receive finds the peer's end.
    Ends,
    /// A send takes so many bytes.
    Takes(usize),
    TakesAll,
    /// Either fails.
    Fails(Errno),
}
use Answer::{Brings, Ends, Fails, Fills, Takes, TakesAll};

/// The descriptor of a connection under test.
pub(crate) struct Script {
    answers: RefCell<VecDeque<Answer>>,
    log: Log,
    /// For the selector, which hears nothing of an empty pipe whose writer does nothing.
    pipe: (PipeReader, PipeWriter),
}

impl Script {
    pub(crate) fn receive(&self, buf: &mut [u8]) -> Result<usize, Errno> {
        match self.answer("receive") {
            Brings(count) => {
                buf[..count].fill(b'.');
                Ok(count)
            }
            Fills => Ok(buf.len()),
            Ends => Ok(0),
            Fails(errno) => Err(errno),
            answer => panic!("{answer:?} is no answer to a receive"),
        }
    }

    pub(crate) fn send(&self, offered: usize) -> Result<usize, Errno> {
        match self.answer("send") {
            Takes(count) => {
                assert!(count <= offered, "{offered} bytes were offered");
                Ok(count)
            }
            TakesAll => Ok(offered),
            Fails(errno) => Err(errno),
            answer => panic!("{answer:?} is no answer to a send"),
        }
    }

    pub(crate) fn shut_down_writing(&self) -> io::Result<()> {
        self.log.add("shutdown");
        Ok(())
    }

    fn answer(&self, call: &str) -> Answer {
        let answer = self.answers.borrow_mut().pop_front();
        answer.unwrap_or_else(|| {
            self.log.add(&format!("{call} unasked"));
            Fails(Errno::AGAIN)
        })
    }
}

impl AsFd for Script {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.0.as_fd()
    }
}

/// What came of it, in order.
#[derive(Clone, Default)]
struct Log(Rc<RefCell<Vec<String>>>);

impl Log {
    fn add(&self, line: &str) {
        self.0.borrow_mut().push(line.to_owned());
    }

    fn take(&self) -> String {
        self.0.take().join(", ")
    }
}

pub(super) type Reaction = fn(&str, &Transport);

/// Notes what it is told and reacts; with a buffer of its own, or without.
struct Recorder {
    log: Log,
    after_eof: AfterEof,
    react: Reaction,
    buffer: Vec<u8>,
}

impl Recorder {
    fn note(&self, line: &str, transport: &Transport) {
        self.log.add(line);
        (self.react)(line, transport);
    }

    fn note_lost(&self, transport: &Transport, error: Option<&io::Error>) {
        match error {
            None => self.note("lost", transport),
            Some(error) => self.note(&format!("lost {:?}", error.kind()), transport),
        }
    }
}

impl Protocol for Recorder {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        self.note(&format!("data {}", data.len()), transport);
    }
    fn eof_received(&mut self, transport: &Transport) -> AfterEof {
        self.note("eof", transport);
        self.after_eof
    }
    fn pause_writing(&mut self, transport: &Transport) {
        self.note("pause", transport);
    }
    fn resume_writing(&mut self, transport: &Transport) {
        self.note("resume", transport);
    }
    fn connection_lost(&mut self, transport: &Transport, error: Option<&io::Error>) {
        self.note_lost(transport, error);
    }
}

impl BufferedProtocol for Recorder {
    fn get_buffer(&mut self, _transport: &Transport, hint: usize) -> &mut [u8] {
        self.buffer.resize(hint, 0);
        &mut self.buffer
    }
    fn buffer_updated(&mut self, transport: &Transport, count: usize) {
        self.note(&format!("data {count}"), transport);
    }
    fn eof_received(&mut self, transport: &Transport) -> AfterEof {
        Protocol::eof_received(self, transport)
    }
    fn pause_writing(&mut self, transport: &Transport) {
        Protocol::pause_writing(self, transport);
    }
    fn resume_writing(&mut self, transport: &Transport) {
        Protocol::resume_writing(self, transport);
    }
    fn connection_lost(&mut self, transport: &Transport, error: Option<&io::Error>) {
        self.note_lost(transport, error);
    }
}

/// What happens at the beginning of a turn.
pub(super) enum Step {
    /// The kernel reports this, as often as it stands here.
    Events(&'static [Ready]),
    /// The owner does something.
    Do(fn(&Transport)),
    /// An event that nothing can have kept back: the connection is told past its loop.
    Late(Ready),
    /// The same, and it receives before its owner does something, and hears of it after that.
    Ahead(Ready, fn(&Transport)),
    /// Nothing new.
    Turn,
}
use Step::{Ahead, Do, Events, Late, Turn};

/// Step, answers of the kernel, and what has come of it when the turn is over.
pub(super) type Row = (Step, &'static [Answer], &'static str);

/// A protocol that may receive ahead, which lends no buffer.
pub(super) fn ahead(rows: &[Row]) {
    play(1, false, AfterEof::Close, |_, _| {}, rows, "ahead");
}

/// The numbers of loops, the kinds of protocol.
pub(super) fn everywhere(after_eof: AfterEof, react: Reaction, rows: &[Row]) {
    for loops in [1, 2, 4] {
        for is_buffered in [false, true] {
            let what = format!("{loops} loops, buffered: {is_buffered}");
            play(loops, is_buffered, after_eof, react, rows, &what);
        }
    }
}

pub(super) fn case(rows: &[Row]) {
    everywhere(AfterEof::Close, |_, _| {}, rows);
}

fn play(
    loops: usize,
    is_buffered: bool,
    after_eof: AfterEof,
    react: Reaction,
    rows: &[Row],
    what: &str,
) {
    let runtime = Builder::new().loops(loops).pin(Pin::Off).build();
    let runtime = runtime.expect("a runtime can be built");
    let log = Log::default();
    let script = Rc::new(Script {
        answers: RefCell::default(),
        log: log.clone(),
        pipe: io::pipe().expect("a pipe can be made"),
    });
    let recorder = Recorder {
        log: log.clone(),
        after_eof,
        react,
        buffer: Vec::new(),
    };
    let protocol: Box<dyn Protocol> = if is_buffered {
        Box::new(Buffered(recorder))
    } else {
        Box::new(recorder)
    };
    let local = runtime.local().clone();
    let played = runtime.block_on(async {
        let descriptor = Descriptor::Script(Rc::clone(&script));
        let transport = Connection::open(&local, descriptor, SocketName::Unnamed, protocol).await;
        let connection = Rc::clone(&transport.connection);
        let key = connection.key.get().expect("not lost yet");
        for (row, (step, answers, expected)) in rows.iter().enumerate() {
            script.answers.borrow_mut().extend(*answers);
            match step {
                Events(events) => events
                    .iter()
                    .for_each(|ready| local.requeue_io(key, *ready)),
                Do(act) => act(&transport),
                Late(ready) => Rc::clone(&connection).handle_ready(*ready),
                Ahead(ready, act) => {
                    let mut buf = [0; 64];
                    let received = connection.receive_ahead(*ready, &mut buf);
                    act(&transport);
                    match received {
                        Some(received) => {
                            Rc::clone(&connection).handle_received(*ready, received, &buf);
                        }
                        None => Rc::clone(&connection).handle_ready(*ready),
                    }
                }
                Turn => {}
            }
            yield_now().await;
            assert_eq!(log.take(), *expected, "row {row}, {what}");
            let left = script.answers.take();
            assert!(
                left.is_empty(),
                "row {row}, not called for: {left:?}, {what}"
            );
        }
    });
    played.expect("nobody stops the loop");
    let stats = runtime.handle().stats();
    assert_eq!(stats.total(|one| one.callback_panics), 0, "{what}");
    let report = runtime.shutdown(std::time::Duration::from_secs(20));
    assert!(report.is_clean(), "{report}");
    // A case may leave its connection open; the end of its loop is no call-back.
    assert_eq!(log.take(), "", "{what}");
}
