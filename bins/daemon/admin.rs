//! The admin port: `/metrics`, `/live` and `/ready`, on threads of its own.
//!
//! It runs on no loop and waits for none: whatever the loops do, it answers as long as the process runs. So it
//! says what is known of a loop that is stuck, too. There is no access control: keep it on loopback, or behind
//! something that has.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{
    http::{self, Request, Response, Status},
    lifecycle::StartError,
    metrics::Metrics,
    settings::AdminSettings,
};

/// Requests that are answered at the same time; who comes beyond that is hung up on. Each has a thread for as long as
/// it takes, twice [`http::TIME_LIMIT`] at most.
const CONNECTIONS_MAX: usize = 16;
/// Between two attempts to accept when there is no descriptor for it.
const PAUSE: Duration = Duration::from_millis(100);

/// The admin port before there is anything to tell.
pub(crate) struct Bound {
    listener: TcpListener,
    addr: SocketAddr,
}

/// The admin port as the rest of the daemon sees it.
pub(crate) struct Admin {
    pub(crate) addr: SocketAddr,
    state: Arc<State>,
}

struct State {
    metrics: Metrics,
    /// Cleared by the first signal. A plain flag: it promises nothing about other memory.
    is_ready: AtomicBool,
}

impl Bound {
    pub(crate) fn new(settings: &AdminSettings) -> Result<Bound, StartError> {
        let bind = settings.bind;
        let bound = TcpListener::bind(bind).and_then(|listener| {
            let addr = listener.local_addr()?;
            Ok(Bound { listener, addr })
        });
        bound.map_err(|error| {
            let message = format!("cannot listen on admin.bind = {bind}: {error}; change it");
            StartError::new(message)
        })
    }

    /// Answers from now on, and says that the daemon is ready.
    pub(crate) fn start(self, metrics: Metrics) -> Result<Admin, StartError> {
        let state = Arc::new(State {
            metrics,
            is_ready: AtomicBool::new(true),
        });
        let admin = Admin {
            addr: self.addr,
            state: Arc::clone(&state),
        };
        let thread = thread::Builder::new().name("echod-admin".to_owned());
        // Left behind: it ends with the process, so that /live tells the truth.
        let started = thread.spawn(move || accept_all(&self.listener, &state));
        match started {
            Ok(_thread) => Ok(admin),
            Err(error) => Err(StartError::new(format!(
                "cannot start the thread of the admin port: {error}"
            ))),
        }
    }
}

impl Admin {
    /// From now on `/ready` fails.
    pub(crate) fn drain(&self) {
        self.state.is_ready.store(false, Ordering::Relaxed);
    }
}

fn accept_all(listener: &TcpListener, state: &Arc<State>) {
    loop {
        match listener.accept() {
            // Every thread that answers holds the state, and so do the daemon and this one.
            Ok((stream, _)) if Arc::strong_count(state) < CONNECTIONS_MAX + 2 => {
                answer(stream, Arc::clone(state));
            }
            Ok((stream, peer)) => {
                tracing::debug!(%peer, "too many requests at once on the admin port");
                drop(stream);
            }
            Err(error) => {
                tracing::debug!(%error, "the admin port cannot accept");
                thread::sleep(PAUSE);
            }
        }
    }
}

fn answer(stream: TcpStream, state: Arc<State>) {
    let thread = thread::Builder::new().name("echod-admin".to_owned());
    let started = thread.spawn(move || {
        if let Err(error) = http::serve(stream, |request| route(request, &state)) {
            tracing::debug!(%error, "a request on the admin port was not answered");
        }
    });
    if let Err(error) = started {
        tracing::debug!(%error, "no thread for a request on the admin port");
    }
}

fn route(request: &Request, state: &State) -> Response {
    match request.path.as_str() {
        "/live" => Response::text(Status::Ok, "live"),
        "/ready" if state.is_ready.load(Ordering::Relaxed) => Response::text(Status::Ok, "ready"),
        "/ready" => Response::text(Status::Unavailable, "draining"),
        "/metrics" => Response {
            status: Status::Ok,
            content_type: "application/openmetrics-text; version=1.0.0; charset=utf-8",
            body: state.metrics.to_text(),
        },
        _ => Response::text(Status::NotFound, "there are /metrics, /live and /ready"),
    }
}
