//! `call_soon`, `call_later`, `call_at`, and what `cancel` does: callbacks and their order.
//!
//! ```python
//! def display_time(end_time, loop):
//!     print("tick at", loop.time())
//!     if loop.time() + 0.02 < end_time:
//!         loop.call_later(0.02, display_time, end_time, loop)
//!     else:
//!         loop.stop()
//!
//! loop = asyncio.new_event_loop()
//! loop.call_soon(display_time, loop.time() + 0.1, loop)
//! loop.run_forever()
//! ```
//!
//! A callback never runs inside the call that schedules it. Those of `call_soon` run in the order of
//! scheduling, those of the timers in the order of their deadlines, and what is ready goes before what
//! comes due in the same turn.
//!
//! `cargo run --example call_later`
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::time::{Duration, Instant};

use garland::{Builder, LocalLoop};

const TICK: Duration = Duration::from_millis(20);

fn display_time(begun: Instant, end: Instant, local: &LocalLoop) {
    println!("tick at {} ms", (local.time() - begun).as_millis());
    if local.time() + TICK < end {
        let next = local.clone();
        local.call_later(TICK, move || display_time(begun, end, &next));
    } else {
        local.stop();
    }
}

/// Callbacks of each kind, scheduled in one order and run in another.
fn schedule(local: &LocalLoop) {
    println!("scheduling");
    local.call_at(local.time() + 2 * TICK, || println!("at 40 ms"));
    local.call_later(TICK, || println!("after 20 ms"));
    local.call_later(Duration::ZERO, || println!("after 0 ms"));
    local.call_soon(|| println!("soon"));
    let nested = local.clone();
    local.call_soon(move || {
        println!("soon, and schedules one more");
        nested.call_soon(|| println!("in the next turn"));
    });
    local.call_soon(|| println!("never seen")).cancel();
    local.call_later(TICK, || println!("never seen")).cancel();
    let stop = local.clone();
    local.call_later(3 * TICK, move || stop.stop());
    println!("running");
}

/// The builder says by which clock.
pub(crate) fn run(builder: Builder) -> Result<(), Box<dyn Error>> {
    let runtime = builder.loops(1).build()?;
    let local = runtime.local();

    schedule(local);
    runtime.run_forever()?;

    // A loop that was stopped runs again; nothing is lost in between.
    let (begun, end) = (local.time(), local.time() + 5 * TICK);
    let ticking = local.clone();
    local.call_soon(move || display_time(begun, end, &ticking));
    runtime.run_forever()?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    run(Builder::new())
}
