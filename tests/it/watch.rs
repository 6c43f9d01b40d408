//! Callbacks for descriptors that the loop does not own: called as long as something is ready, never
//! for what is gone.

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::thread;

use garland::{LocalLoop, Runtime};

use crate::support::{Trace, end, lent, run, run_until_stopped, turn};

/// A connected pair that does not block.
fn pair() -> (UnixStream, UnixStream) {
    let (left, right) = UnixStream::pair().expect("descriptors are free");
    left.set_nonblocking(true).expect("a socket");
    right.set_nonblocking(true).expect("a socket");
    (left, right)
}

/// Takes everything out; how much it was.
fn drain(mut stream: &UnixStream) -> usize {
    let mut buf = [0; 4096];
    let mut all = 0;
    while let Ok(count @ 1..) = stream.read(&mut buf) {
        all += count;
    }
    all
}

/// Puts in until nothing more goes.
fn fill(mut stream: &UnixStream) {
    while matches!(stream.write(&[0; 65536]), Ok(1..)) {}
}

pub(crate) fn counter() -> (Rc<Cell<u32>>, impl FnMut() + 'static) {
    let count = Rc::new(Cell::new(0));
    let mine = Rc::clone(&count);
    (count, move || mine.set(mine.get() + 1))
}

/// How often `count` went up in each of `turns` turns.
fn calls(runtime: &Runtime, count: &Cell<u32>, turns: usize) -> Vec<u32> {
    let one = |_| {
        let before = count.get();
        turn(runtime);
        count.get() - before
    };
    (0..turns).map(one).collect()
}

#[test]
fn io_01_a_reader_that_does_not_read_is_called_once_in_every_turn() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let (ours, mut theirs) = pair();
        let (count, callback) = counter();
        runtime
            .local()
            .add_reader(&ours, callback)
            .expect("a socket");
        assert_eq!(calls(&runtime, &count, 3), [0, 0, 0], "nothing to read");
        theirs.write_all(b"one").expect("there is room");
        assert_eq!(calls(&runtime, &count, 5), [1, 1, 1, 1, 1]);
        // More data makes edges; still one call a turn.
        theirs.write_all(b"two").expect("there is room");
        assert_eq!(calls(&runtime, &count, 3), [1, 1, 1]);
        drain(&ours);
        assert_eq!(calls(&runtime, &count, 3), [0, 0, 0], "nothing left");
        theirs.write_all(b"three").expect("there is room");
        assert_eq!(calls(&runtime, &count, 2), [1, 1], "and again");
        assert!(runtime.local().remove_reader(&ours));
        end(runtime);
    }
}

#[test]
fn io_01_reading_little_by_little_reaches_the_last_byte() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let (ours, mut theirs) = pair();
        let local = runtime.local().clone();
        let read = Rc::new(Cell::new(0));
        let (mine, so_far) = (
            ours.try_clone().expect("a descriptor is free"),
            Rc::clone(&read),
        );
        let callback = move || {
            let count = (&mine).read(&mut [0; 7]).expect("it is ready");
            so_far.set(so_far.get() + count);
            if so_far.get() == 1000 {
                local.stop();
            }
        };
        runtime
            .local()
            .add_reader(&ours, callback)
            .expect("a socket");
        let writer = thread::spawn(move || {
            for _ in 0..100 {
                theirs.write_all(&[1; 10]).expect("there is room");
                thread::yield_now();
            }
            theirs
        });
        run_until_stopped(&runtime);
        assert_eq!(read.get(), 1000);
        drop(writer.join().expect("it only writes"));
        end(runtime);
    }
}

#[test]
fn io_01_a_parked_loop_is_woken_by_a_watched_descriptor() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let (ours, mut theirs) = pair();
        let local = runtime.local().clone();
        runtime
            .local()
            .add_reader(&ours, move || local.stop())
            .expect("a socket");
        let handle = runtime.handle().clone();
        let waker = thread::spawn(move || {
            let parked = || handle.stats().loops[0].is_parked;
            crate::support::wait_until("loop 0 sleeps", &handle, parked);
            theirs.write_all(b"!").expect("there is room");
            theirs
        });
        run_until_stopped(&runtime);
        drop(waker.join().expect("it only writes"));
        end(runtime);
    }
}

#[test]
fn io_01_what_is_ready_lets_other_callbacks_and_timers_run() {
    let runtime = lent(1);
    let (ours, mut theirs) = pair();
    theirs.write_all(b"always").expect("there is room");
    let (count, callback) = counter();
    runtime
        .local()
        .add_reader(&ours, callback)
        .expect("a socket");
    run(&runtime, async {
        for _ in 0..5 {
            garland::sleep(std::time::Duration::from_micros(200)).await;
            garland::yield_now().await;
        }
    });
    assert!(count.get() >= 5);
    end(runtime);
}

#[test]
fn io_01_a_callback_that_panics_is_reported_and_called_again() {
    let runtime = lent(1);
    let (ours, mut theirs) = pair();
    theirs.write_all(b"!").expect("there is room");
    let (count, mut callback) = counter();
    let failing = move || {
        callback();
        panic!("as it should");
    };
    runtime
        .local()
        .add_reader(&ours, failing)
        .expect("a socket");
    turn(&runtime);
    assert_eq!(calls(&runtime, &count, 3), [1, 1, 1]);
    assert!(runtime.local().remove_reader(&ours));
    let panics = end(runtime).total(|one| one.callback_panics);
    assert_eq!(panics, u64::from(count.get()));
}

#[test]
fn io_02_adding_again_replaces_and_drops_the_old_callback() {
    let runtime = lent(1);
    let (ours, mut theirs) = pair();
    theirs.write_all(b"!").expect("there is room");
    let (old, callback) = counter();
    runtime
        .local()
        .add_reader(&ours, callback)
        .expect("a socket");
    turn(&runtime);
    turn(&runtime);
    let before = old.get();
    assert!(before > 0);
    let (new, callback) = counter();
    runtime
        .local()
        .add_reader(&ours, callback)
        .expect("a socket");
    assert_eq!(Rc::strong_count(&old), 1, "the old one is dropped at once");
    turn(&runtime);
    assert_eq!(calls(&runtime, &new, 2), [1, 1]);
    assert_eq!(old.get(), before);
    end(runtime);
    assert_eq!(Rc::strong_count(&new), 1, "the loop drops what is left");
}

#[test]
fn io_02_a_callback_may_replace_or_remove_itself() {
    let runtime = lent(1);
    let (ours, mut theirs) = pair();
    theirs.write_all(b"!").expect("there is room");
    let trace = Trace::new();
    let (local, noting) = (runtime.local().clone(), trace.clone());
    let number = ours.as_raw_fd();
    let shared = Rc::new(ours);
    let fd = Rc::clone(&shared);
    let first = move || {
        noting.note("first");
        let (noting, inner) = (noting.clone(), local.clone());
        let second = move || {
            noting.note("second");
            assert!(inner.remove_reader(&number));
            assert!(!inner.remove_reader(&number));
        };
        local.add_reader(&*fd, second).expect("a socket");
    };
    runtime
        .local()
        .add_reader(&*shared, first)
        .expect("a socket");
    for _ in 0..5 {
        turn(&runtime);
    }
    assert_eq!(trace.take(), ["first", "second"]);
    assert_eq!(Rc::strong_count(&shared), 1, "both callbacks are dropped");
    end(runtime);
}

#[test]
fn io_02_reader_and_writer_are_independent_and_the_reader_comes_first() {
    let runtime = lent(1);
    let (ours, mut theirs) = pair();
    let trace = Trace::new();
    let (reading, writing) = (trace.clone(), trace.clone());
    // Added the other way round.
    let local = runtime.local();
    local
        .add_writer(&ours, move || writing.note("write"))
        .expect("a socket");
    local
        .add_reader(&ours, move || reading.note("read"))
        .expect("a socket");
    turn(&runtime);
    turn(&runtime);
    trace.take();
    theirs.write_all(b"!").expect("there is room");
    for _ in 0..3 {
        turn(&runtime);
    }
    assert_eq!(
        trace.take(),
        ["read", "write", "read", "write", "read", "write"]
    );
    assert!(local.remove_writer(&ours));
    turn(&runtime);
    turn(&runtime);
    trace.take();
    turn(&runtime);
    assert_eq!(trace.take(), ["read"]);
    let writing = trace.clone();
    local
        .add_writer(&ours, move || writing.note("write"))
        .expect("a socket");
    assert!(local.remove_reader(&ours));
    turn(&runtime);
    turn(&runtime);
    trace.take();
    turn(&runtime);
    assert_eq!(trace.take(), ["write"]);
    end(runtime);
}

#[test]
fn io_01_a_writer_is_called_when_there_is_room_again() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let (ours, theirs) = pair();
        fill(&ours);
        let (count, mut callback) = counter();
        let local = runtime.local().clone();
        let woken = move || {
            callback();
            local.stop();
        };
        runtime.local().add_writer(&ours, woken).expect("a socket");
        assert_eq!(calls(&runtime, &count, 3), [0, 0, 0], "there is no room");
        let reader = thread::spawn(move || {
            drain(&theirs);
            theirs
        });
        run_until_stopped(&runtime);
        assert_eq!(count.get(), 1);
        drop(reader.join().expect("it only reads"));
        end(runtime);
    }
}

/// What was ready all the time makes no edge when it is added again.
#[test]
fn io_02_a_reader_added_again_beside_a_silent_writer_is_called() {
    let runtime = lent(1);
    let local = runtime.local();
    let (ours, mut theirs) = pair();
    fill(&ours);
    theirs.write_all(b"!").expect("there is room");
    let (writes, writer) = counter();
    local.add_writer(&ours, writer).expect("a socket");
    let (reads, reader) = counter();
    local.add_reader(&ours, reader).expect("a socket");
    assert_eq!(calls(&runtime, &reads, 2), [1, 1]);
    assert!(local.remove_reader(&ours));
    turn(&runtime);
    let (reads, reader) = counter();
    local.add_reader(&ours, reader).expect("a socket");
    assert_eq!(calls(&runtime, &reads, 2), [1, 1]);
    assert_eq!(writes.get(), 0);
    end(runtime);
}

#[test]
fn io_03_removing_says_whether_there_was_one() {
    let runtime = lent(1);
    let local = runtime.local();
    let (ours, _theirs) = pair();
    assert!(!local.remove_reader(&ours));
    assert!(!local.remove_writer(&ours));
    let (_, callback) = counter();
    local.add_reader(&ours, callback).expect("a socket");
    assert!(!local.remove_writer(&ours), "only a reader is there");
    assert!(local.remove_reader(&ours));
    assert!(!local.remove_reader(&ours));
    assert!(!local.remove_reader(&12345), "no such number");
    end(runtime);
}

#[test]
fn io_03_a_callback_whose_turn_has_come_does_not_run_once_removed() {
    let runtime = lent(1);
    let (first, mut to_first) = pair();
    let (second, mut to_second) = pair();
    let fds = Rc::new([first, second]);
    let calls = Rc::new(RefCell::new(Vec::new()));
    for (own, other) in [(0, 1), (1, 0)] {
        let (local, others, seen) = (runtime.local().clone(), Rc::clone(&fds), Rc::clone(&calls));
        let callback = move || {
            seen.borrow_mut().push(own);
            assert!(local.remove_reader(&others[other]));
            assert!(local.remove_reader(&others[own]));
        };
        runtime
            .local()
            .add_reader(&fds[own], callback)
            .expect("a socket");
    }
    to_first.write_all(b"!").expect("there is room");
    to_second.write_all(b"!").expect("there is room");
    for _ in 0..4 {
        turn(&runtime);
    }
    assert_eq!(
        calls.borrow().len(),
        1,
        "both were ready in one turn, one ran"
    );
    end(runtime);
}

#[test]
fn io_04_a_hang_up_makes_reader_and_writer_ready() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let local = runtime.local();
        // The end of a pipe that writes: full, and then without a reader.
        let (theirs, ours) = std::io::pipe().expect("descriptors are free");
        rustix::io::ioctl_fionbio(&ours, true).expect("a pipe");
        while rustix::io::write(&ours, &[0; 4096]).is_ok() {}
        let (reads, reader) = counter();
        let (writes, writer) = counter();
        local.add_reader(&ours, reader).expect("a pipe");
        local.add_writer(&ours, writer).expect("a pipe");
        for _ in 0..3 {
            turn(&runtime);
        }
        assert_eq!((reads.get(), writes.get()), (0, 0));
        drop(theirs);
        turn(&runtime);
        assert_eq!(calls(&runtime, &reads, 2), [1, 1]);
        assert_eq!(calls(&runtime, &writes, 2), [1, 1]);
        assert!(local.remove_reader(&ours) && local.remove_writer(&ours));
        end(runtime);
    }
}

#[test]
fn io_06_a_number_that_is_used_again_does_not_reach_the_old_callback() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let local = runtime.local();
        let (ours, mut theirs) = pair();
        let (old, callback) = counter();
        local.add_reader(&ours, callback).expect("a socket");
        theirs.write_all(b"!").expect("there is room");
        turn(&runtime);
        // Ready, and in the queue for the next turn.
        let seen = old.get();
        assert!(seen > 0);
        let number = ours.as_raw_fd();
        drop(ours);
        let (new, mut to_new) = at_number(number);
        to_new.write_all(b"!").expect("there is room");
        assert_eq!(calls(&runtime, &old, 4), [0, 0, 0, 0]);
        // The new owner is watched under the same number: the old callback is gone.
        let (mine, callback) = counter();
        local.add_writer(&new, callback).expect("a socket");
        assert_eq!(Rc::strong_count(&old), 1);
        turn(&runtime);
        assert_eq!(calls(&runtime, &mine, 2), [1, 1]);
        assert_eq!(old.get(), seen);
        assert!(!local.remove_reader(&new), "it was the old one's");
        assert!(local.remove_writer(&new));
        end(runtime);
    }
}

/// A pair whose first end has this number, which was free a moment ago. Other tests open descriptors,
/// too: one of theirs may sit there for a while.
fn at_number(number: i32) -> (UnixStream, UnixStream) {
    let mut others: Vec<OwnedFd> = Vec::new();
    for _ in 0..100_000 {
        let (left, right) = pair();
        if left.as_raw_fd() == number {
            return (left, right);
        }
        if right.as_raw_fd() == number {
            return (right, left);
        }
        if others.len() > 100 {
            others.clear();
            thread::yield_now();
        }
        others.push(left.into());
    }
    panic!("number {number} does not become free");
}

#[test]
fn io_07_closing_without_removing_neither_crashes_nor_spins() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let (ours, mut theirs) = pair();
        theirs.write_all(b"!").expect("there is room");
        let (count, callback) = counter();
        runtime
            .local()
            .add_reader(&ours, callback)
            .expect("a socket");
        turn(&runtime);
        let number = ours.as_raw_fd();
        drop(ours);
        assert_eq!(calls(&runtime, &count, 3), [0, 0, 0]);
        let turns = || runtime.stats().loops[0].turns;
        let before = turns();
        run(
            &runtime,
            garland::sleep(std::time::Duration::from_millis(50)),
        );
        assert!(turns() - before < 20, "{} turns in 50 ms", turns() - before);
        assert!(runtime.local().remove_reader(&number), "a number will do");
        assert_eq!(Rc::strong_count(&count), 1);
        end(runtime);
    }
}

#[test]
fn loop_10_a_closed_loop_takes_no_watchers_and_has_none() {
    let runtime = lent(1);
    let local = runtime.local().clone();
    let (ours, _theirs) = pair();
    let (count, callback) = counter();
    local.add_reader(&ours, callback).expect("a socket");
    end(runtime);
    assert_eq!(Rc::strong_count(&count), 1, "the loop drops its watchers");
    assert!(!local.remove_reader(&ours));
    let (_, callback) = counter();
    let refused = local.add_reader(&ours, callback).expect_err("closed");
    assert_eq!(refused.kind(), ErrorKind::NotConnected);
}

#[test]
fn mc_01_a_watcher_is_called_on_its_own_loop() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        run(&runtime, async {
            for id in 0..loops {
                let (ours, mut theirs) = pair();
                let (sender, receiver) = async_channel::bounded::<bool>(1);
                let task = runtime.handle().on(id).spawn_on(move || async move {
                    let local = LocalLoop::current().expect("inside a loop");
                    let watching = local.clone();
                    let number = ours.as_raw_fd();
                    let home = thread::current().id();
                    let callback = move || {
                        assert!(watching.remove_reader(&number));
                        let is_home = thread::current().id() == home;
                        sender.try_send(is_home).expect("the only message");
                    };
                    local.add_reader(&ours, callback).expect("a socket");
                    ours
                });
                let ours = task.await.expect("did not panic");
                theirs.write_all(b"!").expect("there is room");
                assert!(receiver.recv().await.expect("the callback sends"));
                drop(ours);
            }
        });
        end(runtime);
    }
}
