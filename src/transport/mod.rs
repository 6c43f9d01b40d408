//! L5: sockets that call a protocol: how bytes are transmitted.
//!
//! What a transport promises (rows TRN, PROTO and FLOW of PEP 3156 and asyncio):
//! - [`write`](Transport::write) never blocks and never fails for reasons of the network; the order
//!   of the stream is kept. What cannot be sent at once is buffered.
//! - [`close`](Transport::close) stops reading at once, sends what is buffered, then calls
//!   `connection_lost`. [`abort`](Transport::abort) throws the buffer away.
//! - `connection_lost` is called by the loop later, never inside `close`, `abort` or `write`.
//! - While a connection is idle, and not paused, it owns no buffer: the loop reads into one of its own, or into that
//!   of a [`BufferedProtocol`].
//! - Each connection gets one receive a turn, however much waits for it. Where many have news, several receive before
//!   the first is told; all of the above holds in between.
//!
//! TCP, Unix sockets and the ends of pipes are one state machine over different system calls.
//!
//! ```text
//!   accepted ──> made ──> open ──close()──> closing: flushing ──empty──> lost
//!                           │                     └──abort()──────────────^
//!                           ├──abort(), error ────────────────────────────┘
//!                           └──peer's end: eof_received ──Close──> as close()
//!                                                  └──KeepOpen──> open for writing
//! ```

pub(crate) mod protocol;
pub(crate) mod stream;
pub(crate) mod callee;
pub(crate) mod connection;
mod reading;
pub(crate) mod descriptor;
pub(crate) mod flow;
pub(crate) mod pipe;
pub(crate) mod server;
pub(crate) mod datagram;
pub(crate) mod udp;
pub(crate) mod connect;

#[cfg(all(test, not(garland_loom)))]
mod script;
#[cfg(all(test, not(garland_loom)))]
mod faults;

pub use crate::transport::datagram::DatagramTransport;
pub use crate::transport::flow::{InvalidLimits, WriteLimits};
pub use crate::transport::protocol::{
    AfterEof, Buffered, BufferedProtocol, DatagramProtocol, Protocol,
};
pub use crate::transport::stream::Transport;
