//! L6: connections read and written in order by a task: asyncio's streams.
//!
//! [`open_connection`] and [`start_server`] give a [`StreamReader`]
//! and a [`StreamWriter`] over a protocol and its transport. So they are loop-bound like those: `!Send`,
//! no lock, and a handler may share an `Rc` with its neighbours. Tasks that may move to another loop
//! use [`TcpStream`](crate::TcpStream).
//!
//! ```text
//!   peer ──> transport ──data_received──> link ──taken over──> reader ──> the task
//!                 ^                         │ more than twice the limit: pause_reading
//!                 └──write── writer <── the task; drain() waits while the transport is full
//! ```
//!
//! What they promise (rows STRM of the conformance table):
//! - A reader holds at most twice its limit plus one receive, unless a single read asks for more.
//! - An error ends reading: later reads fail with it, whatever was received before.
//! - The peer's end of sending closes nothing here: the writer goes on.
//! - Both ends dropped, or the writers dropped, is a close: what was written is still sent.

pub(crate) mod buffer;
pub(crate) mod error;
pub(crate) mod link;
pub(crate) mod reader;
pub(crate) mod serve;
pub(crate) mod writer;

pub use crate::streams::error::ReadError;
pub use crate::streams::reader::StreamReader;
pub use crate::streams::serve::{open_connection, open_unix_connection, start_server};
pub use crate::streams::writer::StreamWriter;
