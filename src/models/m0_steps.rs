//! M0: what the other models stand on. loom tries every order of the accesses of `atomics.rs`.
//!
//! With loom's own atomics the first of these fails; why is said at `Stepwise`.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use loom::thread;

use crate::atomics::{AtomicUsize, Ordering, explore};

/// The results of all executions of `run`.
fn results_of(run: impl Fn() -> usize + Send + Sync + 'static) -> BTreeSet<usize> {
    let results = Arc::new(Mutex::new(BTreeSet::new()));
    let all = Arc::clone(&results);
    explore(move || {
        let result = run();
        let mut results = results.lock().expect("no model panics under this lock");
        results.insert(result);
    });
    let all = all.lock().expect("no model panics under this lock");
    all.clone()
}

/// What a thread reads while another makes `change` of 0.
fn reads_beside(change: fn(&AtomicUsize)) -> BTreeSet<usize> {
    results_of(move || {
        let word = Arc::new(AtomicUsize::new(0));
        let writer = {
            let word = Arc::clone(&word);
            thread::spawn(move || change(&word))
        };
        let read = word.load(Ordering::Relaxed);
        writer.join().expect("the writer does not panic");
        read
    })
}

#[test]
fn who_loads_before_it_changes_hides_nothing() {
    let seen = reads_beside(|word| {
        let old = word.load(Ordering::Relaxed);
        word.store(old + 1, Ordering::Relaxed);
    });
    assert_eq!(seen, BTreeSet::from([0, 1]));
    let seen = reads_beside(|word| {
        let update = word.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |old| Some(old + 1));
        assert_eq!(update, Ok(0));
    });
    assert_eq!(seen, BTreeSet::from([0, 1]));
}

/// Nothing comes between what a read-modify-write reads and what it writes, as long as all writes are such.
#[test]
fn swaps_have_one_order() {
    let read_and_left = results_of(|| {
        let word = Arc::new(AtomicUsize::new(0));
        let other = {
            let word = Arc::clone(&word);
            thread::spawn(move || {
                word.swap(1, Ordering::Relaxed);
                word.swap(2, Ordering::Relaxed);
            })
        };
        let read = word.swap(9, Ordering::Relaxed);
        other.join().expect("the other does not panic");
        read * 10 + word.load(Ordering::Relaxed)
    });
    assert_eq!(read_and_left, BTreeSet::from([2, 12, 29]));
}
