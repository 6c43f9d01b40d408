//! A small scheduler, and the loop that does the same: tasks take turns, one step each.
//!
//! ```python
//! class Task:                              class Scheduler:
//!     taskid = 0                               def __init__(self):
//!     def __init__(self, target):                  self.ready = deque()
//!         Task.taskid += 1
//!         self.tid = Task.taskid               def new(self, target):
//!         self.target = target                     self.ready.append(Task(target))
//!
//! def countdown(n):                            def mainloop(self):
//!     while n > 0:                                 while self.ready:
//!         print("down", n)                             task = self.ready.popleft()
//!         yield                                        try:
//!         n -= 1                                           next(task.target)
//!                                                      except StopIteration:
//! def countup(n):                                          print("task", task.tid, "terminated")
//!     for x in range(1, n + 1):                            continue
//!         print("up", x)                               self.ready.append(task)
//!         yield
//! ```
//!
//! A generator that yields is a future that is pending; `next` is `poll`. What the scheduler does not
//! have is a way to wait: it asks every task again and again. On a loop, a task that waits is not in the
//! queue, and a waker puts it back. As long as nobody waits both print the same, line for line.
//!
//! `cargo run --example scheduler`
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::VecDeque;
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use garland::{Builder, LocalLoop, yield_now};

/// Tasks in the order of their turns.
#[derive(Default)]
struct Scheduler {
    ready: VecDeque<Task>,
    last_id: u32,
}

struct Task {
    id: u32,
    target: Pin<Box<dyn Future<Output = ()>>>,
}

impl Scheduler {
    /// Puts a task at the end of the queue. Ids count from 1.
    fn spawn(&mut self, target: impl Future<Output = ()> + 'static) -> u32 {
        self.last_id += 1;
        self.ready.push_back(Task {
            id: self.last_id,
            target: Box::pin(target),
        });
        self.last_id
    }

    /// One step of the first task; then it goes to the back, or leaves.
    fn run(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        while let Some(mut task) = self.ready.pop_front() {
            match task.target.as_mut().poll(&mut cx) {
                Poll::Pending => self.ready.push_back(task),
                Poll::Ready(()) => println!("task {} terminated", task.id),
            }
        }
    }
}

async fn countdown(mut n: u32) {
    while n > 0 {
        println!("down {n}");
        yield_now().await;
        n -= 1;
    }
}

async fn countup(n: u32) {
    for x in 1..=n {
        println!("up {x}");
        yield_now().await;
    }
}

/// The same queue, as the loop has it.
fn spawn_on(local: &LocalLoop, id: u32, target: impl Future<Output = ()> + 'static) {
    local.spawn_local(async move {
        target.await;
        println!("task {id} terminated");
    });
}

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    println!("by the scheduler:");
    let mut scheduler = Scheduler::default();
    scheduler.spawn(countdown(5));
    scheduler.spawn(countup(3));
    scheduler.run();

    println!("by the loop:");
    let runtime = Builder::new().loops(1).build()?;
    spawn_on(runtime.local(), 1, countdown(5));
    spawn_on(runtime.local(), 2, countup(3));
    // Until nobody is left but this task.
    runtime.block_on(async {
        while runtime.stats().total(|one| one.tasks_live) > 0 {
            yield_now().await;
        }
    })?;
    Ok(())
}
