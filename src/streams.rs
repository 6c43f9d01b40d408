//! L6: readers and writers over a transport, as in asyncio: `open_connection`, `start_server`.
