//! A chat server of lines and a periodic task, as they come over from asyncio: about as many lines, and
//! no `Arc<Mutex>`, for everything that shares the room lives on one loop.
//!
//! ```python
//! people = {}
//!
//! def say(text):
//!     for writer in people.values():
//!         writer.write(f"{text}\n".encode())
//!
//! async def tick():
//!     while True:
//!         await asyncio.sleep(60)
//!         say(f"* {len(people)} here")
//!
//! async def chat(reader, writer):
//!     writer.write(b"name?\n")
//!     name = (await reader.readline()).decode().strip()
//!     people[name] = writer
//!     say(f"* {name} joined")
//!     try:
//!         async for line in reader:
//!             say(f"{name}: {line.decode().strip()}")
//!     finally:
//!         del people[name]
//!         say(f"* {name} left")
//!
//! async def main():
//!     asyncio.create_task(tick())
//!     server = await asyncio.start_server(chat, "127.0.0.1", 8888)
//!     await server.serve_forever()
//!
//! asyncio.run(main())
//! ```
//!
//! What is written differently: the room is a value that both tasks hold, not a global; and Python's
//! `finally` is what stands behind an inner function that may fail.
//!
//! `cargo run --example chat -- 127.0.0.1:8888` serves there, for `nc 127.0.0.1 8888`. Without an
//! address two people in the same program talk to each other, on a clock that is turned by hand.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use garland::{
    Builder, ListenOptions, LocalLoop, ManualClock, NetError, Server, StreamReader, StreamWriter,
    interval, open_connection,
};

const MINUTE: Duration = Duration::from_secs(60);

/// Who is here, by name.
#[derive(Clone, Default)]
struct Room(Rc<RefCell<BTreeMap<String, StreamWriter>>>);

impl Room {
    fn say(&self, text: &str) {
        for writer in self.0.borrow().values() {
            writer.write(format!("{text}\n").as_bytes());
        }
    }
}

async fn tick(room: Room) {
    let mut minutes = interval(MINUTE);
    loop {
        minutes.tick().await;
        let people = room.0.borrow().len();
        room.say(&format!("* {people} here"));
    }
}

async fn chat(room: &Room, mut reader: StreamReader, writer: StreamWriter) -> io::Result<()> {
    writer.write(b"name?\n");
    let name = text(&reader.readline().await?);
    room.0.borrow_mut().insert(name.clone(), writer);
    room.say(&format!("* {name} joined"));
    let ended = hear(room, &name, &mut reader).await;
    room.0.borrow_mut().remove(&name);
    room.say(&format!("* {name} left"));
    ended
}

async fn hear(room: &Room, name: &str, reader: &mut StreamReader) -> io::Result<()> {
    while let line = reader.readline().await?
        && !line.is_empty()
    {
        room.say(&format!("{name}: {}", text(&line)));
    }
    Ok(())
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).trim().to_owned()
}

fn serve(local: &LocalLoop, listen: ListenOptions) -> Result<Server, NetError> {
    let room = Room::default();
    local.spawn_local(tick(room.clone()));
    local.start_server(listen, async move |reader, writer| {
        chat(&room, reader, writer).await
    })
}

/// One of the two people of the demonstration.
struct Person {
    name: &'static str,
    reader: StreamReader,
    writer: StreamWriter,
}

impl Person {
    async fn enter(addr: SocketAddr, name: &'static str) -> io::Result<Person> {
        let (reader, writer) = open_connection(addr).await?;
        let mut person = Person {
            name,
            reader,
            writer,
        };
        person.hears().await?;
        person.says(name);
        person.hears().await?;
        Ok(person)
    }

    fn says(&self, line: &str) {
        self.writer.write(format!("{line}\n").as_bytes());
    }

    async fn hears(&mut self) -> io::Result<()> {
        let line = text(&self.reader.readline().await?);
        println!("{} hears: {line}", self.name);
        Ok(())
    }
}

async fn talk(addr: SocketAddr, clock: ManualClock) -> io::Result<()> {
    let mut ann = Person::enter(addr, "ann").await?;
    let mut bob = Person::enter(addr, "bob").await?;
    ann.hears().await?;
    ann.says("hello, bob");
    ann.hears().await?;
    bob.hears().await?;
    clock.advance(MINUTE);
    ann.hears().await?;
    bob.hears().await?;
    drop(bob);
    ann.hears().await
}

/// Two people talk to each other, in one program.
pub(crate) fn demonstrate() -> Result<(), Box<dyn Error>> {
    let clock = ManualClock::new();
    let runtime = Builder::new().loops(1).clock(clock.clone()).build()?;
    let server = serve(runtime.local(), "127.0.0.1:0".parse()?)?;
    Ok(runtime.block_on(talk(server.local_addr(), clock))??)
}

fn main() -> Result<(), Box<dyn Error>> {
    let Some(addr) = std::env::args().nth(1) else {
        return demonstrate();
    };
    let runtime = Builder::new().loops(1).build()?;
    let server = serve(runtime.local(), addr.parse()?)?;
    println!("serving on {}", server.local_addr());
    Ok(runtime.run_forever()?)
}
