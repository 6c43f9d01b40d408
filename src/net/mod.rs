//! L4b: sockets on a loop, for tasks.
//!
//! A socket is registered with the loop that made it and stays there; the task that uses it may run
//! anywhere. [`LoopHandle::serve`](crate::LoopHandle::serve) is the server of the task model;
//! protocols and their transports are one layer up.

pub(crate) mod accept;
pub(crate) mod foreign;
pub(crate) mod name;
pub(crate) mod pipe;
pub(crate) mod serve;
pub(crate) mod server;
pub(crate) mod socket;
pub(crate) mod sock;
pub(crate) mod tcp;
pub(crate) mod watch;

pub use crate::net::name::SocketName;
pub use crate::net::server::{Server, ServerStats};
pub use crate::net::sock::{
    sock_accept, sock_connect, sock_recv, sock_recv_into, sock_recvfrom, sock_recvfrom_into,
    sock_sendall, sock_sendto,
};
pub use crate::net::socket::ListenOptions;
pub use crate::net::tcp::{ReadHalf, TcpListener, TcpStream, WriteHalf};
