//! L4b: signals of the operating system, as callbacks of a loop, and as futures.
//!
//! A signal is caught by the `signal-hook` crate, whose handler writes into a socket pair; the other end is
//! a socket like any other, so a signal wakes a parked loop at once and interrupts no callback. What
//! was delivered while nobody looked counts as one.
//!
//! Signals belong to the process. Of a runtime, loop 0 has their callbacks (MC-18). Several runtimes in
//! one process all hear of a signal they wait for; when the last one lets go of it, its default action
//! is back: emulated, for the handler stays installed, but a child process is started with the real
//! one. Who catches signals by other means beside garland must expect that default action.
//!
//! Not here: signals without a known default action, as those of the real-time kind, because they
//! could not be given back; and those that mean the program itself is broken.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::future::{Future, pending, poll_fn};
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use signal_hook::SigId;
use signal_hook::consts::{FORBIDDEN, SIGINT};
use signal_hook::{flag, low_level};

use crate::atomics::SignalFlag;
use crate::driver::{Extent, Interest, Registration};
use crate::error::LoopError;
use crate::runtime::{IoHandler, IoKey, LocalLoop, LoopHandle, Ready, Repeating, Runtime};

impl LocalLoop {
    /// Calls `callback` on this loop when `signal` comes, as a normal callback: behind what is ready,
    /// interrupting nothing. It replaces the handler of this signal, if there is one. Deliveries may
    /// merge; after the last one it is called at least once.
    ///
    /// Numbers are those of the system, as in `signal_hook::consts`.
    ///
    /// # Errors
    /// `InvalidInput` for a number without a known default action, and for signals that cannot be
    /// caught or mean a broken program (KILL, STOP, ILL, FPE, SEGV); `Unsupported` on a loop that is
    /// not loop 0; `NotConnected` on a closed loop; no descriptor left.
    ///
    /// ```
    /// use rustix::process::{Signal, getpid, kill_process};
    ///
    /// let runtime = garland::Builder::new().loops(1).build()?;
    /// let local = runtime.local().clone();
    /// let usr1 = Signal::USR1.as_raw();
    /// runtime.local().add_signal_handler(usr1, move || local.stop())?;
    /// kill_process(getpid(), Signal::USR1)?;
    /// runtime.run_forever()?;
    /// assert!(runtime.local().remove_signal_handler(usr1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn add_signal_handler(
        &self,
        signal: i32,
        callback: impl FnMut() + 'static,
    ) -> io::Result<()> {
        self.check_open()?;
        if self.id().index() != 0 {
            let text = format!("signals belong to loop 0, not to {}", self.id());
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        let handlers = self.attachment::<SignalHandlers>();
        let handler = match handlers.get(signal) {
            Some(known) => known,
            None => {
                let new = SignalHandler::new(self, signal)?;
                handlers.0.borrow_mut().insert(signal, Rc::clone(&new));
                new
            }
        };
        handler.callback.set(Box::new(callback));
        Ok(())
    }

    /// Drops the handler of `signal`, which is not called any more, even if its turn has come, and gives
    /// the signal its default action back. False if there is none.
    pub fn remove_signal_handler(&self, signal: i32) -> bool {
        let handler = self.attachment::<SignalHandlers>().get(signal);
        handler.inspect(|handler| handler.forget()).is_some()
    }
}

/// The handlers of one loop, by signal.
#[derive(Default)]
struct SignalHandlers(RefCell<HashMap<i32, Rc<SignalHandler>>>);

impl SignalHandlers {
    fn get(&self, signal: i32) -> Option<Rc<SignalHandler>> {
        self.0.borrow().get(&signal).cloned()
    }
}

struct SignalHandler {
    local: LocalLoop,
    signal: i32,
    key: Cell<IoKey>,
    callback: Repeating,
    news: UnixStream,
    /// There until the handler is removed.
    caught: Cell<Option<Caught>>,
}

impl SignalHandler {
    fn new(local: &LocalLoop, signal: i32) -> io::Result<Rc<Self>> {
        let (caught, news) = Caught::new(signal)?;
        let handler = Rc::new(SignalHandler {
            local: local.clone(),
            signal,
            key: Cell::default(),
            callback: Repeating::default(),
            news,
            caught: Cell::new(Some(caught)),
        });
        let known = Rc::clone(&handler);
        let key = local.insert_io(known);
        handler.key.set(key);
        if let Err(error) = local.watch_io(&handler.news, key) {
            local.remove_io(key);
            return Err(error);
        }
        Ok(handler)
    }

    fn forget(&self) {
        drop(self.caught.take());
        self.local.remove_io(self.key.get());
        let handlers = self.local.attachment::<SignalHandlers>();
        let removed = handlers.0.borrow_mut().remove(&self.signal);
        drop(removed);
        self.callback.clear();
    }
}

impl IoHandler for SignalHandler {
    fn handle_ready(self: Rc<Self>, _ready: Ready) {
        // All of it before the call: what comes during the call is another edge.
        if take_news(&self.news).is_ok() {
            self.callback.call(&self.local);
        }
    }

    fn handle_shutdown(self: Rc<Self>) {
        self.forget();
    }
}

/// A signal as a task waits for it, on any loop.
///
/// Its default action is off as long as this lives.
///
/// ```no_run
/// # async fn reload() -> std::io::Result<()> {
/// let hangup = garland::Signal::new(signal_hook::consts::SIGHUP)?;
/// loop {
///     hangup.recv().await?;
///     println!("reading the configuration again");
/// }
/// # }
/// ```
pub struct Signal {
    signal: i32,
    news: Registration<UnixStream>,
    _caught: Caught,
}

impl Signal {
    /// Catches `signal` from now on.
    ///
    /// # Errors
    /// As for [`LocalLoop::add_signal_handler`]; any loop will do.
    ///
    /// # Panics
    /// Outside a loop.
    pub fn new(signal: i32) -> io::Result<Self> {
        let (caught, news) = Caught::new(signal)?;
        let home = LoopHandle::current().expect("a signal is waited for inside a loop");
        Ok(Signal {
            signal,
            news: home.register(news)?,
            _caught: caught,
        })
    }

    /// Waits for the next delivery, or returns at once if there was one since the last call. Several
    /// may merge. Dropping the future loses nothing; one task waits at a time.
    ///
    /// # Errors
    /// None that is known: those of reading a socket pair.
    pub async fn recv(&self) -> io::Result<()> {
        let receive = |news: &UnixStream| {
            take_news(news)?;
            Ok(((), Extent::Short))
        };
        poll_fn(|cx| self.news.poll_io(cx, Interest::Read, receive)).await
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = low_level::signal_name(self.signal);
        f.debug_tuple("Signal").field(&name).finish()
    }
}

/// Waits for Ctrl-C: the signal INT. Its default action is off from the first poll until this is
/// complete or dropped.
///
/// # Errors
/// As for [`Signal::new`].
///
/// # Panics
/// When polled for the first time outside a loop.
pub async fn ctrl_c() -> io::Result<()> {
    Signal::new(SIGINT)?.recv().await
}

impl Runtime {
    /// Runs the whole of a program, as [`run`](Runtime::run), until `main` is complete or Ctrl-C is
    /// pressed (the signal INT). The first one drops `main` at its present await, on the loop, and the
    /// runtime ends; a second one, at any time from then on and whatever the loops are doing, ends the
    /// process at once.
    ///
    /// A program with a [handler](LocalLoop::add_signal_handler) of its own for this signal uses `run`:
    /// here it would be called, and `main` dropped all the same.
    ///
    /// # Errors
    /// [`LoopError::Interrupted`] after Ctrl-C; else as for [`block_on`](Runtime::block_on). If the
    /// signal cannot be caught, the log says so and `main` runs without it.
    ///
    /// ```no_run
    /// use garland::LoopError;
    ///
    /// let forever = std::future::pending::<()>();
    /// match garland::Runtime::new()?.run_interruptible(forever) {
    ///     Err(LoopError::Interrupted) => std::process::exit(130),
    ///     ended => ended?,
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "Runner")]
    pub fn run_interruptible<F: Future>(self, main: F) -> Result<F::Output, LoopError> {
        // Armed by the first step, and until the runtime has ended.
        let mut second = None;
        let outcome = self.run(async {
            let first = Signal::new(SIGINT);
            let first = first.and_then(|first| {
                second = Some(SecondInterrupt::arm()?);
                Ok(first)
            });
            if let Err(error) = &first {
                tracing::warn!(%error, "Ctrl-C is not caught");
            }
            let mut main = pin!(main);
            let mut interrupt = pin!(async {
                match &first {
                    Ok(first) => first.recv().await,
                    Err(_) => pending().await,
                }
            });
            poll_fn(|cx| match main.as_mut().poll(cx) {
                Poll::Ready(output) => Poll::Ready(Some(output)),
                Poll::Pending => interrupt.as_mut().poll(cx).map(|_| None),
            })
            .await
        });
        drop(second);
        outcome?.ok_or(LoopError::Interrupted)
    }
}

/// Has the second Ctrl-C end the process, inside the signal handler: no loop is needed for it.
struct SecondInterrupt([SigId; 2]);

impl SecondInterrupt {
    fn arm() -> io::Result<Self> {
        let seen = Arc::new(SignalFlag::new(false));
        // In this order: the first delivery finds the flag not set, and then sets it.
        let end = flag::register_conditional_default(SIGINT, Arc::clone(&seen))?;
        let see = flag::register(SIGINT, seen).inspect_err(|_| {
            low_level::unregister(end);
        })?;
        Ok(SecondInterrupt([end, see]))
    }
}

impl Drop for SecondInterrupt {
    fn drop(&mut self) {
        for action in self.0 {
            low_level::unregister(action);
        }
    }
}

/// Takes out all deliveries: at least one, or would-block.
fn take_news(mut news: &UnixStream) -> io::Result<()> {
    let mut buf = [0; 64];
    let mut count = news.read(&mut buf)?;
    while count > 0 {
        count = news.read(&mut buf).unwrap_or(0);
    }
    Ok(())
}

/// A signal without its default action, as long as this lives.
struct Caught {
    signal: i32,
    action: SigId,
}

impl Caught {
    /// With the socket from which a byte can be read for each delivery, or for several.
    fn new(signal: i32) -> io::Result<(Self, UnixStream)> {
        let is_known = low_level::signal_name(signal).is_some();
        if !is_known || FORBIDDEN.contains(&signal) {
            let text = format!("signal {signal} cannot be handled");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let (news, write_end) = UnixStream::pair()?;
        news.set_nonblocking(true)?;
        let mut signals = lock_catching();
        let action = low_level::pipe::register(signal, write_end)?;
        let catching = signals.entry(signal).or_default();
        catching.count += 1;
        if let Some(default) = catching.default.take() {
            low_level::unregister(default);
        }
        drop(signals);
        Ok((Caught { signal, action }, news))
    }
}

impl Drop for Caught {
    fn drop(&mut self) {
        let mut signals = lock_catching();
        let catching = signals.entry(self.signal).or_default();
        catching.count -= 1;
        if catching.count == 0 {
            // Before the action goes: a signal in between must not be lost without any effect.
            match flag::register_conditional_default(self.signal, &ALWAYS) {
                Ok(default) => catching.default = Some(default),
                Err(error) => {
                    tracing::error!(%error, signal = self.signal, "its default action is not restored");
                }
            }
        }
        low_level::unregister(self.action);
    }
}

/// The condition of a default action that is registered only while it holds.
static ALWAYS: SignalFlag = SignalFlag::new(true);

/// What this process catches of one signal, over all its runtimes.
#[derive(Default)]
struct Catching {
    count: usize,
    /// Registered while nobody catches it any more.
    default: Option<SigId>,
}

static CATCHING: LazyLock<Mutex<HashMap<i32, Catching>>> = LazyLock::new(Mutex::default);

fn lock_catching() -> MutexGuard<'static, HashMap<i32, Catching>> {
    CATCHING.lock().unwrap_or_else(PoisonError::into_inner)
}
