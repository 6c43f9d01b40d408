//! What is known of tasks: which one runs, which are alive, and what they are called.

use std::future::pending;
use std::sync::mpsc;

use garland::{JoinHandle, LoopHandle, TaskBuilder, current_task, spawn, spawn_local, yield_now};

use crate::support::{background, end, end_background, lent, receive, run, turn, wait_until};

#[test]
fn task_16_a_task_knows_itself_and_a_callback_is_none() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        assert!(current_task().is_none(), "no loop runs here");
        run(&runtime, async {
            assert!(
                current_task().is_none(),
                "the future of block_on is no task"
            );
            let itself = || current_task().map(|task| task.id());
            let movable = spawn(async move {
                let before = itself();
                yield_now().await;
                assert_eq!(before, itself());
                before
            });
            let bound = spawn_local(async move {
                let child = spawn_local(async move { itself() });
                (itself(), child.await.expect("did not panic"))
            });
            let (id, bound_id) = (movable.id(), bound.id());
            assert!(id.is_some() && bound_id.is_some());
            assert_eq!(movable.await.expect("did not panic"), id);
            let (outer, child) = bound.await.expect("did not panic");
            assert_eq!(outer, bound_id);
            assert!(child.is_some() && child != outer);
            let (sender, receiver) = mpsc::channel();
            let by_panic = spawn_local(async { panic!("on purpose") });
            runtime.local().call_soon(move || {
                sender.send(current_task().is_none()).expect("received");
            });
            by_panic.await.expect_err("it panics");
            yield_now().await;
            assert_eq!(receiver.try_recv(), Ok(true), "a callback is no task");
        });
        end(runtime);
    }
}

#[test]
fn task_16_all_tasks_are_the_live_ones_of_the_loop() {
    let runtime = lent(2);
    let handle = runtime.handle().clone();
    run(&runtime, async {
        assert!(handle.all_tasks().is_empty());
        let kept = [spawn_local(pending::<()>()), spawn(pending())];
        let there = handle.on(1).spawn_on(pending::<()>);
        spawn(async {}).await.expect("did not panic");
        let ids = |handle: &LoopHandle| -> Vec<_> {
            let tasks = handle.all_tasks();
            assert!(tasks.iter().all(|task| task.spawned_at().file() == file!()));
            tasks.into_iter().map(|task| Some(task.id())).collect()
        };
        assert_eq!(ids(&handle), kept.each_ref().map(JoinHandle::id));
        assert_eq!(ids(&handle.on(1)), [there.id()]);
        for task in kept.into_iter().chain([there]) {
            assert!(task.cancel());
            task.await.expect_err("cancelled");
        }
        assert!(ids(&handle).is_empty() && ids(&handle.on(1)).is_empty());
    });
    end(runtime);
}

#[test]
fn task_17_a_task_has_the_name_it_was_given_or_its_number() {
    let runtime = background(2);
    let handle = runtime.handle().clone();
    let (sender, names) = mpsc::channel();
    let tell = |sender: &mpsc::Sender<String>| {
        let sender = sender.clone();
        move || {
            let name = current_task().map(|task| task.name().into_owned());
            sender.send(name.expect("a task")).expect("received");
        }
    };
    let given = TaskBuilder::new().name(format!("worker-{}", 3));
    let told = tell(&sender);
    drop(given.spawn_with(&handle, async move { told() }));
    assert_eq!(receive(&names, &handle), "worker-3");
    let told = tell(&sender);
    drop(given.spawn_on(&handle.on(1), move || async move { told() }));
    assert_eq!(receive(&names, &handle), "worker-3");
    let (told, told_local) = (tell(&sender), tell(&sender));
    drop(handle.on(1).spawn_on(move || async move {
        drop(given.spawn(async move { told() }));
        let local = garland::LocalLoop::current().expect("a loop");
        drop(given.spawn_local(&local, async move { told_local() }));
    }));
    assert_eq!(receive(&names, &handle), "worker-3");
    assert_eq!(receive(&names, &handle), "worker-3");
    let told = tell(&sender);
    let unnamed = handle.spawn(async move { told() });
    let id = unnamed.id().expect("it was admitted");
    let name = receive(&names, &handle);
    assert_eq!(name, id.to_string());
    let number = name.strip_prefix("Task-").expect("asyncio's form");
    assert!(number.parse::<u64>().is_ok_and(|number| number > 0));
    wait_until("all have ended", &handle, || unnamed.is_finished());
    end_background(runtime);
}

#[test]
fn task_17_numbers_count_from_one_on_a_single_loop() {
    let runtime = lent(1);
    let names = [(); 3].map(|()| runtime.handle().spawn(async {}).id());
    let names = names.map(|id| id.expect("it was admitted").to_string());
    assert_eq!(names, ["Task-1", "Task-2", "Task-3"]);
    turn(&runtime);
    end(runtime);
}
