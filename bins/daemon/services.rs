//! The services: RFC 862 echo over TCP, in both of garland's ways of writing a server.
//!
//! - *protocol*: [`EchoProtocol`], callbacks on the connection's home loop. Reading stops while more than
//!   `high_water` bytes are unsent, so a caller that does not read cannot fill our memory.
//! - *task*: [`echo`], one movable task a connection. It reads again only when all it read was written, so
//!   its buffer, never larger than `high_water`, is all that it holds.
//!
//! Both answer everything that came before the caller's end of stream, then close. It does not decide
//! when a service starts or stops: that is `lifecycle`.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    io,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use garland::{
    AfterEof, ListenOptions, LocalLoop, LoopHandle, NetError, Protocol, Server, TcpStream,
    TimerHandle, Transport, WriteLimits,
};

use crate::{
    settings::{Listener, Model, TcpEcho},
    tally::{Counted, Reason, Tallies, Tally},
};

/// First size of a task's buffer: what an idle connection costs. Bytes.
const BUFFER_MIN: usize = 2 << 10;
/// A task's buffer grows no further; larger reads save no measurable number of calls. Bytes, guessed.
const BUFFER_MAX: usize = 64 << 10;
/// Buffers a task echoes in one go before it lets other tasks of its loop run. Guessed.
const ROUNDS_MAX: usize = 16;

/// What both models need to know about a connection.
#[derive(Clone, Copy, Debug)]
struct Limits {
    high_water: usize,
    idle_timeout: Option<Duration>,
}

/// A TCP service that runs.
pub(crate) struct TcpServing {
    pub(crate) server: Server,
    pub(crate) tallies: Tallies,
}

/// Where and how the listeners of a TCP service listen.
pub(crate) fn options(bind: &[SocketAddr], settings: &Listener) -> ListenOptions {
    let [first, more @ ..] = bind else {
        unreachable!("settings hold at least one address");
    };
    let first = ListenOptions::new(*first);
    let all = more.iter().fold(first, |all, address| all.and(*address));
    all.backlog(settings.backlog)
        .nodelay(settings.nodelay)
        .max_connections(settings.max_connections)
}

/// Starts one echo service: its listeners are bound on every loop when this comes back.
pub(crate) fn listen(
    handle: &LoopHandle,
    bind: &[SocketAddr],
    settings: &TcpEcho,
) -> Result<TcpServing, NetError> {
    let options = options(bind, &settings.listener);
    let tallies = Tally::for_loops(handle.loops());
    let counting = tallies.clone();
    let limits = Limits {
        high_water: usize::try_from(settings.high_water.0).unwrap_or(usize::MAX),
        idle_timeout: settings.idle_timeout,
    };
    let server = match settings.model {
        Model::Protocol => handle.create_server(options, move |_: &LocalLoop| {
            let counting = counting.clone();
            move || EchoProtocol {
                limits,
                counted: Counted::begin(&counting),
                idle: None,
            }
        }),
        Model::Task => handle.serve(options, move |stream| {
            echo_connection(stream, limits, Counted::begin(&counting))
        }),
    }?;
    Ok(TcpServing { server, tallies })
}

/// The echo as callbacks.
struct EchoProtocol {
    limits: Limits,
    counted: Counted,
    /// `None` when there is no idle timeout, and then no clock is ever read.
    idle: Option<Rc<IdleWatch>>,
}

impl Protocol for EchoProtocol {
    fn connection_made(&mut self, transport: &Transport) {
        // Reading goes on at a quarter of it: low enough not to stop and go with every packet.
        let limits = WriteLimits::high(self.limits.high_water);
        let set = transport.set_write_limits(limits);
        set.expect("a quarter is not above the whole");
        self.idle = self
            .limits
            .idle_timeout
            .map(|limit| IdleWatch::start(transport, limit));
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        self.note_progress();
        self.counted.answered(data.len());
        transport.write(data);
    }

    fn eof_received(&mut self, _transport: &Transport) -> AfterEof {
        // The transport sends what is unsent before it closes.
        AfterEof::Close
    }

    fn pause_writing(&mut self, transport: &Transport) {
        transport.pause_reading();
    }

    fn resume_writing(&mut self, transport: &Transport) {
        self.note_progress();
        transport.resume_reading();
    }

    fn connection_lost(&mut self, _transport: &Transport, error: Option<&io::Error>) {
        let idle = self.idle.take();
        if let Some(idle) = &idle {
            idle.stop();
        }
        let reason = match error {
            _ if idle.is_some_and(|idle| idle.has_fired.get()) => Reason::Idle,
            Some(error) => {
                tracing::debug!(%error, "connection lost");
                Reason::Error
            }
            None => Reason::End,
        };
        self.counted.ends_by(reason);
    }
}

impl EchoProtocol {
    fn note_progress(&self) {
        if let Some(idle) = &self.idle {
            idle.last_progress.set(idle.home.time());
        }
    }
}

/// Cuts a connection on which nothing moved for `limit`.
///
/// A request only stores the loop's time; the timer looks at that when it fires and is armed again for
/// what is left. So a busy connection costs one timer per `limit` and none per request.
struct IdleWatch {
    limit: Duration,
    home: LocalLoop,
    transport: Transport,
    last_progress: Cell<Instant>,
    /// Unsent bytes when the timer fired last: a slow reader makes progress without any callback.
    unsent: Cell<usize>,
    timer: RefCell<Option<TimerHandle>>,
    /// It is this watch that has closed the connection.
    has_fired: Cell<bool>,
}

impl IdleWatch {
    fn start(transport: &Transport, limit: Duration) -> Rc<IdleWatch> {
        let home = transport.local_loop().clone();
        let now = home.time();
        let watch = Rc::new(IdleWatch {
            limit,
            home,
            transport: transport.clone(),
            last_progress: Cell::new(now),
            unsent: Cell::new(0),
            timer: RefCell::new(None),
            has_fired: Cell::new(false),
        });
        watch.arm(now + limit);
        watch
    }

    fn arm(self: &Rc<Self>, deadline: Instant) {
        let watch = Rc::clone(self);
        let timer = self.home.call_at(deadline, move || watch.check());
        self.timer.replace(Some(timer));
    }

    fn check(self: &Rc<Self>) {
        let now = self.home.time();
        let unsent = self.transport.write_buffer_size();
        if self.unsent.replace(unsent) != unsent {
            self.last_progress.set(now);
        }
        let deadline = self.last_progress.get() + self.limit;
        if now < deadline {
            return self.arm(deadline);
        }
        self.has_fired.set(true);
        if unsent == 0 {
            tracing::debug!(peer = %self.transport.peer_name(), "idle connection closed");
            self.transport.close();
        } else {
            // Its peer has stopped reading, so closing would wait for it forever.
            tracing::debug!(peer = %self.transport.peer_name(), unsent, "stalled connection cut");
            self.transport.abort();
        }
    }

    /// Cancels the timer, and with it the timer's own reference to this.
    fn stop(&self) {
        if let Some(timer) = self.timer.take() {
            timer.cancel();
        }
    }
}

/// The echo as a task; its outcome is of interest only to somebody who looks closely.
async fn echo_connection(stream: TcpStream, limits: Limits, mut counted: Counted) {
    let ended = echo(&stream, limits, &counted).await;
    counted.ends_by(reason_of(&stream, &ended));
}

/// How a connection's task ended; `TimedOut` is the idle timeout.
pub(crate) fn reason_of(stream: &TcpStream, ended: &io::Result<()>) -> Reason {
    match ended {
        Ok(()) => Reason::End,
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            tracing::debug!(peer = ?stream.peer_addr(), "idle connection closed");
            Reason::Idle
        }
        Err(error) => {
            tracing::debug!(%error, "connection lost");
            Reason::Error
        }
    }
}

/// Echoes until end of stream; `TimedOut` when one step took longer than the idle timeout.
async fn echo(stream: &TcpStream, limits: Limits, counted: &Counted) -> io::Result<()> {
    let buffer_max = limits.high_water.min(BUFFER_MAX);
    let mut buffer = vec![0; BUFFER_MIN.min(buffer_max)];
    let mut rounds = 0;
    loop {
        let n_read = within(limits.idle_timeout, stream.read(&mut buffer)).await?;
        if n_read == 0 {
            return Ok(());
        }
        let mut unsent = &buffer[..n_read];
        while !unsent.is_empty() {
            let n_written = within(limits.idle_timeout, stream.write(unsent)).await?;
            if n_written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            unsent = &unsent[n_written..];
        }
        counted.answered(n_read);
        if n_read == buffer.len() && n_read < buffer_max {
            buffer.resize((2 * n_read).min(buffer_max), 0);
        }
        rounds += 1;
        if rounds == ROUNDS_MAX {
            rounds = 0;
            garland::yield_now().await;
        }
    }
}

/// One step, bounded by the idle timeout if there is one.
pub(crate) async fn within<T>(
    limit: Option<Duration>,
    step: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    match limit {
        None => step.await,
        Some(limit) => match garland::timeout(limit, step).await {
            Ok(outcome) => outcome,
            Err(_timed_out) => Err(io::ErrorKind::TimedOut.into()),
        },
    }
}
