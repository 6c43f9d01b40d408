//! The listener of a server: one task that accepts, for both models.
//!
//! ```text
//!   event ──> accept, up to ACCEPTS_PER_TURN ──> placement ──keep──> greeted here
//!                 │                                  └──give away──> offered ──> greeted there
//!                 ├──no descriptors, no memory, as many as may be──> rest
//!                 └──closing, queue empty──> deregister, close the socket
//! ```
//!
//! In a server of all loops the task is movable: whichever loop polls it becomes the home of what it accepts, so
//! while the loop that the kernel told is stuck, another accepts for it. In a server of one loop it is bound.
//!
//! What a connection becomes is not known here: a task, or a transport with a protocol. That is the [`Greet`] of the
//! server, and it is called on the loop that will be the connection's home.

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use atomic_waker::AtomicWaker;
use rustix::net::SocketAddrAny;

use crate::driver::Registration;
use crate::error::NetError;
use crate::net::accept::{ACCEPTS_PER_TURN, AcceptError, Backoff, FULL_PAUSE};
use crate::net::listen::{Bound, ListenSocket};
use crate::net::placement::Shares;
use crate::net::server::{ListenerGuard, OpenGuard, Place, Server, ServerCore};
use crate::net::socket;
use crate::net::tcp::poll_accept;
use crate::runtime::{LocalLoop, LoopHandle, spawn, yield_now};
use crate::time::sleep;

/// How long a loop has to take a connection that it is offered; one that is stuck never does, and nobody knows before.
/// Guessed: longer than a turn, shorter than anybody notices.
const OFFER_TIME: Duration = Duration::from_millis(1);

/// Turns what was accepted into a connection, on the loop that will be its home. An error or a panic costs that
/// connection.
pub(crate) type Greet = dyn Fn(&LocalLoop, Accepted) -> io::Result<()> + Send + Sync;

/// A connection that nothing was made for yet.
pub(crate) struct Accepted {
    pub(crate) socket: OwnedFd,
    pub(crate) peer: Option<SocketAddrAny>,
    pub(crate) open: OpenGuard,
    /// What it was when it was accepted.
    pub(crate) clients_ended: u32,
}

/// The loops that accept for a server, and have its connections.
pub(crate) enum Homes {
    All(LoopHandle),
    One(LoopHandle),
}

/// The server that has these sockets. It listens when this returns, if it is to serve at once.
pub(crate) fn serve(
    homes: Homes,
    mut bound: Bound,
    core: Arc<ServerCore>,
    greet: Arc<Greet>,
) -> Result<Server, NetError> {
    let (homes, start): (Vec<LoopHandle>, Start) = match homes {
        Homes::All(handle) => (
            (0..handle.loops()).map(|id| handle.on(id)).collect(),
            start_movable,
        ),
        Homes::One(home) => (vec![home], start_bound),
    };
    let sockets: Vec<Vec<ListenSocket>> = homes.iter().map(|_| bound.take_last()).collect();
    core.on_start(Box::new(move |core| {
        let shares = Arc::new(Shares::new(core, homes.len()));
        for (home, sockets) in homes.iter().zip(sockets) {
            for socket in sockets {
                let name = socket.name.clone();
                socket.listen(bound.common.backlog)?;
                let registered = home.register(socket);
                let socket = registered.map_err(|error| NetError::new("register", &name, error))?;
                let mut listener = Listener::new(socket, core, &shares, &greet);
                listener.rng.seed(home.id().index() as u64);
                if !start(home, listener) {
                    return Err(NetError::closed("serve on", &name));
                }
            }
        }
        Ok(())
    }));
    Server::of(core, bound.common)
}

/// Starts the task of a listener; false if the loop is closed.
type Start = fn(&LoopHandle, Listener) -> bool;

fn start_movable(home: &LoopHandle, listener: Listener) -> bool {
    home.spawn(listener.run()).id().is_some()
}

fn start_bound(home: &LoopHandle, listener: Listener) -> bool {
    home.spawn_on(|| listener.run()).id().is_some()
}

/// What a listener meets next.
enum Next {
    Connection(OwnedFd, Option<SocketAddrAny>, Place),
    /// As many connections are open as may be.
    Full,
    Failed(io::Error),
}

/// One socket that listens. Dropping it takes the socket out of the selector and then closes it: the loops may share
/// its queue, and so may other processes.
struct Listener {
    socket: Registration<ListenSocket>,
    core: Arc<ServerCore>,
    shares: Arc<Shares>,
    greet: Arc<Greet>,
    /// Woken by `Server::close`.
    closed: Arc<AtomicWaker>,
    rng: fastrand::Rng,
    /// Last: who waits for the server finds its address free.
    _guard: ListenerGuard,
}

impl Listener {
    fn new(
        socket: Registration<ListenSocket>,
        core: &Arc<ServerCore>,
        shares: &Arc<Shares>,
        greet: &Arc<Greet>,
    ) -> Self {
        let closed = Arc::new(AtomicWaker::new());
        let closer = Arc::clone(&closed);
        core.on_close(Box::new(move || closer.wake()));
        Listener {
            socket,
            core: Arc::clone(core),
            shares: Arc::clone(shares),
            greet: Arc::clone(greet),
            closed,
            rng: fastrand::Rng::with_seed(0),
            _guard: core.add_listener(),
        }
    }

    async fn run(mut self) {
        let mut backoff = Backoff::new();
        let mut accepted_in_turn = 0;
        while let Some(next) = poll_fn(|cx| self.poll_next(cx)).await {
            let pause = match next {
                Next::Connection(socket, peer, place) => {
                    backoff.reset();
                    self.place(socket, peer, place);
                    None
                }
                Next::Full => Some(FULL_PAUSE),
                Next::Failed(error) => {
                    self.core.count_error(&error);
                    match AcceptError::of(&error) {
                        AcceptError::Next | AcceptError::WouldBlock => None,
                        // SRV-10: what waits cannot be taken, and closing gives a descriptor back.
                        AcceptError::Pause if self.core.is_closing() => return,
                        AcceptError::Pause => {
                            let pause = backoff.take();
                            tracing::warn!(%error, ?pause, "accepting pauses");
                            Some(pause)
                        }
                        AcceptError::Fatal => {
                            tracing::error!(%error, name = %self.socket.io().name, "listener broken");
                            return;
                        }
                    }
                }
            };
            if let Some(pause) = pause {
                self.core.count_pause();
                self.rest(pause).await;
            }
            accepted_in_turn += 1;
            if accepted_in_turn % ACCEPTS_PER_TURN == 0 {
                yield_now().await;
            }
        }
    }

    /// The next connection; `None` when the server closes and the queue is empty.
    fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Next>> {
        self.closed.register(cx.waker());
        let Some(place) = self.core.reserve() else {
            return Poll::Ready(Some(Next::Full));
        };
        let accepted = match poll_accept(&self.socket, cx) {
            Poll::Ready(accepted) => accepted,
            Poll::Pending if self.core.is_closing() => {
                // The queue itself is asked: the loop that would tell of a connection may be stuck,
                // or not have looked since it came (MC-08).
                match socket::accept(self.socket.io()) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        return Poll::Ready(None);
                    }
                    accepted => accepted,
                }
            }
            Poll::Pending => return Poll::Pending,
        };
        Poll::Ready(Some(match accepted {
            Ok((socket, peer)) => Next::Connection(socket, peer, place),
            Err(error) => Next::Failed(error),
        }))
    }

    /// Waits until there may be room again, or the server closes.
    async fn rest(&self, first: Duration) {
        self.pause(first).await;
        while self.core.is_full() && !self.core.is_closing() {
            self.pause(FULL_PAUSE).await;
        }
    }

    async fn pause(&self, pause: Duration) {
        let mut timer = pin!(sleep(pause));
        poll_fn(|cx| {
            self.closed.register(cx.waker());
            if self.core.is_closing() {
                return Poll::Ready(());
            }
            timer.as_mut().poll(cx)
        })
        .await;
    }

    /// S11: it stays here, unless another loop should have it.
    fn place(&mut self, socket: OwnedFd, peer: Option<SocketAddrAny>, place: Place) {
        let here = current();
        let id = here.id().index();
        let accepted = Accepted {
            socket,
            peer,
            open: place.open(self.shares.of(id)),
            clients_ended: self.core.clients_ended(),
        };
        match self.shares.better_home(id, &mut self.rng) {
            Some(there) => self.offer(&here.handle().on(there), accepted),
            None => greet_on(&here, accepted, &self.greet),
        }
    }

    /// Has `there` take the connection. If it does not come to it in time, it is taken back.
    fn offer(&self, there: &LoopHandle, mut accepted: Accepted) {
        accepted.open.move_to(self.shares.of(there.id().index()));
        let offered = Arc::new(Mutex::new(Some(accepted)));
        let (seen, greet) = (Arc::clone(&offered), Arc::clone(&self.greet));
        let told = there.visit(move |local| {
            if let Some(accepted) = take(&seen) {
                accepted.open.server().count_hand_over();
                greet_on(local, accepted, &greet);
            }
        });
        if told.is_err() {
            tracing::debug!(home = %there.id(), "a loop was closed, and is offered no connection");
        }
        let (shares, greet) = (Arc::clone(&self.shares), Arc::clone(&self.greet));
        // Movable, and so is its timer: it must not depend on a loop that may be stuck.
        drop(spawn(async move {
            sleep(OFFER_TIME).await;
            if let Some(mut accepted) = take(&offered) {
                let here = current();
                accepted.open.server().count_taken_back();
                accepted.open.move_to(shares.of(here.id().index()));
                greet_on(&here, accepted, &greet);
            }
        }));
    }
}

fn current() -> LocalLoop {
    LocalLoop::current().expect("a listener is a task, and tasks run on loops")
}

fn take(offered: &Mutex<Option<Accepted>>) -> Option<Accepted> {
    let mut offered = offered.lock().unwrap_or_else(PoisonError::into_inner);
    offered.take()
}

fn greet_on(local: &LocalLoop, accepted: Accepted, greet: &Arc<Greet>) {
    let core = Arc::clone(accepted.open.server());
    if core.clients_ended() != accepted.clients_ended {
        // SRV-14: the clients were ended while it was on its way.
        return;
    }
    match catch_unwind(AssertUnwindSafe(|| greet(local, accepted))) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            core.count_error(&error);
            tracing::warn!(%error, "an accepted connection could not be served");
        }
        // SRV-11: that connection is closed, serving goes on.
        Err(payload) => local.report_panic(payload),
    }
}
