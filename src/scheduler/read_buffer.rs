//! The buffer that a loop reads into, and lends to its connections: who waits for data holds none of its own.

use std::cell::{RefCell, RefMut};

/// Bytes that a loop reads at once: large enough that a bulk transfer is bounded by the kernel, small enough to stay
/// in the second-level cache.
pub(super) const READ_BUFFER: usize = 64 * 1024;

/// What a loop lends. An array: who lends it knows its length without asking.
pub(crate) type LentBuffer = [u8; READ_BUFFER];

pub(super) struct ReadBuffer(RefCell<Box<LentBuffer>>);

impl ReadBuffer {
    pub(super) fn new() -> Self {
        let bytes = vec![0; READ_BUFFER].into_boxed_slice();
        let bytes = bytes.try_into().expect("as long as was asked for");
        ReadBuffer(RefCell::new(bytes))
    }

    /// Unless somebody has it.
    pub(super) fn try_lend(&self) -> Option<RefMut<'_, Box<LentBuffer>>> {
        self.0.try_borrow_mut().ok()
    }

    /// Not reentrant, and need not be: one handle runs at a time.
    pub(super) fn with<T>(&self, f: impl FnOnce(&mut LentBuffer) -> T) -> T {
        f(&mut self.0.borrow_mut())
    }
}
