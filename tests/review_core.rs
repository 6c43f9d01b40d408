//! Suspicions of the review, each as a test.
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use garland::{Builder, LoopHandle, Pin as PinMode, Protocol, Transport};

fn any() -> SocketAddr {
    "127.0.0.1:0".parse().expect("an address")
}

/// A: a task of loop 0 that runs on loop 1 while loop 0 closes.
#[test]
fn a_task_that_runs_elsewhere_when_its_home_closes_ends_with_the_runtime() {
    let runtime = Builder::new()
        .loops(2)
        .pin(PinMode::Off)
        .build()
        .expect("built");
    let handle: LoopHandle = runtime.handle().clone();
    let (started, has_started) = mpsc::channel();
    let dropped = Arc::new(AtomicBool::new(false));
    struct Flag(Arc<AtomicBool>);
    impl Drop for Flag {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let flag = Flag(Arc::clone(&dropped));
    // Loop 0 is not running, so loop 1 takes it.
    let task = handle.spawn(async move {
        let _flag = flag;
        started.send(()).expect("the test waits");
        std::thread::sleep(Duration::from_millis(300));
        std::future::pending::<()>().await;
    });
    has_started
        .recv_timeout(Duration::from_secs(5))
        .expect("loop 1 runs it");
    let report = runtime.shutdown(Duration::from_secs(5));
    assert!(report.is_clean(), "{report}");
    assert!(dropped.load(Ordering::SeqCst), "its future was not dropped");
    assert!(task.is_finished());
}

/// D: a protocol whose destructor panics.
#[test]
fn a_protocol_whose_drop_panics_still_gives_its_connection_back() {
    struct Bomb;
    impl Protocol for Bomb {
        fn data_received(&mut self, transport: &Transport, _: &[u8]) {
            transport.close();
        }
    }
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("drop of a protocol");
        }
    }
    let runtime = Builder::new()
        .loops(1)
        .pin(PinMode::Off)
        .start()
        .expect("started");
    let server = runtime
        .handle()
        .create_server(any(), |_| || Bomb)
        .expect("listens");
    let mut client = std::net::TcpStream::connect(server.local_addr()).expect("connects");
    client
        .set_read_timeout(Some(Duration::from_secs(2)))
        .expect("set");
    client.write_all(b"x").expect("sent");
    let got = client.read(&mut [0; 8]);
    server.close();
    let idle = server.wait_idle(Duration::from_secs(2));
    assert!(got.is_ok(), "the socket stayed open: {got:?}");
    assert!(idle, "{:?}", server.stats());
}

/// E: a foreign waker that panics.
#[test]
fn a_waker_that_panics_does_not_end_the_run() {
    struct Bomb;
    impl Wake for Bomb {
        fn wake(self: Arc<Self>) {
            panic!("a foreign waker");
        }
    }
    let runtime = Builder::new()
        .loops(1)
        .pin(PinMode::Off)
        .build()
        .expect("built");
    let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        runtime.block_on(async {
            let mut sleep = garland::sleep(Duration::from_millis(1));
            let waker = Waker::from(Arc::new(Bomb));
            let pending = Pin::new(&mut sleep).poll(&mut Context::from_waker(&waker));
            assert!(pending.is_pending());
            garland::sleep(Duration::from_millis(20)).await;
        })
    }));
    assert!(run.is_ok(), "the panic left the loop");
}

/// F1, F2.
#[test]
fn a_closed_loop_refuses_a_server() {
    let runtime = Builder::new()
        .loops(1)
        .pin(PinMode::Off)
        .build()
        .expect("built");
    let local = runtime.local().clone();
    drop(runtime);
    struct Nothing;
    impl Protocol for Nothing {
        fn data_received(&mut self, _: &Transport, _: &[u8]) {}
    }
    assert!(local.create_server(any(), || Nothing).is_err());
}

#[test]
fn a_closed_loop_drops_a_timer() {
    let runtime = Builder::new()
        .loops(1)
        .pin(PinMode::Off)
        .build()
        .expect("built");
    let local = runtime.local().clone();
    drop(runtime);
    let value = Rc::new(());
    let captured = (Rc::clone(&value), local.clone());
    drop(local.call_later(Duration::from_secs(1), move || drop(captured)));
    assert_eq!(
        Rc::strong_count(&value),
        1,
        "the callback is kept by a closed loop"
    );
}

/// H: urgent data ends a receive early.
#[test]
fn data_behind_urgent_data_arrives() {
    let (seen, got) = mpsc::channel();
    struct Count(mpsc::Sender<Vec<u8>>);
    impl Protocol for Count {
        fn data_received(&mut self, _: &Transport, data: &[u8]) {
            self.0.send(data.to_vec()).expect("the test waits");
        }
    }
    let runtime = Builder::new()
        .loops(1)
        .pin(PinMode::Off)
        .start()
        .expect("started");
    let server = runtime
        .handle()
        .create_server(any(), move |_| {
            let seen = seen.clone();
            move || Count(seen.clone())
        })
        .expect("listens");
    // Keep the loop busy so that all of it is there at the first receive.
    let busy = runtime.handle().clone();
    let mut client = std::net::TcpStream::connect(server.local_addr()).expect("connects");
    client.set_nodelay(true).expect("set");
    std::thread::sleep(Duration::from_millis(50));
    busy.call_soon_threadsafe(|| std::thread::sleep(Duration::from_millis(200)))
        .expect("open");
    std::thread::sleep(Duration::from_millis(50));
    client.write_all(b"abc").expect("sent");
    let socket = socket2::SockRef::from(&client);
    assert_eq!(socket.send_out_of_band(b"d").expect("sent"), 1);
    client.write_all(b"efg").expect("sent");
    let mut all = Vec::new();
    while let Ok(data) = got.recv_timeout(Duration::from_secs(1)) {
        all.extend(data);
    }
    assert_eq!(all, b"abcefg");
}

/// I.
#[test]
fn calls_of_the_own_thread_keep_their_order() {
    let runtime = Builder::new()
        .loops(1)
        .pin(PinMode::Off)
        .build()
        .expect("built");
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (a, b) = (order.clone(), order.clone());
    runtime
        .block_on(async {
            let local = garland::LocalLoop::current().expect("inside");
            local
                .handle()
                .call_soon_threadsafe(move || a.lock().expect("ok").push('a'))
                .expect("open");
            local.call_soon(move || b.lock().expect("ok").push('b'));
            garland::sleep(Duration::from_millis(5)).await;
        })
        .expect("ran");
    assert_eq!(*order.lock().expect("ok"), ['a', 'b']);
}

/// J.
#[test]
fn an_interval_may_be_as_long_as_you_like() {
    let runtime = Builder::new()
        .loops(1)
        .pin(PinMode::Off)
        .build()
        .expect("built");
    runtime
        .block_on(async {
            let mut never = garland::interval(Duration::MAX);
            let tick = garland::timeout(Duration::from_millis(5), never.tick()).await;
            assert!(tick.is_err());
        })
        .expect("ran");
}

/// In a process of its own, for it may abort.
fn survives(name: &str) {
    let exe = std::env::current_exe().expect("known");
    let out = Command::new(exe)
        .args(["--ignored", "--exact", name])
        .env("REVIEW_CHILD", "1")
        .output()
        .expect("started");
    assert!(
        out.status.success(),
        "{}: {}",
        out.status,
        String::from_utf8_lossy(&out.stderr)
    );
}

#[test]
fn a_payload_that_panics_on_drop_ends_nobody() {
    survives("child_payload");
}

#[test]
fn an_output_that_panics_on_drop_ends_nobody() {
    survives("child_output");
}

struct DropBomb;
impl Drop for DropBomb {
    fn drop(&mut self) {
        panic!("drop");
    }
}

#[test]
#[ignore = "run by a_payload_that_panics_on_drop_ends_nobody"]
fn child_payload() {
    let runtime = Builder::new()
        .loops(1)
        .pin(PinMode::Off)
        .build()
        .expect("built");
    runtime
        .block_on(async {
            drop(garland::spawn(async { std::panic::panic_any(DropBomb) }));
            garland::sleep(Duration::from_millis(20)).await;
        })
        .expect("ran");
}

#[test]
#[ignore = "run by an_output_that_panics_on_drop_ends_nobody"]
fn child_output() {
    let runtime = Builder::new()
        .loops(1)
        .pin(PinMode::Off)
        .build()
        .expect("built");
    runtime
        .block_on(async {
            drop(garland::spawn(async { DropBomb }));
            garland::sleep(Duration::from_millis(20)).await;
        })
        .expect("ran");
}

/// B: bound tasks woken from another thread while their loop closes.
#[test]
fn a_wake_that_crosses_the_close_of_its_loop_ends_nobody() {
    survives("child_bound_wake");
}

#[test]
#[ignore = "run by a_wake_that_crosses_the_close_of_its_loop_ends_nobody"]
fn child_bound_wake() {
    let until = Instant::now() + Duration::from_secs(8);
    while Instant::now() < until {
        let runtime = Builder::new()
            .loops(1)
            .pin(PinMode::Off)
            .build()
            .expect("built");
        let wakers = Arc::new(std::sync::Mutex::new(Vec::new()));
        runtime
            .block_on(async {
                for _ in 0..200 {
                    let wakers = Arc::clone(&wakers);
                    drop(garland::spawn_local(poll_fn(move |cx| {
                        wakers.lock().expect("ok").push(cx.waker().clone());
                        Poll::<()>::Pending
                    })));
                }
                garland::yield_now().await;
                garland::yield_now().await;
            })
            .expect("ran");
        let wakers: Vec<Waker> = std::mem::take(&mut wakers.lock().expect("ok"));
        let go = Arc::new(AtomicBool::new(false));
        let threads: Vec<_> = (0..3)
            .map(|n| {
                let (wakers, go) = (wakers.clone(), Arc::clone(&go));
                std::thread::spawn(move || {
                    while !go.load(Ordering::Acquire) {
                        std::hint::spin_loop();
                    }
                    for waker in wakers.iter().skip(n * 60) {
                        waker.wake_by_ref();
                    }
                })
            })
            .collect();
        go.store(true, Ordering::Release);
        drop(runtime);
        for thread in threads {
            thread.join().expect("no panic");
        }
    }
}

/// C: the waker of block_on.
#[test]
fn no_wake_of_the_root_is_lost() {
    let runtime = Builder::new()
        .loops(1)
        .pin(PinMode::Off)
        .build()
        .expect("built");
    let (value, seen) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut thread = None;
    let lost = Arc::new(AtomicBool::new(false));
    runtime
        .block_on(poll_fn(|cx| {
            let now = value.load(Ordering::Acquire);
            seen.store(now, Ordering::Release);
            if thread.is_none() {
                let (value, seen, lost) = (value.clone(), seen.clone(), lost.clone());
                let waker = cx.waker().clone();
                thread = Some(std::thread::spawn(move || {
                    let until = Instant::now() + Duration::from_secs(10);
                    let mut n = 0_u64;
                    while Instant::now() < until {
                        n += 1;
                        value.store(2 * n, Ordering::Release);
                        waker.wake_by_ref();
                        for _ in 0..(n % 512) {
                            std::hint::spin_loop();
                        }
                        value.store(2 * n + 1, Ordering::Release);
                        waker.wake_by_ref();
                        let limit = Instant::now() + Duration::from_secs(2);
                        while seen.load(Ordering::Acquire) != 2 * n + 1 {
                            if Instant::now() > limit {
                                lost.store(true, Ordering::Release);
                                break;
                            }
                            std::hint::spin_loop();
                        }
                        if lost.load(Ordering::Acquire) {
                            break;
                        }
                    }
                    eprintln!("{n} rounds");
                    value.store(u64::MAX, Ordering::Release);
                    for _ in 0..3 {
                        waker.wake_by_ref();
                        std::thread::sleep(Duration::from_millis(20));
                    }
                }));
            }
            if now == u64::MAX {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        }))
        .expect("ran");
    assert!(!lost.load(Ordering::Acquire), "a wake-up was lost");
    let _unused = (Cell::new(0), RefCell::new(0));
}
