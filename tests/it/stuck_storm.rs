//! Loops that are stuck again and again, at random, for one to three milliseconds, under sockets and timers: with
//! rescue and stealing each on and off, nothing is lost and nothing happens twice.
//!
//! `GARLAND_STRESS=10` makes it ten times as long; `GARLAND_SEED` repeats a run.

use std::io::{Read, Write};
use std::net::TcpStream as StdStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use futures_lite::future::poll_once;
use garland::{JoinHandle, LocalLoop, LoopHandle, RuntimeStats};

use crate::stuck_loop::echo_homed_on;
use crate::support::{builder, end_background, join, receive, stress};

/// Sockets per loop.
const CLIENTS: usize = 4;
/// Tasks, and as many chains of callbacks, per loop.
const SLEEPERS: usize = 4;
/// Rounds of each of them.
const ROUNDS: u32 = 30;

fn seed() -> u64 {
    let seed = std::env::var("GARLAND_SEED").ok();
    let seed = seed.map(|text| text.parse().expect("GARLAND_SEED is a number"));
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("GARLAND_SEED={seed}");
    seed
}

/// Keeps a request under way on each of its sockets.
fn exchange(mut clients: Vec<StdStream>) {
    for round in 0..ROUNDS * stress() {
        for client in &mut clients {
            client.write_all(&round.to_le_bytes()).expect("open");
        }
        for client in &mut clients {
            let mut back = [0; 4];
            client.read_exact(&mut back).expect("answered in time");
            assert_eq!(back, round.to_le_bytes());
        }
    }
}

/// A movable task of sleeps, each second of which is given up, wherever it is by then.
fn sleeper(home: &LoopHandle, rng: &mut fastrand::Rng) -> JoinHandle<u32> {
    let mut rng = rng.fork();
    home.spawn(async move {
        let mut slept = 0;
        for _ in 0..ROUNDS * stress() {
            garland::sleep(Duration::from_micros(rng.u64(..2_000))).await;
            slept += 1;
            let mut given_up = Box::pin(garland::sleep(Duration::from_micros(rng.u64(..500))));
            let _due_already = poll_once(&mut given_up).await;
            garland::yield_now().await;
        }
        slept
    })
}

/// A chain of callbacks of `home`, each beside one that is cancelled by it, if it comes in time. `ended` counts the
/// links that ran, and those that were cancelled or ran.
fn chain(left: u32, rng: fastrand::Rng, ended: Arc<[AtomicU64; 2]>, done: mpsc::Sender<()>) {
    let local = LocalLoop::current().expect("a callback runs on a loop");
    let mut rng = rng;
    if left == 0 {
        return done.send(()).expect("the test waits");
    }
    let beside = Arc::clone(&ended);
    let other = local.call_later(Duration::from_micros(rng.u64(..2_000)), move || {
        beside[1].fetch_add(1, Ordering::Relaxed);
    });
    local.call_later(Duration::from_micros(rng.u64(..2_000)), move || {
        ended[0].fetch_add(1, Ordering::Relaxed);
        if other.cancel() {
            ended[1].fetch_add(1, Ordering::Relaxed);
        }
        chain(left - 1, rng, ended, done);
    });
}

/// Holds random loops until told to stop, each one callback at a time: on a busy machine they would pile up before
/// all other work.
fn hold_loops(handle: &LoopHandle, loops: usize, mut rng: fastrand::Rng, over: &AtomicBool) {
    let is_held: Arc<[AtomicBool]> = (0..loops).map(|_| AtomicBool::new(false)).collect();
    while !over.load(Ordering::Acquire) {
        let span = Duration::from_micros(rng.u64(1_000..3_000));
        let home = rng.usize(..loops);
        if !is_held[home].swap(true, Ordering::AcqRel) {
            let is_held = Arc::clone(&is_held);
            let hog = move || {
                let begun = Instant::now();
                while begun.elapsed() < span {
                    std::hint::spin_loop();
                }
                is_held[home].store(false, Ordering::Release);
            };
            drop(handle.on(home).call_soon_threadsafe(hog).expect("open"));
        }
        thread::sleep(Duration::from_micros(rng.u64(..4_000)));
    }
}

/// Set when it is dropped, by a test that fails too: the thread that holds the loops would go on for ever.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn storm(loops: usize, rescue: bool, steal: bool) -> RuntimeStats {
    let mut rng = fastrand::Rng::with_seed(seed());
    let runtime = builder(loops).rescue(rescue).steal(steal).start();
    let runtime = runtime.expect("a runtime can be started");
    let handle = runtime.handle();
    let echoes = |home| (0..CLIENTS).map(|_| echo_homed_on(home, handle)).collect();
    let clients: Vec<Vec<StdStream>> = (0..loops).map(echoes).collect();
    let over = AtomicBool::new(false);
    let ended = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    let links = u64::from(ROUNDS * stress()) * (SLEEPERS * loops) as u64;
    thread::scope(|scope| {
        let _over = Over(&over);
        let hogs = rng.fork();
        scope.spawn(|| hold_loops(handle, loops, hogs, &over));
        let exchanges = clients.into_iter().map(|own| scope.spawn(|| exchange(own)));
        let exchanges: Vec<_> = exchanges.collect();
        let (done, are_done) = mpsc::channel();
        let mut sleepers = Vec::new();
        for id in (0..loops).flat_map(|id| [id; SLEEPERS]) {
            let home = handle.on(id);
            sleepers.push(sleeper(&home, &mut rng));
            let (rng, ended, done) = (rng.fork(), Arc::clone(&ended), done.clone());
            let begin = move || chain(ROUNDS * stress(), rng, ended, done);
            drop(home.call_soon_threadsafe(begin).expect("open"));
        }
        for sleeper in sleepers {
            assert_eq!(join(handle, sleeper).ok(), Some(ROUNDS * stress()));
        }
        for _ in 0..SLEEPERS * loops {
            receive(&are_done, handle);
        }
        for exchange in exchanges {
            exchange.join().expect("every request was answered");
        }
    });
    let stats = end_background(runtime);
    assert_eq!(ended[0].load(Ordering::Relaxed), links, "{stats:#?}");
    assert_eq!(ended[1].load(Ordering::Relaxed), links, "{stats:#?}");
    stats
}

#[test]
fn what_is_rescued_happens_once() {
    let rescues = |stats: RuntimeStats| stats.total(|one| one.rescues);
    let mut seen = 0;
    for loops in [2, 4] {
        for steal in [true, false] {
            seen += rescues(storm(loops, true, steal));
            assert_eq!(rescues(storm(loops, false, steal)), 0);
        }
    }
    assert!(seen > 0, "no loop was ever stuck for long enough");
}
