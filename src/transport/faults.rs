//! The state machine of a connection against everything a kernel may do: would-block after readiness,
//! short reads and writes, interruptions, hang-ups with data, resets, doubled and late events.
//!
//! Tests only: tables for the [scripted kernel](crate::transport::script), each played with one loop,
//! two and four, for plain and buffered protocols. The same with real sockets: `tests/it/faults.rs`.

use rustix::io::Errno;

use crate::runtime::Ready;
use crate::transport::flow::WriteLimits;
use crate::transport::protocol::AfterEof;
use crate::transport::script::Answer::{self, Brings, Ends, Fails, Fills, Takes, TakesAll};
use crate::transport::script::Step::{Ahead, Do, Events, Late, Turn};
use crate::transport::script::{ahead, case, everywhere};
use crate::transport::stream::Transport;

const R: Ready = Ready::READABLE;
const W: Ready = Ready::WRITABLE;
/// The peer has ended; it may have sent something before.
const END: Ready = R.or(Ready::READ_CLOSED);
const HUP: Ready = END.or(W).or(Ready::WRITE_CLOSED);
const URGENT: Ready = R.or(Ready::URGENT);
const RESET: Ready = HUP.or(Ready::ERROR);

const AGAIN: Answer = Fails(Errno::AGAIN);

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
fn trn_16_what_was_received_ahead_of_a_pause_comes_on_resume() {
    let pause = Transport::pause_reading;
    ahead(&[
        (Ahead(R, pause), &[Brings(5)], ""),
        (Turn, &[], ""),
        // One after the other: what was received, and what an edge may have announced behind it.
        (Do(Transport::resume_reading), &[], "data 5"),
        (Turn, &[Brings(3)], "data 3"),
    ]);
    ahead(&[
        (Ahead(R, pause), &[Ends], ""),
        (Do(Transport::resume_reading), &[], "eof"),
        (Turn, &[], "lost"),
    ]);
    ahead(&[
        (Ahead(R, pause), &[Fails(Errno::CONNRESET)], ""),
        (Do(Transport::resume_reading), &[], ""),
        (Turn, &[], "lost ConnectionReset"),
    ]);
    ahead(&[
        (Ahead(R, pause), &[Brings(5)], ""),
        (Do(Transport::abort), &[], "lost"),
        (Do(Transport::resume_reading), &[], ""),
    ]);
    ahead(&[(Ahead(R, Transport::close), &[Brings(5)], "lost")]);
}

#[test]
fn what_was_received_ahead_is_judged_as_ever() {
    let nothing = |_: &Transport| {};
    ahead(&[
        (Ahead(R, nothing), &[Brings(5)], "data 5"),
        // A full buffer: there may be more.
        (Ahead(R, nothing), &[Fills, Fails(Errno::INTR)], "data 64"),
        (Turn, &[AGAIN], ""),
        (Turn, &[], ""),
        (
            Ahead(R, nothing),
            &[Fails(Errno::INTR), Brings(3)],
            "data 3",
        ),
        (Do(write_100), &[Takes(40)], ""),
        (Ahead(R.or(W), nothing), &[Brings(5), TakesAll], "data 5"),
        (Ahead(R, nothing), &[Ends], "eof, lost"),
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
    // Raised marks take effect with the next flush, if that sends anything.
    case(&[
        (Do(narrow), &[], ""),
        (Do(write_100), &[AGAIN], "pause"),
        (
            Do(|t| t.set_write_limits(WriteLimits::low(100)).expect("valid")),
            &[],
            "",
        ),
        (Events(&[W]), &[AGAIN], ""),
        (Events(&[W]), &[Takes(1)], "resume"),
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
