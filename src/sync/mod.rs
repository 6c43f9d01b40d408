//! Locks, events and queues for tasks (layer L0), re-exported where a kept crate has the semantics.
//!
//! asyncio's primitives belong to the loop that first waited on them. These do not: each is `Send` and
//! `Sync`, and tasks of any loop, movable or not, and threads that block on a future may meet at one.
//! What asyncio promises holds all the same: who waits is served in the order in which it began to
//! wait, and who is cancelled while it waits loses nothing and passes its turn on. (At a [`Queue`] a newcomer may still come
//! first, as in asyncio; [`RwLock`], [`OnceCell`] and [`channel`] have their own rules.)
//!
//! ```text
//!   Lock       one at a time              Condition   ... until somebody says so
//!   Semaphore  so many at a time          Event       all, from a moment on
//!   Barrier    all together               Queue       items, and whether they are dealt with
//! ```
//!
//! [`channel`] is async-channel: a queue that ends when its senders are gone; [`RwLock`] and
//! [`OnceCell`] are async-lock's. Its `Mutex`, `Semaphore` and `Barrier` are not here: they let
//! newcomers overtake, and know no reset.
//!
//! Nothing here needs a loop, or knows one. Wakers are never called under a lock.

mod barrier;
mod condition;
mod event;
mod line;
mod lock;
mod queue;
mod semaphore;

pub use async_channel as channel;
pub use async_lock::{OnceCell, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub use crate::sync::barrier::{Barrier, BrokenBarrier};
pub use crate::sync::condition::Condition;
pub use crate::sync::event::Event;
pub use crate::sync::lock::{Lock, LockGuard};
pub use crate::sync::queue::{
    BaseQueue, GetError, LifoQueue, PriorityQueue, PutError, Queue, Store, TooManyDone,
};
pub use crate::sync::semaphore::{OverRelease, OwnedPermit, Permit, Semaphore};
