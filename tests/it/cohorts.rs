//! Many requests at once: several are received before the first is answered, and no promise is broken by it.
//!
//! The clock is turned by hand, so that steps take no time and their loop knows them as short ones; what the
//! clients send lies in the kernel before the loop asks for it, so that one poll brings all.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_lite::future::poll_once;
use garland::{Buffered, BufferedProtocol, ManualClock, Protocol, Runtime, Transport, yield_now};
use socket2::SockRef;

use crate::support::{end, on_auto_clock, run};

/// One less than a poll brings to a loop that is busy, which may find something else, too.
const MEMBERS: usize = 15;

/// What the members have been told, and what they do then.
#[derive(Clone)]
struct Stage {
    told: Rc<RefCell<Vec<String>>>,
    act: Rc<dyn Fn(usize)>,
}

impl Stage {
    fn tell(&self, member: usize, data: &[u8]) {
        let text = String::from_utf8_lossy(data);
        self.told.borrow_mut().push(format!("{member} {text}"));
        (self.act)(member);
    }

    fn told(&self) -> Vec<String> {
        self.told.borrow().clone()
    }
}

struct Member(usize, Stage);

impl Protocol for Member {
    fn data_received(&mut self, _: &Transport, data: &[u8]) {
        self.1.tell(self.0, data);
    }
}

/// A member with a buffer of its own, of two bytes.
struct Narrow(Member, [u8; 2]);

impl BufferedProtocol for Narrow {
    fn get_buffer(&mut self, _: &Transport, _: usize) -> &mut [u8] {
        &mut self.1
    }

    fn buffer_updated(&mut self, _: &Transport, count: usize) {
        let Narrow(Member(number, stage), buffer) = self;
        stage.tell(*number, &buffer[..count]);
    }
}

/// Enough turns for a loop to have learned how long its steps are.
async fn settle(clock: &ManualClock, step: Duration) {
    for _ in 0..1_000 {
        clock.advance(step);
        yield_now().await;
    }
}

async fn turns() {
    for _ in 0..20 {
        yield_now().await;
    }
}

/// Connections, each with a client that has sent `abc` and that no turn has looked at yet; `act` is called after each
/// member was told something, with all of the transports.
async fn connected(
    on: &(Runtime, ManualClock),
    count: usize,
    act: impl Fn(usize, &[Transport]) + 'static,
) -> (Stage, Vec<Transport>, Vec<UnixStream>) {
    connected_after(Duration::ZERO, on, count, act).await
}

/// The same, on a loop whose steps have taken `step`.
async fn connected_after(
    step: Duration,
    (runtime, clock): &(Runtime, ManualClock),
    count: usize,
    act: impl Fn(usize, &[Transport]) + 'static,
) -> (Stage, Vec<Transport>, Vec<UnixStream>) {
    let transports = Rc::new(RefCell::new(Vec::new()));
    let all = Rc::clone(&transports);
    let stage = Stage {
        told: Rc::default(),
        act: Rc::new(move |member| act(member, &all.borrow())),
    };
    let mut clients = Vec::new();
    for number in 0..count {
        let (ours, client) = UnixStream::pair().expect("descriptors");
        client.set_nonblocking(true).expect("a socket");
        let member = Member(number, stage.clone());
        let local = runtime.local();
        let transport = local.connect_accepted_socket(ours, || member).await;
        transports.borrow_mut().push(transport.expect("a stream"));
        clients.push(client);
    }
    settle(clock, step).await;
    send(&clients, b"abc");
    let transports = transports.borrow().clone();
    (stage, transports, clients)
}

fn send(clients: &[UnixStream], data: &[u8]) {
    for mut client in clients {
        client.write_all(data).expect("there is room");
    }
}

/// Whether the kernel has something for it still.
fn is_unread(transport: &Transport) -> bool {
    let mut byte = [MaybeUninit::uninit()];
    let look = transport.with_fd(|fd| SockRef::from(&fd).peek(&mut byte).is_ok());
    look.expect("it is open")
}

fn abc(members: impl Iterator<Item = usize>) -> Vec<String> {
    members.map(|member| format!("{member} abc")).collect()
}

#[test]
fn many_receive_before_the_first_is_told_and_few_or_slow_ones_do_not() {
    let long = Duration::from_micros(200);
    let cases = [
        (MEMBERS, Duration::ZERO, true),
        (8, Duration::ZERO, true),
        (7, Duration::ZERO, false),
        (MEMBERS, long, false),
    ];
    for (count, step, is_ahead) in cases {
        let on = on_auto_clock();
        let last_was_unread = Rc::new(RefCell::new(Vec::new()));
        let seen = Rc::clone(&last_was_unread);
        let look = move |_, all: &[Transport]| {
            let last = all.last().expect("there are some");
            seen.borrow_mut().push(is_unread(last));
        };
        let told = run(&on.0, async {
            let (stage, transports, _clients) = connected_after(step, &on, count, look).await;
            turns().await;
            transports.iter().for_each(Transport::abort);
            turns().await;
            stage.told()
        });
        assert_eq!(told, abc(0..count));
        let mut expected = vec![!is_ahead; count];
        expected[count - 1] = false;
        assert_eq!(*last_was_unread.borrow(), expected);
        end(on.0);
    }
}

#[test]
fn trn_15_no_data_after_pause_even_if_it_was_received_before() {
    let on = on_auto_clock();
    let pause = |member, all: &[Transport]| {
        if member == 0 {
            all[1..].iter().for_each(Transport::pause_reading);
        }
    };
    run(&on.0, async {
        let (stage, transports, clients) = connected(&on, MEMBERS, pause).await;
        turns().await;
        assert_eq!(stage.told(), ["0 abc"]);
        // What comes later stays behind it.
        send(&clients[1..], b"def");
        turns().await;
        assert_eq!(stage.told(), ["0 abc"]);
        for (member, transport) in transports.iter().enumerate().skip(1) {
            stage.told.borrow_mut().clear();
            transport.resume_reading();
            turns().await;
            let expected = [format!("{member} abc"), format!("{member} def")];
            assert_eq!(stage.told(), expected);
        }
        transports.iter().for_each(Transport::abort);
        turns().await;
    });
    end(on.0);
}

#[test]
fn trn_07_no_data_after_close_even_if_it_was_received_before() {
    for ending in [Transport::close, Transport::abort] {
        let on = on_auto_clock();
        run(&on.0, async {
            let act = move |_, all: &[Transport]| all.iter().for_each(ending);
            let (stage, transports, mut clients) = connected(&on, MEMBERS, act).await;
            turns().await;
            assert_eq!(stage.told(), ["0 abc"]);
            assert!(transports.iter().all(Transport::is_closing));
            for client in &mut clients {
                assert_eq!(client.read(&mut [0]).expect("an end"), 0);
            }
        });
        end(on.0);
    }
}

#[test]
fn trn_20_what_was_received_before_goes_to_the_protocol_that_is_there_now() {
    let on = on_auto_clock();
    let seconds = Rc::new(RefCell::new(None));
    let theirs = Rc::clone(&seconds);
    let replace = move |member, all: &[Transport]| {
        let stage: Option<Stage> = theirs.borrow_mut().take();
        if let (0, Some(stage)) = (member, stage) {
            all[1].set_protocol(Member(101, stage.clone()));
            all[2].set_protocol(Buffered(Narrow(Member(102, stage), [0; 2])));
        }
    };
    run(&on.0, async {
        let (stage, transports, clients) = connected(&on, MEMBERS, replace).await;
        *seconds.borrow_mut() = Some(stage.clone());
        turns().await;
        let mut expected = abc([0, 101].into_iter().chain(3..MEMBERS));
        expected.extend(["102 ab".to_owned(), "102 c".to_owned()]);
        assert_eq!(stage.told(), expected);
        stage.told.borrow_mut().clear();
        send(&clients[1..3], b"d");
        turns().await;
        assert_eq!(stage.told(), ["101 d", "102 d"]);
        transports.iter().for_each(Transport::abort);
        turns().await;
    });
    end(on.0);
}

#[test]
fn err_01_one_that_panics_does_not_keep_what_was_received_from_the_others() {
    let on = on_auto_clock();
    let panic = |member, _: &[Transport]| assert_ne!(member, 3, "of the test");
    run(&on.0, async {
        let (stage, transports, _clients) = connected(&on, MEMBERS, panic).await;
        turns().await;
        assert_eq!(stage.told(), abc(0..MEMBERS));
        let is_closing = |transport: &Transport| transport.is_closing();
        assert_eq!(transports.iter().position(is_closing), Some(3));
        transports.iter().for_each(Transport::abort);
        turns().await;
    });
    assert_eq!(on.0.handle().stats().total(|one| one.callback_panics), 1);
    end(on.0);
}

/// Tasks that answer, and what is around them.
struct Tasks {
    count: usize,
    /// So many others wait all the time.
    beside: usize,
    /// The time of a step, before all of it and while answering.
    step: Duration,
}

const FEW_QUICK: Tasks = Tasks {
    count: MEMBERS,
    beside: 0,
    step: Duration::ZERO,
};

/// What the tasks have done, in order.
fn answered(tasks: &Tasks) -> Vec<String> {
    let (runtime, clock) = on_auto_clock();
    let done = Arc::new(Mutex::new(Vec::new()));
    run(&runtime, async {
        let mut clients = Vec::new();
        for number in 0..tasks.count {
            let (ours, client) = garland::UnixStream::pair().expect("descriptors");
            let (done, clock) = (Arc::clone(&done), clock.clone());
            drop(garland::spawn(answer(
                number, ours, done, clock, tasks.step,
            )));
            clients.push(client);
        }
        settle(&clock, tasks.step).await;
        let is_over = Arc::new(AtomicBool::new(false));
        for _ in 0..tasks.beside {
            let is_over = Arc::clone(&is_over);
            drop(garland::spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    yield_now().await;
                }
            }));
        }
        for client in &clients {
            client.write_all(b"abc").await.expect("there is room");
        }
        for client in &clients {
            let mut answer = [0; 4];
            let count = client.read(&mut answer).await.expect("it is open");
            assert_eq!(&answer[..count], b"abc");
        }
        is_over.store(true, Ordering::Relaxed);
        drop(clients);
        turns().await;
    });
    end(runtime);
    let done = done.lock().expect("no panic");
    done.clone()
}

async fn answer(
    number: usize,
    stream: garland::UnixStream,
    done: Arc<Mutex<Vec<String>>>,
    clock: ManualClock,
    step: Duration,
) {
    let note = |what: &str| {
        done.lock()
            .expect("no panic")
            .push(format!("{what}{number}"))
    };
    let mut data = [0; 3];
    while stream.read(&mut data).await.expect("no error") > 0 {
        note("r");
        clock.advance(step);
        stream.write_all(&data).await.expect("it is open");
        note("w");
    }
}

fn numbered(whats: &str, numbers: impl Iterator<Item = usize>) -> Vec<String> {
    let each = |number| whats.chars().map(move |what| format!("{what}{number}"));
    numbers.flat_map(each).collect()
}

#[test]
fn many_tasks_of_short_steps_all_receive_before_the_first_sends() {
    for count in [8, MEMBERS] {
        let mut expected = numbered("r", 0..count);
        expected.extend(numbered("w", 0..count));
        let tasks = Tasks { count, ..FEW_QUICK };
        assert_eq!(answered(&tasks), expected);
    }
}

#[test]
fn few_tasks_and_those_of_a_crowd_answer_one_after_the_other() {
    let count = 7;
    let few = Tasks { count, ..FEW_QUICK };
    assert_eq!(answered(&few), numbered("rw", 0..count));
    let crowd = Tasks {
        beside: 64,
        ..FEW_QUICK
    };
    assert_eq!(answered(&crowd), numbered("rw", 0..MEMBERS));
}

#[test]
fn tasks_of_long_steps_answer_one_after_the_other() {
    let step = Duration::from_micros(200);
    let long = Tasks { step, ..FEW_QUICK };
    assert_eq!(answered(&long), numbered("rw", 0..MEMBERS));
}

/// Sixteen tasks: one whose reads are always ready and whose write must go out all the same, others that yield.
#[test]
fn a_write_gives_way_once_however_much_is_read_meanwhile() {
    const ROUNDS: usize = 100;
    let (runtime, clock) = on_auto_clock();
    let rounds = run(&runtime, async {
        settle(&clock, Duration::ZERO).await;
        let (ours, client) = garland::UnixStream::pair().expect("descriptors");
        client.write_all(&[0; ROUNDS]).await.expect("there is room");
        for _ in 0..MEMBERS {
            // Detached: they end by themselves.
            drop(garland::spawn(async {
                for _ in 0..ROUNDS {
                    yield_now().await;
                }
            }));
        }
        let rounds = garland::spawn(async move {
            let mut rounds = 0;
            while rounds < ROUNDS {
                rounds += 1;
                let mut byte = [0];
                let read = ours.read(&mut byte).await;
                assert_eq!(read.expect("it is open"), 1);
                let mut write = pin!(ours.write(b"x"));
                if poll_once(&mut write).await.is_some() {
                    break;
                }
                yield_now().await;
            }
            rounds
        });
        rounds.await.expect("it ends")
    });
    assert_eq!(
        rounds, 2,
        "it gives way in the first, and goes out in the second"
    );
    end(runtime);
}

/// Two chunks of news, and one of few: every byte arrives in order, also of messages longer than is received ahead.
#[test]
fn long_messages_of_many_arrive_whole() {
    const CONNECTIONS: usize = 36;
    const LENGTH: usize = 50_000;
    let on = on_auto_clock();
    let is_cut = run(&on.0, async {
        let ignore = |_, _: &[Transport]| {};
        let (stage, transports, mut clients) = connected(&on, CONNECTIONS, ignore).await;
        turns().await;
        stage.told.borrow_mut().clear();
        let sent: String = (0..LENGTH)
            .map(|n| char::from(b'a' + (n % 23) as u8))
            .collect();
        send(&clients, sent.as_bytes());
        turns().await;
        let mut heard = vec![String::new(); CONNECTIONS];
        for line in stage.told() {
            let (member, data) = line.split_once(' ').expect("as it is told");
            let member: usize = member.parse().expect("a number");
            heard[member].push_str(data);
        }
        assert!(heard.iter().all(|one| *one == sent));
        transports.iter().for_each(Transport::abort);
        turns().await;
        clients.clear();
        stage.told().iter().any(|line| line.len() < LENGTH)
    });
    assert!(is_cut, "nothing was received ahead");
    end(on.0);
}
