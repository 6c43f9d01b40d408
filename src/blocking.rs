//! L4a: work that would block a loop, on threads of its own: executors and name resolution.
//!
//! A job runs on the pool of the process (the `blocking` crate's: made at the first job, one more
//! thread when jobs wait, up to 500) or on the [`Executor`] that the runtime was given. Its result goes to
//! the [`Blocking`] future, which any task or thread may await; no job waits for a loop, so the late
//! result of one whose loop has closed is dropped on the job's thread.
//!
//! No thread is ended here: the pool belongs to the process. What a runtime can end is its own use of
//! an executor ([`LoopHandle::shutdown_default_executor`]).

use std::any::Any;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use atomic_waker::AtomicWaker;

use crate::error::TimedOut;
use crate::runtime::{Executor, LoopHandle, Offload, Panic, Permit};
use crate::runtime::{drop_payload, panic_text, spread};

/// Runs `f` on a thread of the executor of this thread's runtime:
/// [`LoopHandle::run_in_executor`], for code inside a loop.
///
/// # Panics
/// Outside a loop.
///
/// ```
/// let runtime = garland::Builder::new().loops(1).build()?;
/// let here = std::thread::current().id();
/// let there = runtime.block_on(async {
///     garland::run_in_executor(|| std::thread::current().id()).await
/// })??;
/// assert_ne!(here, there);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "to_thread")]
#[doc(alias = "spawn_blocking")]
#[track_caller]
pub fn run_in_executor<F, T>(f: F) -> Blocking<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let handle = LoopHandle::current();
    let handle =
        handle.expect("run_in_executor() is called inside a loop; elsewhere use a LoopHandle");
    handle.run_in_executor(f)
}

impl LoopHandle {
    /// Runs `f` on a thread that is not a loop's: for calls that block, and for long computations. It
    /// begins without being awaited. From any thread.
    ///
    /// Dropping the future does not stop `f`; its result is then dropped silently. Nor does the end of the runtime, which
    /// does not wait for it: [`shutdown_default_executor`](LoopHandle::shutdown_default_executor) does.
    pub fn run_in_executor<F, T>(&self, f: F) -> Blocking<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let slot = Arc::new(Slot::new());
        match self.offload().admit() {
            None => slot.fill(Err(ExecutorError::Closed)),
            Some((permit, executor)) => {
                let answer = Answer {
                    slot: Some(Arc::clone(&slot)),
                    _permit: permit,
                };
                let job = move || answer.give(catch_unwind(AssertUnwindSafe(f)));
                match executor {
                    Some(executor) => executor.execute(Box::new(job)),
                    None => run_in_pool(self.offload(), job),
                }
            }
        }
        Blocking { slot }
    }

    /// Has `executor` run what this runtime offloads from now on, name resolution included.
    pub fn set_default_executor(&self, executor: impl Executor) {
        self.offload().set_executor(Arc::new(executor));
    }

    /// Refuses further jobs of this runtime, waits until those under way are over, and drops the
    /// executor that was set. The threads of the process's pool stay: others may use them.
    ///
    /// Dropping the future ends the waiting; the executor stays closed.
    ///
    /// # Errors
    /// [`TimedOut`] if jobs are still under way after `limit`. They go on.
    ///
    /// ```
    /// use garland::ExecutorError;
    /// use std::time::Duration;
    ///
    /// let runtime = garland::Builder::new().loops(1).build()?;
    /// let handle = runtime.handle().clone();
    /// runtime.block_on(async {
    ///     let answer = handle.run_in_executor(|| 6 * 7);
    ///     handle.shutdown_default_executor(Duration::from_secs(5)).await?;
    ///     assert_eq!(answer.await.expect("it was waited for"), 42);
    ///     let late = handle.run_in_executor(|| ()).await;
    ///     assert!(matches!(late, Err(ExecutorError::Closed)));
    ///     Ok::<(), garland::TimedOut>(())
    /// })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn shutdown_default_executor(&self, limit: Duration) -> Result<(), TimedOut> {
        let offload = self.offload();
        offload.close();
        let mut idle = offload.listen();
        let mut timer = None;
        poll_fn(|cx| {
            while offload.jobs() > 0 {
                if Pin::new(&mut idle).poll(cx).is_ready() {
                    idle = offload.listen();
                    continue;
                }
                let timer =
                    timer.get_or_insert_with(|| self.timer_after(limit, cx.waker().clone()));
                std::task::ready!(timer.poll(cx));
                return Poll::Ready(Err(TimedOut { after: limit }));
            }
            Poll::Ready(Ok(()))
        })
        .await?;
        offload.release();
        Ok(())
    }
}

/// On the pool of the process. Its threads are started by whoever offloads, often a loop, and inherit
/// the core which that one is pinned to. All jobs would share it with the loop they were to spare; so
/// each begins by going back to the cores of its runtime.
fn run_in_pool(offload: &Offload, job: impl FnOnce() + Send + 'static) {
    let cores = offload.cores();
    let job = move || {
        if let Some(cores) = &cores {
            spread(cores);
        }
        job();
    };
    blocking::unblock(job).detach();
}

/// The result of [`run_in_executor`], to be awaited anywhere.
///
/// Dropping it stops nothing. Awaiting loses nothing: `&mut` it and await again.
#[must_use = "what the job did or why it failed is seen only by awaiting it"]
pub struct Blocking<T> {
    slot: Arc<Slot<T>>,
}

impl<T> Future for Blocking<T> {
    type Output = Result<T, ExecutorError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.slot.waker.register(cx.waker());
        let outcome = self.slot.lock().take();
        outcome.map_or(Poll::Pending, Poll::Ready)
    }
}

impl<T> fmt::Debug for Blocking<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_finished = self.slot.lock().is_some();
        f.debug_struct("Blocking")
            .field("finished", &is_finished)
            .finish()
    }
}

/// Why a job has no result.
pub enum ExecutorError {
    /// It panicked; this is what it panicked with.
    Panicked(Box<dyn Any + Send>),
    /// The default executor was shut down, alone or with the runtime; the job did not run.
    Closed,
    /// The executor dropped the job without running it.
    Dropped,
}

impl fmt::Debug for ExecutorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExecutorError::Panicked(payload) => {
                write!(f, "Panicked({:?})", panic_text(payload.as_ref()))
            }
            ExecutorError::Closed => f.write_str("Closed"),
            ExecutorError::Dropped => f.write_str("Dropped"),
        }
    }
}

impl fmt::Display for ExecutorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExecutorError::Panicked(payload) => match panic_text(payload.as_ref()) {
                Some(message) => write!(f, "the job panicked: {message}"),
                None => f.write_str("the job panicked"),
            },
            ExecutorError::Closed => f.write_str("the default executor is shut down"),
            ExecutorError::Dropped => {
                f.write_str("the executor dropped the job without running it")
            }
        }
    }
}

impl std::error::Error for ExecutorError {}

impl From<ExecutorError> for io::Error {
    fn from(error: ExecutorError) -> Self {
        // As text: what a panic carries need not be `Sync`, as the source of an I/O error must be.
        io::Error::other(error.to_string())
    }
}

/// Where a job leaves its result.
struct Slot<T> {
    outcome: Mutex<Option<Result<T, ExecutorError>>>,
    waker: AtomicWaker,
}

impl<T> Slot<T> {
    fn new() -> Self {
        Slot {
            outcome: Mutex::new(None),
            waker: AtomicWaker::new(),
        }
    }

    fn fill(&self, outcome: Result<T, ExecutorError>) {
        *self.lock() = Some(outcome);
        self.waker.wake();
    }

    fn lock(&self) -> MutexGuard<'_, Option<Result<T, ExecutorError>>> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A job's duty to leave something in its slot.
struct Answer<T> {
    slot: Option<Arc<Slot<T>>>,
    _permit: Permit,
}

impl<T> Answer<T> {
    /// Wakers and the destructor of a late result are foreign code: a panic of theirs must not reach
    /// the executor, which may be ended by it.
    fn give(mut self, result: Result<T, Panic>) {
        let slot = self.slot.take().expect("given once");
        let outcome = result.map_err(ExecutorError::Panicked);
        let given = catch_unwind(AssertUnwindSafe(move || {
            slot.fill(outcome);
            drop(slot);
        }));
        if let Err(payload) = given {
            let message = panic_text(payload.as_ref()).unwrap_or("(not a text)");
            tracing::error!(message, "handing over the result of a job panicked");
            drop_payload(payload);
        }
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        if let Some(slot) = &self.slot {
            slot.fill(Err(ExecutorError::Dropped));
        }
    }
}

/// The addresses of `host`, in the order in which they should be tried, each with `port`.
///
/// A literal is taken as it is, without any waiting, an IPv6 scope included (`fe80::1%eth0`). A name
/// is looked up by the system's resolver, in the executor of this thread's runtime.
///
/// # Errors
/// Those of the resolver, an unknown interface in a scope, and a name without any address.
///
/// # Panics
/// When polled outside a loop, unless `host` is a literal.
///
/// ```
/// let runtime = garland::Builder::new().loops(1).build()?;
/// let found = runtime.block_on(garland::resolve("localhost", 80))??;
/// assert!(found.iter().all(|addr| addr.ip().is_loopback() && addr.port() == 80));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "getaddrinfo")]
#[doc(alias = "lookup_host")]
pub async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let failed = |error: io::Error| {
        io::Error::new(error.kind(), format!("cannot resolve {host:?}: {error}"))
    };
    if let Some(literal) = parse_literal(host, port).map_err(failed)? {
        return Ok(vec![literal]);
    }
    let name = host.to_owned();
    let lookup = move || (name.as_str(), port).to_socket_addrs().map(Vec::from_iter);
    let found = run_in_executor(lookup).await.map_err(io::Error::from);
    found.flatten().and_then(at_least_one).map_err(failed)
}

fn at_least_one(found: Vec<SocketAddr>) -> io::Result<Vec<SocketAddr>> {
    if found.is_empty() {
        let error = io::Error::new(io::ErrorKind::NotFound, "it has no address");
        return Err(error);
    }
    Ok(found)
}

/// An address written out; `None` for what only a resolver can know.
fn parse_literal(host: &str, port: u16) -> io::Result<Option<SocketAddr>> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(Some(SocketAddr::new(ip, port)));
    }
    let Some((ip, scope)) = host.split_once('%') else {
        return Ok(None);
    };
    let Ok(ip) = ip.parse::<Ipv6Addr>() else {
        return Ok(None);
    };
    let scope = match scope.parse() {
        Ok(number) => number,
        Err(_) => interface_number(scope)?,
    };
    Ok(Some(SocketAddrV6::new(ip, port, 0, scope).into()))
}

/// The kernel tells at once; no need for another thread.
fn interface_number(name: &str) -> io::Result<u32> {
    use rustix::net::{AddressFamily, SocketType, netdevice, socket};

    let any = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    Ok(netdevice::name_to_index(any, name)?)
}

/// The host and service names of an address, by the system's resolver, in the executor of this
/// thread's runtime. Where there is no name, the number is given instead.
///
/// # Errors
/// Those of the resolver.
///
/// # Panics
/// When polled outside a loop.
pub async fn getnameinfo(addr: SocketAddr) -> io::Result<(String, String)> {
    let lookup = move || dns_lookup::getnameinfo(&addr, 0).map_err(io::Error::from);
    let found = run_in_executor(lookup).await.map_err(io::Error::from);
    found.flatten().map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("cannot find a name for {addr}: {error}"),
        )
    })
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use crate::blocking::at_least_one;

    /// A resolver that answers with nothing cannot be had here; what is made of it can.
    #[test]
    fn thr_12_an_empty_answer_is_an_error() {
        let error = at_least_one(Vec::new()).expect_err("nobody could connect to it");
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        let one = vec![SocketAddr::from(([127, 0, 0, 1], 1))];
        assert_eq!(at_least_one(one.clone()).expect("it is not empty"), one);
    }
}
