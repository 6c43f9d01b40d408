//! A future that one task waits for and another one resolves, after three sleeps.
//!
//! ```python
//! async def resolve(future):
//!     for n in range(1, 4):
//!         await asyncio.sleep(0.01)
//!         print("slept", n)
//!     future.set_result("the answer")
//!
//! async def main():
//!     future = asyncio.get_running_loop().create_future()
//!     future.add_done_callback(lambda f: print("called back with", f.result()))
//!     asyncio.create_task(resolve(future))
//!     print("waiting")
//!     print("got", await future)
//!
//! asyncio.run(main())
//! ```
//!
//! asyncio's `Future` has two sides, and here each is a type: the promise, with which a result is set,
//! once; and the future, which any number of tasks await and any number of callbacks hear of.
//!
//! `cargo run --example promise`
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::time::Duration;

use garland::{Builder, FutError, LocalLoop, Promise, sleep};

async fn resolve(promise: Promise<&'static str>) -> Result<(), FutError> {
    for n in 1..=3 {
        sleep(Duration::from_millis(10)).await;
        println!("slept {n}");
    }
    promise.set_result("the answer")
}

async fn wait(local: &LocalLoop) -> Result<(), FutError> {
    let (promise, future) = local.create_future();
    future.add_done_callback(|done| println!("called back with {:?}", done.result()));
    local.spawn_local(resolve(promise));
    println!("waiting");
    println!("got {:?}", future.await?);
    Ok(())
}

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let runtime = Builder::new().loops(1).build()?;
    runtime.block_on(wait(runtime.local()))??;
    Ok(())
}
