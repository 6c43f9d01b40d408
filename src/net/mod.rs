//! L4b: sockets on a loop, for tasks.
//!
//! A socket is registered with the loop that made it and stays there; the task that uses it may run
//! anywhere. [`LoopHandle::serve`](crate::LoopHandle::serve) is the server of the task model;
//! protocols and their transports are one layer up.

pub(crate) mod tcp;
pub(crate) mod udp;
pub(crate) mod unix;
pub(crate) mod stream;
pub(crate) mod name;

pub(crate) mod connect;
pub(crate) mod listen;
pub(crate) mod endpoint;
pub(crate) mod socket_file;
pub(crate) mod socket;
pub(crate) mod batch;

pub(crate) mod server;
pub(crate) mod serve;
pub(crate) mod listener;
pub(crate) mod accept;
pub(crate) mod placement;

pub(crate) mod foreign;
pub(crate) mod watch;
pub(crate) mod sock;
pub(crate) mod pipe;

pub use crate::net::connect::ConnectOptions;
pub use crate::net::endpoint::EndpointOptions;
pub use crate::net::listen::ListenOptions;
pub use crate::net::name::SocketName;
pub use crate::net::server::{Server, ServerStats};
pub use crate::net::sock::{
    sock_accept, sock_connect, sock_recv, sock_recv_into, sock_recvfrom, sock_recvfrom_into,
    sock_sendall, sock_sendto,
};
pub use crate::net::tcp::{ReadHalf, TcpListener, TcpStream, WriteHalf};
pub use crate::net::udp::UdpSocket;
pub use crate::net::unix::{UnixListenOptions, UnixListener, UnixStream};
