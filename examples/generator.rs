//! A counting generator beside its eager twin: values made when they are asked for.
//!
//! ```python
//! def eager_range(up_to):                  def lazy_range(up_to):
//!     sequence = []                            index = 0
//!     index = 0                                while index < up_to:
//!     while index < up_to:                         yield index
//!         sequence.append(index)                   index += 1
//!         index += 1
//!     return sequence
//! ```
//!
//! The eager one has made everything before the first value is used; the lazy one lives between two
//! values as a small state. In Rust that state is an [`Iterator`], and, where the generator has to wait
//! between two values, a `Stream`: the same with an `await` in it.
//!
//! `cargo run --example generator`
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::time::Duration;

use futures_lite::{Stream, StreamExt, stream};
use garland::{Builder, sleep};

fn eager_range(up_to: u32) -> Vec<u32> {
    let mut sequence = Vec::new();
    let mut index = 0;
    while index < up_to {
        println!("  made {index}");
        sequence.push(index);
        index += 1;
    }
    sequence
}

fn lazy_range(up_to: u32) -> impl Iterator<Item = u32> {
    let mut index = 0;
    std::iter::from_fn(move || {
        (index < up_to).then(|| {
            println!("  made {index}");
            index += 1;
            index - 1
        })
    })
}

/// A generator that sleeps before each value; other tasks of the loop run meanwhile.
fn slow_range(up_to: u32) -> impl Stream<Item = u32> {
    stream::unfold(0, move |index| async move {
        if index >= up_to {
            return None;
        }
        sleep(Duration::from_millis(1)).await;
        println!("  made {index}");
        Some((index, index + 1))
    })
}

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    println!("eager:");
    for index in eager_range(3) {
        println!("  used {index}");
    }
    println!("lazy:");
    for index in lazy_range(3) {
        println!("  used {index}");
    }
    println!("lazy, and only two are asked for:");
    for index in lazy_range(3).take(2) {
        println!("  used {index}");
    }
    println!("lazy, and waiting in between:");
    let runtime = Builder::new().loops(1).build()?;
    runtime.block_on(slow_range(3).for_each(|index| println!("  used {index}")))?;
    Ok(())
}
