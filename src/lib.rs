//! garland: a server runtime of one event loop per pinned core, strung together like a garland.
//!
//! Each loop has its own selector, timer wheel, queues and listeners; idle loops take movable tasks
//! from busy ones. The concepts are those of PEP 3156 and today's asyncio (`call_soon`, `call_later`,
//! tasks, transports, protocols), kept to the letter *per loop* for loop-bound work. No `unsafe` code.
//!
//! Two ways to write a server, on the same loops:
//!
//! - **callbacks**: a [`Protocol`] is called by its home loop and stays there. It need not be `Send`
//!   and shares state with its neighbours through `Rc`. The cheapest way.
//! - **tasks**: an async function per connection, over a [`TcpStream`]. Its steps run wherever a loop
//!   is free.
//!
//! ```
//! use garland::{Builder, ListenOptions, Protocol, TcpStream, Transport};
//!
//! /// Answers whatever arrives with the number of bytes seen so far on this loop.
//! struct Count {
//!     seen: std::rc::Rc<std::cell::Cell<usize>>,
//! }
//!
//! impl Protocol for Count {
//!     fn data_received(&mut self, transport: &Transport, data: &[u8]) {
//!         self.seen.set(self.seen.get() + data.len());
//!         transport.write(format!("{}\n", self.seen.get()).as_bytes());
//!     }
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let runtime = Builder::new().loops(2).start()?;
//!
//!     // Called once on each loop: state of that loop, and the factory of its protocols.
//!     let server = runtime.handle().create_server(
//!         "127.0.0.1:0".parse::<ListenOptions>()?,
//!         |_local| {
//!             let seen = std::rc::Rc::default();
//!             move || Count { seen: std::rc::Rc::clone(&seen) }
//!         },
//!     )?;
//!
//!     // The client is a task; it may run on either loop.
//!     let addr = server.local_addr();
//!     let (answer, answered) = std::sync::mpsc::channel();
//!     runtime.handle().spawn(async move {
//!         let stream = TcpStream::connect(addr).await?;
//!         stream.write_all(b"four").await?;
//!         let mut buf = [0; 16];
//!         let n = stream.read(&mut buf).await?;
//!         answer.send(String::from_utf8_lossy(&buf[..n]).into_owned()).ok();
//!         Ok::<(), std::io::Error>(())
//!     });
//!     assert_eq!(answered.recv()?, "4\n");
//!
//!     let report = runtime.shutdown(std::time::Duration::from_secs(5));
//!     assert!(report.is_clean(), "{report}");
//!     Ok(())
//! }
//! ```
//!
//! # The layers
//!
//! ```text
//!   streams     StreamReader, StreamWriter, start_server    bytes by the line, with backpressure
//!   transport   Protocol, Transport, create_server          sockets that call a protocol
//!   net         TcpStream, UdpSocket, serve                 sockets for tasks
//!   future      gather, TaskGroup, Promise   |  signal      several tasks at once; Ctrl-C
//!   time        sleep, timeout               |  blocking    waiting; what would block a loop
//!   runtime     Builder, Runtime, LoopHandle, LocalLoop     what a user holds in the hand
//!   scheduler   the loop: queues, stealing, parking         who runs what, where, when
//!   task        one future, spawn to join    |  driver      selector, slots, wheel, clock
//!   atomics, config, error, sync                            what all of them stand on
//! ```
//!
//! A module knows lines below its own; which ones exactly, `docs/ARCHITECTURE.md` says, and a test.

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!(
    "garland runs on 64-bit Linux; a port needs driver/selector.rs (timer descriptor) and \
     runtime/affinity.rs"
);

mod atomics;
mod config;
mod error;
pub mod sync;

mod driver;
mod task;

mod scheduler;

mod runtime;

mod blocking;
mod time;

mod future;
mod net;
mod signal;

mod transport;

mod streams;

#[cfg(all(test, garland_loom))]
mod models;

pub use crate::blocking::{Blocking, ExecutorError, getnameinfo, resolve, run_in_executor};
pub use crate::config::{Pin, TurnBudget};
pub use crate::driver::clock::ManualClock;
pub use crate::error::{BuildError, FutError, LoopError, NetError, TimedOut};
pub use crate::future::{
    AsCompleted, DoneCallback, GroupTask, LoopFuture, Promise, TaskError, TaskGroup,
    TaskGroupError, TimeoutScope, When, as_completed, gather, gather_all, timeout_at, try_gather,
    wait, wait_for,
};
pub use crate::net::{
    ConnectOptions, EndpointOptions, ListenOptions, ReadHalf, Server, ServerStats, SocketName,
    TcpListener, TcpStream, UdpSocket, UnixListenOptions, UnixListener, UnixStream, WriteHalf,
    sock_accept, sock_connect, sock_recv, sock_recv_into, sock_recvfrom, sock_recvfrom_into,
    sock_sendall, sock_sendto,
};
pub use crate::runtime::{
    BackgroundRuntime, Builder, CallHandle, ErrorContext, ExceptionHandler, Executor, LocalLoop,
    LongSection, LoopHandle, LoopId, LoopStats, Runtime, RuntimeStats, ShutdownReport, StuckReport,
    TaskBuilder, ThreadsafeCallHandle, TimerHandle, current_task, long_section, spawn, spawn_local,
};
pub use crate::signal::{Signal, ctrl_c};
pub use crate::streams::{
    ReadError, StreamReader, StreamWriter, open_connection, open_unix_connection, start_server,
};
pub use crate::task::info::TaskInfo;
pub use crate::task::join::{CancelHandle, CancelOnDrop, JoinError, JoinHandle, TaskId};
pub use crate::task::yield_now::{YieldNow, yield_now};
pub use crate::time::{Interval, Sleep, Timeout, interval, sleep, sleep_until, timeout};
pub use crate::transport::{
    AfterEof, Buffered, BufferedProtocol, DatagramProtocol, DatagramTransport, InvalidLimits,
    Protocol, Transport, WriteLimits,
};

/// The README's examples are run like those of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// And those of the guide for users of asyncio.
#[cfg(doctest)]
#[doc = include_str!("../docs/ASYNCIO.md")]
struct FromAsyncio;
