//! L4b: futures of one loop, and waiting for several at once.
