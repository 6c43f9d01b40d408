//! Give the others a turn.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Goes to the back of the queue once: whatever else is ready runs before this task goes on.
///
/// ```
/// # let runtime = garland::Builder::new().loops(1).build()?;
/// runtime.block_on(async {
///     let other = garland::spawn(async { 1 });
///     while !other.is_finished() {
///         garland::yield_now().await;
///     }
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn yield_now() -> YieldNow {
    YieldNow { yielded: false }
}

/// The future of [`yield_now`].
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct YieldNow {
    yielded: bool,
}

impl Future for YieldNow {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.yielded {
            return Poll::Ready(());
        }
        self.yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
