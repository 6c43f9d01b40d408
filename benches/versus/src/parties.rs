//! The runtimes whose parts are compared, each as one thing that runs tasks: what its users would write, and nothing more.

use std::future::Future;
use std::time::Duration;

use clap::ValueEnum;

/// A runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Name {
    /// Loops on threads of their own
    Garland,
    /// The multi-thread runtime
    Tokio,
    /// One executor, and threads that run it
    Smol,
}

impl Name {
    /// All that were built.
    pub const ALL: &[Name] = if cfg!(feature = "peers") {
        &[Name::Garland, Name::Tokio, Name::Smol]
    } else {
        &[Name::Garland, Name::Tokio]
    };

    /// As it stands in tables, and on the command line.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Name::Garland => "garland",
            Name::Tokio => "tokio",
            Name::Smol => "smol",
        }
    }
}

/// A runtime that runs, with all its threads beside the one that started it.
pub trait Party: Clone + Send + Sync + 'static {
    /// Starts so many workers.
    ///
    /// # Errors
    /// Those of the runtime.
    fn start(workers: usize) -> anyhow::Result<Self>;

    /// Spawns a task, from anywhere; what comes back waits for it.
    fn spawn<F>(&self, future: F) -> impl Future<Output = F::Output> + Send + use<Self, F>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static;

    /// Spawns a task inside of a task.
    fn spawn_here<F>(future: F) -> impl Future<Output = F::Output> + Send + use<Self, F>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static;

    /// Lets the other tasks go first.
    fn yield_now() -> impl Future<Output = ()> + Send;

    /// Waits.
    fn sleep(time: Duration) -> impl Future<Output = ()> + Send + 'static;
}

/// garland.
#[derive(Clone, Debug)]
pub struct Garland(garland::LoopHandle);

impl Party for Garland {
    fn start(workers: usize) -> anyhow::Result<Self> {
        let runtime = garland::Builder::new().loops(workers).start()?;
        let handle = runtime.handle().clone();
        // It ends with the process.
        std::mem::forget(runtime);
        Ok(Garland(handle))
    }

    fn spawn<F>(&self, future: F) -> impl Future<Output = F::Output> + Send + use<F>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let task = self.0.spawn(future);
        async { task.await.expect("it does not panic") }
    }

    fn spawn_here<F>(future: F) -> impl Future<Output = F::Output> + Send + use<F>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let task = garland::spawn(future);
        async { task.await.expect("it does not panic") }
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        garland::yield_now()
    }

    fn sleep(time: Duration) -> impl Future<Output = ()> + Send + 'static {
        garland::sleep(time)
    }
}

/// tokio.
#[derive(Clone, Debug)]
pub struct Tokio(tokio::runtime::Handle);

impl Party for Tokio {
    fn start(workers: usize) -> anyhow::Result<Self> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(workers).enable_all().build()?;
        let handle = runtime.handle().clone();
        std::mem::forget(runtime);
        Ok(Tokio(handle))
    }

    fn spawn<F>(&self, future: F) -> impl Future<Output = F::Output> + Send + use<F>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let task = self.0.spawn(future);
        async { task.await.expect("it does not panic") }
    }

    fn spawn_here<F>(future: F) -> impl Future<Output = F::Output> + Send + use<F>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let task = tokio::spawn(future);
        async { task.await.expect("it does not panic") }
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        tokio::task::yield_now()
    }

    fn sleep(time: Duration) -> impl Future<Output = ()> + Send + 'static {
        tokio::time::sleep(time)
    }
}

/// smol.
#[cfg(feature = "peers")]
#[derive(Clone, Debug)]
pub struct Smol;

#[cfg(feature = "peers")]
static EXECUTOR: smol::Executor<'static> = smol::Executor::new();

#[cfg(feature = "peers")]
impl Party for Smol {
    fn start(workers: usize) -> anyhow::Result<Self> {
        for _ in 0..workers {
            let run = || smol::block_on(EXECUTOR.run(smol::future::pending::<()>()));
            std::thread::Builder::new().spawn(run)?;
        }
        Ok(Smol)
    }

    fn spawn<F>(&self, future: F) -> impl Future<Output = F::Output> + Send + use<F>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        EXECUTOR.spawn(future)
    }

    fn spawn_here<F>(future: F) -> impl Future<Output = F::Output> + Send + use<F>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        EXECUTOR.spawn(future)
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        smol::future::yield_now()
    }

    async fn sleep(time: Duration) {
        smol::Timer::after(time).await;
    }
}
