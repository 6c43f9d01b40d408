//! Datagrams that are dropped, delayed, doubled, swapped and damaged on purpose: the server counts
//! what it did, and each of loadgen's five counts must be exactly that.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Ran, loadgen};

/// What the server does with one datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    Echo,
    Drop,
    Twice,
    /// A byte of the contents is changed.
    Damage,
    /// A byte of the number is changed.
    DamageNumber,
    /// The last byte is cut off.
    Shorten,
    Delay(Duration),
    /// Answered after the next datagram of the same sender.
    Swap,
}

/// How often each was done.
type Done = Arc<Mutex<BTreeMap<Act, u64>>>;

/// Longer than any pause of this machine, so that nothing is late by accident.
const SETTLE: Duration = Duration::from_millis(500);

/// The sequence stands in bytes 8 to 15, as the header of loadgen says.
fn sequence(datagram: &[u8]) -> u64 {
    let bytes = datagram[8..16].try_into().expect("eight bytes");
    u64::from_le_bytes(bytes)
}

/// A server that does `choose(sequence)` with each datagram; it ends with the test process.
fn server(choose: impl Fn(u64) -> Act + Send + 'static) -> (SocketAddr, Done) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("a bound socket has an address");
    socket
        .set_read_timeout(Some(Duration::from_millis(5)))
        .expect("a valid timeout");
    let done = Done::default();
    let counts = Arc::clone(&done);
    thread::spawn(move || {
        let mut delayed: Vec<(Instant, SocketAddr, Vec<u8>)> = Vec::new();
        let mut held: BTreeMap<SocketAddr, Vec<u8>> = BTreeMap::new();
        let send = |peer, bytes: &[u8]| {
            socket.send_to(bytes, peer).expect("loopback takes it");
        };
        let mut buffer = [0; 65536];
        loop {
            let now = Instant::now();
            delayed.retain(|(due, peer, bytes)| {
                let is_due = *due <= now;
                if is_due {
                    send(*peer, bytes);
                }
                !is_due
            });
            let Ok((n, peer)) = socket.recv_from(&mut buffer) else {
                continue;
            };
            let mut bytes = buffer[..n].to_vec();
            let act = choose(sequence(&bytes));
            *counts.lock().expect("no panic").entry(act).or_insert(0) += 1;
            let mut swapped = false;
            match act {
                Act::Echo => send(peer, &bytes),
                Act::Drop => {}
                Act::Twice => {
                    send(peer, &bytes);
                    send(peer, &bytes);
                }
                Act::Damage => {
                    bytes[30] ^= 4;
                    send(peer, &bytes);
                }
                Act::DamageNumber => {
                    bytes[9] ^= 4;
                    send(peer, &bytes);
                }
                Act::Shorten => send(peer, &bytes[..n - 1]),
                Act::Delay(delay) => delayed.push((Instant::now() + delay, peer, bytes.clone())),
                Act::Swap => {
                    let before = held.insert(peer, bytes.clone());
                    assert_eq!(before, None, "one datagram is held at a time");
                    swapped = true;
                }
            }
            if !swapped && let Some(bytes) = held.remove(&peer) {
                send(peer, &bytes);
            }
        }
    });
    (address, done)
}

/// A server that answers all datagrams of each sender but every fifth.
pub(crate) fn lossy_server() -> SocketAddr {
    let choose = |sequence| match sequence % 5 {
        0 => Act::Drop,
        _ => Act::Echo,
    };
    server(choose).0
}

fn run_udp(address: SocketAddr, options: &[&str]) -> Ran {
    let target = format!("udp://{address}");
    let settle = format!("{}ms", SETTLE.as_millis());
    let mut arguments = vec!["run", &target, "--warmup", "0s", "--settle", &settle];
    arguments.extend(options);
    loadgen(&arguments)
}

/// The figures of the line `datagrams`, in order: sent, good, lost, late, duplicated, reordered,
/// corrupted.
fn datagrams(ran: &Ran) -> [u64; 7] {
    // Digits stand in groups of three, with a word after each number.
    let line = ran.line("datagrams").replace(' ', "");
    let numbers = line.split(|c: char| !c.is_ascii_digit());
    let numbers: Vec<u64> = numbers.filter_map(|word| word.parse().ok()).collect();
    let counts: [u64; 7] = numbers[..7].try_into().expect("seven counts");
    let [sent, fates @ ..] = counts;
    assert_eq!(sent, fates.iter().sum::<u64>(), "they add up: {ran:#?}");
    counts
}

fn count(done: &Done, act: Act) -> u64 {
    let counts = done.lock().expect("the server did not panic");
    counts.get(&act).copied().unwrap_or(0)
}

fn total(done: &Done) -> u64 {
    done.lock()
        .expect("the server did not panic")
        .values()
        .sum()
}

#[test]
fn faithful_server_gets_only_good_datagrams() {
    let (address, done) = server(|_| Act::Echo);
    let ran = run_udp(
        address,
        &[
            "--connections",
            "3",
            "--threads",
            "2",
            "--duration",
            "300ms",
        ],
    );
    assert!(ran.is_ok(), "{ran:#?}");
    let sent = total(&done);
    assert!(sent > 10, "{ran:#?}");
    assert_eq!(datagrams(&ran), [sent, sent, 0, 0, 0, 0, 0]);
    assert_eq!(ran.answered("measured"), sent);
}

/// Each sender loses every tenth datagram and goes on after the settle time.
#[test]
fn lost_datagrams_are_counted_and_stop_no_sender() {
    let (address, done) = server(|n| if n % 10 == 9 { Act::Drop } else { Act::Echo });
    let ran = run_udp(address, &["--connections", "4", "--duration", "1200ms"]);
    assert!(ran.is_ok(), "{ran:#?}");
    let (sent, lost) = (total(&done), count(&done, Act::Drop));
    assert!(
        lost >= 8,
        "each sender goes on after its first loss: {ran:#?}"
    );
    assert_eq!(datagrams(&ran), [sent, sent - lost, lost, 0, 0, 0, 0]);
}

/// One request in flight, and each sender's fourth comes back damaged: there is nothing to wait for.
#[test]
fn damaged_datagrams_stop_no_sender() {
    for rate in [[].as_slice(), &["--rate", "200"]] {
        let (address, done) = server(|n| if n == 3 { Act::Damage } else { Act::Echo });
        let options = ["--connections", "2", "--depth", "1", "--duration", "500ms"];
        let ran = run_udp(address, &[options.as_slice(), rate].concat());
        assert_eq!(ran.code, Some(1), "contents were damaged: {ran:#?}");
        let (sent, damaged) = (total(&done), count(&done, Act::Damage));
        assert_eq!(damaged, 2, "{ran:#?}");
        assert!(sent > 20, "each goes on after it: {ran:#?}");
        assert_eq!(datagrams(&ran), [sent, sent - 2, 0, 0, 0, 0, 2], "{ran:#?}");
    }
}

#[test]
fn every_fault_is_counted_as_what_it_was() {
    let late = Act::Delay(SETTLE + Duration::from_millis(300));
    // Both requests of a sender in flight, 7 and 23, are given up about together, so that two are in
    // flight again when 31 waits for its successor.
    let (address, done) = server(move |n| match n % 64 {
        7 => Act::Drop,
        15 | 17 => Act::Twice,
        23 => late,
        31 | 35 => Act::Swap,
        43 => Act::Damage,
        _ => Act::Echo,
    });
    let options = ["--connections", "4", "--depth", "2", "--duration", "2s"];
    let ran = run_udp(address, &options);
    assert_eq!(ran.code, Some(1), "contents were damaged: {ran:#?}");
    let of = |act| count(&done, act);
    let faults = [
        of(Act::Drop),
        of(late),
        of(Act::Twice),
        of(Act::Swap),
        of(Act::Damage),
    ];
    assert!(faults.iter().all(|n| *n >= 4), "{faults:?} {ran:#?}");
    let [sent, good, seen @ ..] = datagrams(&ran);
    assert_eq!(
        (sent, good, seen),
        (total(&done), of(Act::Echo), faults),
        "{ran:#?}"
    );
    assert!(
        ran.stderr.contains("byte 30 of 64 came back as"),
        "{ran:#?}"
    );
    // Late answers have a latency too; damaged ones have none.
    assert_eq!(
        ran.answered("measured"),
        sent - of(Act::Drop) - of(Act::Damage)
    );
}

/// 500 a second for half a second, evenly spaced: 250, on time or not.
#[test]
fn open_loop_sends_each_datagram_of_its_timetable() {
    let (address, done) = server(|n| if n % 50 == 49 { Act::Drop } else { Act::Echo });
    let options = [
        "--connections",
        "2",
        "--depth",
        "8",
        "--rate",
        "500",
        "--arrivals",
        "constant",
        "--duration",
        "500ms",
        "--threads",
        "2",
    ];
    let ran = run_udp(address, &options);
    assert!(ran.is_ok(), "{ran:#?}");
    let lost = count(&done, Act::Drop);
    assert_eq!(
        (total(&done), lost),
        (250, 4),
        "125 of each sender: {ran:#?}"
    );
    assert_eq!(datagrams(&ran), [250, 250 - lost, lost, 0, 0, 0, 0]);
}

/// What is late, lost or overtaken is nothing that the next datagram waits for, whoever does not
/// name a depth; and the senders take turns, so that a server of several sockets has work on all.
#[test]
fn open_loop_waits_for_no_datagram_and_its_senders_take_turns() {
    let (address, done) = server(|n| match n {
        10 => Act::Drop,
        20 => Act::Swap,
        _ => Act::Echo,
    });
    let options = [
        "--connections",
        "4",
        "--rate",
        "400",
        "--arrivals",
        "constant",
        "--duration",
        "400ms",
    ];
    let ran = run_udp(address, &options);
    assert!(ran.is_ok(), "{ran:#?}");
    let of = |act| count(&done, act);
    assert_eq!(
        (of(Act::Drop), of(Act::Swap)),
        (4, 4),
        "40 of each: {ran:#?}"
    );
    assert_eq!(datagrams(&ran), [160, 152, 4, 0, 0, 4, 0], "{ran:#?}");
    assert!(ran.line("sends").starts_with("0 waited"), "{ran:#?}");
}

/// A damaged number leaves open which datagram it was; it is not charged to another one.
#[test]
fn damaged_number_and_missing_bytes_are_corruption() {
    let (address, done) = server(|n| match n % 8 {
        2 => Act::DamageNumber,
        5 => Act::Shorten,
        _ => Act::Echo,
    });
    let options = ["--connections", "2", "--duration", "700ms"];
    let ran = run_udp(address, &options);
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    let corrupted = count(&done, Act::DamageNumber) + count(&done, Act::Shorten);
    let sent = total(&done);
    assert_eq!(
        datagrams(&ran),
        [sent, sent - corrupted, 0, 0, 0, 0, corrupted]
    );
    assert!(ran.stderr.contains("without its number"), "{ran:#?}");
}

#[test]
fn port_without_a_server_is_named_and_ends_in_bounded_time() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("a bound socket has an address");
    drop(socket);
    let ran = run_udp(address, &["--duration", "300ms"]);
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert!(ran.stderr.contains("nothing was measured"), "{ran:#?}");
    assert!(
        ran.stderr.contains("is a server listening there for udp?"),
        "{ran:#?}"
    );
    let [sent, good, lost, ..] = datagrams(&ran);
    assert_eq!((good, lost), (0, sent), "{ran:#?}");
    assert!(ran.took < Duration::from_secs(6), "{ran:#?}");
}
