//! garland: a server runtime of one event loop per pinned core.
