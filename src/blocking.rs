//! L4a: work that would block a loop, on threads of its own: executors and name resolution.
