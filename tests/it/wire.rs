//! One connection of the callback model, played step by step.
//!
//! The script of each test runs on the loop itself, as the future of `block_on`, between the turns
//! of the connection it watches; the client is a plain non-blocking socket in the same thread. So
//! every order is decided by the loop and none by luck.

use std::cell::RefCell;
use std::io::Write;
use std::net::TcpStream;
use std::rc::Rc;
use std::time::Duration;

use garland::{AfterEof, LocalLoop, Protocol, Server, Transport, yield_now};

use crate::sockets::{
    Event, Log, Reaction, Recorder, any_port, connect, finish_lent, lent, reset, until,
};

/// More than the kernel takes for one connection whose peer does not read.
pub(crate) const TOO_MUCH: usize = 16 * 1024 * 1024;

/// A script's view: the client, what the protocol was told, and the transport.
pub(crate) struct Wire {
    pub(crate) client: Option<TcpStream>,
    pub(crate) log: Log,
    pub(crate) seen: Rc<RefCell<Option<Transport>>>,
    pub(crate) local: LocalLoop,
    pub(crate) server: Server,
}

impl Wire {
    pub(crate) async fn made(&self) -> Transport {
        until("connection_made", || self.seen.borrow().is_some()).await;
        self.seen.borrow().clone().expect("just seen")
    }

    pub(crate) async fn lost(&self) {
        until("connection_lost", || self.log.is_lost()).await;
        // Whatever comes after it would be an error, and has had its chance.
        for _ in 0..3 {
            yield_now().await;
        }
        let last = self.log.lines().pop().expect("not empty");
        assert!(last.starts_with("lost"), "lost is last: {:?}", self.log);
    }

    pub(crate) fn send(&self, data: &[u8]) {
        let mut client = self.client();
        client
            .write_all(data)
            .expect("the kernel's buffer has room");
    }

    pub(crate) fn client(&self) -> &TcpStream {
        self.client.as_ref().expect("not reset yet")
    }

    /// The client resets the connection.
    pub(crate) fn reset(&mut self) {
        reset(self.client.take().expect("not reset yet"));
    }

    pub(crate) fn panics(&self) -> u64 {
        let stats = self.local.handle().stats();
        stats.total(|one| one.callback_panics)
    }
}

pub(crate) fn silent() -> Reaction {
    Rc::new(|_, _| {})
}

pub(crate) fn reaction(react: impl Fn(&Event<'_>, &Transport) + 'static) -> Reaction {
    Rc::new(react)
}

/// Plays `script` against one connection, with one loop, two and four, and checks the ledger.
pub(crate) fn play(reaction: &Reaction, after_eof: AfterEof, script: impl AsyncFn(&mut Wire)) {
    play_as(|recorder| recorder, reaction, after_eof, script);
}

/// The same with a protocol that is made of the recorder.
pub(crate) fn play_as<P: Protocol>(
    make: impl Fn(Recorder) -> P + Clone + 'static,
    reaction: &Reaction,
    after_eof: AfterEof,
    script: impl AsyncFn(&mut Wire),
) {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let log = Log::default();
        let seen = Rc::new(RefCell::new(None));
        let (logged, noted, reaction) = (log.clone(), seen.clone(), reaction.clone());
        let make = make.clone();
        let factory = move || {
            let (noted, reaction) = (noted.clone(), reaction.clone());
            make(Recorder {
                log: logged.clone(),
                reaction: Rc::new(move |event: &Event<'_>, transport: &Transport| {
                    if matches!(event, Event::Made) {
                        *noted.borrow_mut() = Some(transport.clone());
                    }
                    reaction(event, transport);
                }),
                after_eof,
            })
        };
        let server = runtime.local().create_server(any_port(), factory);
        let server = server.expect("a free port exists");
        let client = connect(server.local_addr());
        client.set_nonblocking(true).expect("a socket");
        let mut wire = Wire {
            client: Some(client),
            log,
            seen,
            local: runtime.local().clone(),
            server,
        };
        runtime.block_on(script(&mut wire)).expect("not stopped");
        drop(wire);
        finish_lent(runtime);
    }
}

/// Fills the kernel's buffers, so that what is written from now on is held by the transport.
pub(crate) async fn fill(transport: &Transport) -> usize {
    let mut written = 0;
    let mut before = usize::MAX;
    // Until a whole round of turns changed nothing: the kernel takes no more.
    while transport.write_buffer_size() == 0 || transport.write_buffer_size() != before {
        if transport.write_buffer_size() == 0 {
            transport.write(&vec![b'.'; 1024 * 1024]);
            written += 1024 * 1024;
        }
        before = transport.write_buffer_size();
        garland::sleep(Duration::from_millis(5)).await;
    }
    written
}
