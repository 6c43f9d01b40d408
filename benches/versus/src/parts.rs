//! What the parts of a scheduler cost: the questions, each asked of one runtime in a process of its own.

use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender, bounded};
use clap::ValueEnum;
use fastrand::Rng;
use futures_lite::future::{block_on, poll_once};

use crate::parties::Party;

/// Spawned before the first is awaited.
const BATCH: u64 = 100;
/// The same of a thread that is no worker.
const OUTSIDE_BATCH: u64 = 1_000;
/// Timers armed throughout.
const ARMED: usize = 1_000_000;
/// No timer comes due meanwhile.
const DELAY_S: std::ops::Range<u64> = 600..4_200;
const SLEEP: Duration = Duration::from_millis(1);
/// Sleeps that are under way at once.
const SLEEPS: u64 = 1_000;

/// A question; the answer is in nanoseconds for each operation, unless it says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Question {
    /// Spawn an empty task, await it, next
    Spawn,
    /// Spawn a hundred, await them
    Batches,
    /// A thread that is no worker spawns a thousand and waits for them
    Outside,
    /// One task that yields
    Yield,
    /// A round trip of two tasks over channels of capacity 1
    Channel,
    /// Arm a timer in the place of the oldest of a million
    Armed,
    /// Arm a timer and cancel it, with no other about
    Churn,
    /// A thousand sleeps of 1 ms begun together: how late the latest hundredth ends, in microseconds
    Sleeps,
}

impl Question {
    /// All there are.
    pub const ALL: [Question; 8] = [
        Question::Spawn,
        Question::Batches,
        Question::Outside,
        Question::Yield,
        Question::Channel,
        Question::Armed,
        Question::Churn,
        Question::Sleeps,
    ];

    /// As it stands in tables.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Question::Spawn => "spawn and join, ns",
            Question::Batches => "the same, batches of 100, ns",
            Question::Outside => "spawn from outside, ns",
            Question::Yield => "yield, ns",
            Question::Channel => "channel round trip, ns",
            Question::Armed => "timer among a million, ns",
            Question::Churn => "timer, arm and cancel, ns",
            Question::Sleeps => "1,000 sleeps of 1 ms, p99 late, us",
        }
    }

    /// Operations that take some tenths of a second.
    fn operations(self) -> u64 {
        match self {
            Question::Spawn | Question::Batches | Question::Channel | Question::Churn => 1_000_000,
            Question::Outside | Question::Armed => 500_000,
            Question::Yield => 5_000_000,
            Question::Sleeps => 100 * SLEEPS,
        }
    }

    /// Whether the asking thread works as well, and gets a CPU beside the workers'.
    #[must_use]
    pub fn is_from_outside(self) -> bool {
        self == Question::Outside
    }

    /// Asks it, once to warm up and once for the answer.
    ///
    /// # Errors
    /// Those of the runtime.
    pub fn ask<P: Party>(self, workers: usize) -> anyhow::Result<f64> {
        let party = P::start(workers)?;
        let asked = |operations| match self {
            Question::Spawn => inside(&party, spawned::<P>(operations, 1)),
            Question::Batches => inside(&party, spawned::<P>(operations, BATCH)),
            Question::Outside => spawned_outside(&party, operations),
            Question::Yield => inside(&party, yielded::<P>(operations)),
            Question::Channel => inside(&party, answered::<P>(operations)),
            Question::Armed => inside(&party, replaced::<P>(operations)),
            Question::Churn => inside(&party, churned::<P>(operations)),
            Question::Sleeps => inside(&party, slept::<P>(operations)),
        };
        let operations = self.operations();
        asked(operations / 10);
        Ok(asked(operations))
    }
}

fn inside<P: Party>(party: &P, task: impl Future<Output = f64> + Send + 'static) -> f64 {
    block_on(party.spawn(task))
}

fn each(start: Instant, operations: u64) -> f64 {
    start.elapsed().as_nanos() as f64 / operations as f64
}

/// `total` cut into pieces of `size`; the last one holds what is left.
fn pieces(total: u64, size: u64) -> impl Iterator<Item = u64> {
    (0..total.div_ceil(size)).map(move |nth| size.min(total - nth * size))
}

async fn spawned<P: Party>(tasks: u64, size: u64) -> f64 {
    let mut waiting = Vec::new();
    let start = Instant::now();
    for piece in pieces(tasks, size) {
        waiting.extend((0..piece).map(|_| P::spawn_here(async {})));
        for task in waiting.drain(..) {
            task.await;
        }
    }
    each(start, tasks)
}

fn spawned_outside<P: Party>(party: &P, tasks: u64) -> f64 {
    let mut waiting = Vec::new();
    let start = Instant::now();
    for piece in pieces(tasks, OUTSIDE_BATCH) {
        waiting.extend((0..piece).map(|_| party.spawn(async {})));
        block_on(async {
            for task in waiting.drain(..) {
                task.await;
            }
        });
    }
    each(start, tasks)
}

async fn yielded<P: Party>(times: u64) -> f64 {
    let start = Instant::now();
    for _ in 0..times {
        P::yield_now().await;
    }
    each(start, times)
}

async fn answered<P: Party>(rounds: u64) -> f64 {
    let (to_server, requests) = bounded(1);
    let (to_client, answers) = bounded(1);
    let server = P::spawn_here(answer(requests, to_client));
    let start = Instant::now();
    for round in 0..rounds {
        let sent = to_server.send(round).await;
        sent.expect("the server listens until the client ends");
        assert_eq!(
            answers.recv().await,
            Ok(round),
            "each answer is its request"
        );
    }
    let time = each(start, rounds);
    drop(to_server);
    server.await;
    time
}

async fn answer(requests: Receiver<u64>, to_client: Sender<u64>) {
    while let Ok(request) = requests.recv().await {
        let sent = to_client.send(request).await;
        sent.expect("the client waits for its answer");
    }
}

fn delay(rng: &mut Rng) -> Duration {
    Duration::from_secs(rng.u64(DELAY_S))
}

async fn replaced<P: Party>(timers: u64) -> f64 {
    let mut rng = Rng::with_seed(1);
    let mut armed = Vec::with_capacity(ARMED);
    for _ in 0..ARMED {
        armed.push(armed_sleep::<P>(&mut rng).await);
    }
    let start = Instant::now();
    for oldest in (0..ARMED).cycle().take(timers as usize) {
        armed[oldest] = armed_sleep::<P>(&mut rng).await;
    }
    each(start, timers)
}

/// In a box, for some have to stay where they are.
async fn armed_sleep<P: Party>(rng: &mut Rng) -> impl Send + use<P> {
    let mut sleep = Box::pin(P::sleep(delay(rng)));
    assert!(poll_once(&mut sleep).await.is_none(), "it is not due");
    sleep
}

async fn churned<P: Party>(timers: u64) -> f64 {
    let mut rng = Rng::with_seed(1);
    let start = Instant::now();
    for _ in 0..timers {
        let sleep = pin!(P::sleep(delay(&mut rng)));
        assert!(poll_once(sleep).await.is_none(), "it is not due");
    }
    each(start, timers)
}

/// Of each thousand the 990th; the median of the thousands.
async fn slept<P: Party>(sleeps: u64) -> f64 {
    let late = || async {
        let start = Instant::now();
        P::sleep(SLEEP).await;
        start.elapsed().saturating_sub(SLEEP)
    };
    let mut late_ones = Vec::new();
    for _ in 0..sleeps / SLEEPS {
        let tasks: Vec<_> = (0..SLEEPS).map(|_| P::spawn_here(late())).collect();
        let mut latenesses = Vec::with_capacity(tasks.len());
        for task in tasks {
            latenesses.push(task.await);
        }
        latenesses.sort_unstable();
        late_ones.push(latenesses[latenesses.len() * 99 / 100]);
    }
    late_ones.sort_unstable();
    late_ones[late_ones.len() / 2].as_nanos() as f64 / 1e3
}
