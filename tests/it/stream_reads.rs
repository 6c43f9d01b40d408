//! Rows STRM-02 to STRM-08: what a reader gives, when it fails, and when the peer has to wait.

use std::io::{ErrorKind, Write};
use std::time::Duration;

use futures_lite::AsyncReadExt;
use futures_lite::future::poll_once;
use garland::ReadError;

use crate::sockets::{pattern, read_some, reset, until};
use crate::streams::{arrived, end, play, send, settle, unread};

/// More than one receive of the loop takes, in bytes.
const ONE_RECEIVE: usize = 256 * 1024;

#[test]
fn strm_02_read_returns_one_to_n_bytes_and_none_at_the_end() {
    play(async |peer, mut reader, _writer| {
        assert_eq!(reader.read(0).await.expect("at once"), b"");
        assert!(poll_once(reader.read(10)).await.is_none(), "it waits");
        send(&peer, b"abcdef");
        assert_eq!(reader.read(4).await.expect("open"), b"abcd");
        assert_eq!(reader.read(0).await.expect("at once"), b"");
        // What has arrived meanwhile belongs to it: it is not cut where the kernel cut it.
        send(&peer, b"gh");
        arrived(&reader, 4).await;
        assert_eq!(reader.read(100).await.expect("open"), b"efgh");
        send(&peer, b"i");
        end(&peer);
        assert_eq!(reader.read(100).await.expect("open"), b"i");
        for _ in 0..2 {
            assert_eq!(reader.read(100).await.expect("the end"), b"");
        }
    });
}

#[test]
fn strm_02_read_to_end_takes_everything_whatever_the_limit() {
    play(async |peer, mut reader, _writer| {
        reader.set_limit(10);
        let data = pattern(3 * ONE_RECEIVE);
        let sender = {
            let data = data.clone();
            std::thread::spawn(move || {
                peer.set_nonblocking(false).expect("a socket");
                send(&peer, &data);
                end(&peer);
            })
        };
        // Giving up in between loses nothing.
        assert!(poll_once(reader.read_to_end()).await.is_none());
        assert!(reader.read_to_end().await.expect("orderly") == data);
        assert_eq!(reader.read_to_end().await.expect("the end"), b"");
        sender.join().expect("sent");
    });
}

#[test]
fn strm_03_readline_keeps_the_newline_and_gives_what_is_left_at_the_end() {
    play(async |peer, mut reader, _writer| {
        send(&peer, b"one\n\ntw");
        assert_eq!(reader.readline().await.expect("a line"), b"one\n");
        assert_eq!(reader.readline().await.expect("a line"), b"\n");
        assert!(poll_once(reader.readline()).await.is_none());
        send(&peer, b"o\nrest");
        end(&peer);
        assert_eq!(reader.readline().await.expect("a line"), b"two\n");
        assert_eq!(reader.readline().await.expect("the rest"), b"rest");
        assert_eq!(reader.readline().await.expect("the end"), b"");
    });
}

#[test]
fn strm_03_a_line_at_the_limit_passes_and_one_above_it_is_dropped() {
    play(async |peer, mut reader, _writer| {
        assert_eq!(reader.limit(), 64 * 1024);
        reader.set_limit(5);
        send(&peer, b"12345\n123456\nnext\n");
        arrived(&reader, 18).await;
        assert_eq!(reader.readline().await.expect("at the limit"), b"12345\n");
        let error = reader.readline().await.expect_err("above it");
        assert!(matches!(error, ReadError::LimitOverrun { consumed: 6 }));
        // Only the offending line is gone.
        assert_eq!(reader.readline().await.expect("a line"), b"next\n");
        // Without its end in sight, everything is.
        send(&peer, b"1234567");
        arrived(&reader, 7).await;
        let error = reader.readline().await.expect_err("above it");
        assert!(matches!(error, ReadError::LimitOverrun { consumed: 7 }));
        let error = std::io::Error::from(error);
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        send(&peer, b"ok\n");
        assert_eq!(reader.readline().await.expect("a line"), b"ok\n");
    });
}

#[test]
fn strm_04_readexactly_takes_so_many_or_tells_what_there_was() {
    play(async |peer, mut reader, _writer| {
        assert_eq!(reader.readexactly(0).await.expect("at once"), b"");
        send(&peer, b"abc");
        assert!(poll_once(reader.readexactly(5)).await.is_none());
        arrived(&reader, 3).await;
        assert!(
            poll_once(reader.readexactly(5)).await.is_none(),
            "three are here"
        );
        send(&peer, b"defgh");
        assert_eq!(reader.readexactly(5).await.expect("all came"), b"abcde");
        end(&peer);
        let error = reader.readexactly(4).await.expect_err("only three");
        assert_eq!(error.to_string(), "the stream ended after 3 bytes of 4");
        match error {
            ReadError::Incomplete { partial, expected } => {
                assert_eq!((&partial[..], expected), (&b"fgh"[..], Some(4)));
            }
            other => panic!("{other:?}"),
        }
        assert!(reader.at_eof(), "the partial bytes are taken");
        let error = std::io::Error::from(reader.readexactly(1).await.expect_err("nothing"));
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        assert_eq!(reader.readexactly(0).await.expect("nothing is asked"), b"");
    });
}

#[test]
fn strm_05_readuntil_includes_the_separator_wherever_it_is_cut() {
    play(async |peer, mut reader, _writer| {
        send(&peer, b"a--b-");
        assert_eq!(reader.readuntil(b"--").await.expect("found"), b"a--");
        assert!(poll_once(reader.readuntil(b"--")).await.is_none());
        arrived(&reader, 2).await;
        assert!(poll_once(reader.readuntil(b"--")).await.is_none());
        send(&peer, b"-c");
        assert_eq!(reader.readuntil(b"--").await.expect("found"), b"b--");
        end(&peer);
        match reader.readuntil(b"--").await.expect_err("the end") {
            ReadError::Incomplete { partial, expected } => {
                assert_eq!((&partial[..], expected), (&b"c"[..], None));
            }
            other => panic!("{other:?}"),
        }
        assert!(reader.at_eof());
    });
}

#[test]
fn strm_05_above_the_limit_readuntil_fails_and_leaves_the_data() {
    play(async |peer, mut reader, _writer| {
        reader.set_limit(3);
        send(&peer, b"abc");
        arrived(&reader, 3).await;
        assert!(poll_once(reader.readuntil(b";")).await.is_none(), "at it");
        send(&peer, b";defg;");
        arrived(&reader, 9).await;
        assert_eq!(reader.readuntil(b";").await.expect("at the limit"), b"abc;");
        for _ in 0..2 {
            let error = reader.readuntil(b";").await.expect_err("above it");
            assert!(matches!(error, ReadError::LimitOverrun { consumed: 4 }));
        }
        assert_eq!(
            reader.readexactly(5).await.expect("it is all there"),
            b"defg;"
        );
        send(&peer, b"not found");
        arrived(&reader, 9).await;
        let error = reader.readuntil(b"\r\n").await.expect_err("above it");
        // The last byte may be the first one of a separator.
        assert!(matches!(error, ReadError::LimitOverrun { consumed: 8 }));
        assert_eq!(
            reader.read(100).await.expect("it is all there"),
            b"not found"
        );
    });
}

#[test]
fn strm_05_of_several_separators_the_shortest_match_wins() {
    play(async |peer, mut reader, _writer| {
        send(&peer, b"one\r\ntwo\nthree END four");
        let separators: &[&[u8]] = &[b"END", b"\r\n", b"\n"];
        for expected in [&b"one\r\n"[..], b"two\n", b"three END"] {
            let got = reader.readuntil_any(separators).await.expect("found");
            assert_eq!(got, expected);
        }
        end(&peer);
        let error = reader.readuntil_any(separators).await.expect_err("the end");
        assert!(matches!(error, ReadError::Incomplete { partial, .. } if partial == b" four"));
    });
}

#[test]
fn strm_06_an_error_stands_before_what_was_received() {
    play(async |peer, mut reader, writer| {
        send(&peer, b"received\n");
        arrived(&reader, 9).await;
        assert!(reader.exception().is_none());
        reset(peer);
        until("the loss", || reader.exception().is_some()).await;
        let kind = |error: std::io::Error| error.kind();
        for n in [100, 0] {
            assert_eq!(
                reader.read(n).await.map_err(kind),
                Err(ErrorKind::ConnectionReset)
            );
        }
        let end = reader.read_to_end().await;
        assert_eq!(end.map_err(kind), Err(ErrorKind::ConnectionReset));
        let line = reader.readline().await.map_err(|error| kind(error.into()));
        assert_eq!(line, Err(ErrorKind::ConnectionReset));
        let three = reader
            .readexactly(0)
            .await
            .map_err(|error| kind(error.into()));
        assert_eq!(three, Err(ErrorKind::ConnectionReset));
        let mut buf = [0; 8];
        let polled = AsyncReadExt::read(&mut reader, &mut buf).await;
        assert_eq!(polled.map_err(kind), Err(ErrorKind::ConnectionReset));
        assert_eq!(
            writer.drain().await.map_err(kind),
            Err(ErrorKind::ConnectionReset)
        );
    });
}

#[test]
fn strm_06_an_exception_that_is_set_ends_reading_but_not_the_connection() {
    play(async |peer, mut reader, writer| {
        send(&peer, b"received\n");
        arrived(&reader, 9).await;
        reader.set_exception(std::io::Error::other("enough"));
        for _ in 0..2 {
            let error = reader.readline().await.expect_err("it was set");
            assert_eq!(error.to_string(), "enough");
        }
        assert_eq!(
            writer.drain().await.expect_err("asyncio too").to_string(),
            "enough"
        );
        writer.write(b"still");
        assert_eq!(read_some(&peer, 5).await, b"still");
    });
}

#[test]
fn strm_07_a_reader_whose_read_was_dropped_is_free_for_the_next() {
    play(async |peer, mut reader, _writer| {
        let limit = Duration::from_millis(2);
        garland::timeout(limit, reader.readline())
            .await
            .expect_err("nothing was sent");
        send(&peer, b"hel");
        arrived(&reader, 3).await;
        garland::timeout(limit, reader.readline())
            .await
            .expect_err("no line yet");
        send(&peer, b"lo\n");
        assert_eq!(reader.readline().await.expect("a line"), b"hello\n");
    });
}

#[test]
fn strm_08_reading_pauses_above_twice_the_limit_and_resumes_at_it() {
    play(async |peer, mut reader, writer| {
        let transport = writer.transport();
        reader.set_limit(1000);
        send(&peer, &[1; 2000]);
        arrived(&reader, 2000).await;
        assert!(transport.is_reading(), "at twice the limit");
        send(&peer, &[1; 1]);
        until("the pause", || !transport.is_reading()).await;
        reader.readexactly(1000).await.expect("it is here");
        assert!(!transport.is_reading(), "one above the limit");
        reader.readexactly(1).await.expect("it is here");
        assert!(transport.is_reading(), "at the limit");
    });
}

#[test]
fn strm_08_what_a_reader_holds_is_bounded() {
    play(async |peer, reader, writer| {
        let mut sent = 0;
        let mut peer_ = &peer;
        let mut refused = 0;
        // Until the peer has to wait, for good.
        while refused < 10 {
            match peer_.write(&[0; 64 * 1024]) {
                Ok(count) => sent += count,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    refused += 1;
                    settle().await;
                }
            }
        }
        assert!(!writer.transport().is_reading());
        let unread = unread(&reader);
        assert!(
            unread <= 2 * reader.limit() + ONE_RECEIVE,
            "{unread} of {sent} bytes"
        );
    });
}

#[test]
fn strm_08_a_read_of_more_than_the_limit_does_not_deadlock() {
    play(async |peer, mut reader, writer| {
        reader.set_limit(10);
        let data = pattern(8 * ONE_RECEIVE);
        let sent = data.clone();
        let sender = std::thread::spawn(move || {
            peer.set_nonblocking(false).expect("a socket");
            send(&peer, &sent);
            peer
        });
        until("the pause", || !writer.transport().is_reading()).await;
        let error = reader.readuntil(b"no such separator").await;
        assert!(matches!(error, Err(ReadError::LimitOverrun { .. })));
        let got = reader.readexactly(data.len()).await.expect("all of it");
        assert!(got == data);
        sender.join().expect("sent");
    });
}
