//! A kernel that does what a test says: would-block after readiness, short reads and writes,
//! interruptions, hang-ups with data, doubled and late events.
//!
//! Tests only. [`Script`] stands in a connection's [`Descriptor`]; the connection, its loop and the
//! queues are the real ones. Each case is a table: what happens, what the kernel answers to the calls
//! that follow *in this turn*, and what has come of it when the turn is over. A call for which there
//! is no answer, and an answer for which there is no call, are failures.

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
use crate::transport::flow::WriteLimits;
use crate::transport::protocol::{AfterEof, Buffered, BufferedProtocol, Protocol};
use crate::transport::stream::Transport;

const R: Ready = Ready::READABLE;
const W: Ready = Ready::WRITABLE;
/// The peer has ended; it may have sent something before.
const END: Ready = R.or(Ready::READ_CLOSED);
const HUP: Ready = END.or(W).or(Ready::WRITE_CLOSED);
const URGENT: Ready = R.or(Ready::URGENT);
const RESET: Ready = HUP.or(Ready::ERROR);

/// What the kernel answers to one call.
#[derive(Clone, Copy, Debug)]
enum Answer {
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

const AGAIN: Answer = Fails(Errno::AGAIN);

/// The descriptor of a connection under test.
pub(crate) struct Script {
    answers: RefCell<VecDeque<Answer>>,
    log: Log,
    /// For the selector, which hears nothing of an empty pipe whose writer does nothing.
    pipe: (PipeReader, PipeWriter),
}

impl Script {
    pub(crate) fn receive(&self, buf: &mut [u8]) -> io::Result<usize> {
        match self.answer("receive") {
            Brings(count) => {
                buf[..count].fill(b'.');
                Ok(count)
            }
            Fills => Ok(buf.len()),
            Ends => Ok(0),
            Fails(errno) => Err(errno.into()),
            answer => panic!("{answer:?} is no answer to a receive"),
        }
    }

    pub(crate) fn send(&self, offered: usize) -> io::Result<usize> {
        match self.answer("send") {
            Takes(count) => {
                assert!(count <= offered, "{offered} bytes were offered");
                Ok(count)
            }
            TakesAll => Ok(offered),
            Fails(errno) => Err(errno.into()),
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
            AGAIN
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

type Reaction = fn(&str, &Transport);

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
enum Step {
    /// The kernel reports this, as often as it stands here.
    Events(&'static [Ready]),
    /// The owner does something.
    Do(fn(&Transport)),
    /// An event that nothing can have kept back: the connection is told past its loop.
    Late(Ready),
    /// Nothing new.
    Turn,
}
use Step::{Do, Events, Late, Turn};

/// Step, answers of the kernel, and what has come of it when the turn is over.
type Row = (Step, &'static [Answer], &'static str);

/// The numbers of loops, the kinds of protocol.
fn everywhere(after_eof: AfterEof, react: Reaction, rows: &[Row]) {
    for loops in [1, 2, 4] {
        for is_buffered in [false, true] {
            let what = format!("{loops} loops, buffered: {is_buffered}");
            play(loops, is_buffered, after_eof, react, rows, &what);
        }
    }
}

fn case(rows: &[Row]) {
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
    let report = runtime.shutdown(std::time::Duration::from_secs(20));
    assert!(report.is_clean(), "{report}");
    // A case may leave its connection open; the end of its loop is no call-back.
    assert_eq!(log.take(), "", "{what}");
}

fn write_100(transport: &Transport) {
    transport.write(&[7; 100]);
}

/// Pause above ten bytes, resume at two.
fn narrow(transport: &Transport) {
    let limits = WriteLimits { high: 10, low: 2 };
    transport.set_write_limits(limits).expect("low is below");
}

#[test]
fn trn_17_reads_that_bring_less_than_was_announced() {
    case(&[
        (Events(&[R]), &[AGAIN], ""),
        (Turn, &[], ""),
        (Events(&[R]), &[Brings(5)], "data 5"),
        (Turn, &[], ""),
        // An interruption announces nothing again: it is tried in the next turn.
        (Events(&[R]), &[Fails(Errno::INTR)], ""),
        (Turn, &[Brings(3)], "data 3"),
        (Turn, &[], ""),
    ]);
}

#[test]
fn trn_17_one_receive_a_turn_whatever_is_reported() {
    case(&[
        // Doubled: the second waits for the next turn.
        (Events(&[R, R, R]), &[Brings(5)], "data 5"),
        (Turn, &[AGAIN], ""),
        (Turn, &[], ""),
        // A full buffer is followed by a receive of the next turn, beside an event of that turn.
        (Events(&[R]), &[Fills], "data 65536"),
        (Events(&[R]), &[Fills], "data 65536"),
        (Events(&[R, R]), &[Brings(1)], "data 1"),
        (Turn, &[AGAIN], ""),
        (Turn, &[], ""),
        // Pausing and resuming within a turn buys no receive more.
        (Events(&[R]), &[Fills], "data 65536"),
        (
            Do(|t| {
                for _ in 0..3 {
                    t.pause_reading();
                    t.resume_reading();
                }
            }),
            &[Brings(2)],
            "data 2",
        ),
        (Turn, &[], ""),
    ]);
}

#[test]
fn proto_01_a_hang_up_with_data_brings_the_data_first() {
    for hung_up in [&[END], &[HUP]] {
        case(&[
            (Events(hung_up), &[Brings(5)], "data 5"),
            (Turn, &[Fills], "data 65536"),
            (Turn, &[Ends], "eof"),
            (Turn, &[], "lost"),
            (Late(HUP), &[], ""),
        ]);
    }
    // The news of the end comes beside a receive that is queued already: it must not get lost.
    case(&[
        (Events(&[R]), &[Fills], "data 65536"),
        (Events(&[END]), &[Fills], "data 65536"),
        (Turn, &[Brings(5)], "data 5"),
        (Turn, &[Ends], "eof"),
        (Turn, &[], "lost"),
    ]);
    case(&[
        (Events(&[R]), &[Fills], "data 65536"),
        (Events(&[END]), &[Brings(5)], "data 5"),
        (Turn, &[Ends], "eof"),
        (Turn, &[], "lost"),
    ]);
}

#[test]
fn proto_01_a_short_read_before_urgent_data_is_not_the_last() {
    case(&[
        (Events(&[URGENT]), &[Brings(5)], "data 5"),
        (Turn, &[Brings(1)], "data 1"),
        (Turn, &[AGAIN], ""),
        (Turn, &[], ""),
    ]);
}

#[test]
fn proto_03_after_the_end_nothing_is_received() {
    everywhere(
        AfterEof::KeepOpen,
        |_, _| {},
        &[
            (Events(&[END]), &[Ends], "eof"),
            (Events(&[END, END]), &[], ""),
            (Do(Transport::pause_reading), &[], ""),
            (Do(Transport::resume_reading), &[], ""),
            (Do(write_100), &[TakesAll], ""),
            (Do(Transport::close), &[], "lost"),
        ],
    );
}

#[test]
fn trn_13_a_reset_is_an_error_after_what_came_before_it() {
    case(&[
        (Events(&[RESET]), &[Fails(Errno::CONNRESET)], ""),
        (Turn, &[], "lost ConnectionReset"),
        (Late(RESET), &[], ""),
    ]);
    case(&[
        (Events(&[RESET]), &[Brings(5)], "data 5"),
        (Turn, &[Fails(Errno::CONNRESET)], ""),
        (Turn, &[], "lost ConnectionReset"),
    ]);
}

#[test]
fn trn_16_what_comes_while_reading_is_paused_is_read_on_resume() {
    case(&[
        (Do(Transport::pause_reading), &[], ""),
        (Events(&[R]), &[], ""),
        (Events(&[END, END]), &[], ""),
        (Do(Transport::resume_reading), &[Brings(5)], "data 5"),
        (Turn, &[Ends], "eof"),
        (Turn, &[], "lost"),
    ]);
    // Paused by the call-back itself, with a receive queued behind it.
    everywhere(
        AfterEof::Close,
        |line, transport| {
            if line == "data 65536" {
                transport.pause_reading();
            }
        },
        &[
            (Events(&[R]), &[Fills], "data 65536"),
            (Turn, &[], ""),
            (Do(Transport::resume_reading), &[Brings(9)], "data 9"),
            (Turn, &[], ""),
            // Nothing was announced meanwhile: resuming has nothing to read.
            (Do(Transport::pause_reading), &[], ""),
            (Do(Transport::resume_reading), &[], ""),
        ],
    );
}

#[test]
fn trn_16_an_error_while_reading_is_paused_waits_for_resume_or_a_write() {
    case(&[
        (Do(Transport::pause_reading), &[], ""),
        (Events(&[RESET]), &[], ""),
        (
            Do(Transport::resume_reading),
            &[Fails(Errno::CONNRESET)],
            "",
        ),
        (Turn, &[], "lost ConnectionReset"),
    ]);
    case(&[
        (Do(Transport::pause_reading), &[], ""),
        (Events(&[RESET]), &[], ""),
        (Do(write_100), &[Fails(Errno::PIPE)], "lost BrokenPipe"),
        (Do(Transport::resume_reading), &[], ""),
    ]);
}

#[test]
fn trn_02_short_writes_interruptions_and_would_block() {
    case(&[
        (Do(write_100), &[Fails(Errno::INTR), Takes(40)], ""),
        // Nothing is sent beside what waits.
        (Do(write_100), &[], ""),
        (Events(&[W]), &[AGAIN], ""),
        (Events(&[W]), &[Fails(Errno::INTR), Takes(60)], ""),
        (Do(|t| assert_eq!(t.write_buffer_size(), 100)), &[], ""),
        (Events(&[W, W]), &[TakesAll], ""),
        // Room without anything to send is no reason for a call.
        (Events(&[W, W]), &[], ""),
        (Do(write_100), &[TakesAll], ""),
    ]);
}

#[test]
fn trn_04_pieces_are_gathered_and_the_rest_is_kept_in_order() {
    fn pieces(transport: &Transport) {
        let pieces: [&[u8]; 4] = [b"abc", b"", b"defg", b"hi"];
        transport.write_lines(pieces);
    }
    case(&[
        (Do(pieces), &[TakesAll], ""),
        (Do(pieces), &[Takes(4)], ""),
        (Do(|t| assert_eq!(t.write_buffer_size(), 5)), &[], ""),
        (Do(pieces), &[], ""),
        (Do(|t| assert_eq!(t.write_buffer_size(), 14)), &[], ""),
        (Events(&[W]), &[TakesAll], ""),
        (Do(narrow), &[], ""),
        // One call for all pieces, one check of the mark.
        (Do(pieces), &[AGAIN], ""),
        (Do(pieces), &[], "pause"),
        (Do(Transport::close), &[], ""),
        (Events(&[W]), &[TakesAll], "resume"),
        (Turn, &[], "lost"),
    ]);
    case(&[
        (Do(pieces), &[Fails(Errno::PIPE)], "lost BrokenPipe"),
        (Do(pieces), &[], ""),
    ]);
    // More pieces than one call takes.
    case(&[(
        Do(|t| t.write_lines((0..130).map(|_| &b"x"[..]))),
        &[Takes(64), Takes(63)],
        "",
    )]);
}

#[test]
fn trn_05_the_end_of_writing_waits_for_the_buffer() {
    case(&[
        (Do(write_100), &[AGAIN], ""),
        (Do(Transport::write_eof), &[], ""),
        (Do(Transport::write_eof), &[], ""),
        (Events(&[W]), &[Takes(99)], ""),
        (Events(&[W]), &[Takes(1)], "shutdown"),
        (Events(&[R]), &[Brings(5)], "data 5"),
        (Do(Transport::close), &[], "lost"),
    ]);
}

#[test]
fn trn_07_close_flushes_across_short_writes_and_hears_nothing() {
    case(&[
        (Do(write_100), &[AGAIN], ""),
        (Do(Transport::close), &[], ""),
        (Events(&[HUP]), &[Takes(50)], ""),
        (Events(&[R]), &[], ""),
        (Do(write_100), &[], ""),
        (Events(&[W, W]), &[TakesAll], ""),
        (Events(&[HUP]), &[], "lost"),
        (Late(HUP), &[], ""),
    ]);
}

#[test]
fn trn_12_a_reset_in_the_middle_of_a_flush_ends_it_once() {
    // Read first, so it is the receive that finds it.
    case(&[
        (Do(write_100), &[Takes(40)], ""),
        (Events(&[RESET]), &[Fails(Errno::CONNRESET)], ""),
        (Turn, &[], "lost ConnectionReset"),
    ]);
    // Nobody reads any more: it is the send.
    case(&[
        (Do(write_100), &[Takes(40)], ""),
        (Do(Transport::close), &[], ""),
        (Events(&[RESET, RESET]), &[Fails(Errno::PIPE)], ""),
        (Turn, &[], "lost BrokenPipe"),
        (Late(RESET), &[], ""),
    ]);
    case(&[
        (Do(write_100), &[Takes(40)], ""),
        (Events(&[W]), &[Takes(10)], ""),
        (Events(&[W]), &[Fails(Errno::CONNRESET)], ""),
        (Events(&[W, R]), &[], "lost ConnectionReset"),
    ]);
}

#[test]
fn trn_08_trn_09_lost_comes_once_and_with_the_first_reason() {
    case(&[
        (
            Do(|t| {
                write_100(t);
                write_100(t);
                t.close();
                t.abort();
                t.abort();
                assert!(t.is_closing() && !t.is_reading());
            }),
            &[Fails(Errno::PIPE)],
            "lost BrokenPipe",
        ),
        (Do(Transport::abort), &[], ""),
        (Late(RESET), &[], ""),
        (Late(Ready::NONE), &[], ""),
        (Do(Transport::resume_reading), &[], ""),
        (Do(write_100), &[], ""),
        (Turn, &[], ""),
    ]);
}

#[test]
fn trn_10_events_of_the_same_turn_come_too_late_after_abort() {
    case(&[
        (Do(write_100), &[Takes(40)], ""),
        (Events(&[R]), &[Fills], "data 65536"),
        // A receive is queued, an event comes beside it: neither reaches the protocol.
        (Do(Transport::abort), &[], "lost"),
        (Events(&[HUP]), &[], ""),
    ]);
}

#[test]
fn flow_03_flow_04_the_marks_across_short_writes() {
    case(&[
        (Do(narrow), &[], ""),
        (Do(write_100), &[Takes(90)], ""),
        (Do(|t| t.write(b"+")), &[], "pause"),
        (Do(write_100), &[], ""),
        (Events(&[W]), &[Takes(108)], ""),
        (Events(&[W]), &[Takes(1)], "resume"),
        (Events(&[W]), &[TakesAll], ""),
        (Turn, &[], ""),
    ]);
    // Paused for good: neither an abort nor an error is followed by a resume.
    case(&[
        (Do(narrow), &[], ""),
        (Do(write_100), &[AGAIN], "pause"),
        (Do(Transport::abort), &[], "lost"),
    ]);
    case(&[
        (Do(narrow), &[], ""),
        (Do(write_100), &[AGAIN], "pause"),
        (Events(&[W]), &[Fails(Errno::PIPE)], ""),
        (Turn, &[], "lost BrokenPipe"),
    ]);
}

#[test]
fn flow_07_resume_may_write_pause_and_close() {
    everywhere(
        AfterEof::Close,
        |line, transport| {
            if line == "resume" {
                transport.write(&[1; 50]);
                transport.close();
                transport.write(b"ignored");
            }
        },
        &[
            (Do(narrow), &[], ""),
            (Do(write_100), &[AGAIN], "pause"),
            // Told inside of the flush, which goes on with what was written there.
            (Events(&[W]), &[TakesAll, Takes(20)], "resume, pause"),
            (Events(&[W]), &[TakesAll], "resume"),
            (Turn, &[], "lost"),
        ],
    );
}
