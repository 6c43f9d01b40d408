//! One protocol, served on one loop and on many, without a change.
//!
//! ```python
//! class Count(asyncio.Protocol):
//!     def __init__(self, seen):
//!         self.seen = seen
//!     def connection_made(self, transport):
//!         self.seen["connections"] += 1
//!         transport.write(f"{self.seen['connections']}\n".encode())
//!         transport.close()
//!
//! seen = Counter()
//! server = await loop.create_server(lambda: Count(seen), "127.0.0.1", 0)
//! ```
//!
//! A protocol is called by its home loop only, so it may share plain state with its neighbours there: an
//! `Rc` and a `Cell`, no lock. On one loop the factory captures that state. On many, a closure is called
//! on each loop and makes the state and the factory of that loop. The kernel chooses a loop for a
//! connection, and one that has too many hands it on; what the loops counted adds up.
//!
//! `cargo run --example one_or_many`
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use garland::{Builder, ListenOptions, Protocol, Runtime, Transport, open_connection};

const CLIENTS: usize = 20;

/// Tells each client on which loop it is, and how many came there so far.
struct Count {
    seen: Rc<Cell<usize>>,
}

impl Protocol for Count {
    fn connection_made(&mut self, transport: &Transport) {
        self.seen.set(self.seen.get() + 1);
        let home = transport.local_loop().id();
        transport.write(format!("{home}: {}\n", self.seen.get()).as_bytes());
        transport.close();
    }

    fn data_received(&mut self, _transport: &Transport, _data: &[u8]) {}
}

/// The factory of one loop's protocols, and their state.
fn counting() -> impl FnMut() -> Count {
    let seen = Rc::new(Cell::new(0));
    move || Count {
        seen: Rc::clone(&seen),
    }
}

/// The last count that was heard of each loop.
async fn ask(addr: SocketAddr) -> io::Result<BTreeMap<String, usize>> {
    let mut counts = BTreeMap::new();
    for _ in 0..CLIENTS {
        let (mut reader, _writer) = open_connection(addr).await?;
        let line = String::from_utf8_lossy(&reader.readline().await?).into_owned();
        let (home, count) = line.trim_end().split_once(": ").unwrap_or_default();
        counts.insert(home.to_owned(), count.parse().map_err(io::Error::other)?);
    }
    Ok(counts)
}

fn show(runtime: &Runtime, addr: SocketAddr) -> Result<(), Box<dyn Error>> {
    let counts = runtime.block_on(ask(addr))??;
    let loops = runtime.handle().loops();
    assert!(counts.len() <= loops, "{counts:?}");
    let sum: usize = counts.values().sum();
    println!("served on {loops}: {sum} connections");
    Ok(())
}

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let listen: ListenOptions = "127.0.0.1:0".parse()?;

    let one = Builder::new().loops(1).build()?;
    let server = one.local().create_server(listen.clone(), counting())?;
    show(&one, server.local_addr())?;

    let many = Builder::new().loops(4).build()?;
    let server = many.handle().create_server(listen, |_local| counting())?;
    show(&many, server.local_addr())
}
