//! The yardstick of the tests with work: threads on one one-shot epoll, one event at a time.
//!
//! The kernel is the one queue, and nothing stands between it and the threads: a connection with a request waits in
//! its ready list, whoever is free takes the first, answers one request, and puts the connection back at the end.
//! `ONESHOT` keeps the order within a connection, for nobody else sees it meanwhile. It deliberately knows no
//! task, and it accepts on a thread of its own: connections are made before the load.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use clap::Parser;
use garland_versus::serving::{self, Placement, Service};
use garland_versus::spin;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use slab::Slab;

/// What a connection is armed for.
const ONE_REQUEST: EventFlags = EventFlags::IN.union(EventFlags::ONESHOT);

/// Server with the kernel as its one queue
#[derive(Parser)]
struct Options {
    /// What it does: this one only spins
    #[arg(long, value_enum, default_value = "spin")]
    service: Service,
    #[command(flatten)]
    placement: Placement,
}

struct Shared {
    epoll: OwnedFd,
    connections: Mutex<Slab<Arc<TcpStream>>>,
}

impl Shared {
    fn connections(&self) -> MutexGuard<'_, Slab<Arc<TcpStream>>> {
        self.connections.lock().expect("nobody panics under it")
    }
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    anyhow::ensure!(options.service == Service::Spin, "this server only spins");
    options.placement.pin()?;
    serving::at_end_of_stdin(|| process::exit(0))?;
    let shared = Arc::new(Shared {
        epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        connections: Mutex::default(),
    });
    for cpu in options.placement.cpus {
        let shared = Arc::clone(&shared);
        thread::spawn(move || {
            if let Err(error) = serving::pin_to(&[cpu]).and_then(|()| serve(&shared)) {
                eprintln!("{error:#}");
                process::exit(1);
            }
        });
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    serving::announce(listener.local_addr()?)?;
    loop {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let stream = Arc::new(stream);
        let key = shared.connections().insert(Arc::clone(&stream));
        let data = EventData::new_u64(key as u64);
        epoll::add(&shared.epoll, &*stream, data, ONE_REQUEST)?;
    }
}

fn serve(shared: &Shared) -> anyhow::Result<()> {
    let mut events = Vec::with_capacity(1);
    loop {
        events.clear();
        match epoll::wait(&shared.epoll, spare_capacity(&mut events), None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let key = usize::try_from(event.data.u64())?;
            let stream = Arc::clone(&shared.connections()[key]);
            if answer_one(&stream) {
                epoll::modify(&shared.epoll, &*stream, event.data, ONE_REQUEST)?;
            } else {
                shared.connections().remove(key);
            }
        }
    }
}

/// Answers the request that has come; false at the end of the connection.
fn answer_one(mut stream: &TcpStream) -> bool {
    let mut request = [0; spin::SIZE];
    match stream.read(&mut request) {
        // A request is sent by one call and is smaller than any segment: it comes whole.
        Ok(spin::SIZE) => {
            spin::answer(&mut request, 0);
            stream.write_all(&request).is_ok()
        }
        Ok(_) => false,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}
