//! L4b: signals of the operating system, as callbacks of a loop.
