//! What may not be watched: sockets that the runtime has already, and files.

use std::fs::File;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::mpsc::{self, Sender};

use garland::{LocalLoop, Protocol, TcpListener, TcpStream, Transport};

use crate::sockets::{any_port, connect, echo_once};
use crate::support::{background, end, end_background, lent, receive, run};
use crate::watch::counter;

#[test]
fn io_05_a_socket_of_the_runtime_is_refused() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        run(&runtime, async {
            let local = LocalLoop::current().expect("inside a loop");
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            let listener = TcpListener::bind(any).expect("a free port exists");
            let addr = listener.local_addr();
            // On whichever loop: the connection is made by a task that may move.
            let connect = garland::spawn(TcpStream::connect(addr));
            let stream = connect.await.expect("did not panic").expect("it listens");
            let (_, callback) = counter();
            let refused = local.add_reader(&stream, callback).expect_err("it is ours");
            assert_eq!(refused.kind(), ErrorKind::ResourceBusy);
            let (_, callback) = counter();
            let refused = local.add_writer(&stream, callback).expect_err("it is ours");
            assert_eq!(refused.kind(), ErrorKind::ResourceBusy);
            assert!(!local.remove_reader(&stream.as_fd()));
            // The attempt has not harmed it.
            let (accepted, _) = listener.accept().await.expect("it was connected");
            stream.write_all(b"?").await.expect("connected");
            let mut buf = [0; 1];
            assert_eq!(accepted.read(&mut buf).await.expect("connected"), 1);
        });
        end(runtime);
    }
}

/// Tries to watch its own connection.
struct Meddler(Sender<ErrorKind>);

impl Protocol for Meddler {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        let local = LocalLoop::current().expect("inside a loop");
        let refused = transport.with_fd(|fd| {
            assert!(!local.remove_reader(&fd), "there is none");
            let as_reader = local.add_reader(&fd, || {});
            let as_writer = local.add_writer(&fd, || {});
            [as_reader, as_writer].map(|refused| refused.expect_err("it is the transport's"))
        });
        for error in refused.expect("it is not lost") {
            self.0.send(error.kind()).expect("the test waits");
        }
        transport.write(data);
    }
}

#[test]
fn io_05_a_descriptor_of_a_live_transport_is_refused() {
    for loops in [1, 2, 4] {
        let runtime = background(loops);
        let (sender, receiver) = mpsc::channel();
        let server = runtime.handle().create_server(any_port(), move |_local| {
            let sender = sender.clone();
            move || Meddler(sender.clone())
        });
        let server = server.expect("a free port exists");
        let mut client = connect(server.local_addr());
        echo_once(&mut client, b"still works");
        echo_once(&mut client, b"still works");
        for _ in 0..4 {
            let kind = receive(&receiver, runtime.handle());
            assert_eq!(kind, ErrorKind::ResourceBusy);
        }
        drop(client);
        server.close();
        end_background(runtime);
    }
}

#[test]
fn io_05_what_cannot_be_waited_for_is_an_error() {
    let runtime = lent(1);
    let file = File::open("/proc/self/exe").expect("this program is a file");
    let (_, callback) = counter();
    let refused = runtime
        .local()
        .add_reader(&file, callback)
        .expect_err("a file");
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
    assert!(!runtime.local().remove_reader(&file));
    end(runtime);
}
