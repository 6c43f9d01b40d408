//! A destructor that ends another runtime.
use std::cell::Cell;
use std::rc::Rc;

use garland::{Builder, Pin};

struct Flag(Rc<Cell<bool>>);
impl Drop for Flag {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

#[test]
fn a_runtime_dropped_by_a_task_at_shutdown_ends_its_own_tasks() {
    let one = || {
        Builder::new()
            .loops(1)
            .pin(Pin::Off)
            .build()
            .expect("built")
    };
    let dropped = Rc::new(Cell::new(false));
    let (outer, inner) = (one(), one());
    let flag = Flag(Rc::clone(&dropped));
    drop(inner.local().spawn_local(async move {
        let _flag = flag;
        std::future::pending::<()>().await;
    }));
    outer
        .block_on(async move {
            drop(garland::spawn_local(async move {
                let _inner = inner;
                std::future::pending::<()>().await;
            }));
            garland::yield_now().await;
        })
        .expect("ran");
    drop(outer);
    assert!(dropped.get(), "the inner runtime was not ended");
}
