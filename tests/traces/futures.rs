//! Futures, tasks, waiting for several of them, and the one-loop primitives.

use std::cell::RefCell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use garland::sync::{Event, Queue, Semaphore};
use garland::{
    CancelHandle, DoneCallback, FutError, JoinError, JoinHandle, LoopFuture, Promise, TaskGroup,
    When, as_completed, gather, gather_all, sleep, wait, wait_for, yield_now,
};

use crate::scenario::number;
use crate::stage::{Left, Stage, failing, milliseconds};

/// What has a name, by its kind.
#[derive(Default)]
pub(crate) struct Futures {
    futures: RefCell<HashMap<String, Both>>,
    callbacks: RefCell<HashMap<String, DoneCallback>>,
    tasks: RefCell<HashMap<String, Task>>,
    semaphores: RefCell<HashMap<String, Rc<Semaphore>>>,
    events: RefCell<HashMap<String, Rc<Event>>>,
    queues: RefCell<HashMap<String, Rc<Queue<String>>>>,
}

/// The two halves of a future.
type Both = (Promise<String>, LoopFuture<String>);

struct Task {
    /// Gone when somebody awaits it.
    handle: Option<JoinHandle<String>>,
    cancel: CancelHandle,
}

/// Events that a task leaves behind, the last one first.
struct Guards(Rc<Stage>, Vec<String>);

impl Drop for Guards {
    fn drop(&mut self) {
        while let Some(name) = self.1.pop() {
            self.0.event(&name, "");
        }
    }
}

impl Futures {
    pub(crate) fn clear(&self) {
        let tasks = self.tasks.take();
        for task in tasks.values() {
            task.cancel.cancel();
        }
        drop((tasks, self.futures.take(), self.callbacks.take()));
        drop((
            self.semaphores.take(),
            self.events.take(),
            self.queues.take(),
        ));
    }

    fn future(&self, name: &str) -> LoopFuture<String> {
        let futures = self.futures.borrow();
        let (_, future) = futures.get(name).expect("a future of this name");
        future.clone()
    }

    fn take(&self, name: &str) -> JoinHandle<String> {
        let mut tasks = self.tasks.borrow_mut();
        let task = tasks.get_mut(name).expect("a task of this name");
        task.handle.take().expect("a task is awaited once")
    }
}

/// The value of this name.
fn named<T>(table: &RefCell<HashMap<String, Rc<T>>>, name: &str) -> Rc<T> {
    Rc::clone(table.borrow().get(name).expect("something of this name"))
}

impl Stage {
    /// False: it is not an action on futures.
    pub(crate) fn act_on_future(self: &Rc<Self>, action: &[&str]) -> bool {
        let all = &self.futures;
        match action {
            ["future", name] => {
                let made = self.local.create_future();
                all.futures.borrow_mut().insert((*name).to_owned(), made);
            }
            ["set", name, value] => {
                let futures = all.futures.borrow();
                let (promise, _) = futures.get(*name).expect("a future of this name");
                if promise.set_result((*value).to_owned()).is_err() {
                    self.log(&format!("set {name} refused"));
                }
            }
            ["callback", future, name] => {
                let tell = self.telling(name);
                let added = all.future(future).add_done_callback(move |_| tell());
                all.callbacks.borrow_mut().insert((*name).to_owned(), added);
            }
            ["uncallback", future, name] => {
                let added = all.callbacks.borrow_mut().remove(*name);
                let added = added.expect("a callback of this name");
                all.future(future).remove_done_callback(added);
            }
            ["result", name] => match all.future(name).result() {
                Ok(value) => self.log(&format!("{name} is {value}")),
                Err(FutError::Cancelled) => self.log(&format!("{name} is cancelled")),
                Err(_) => self.log(&format!("{name} is pending")),
            },
            ["done", name] => {
                let tasks = all.tasks.borrow();
                let is_done = match tasks.get(*name) {
                    Some(task) => task.cancel.is_finished(),
                    None => all.future(name).done(),
                };
                self.log(&format!("done {name} {is_done}"));
            }
            ["spawn", name] => self.spawn(name),
            _ => return self.act_on_primitive(action),
        }
        true
    }

    fn act_on_primitive(&self, action: &[&str]) -> bool {
        let all = &self.futures;
        match action {
            ["semaphore", name, permits] => {
                let made = Rc::new(Semaphore::new(number(permits)));
                all.semaphores.borrow_mut().insert((*name).to_owned(), made);
            }
            ["release", name] => {
                let released = named(&all.semaphores, name).release();
                released.expect("it has no bound");
            }
            ["event", name] => {
                let made = Rc::new(Event::new());
                all.events.borrow_mut().insert((*name).to_owned(), made);
            }
            ["event_set", name] => named(&all.events, name).set(),
            ["event_clear", name] => named(&all.events, name).clear(),
            ["queue", name, size] => {
                let made = Rc::new(Queue::new(number(size)));
                all.queues.borrow_mut().insert((*name).to_owned(), made);
            }
            _ => return false,
        }
        true
    }

    /// Whether it is a future or a task.
    pub(crate) fn cancel_future(&self, name: &str) -> bool {
        let tasks = self.futures.tasks.borrow();
        let task = tasks.get(name).map(|task| task.cancel.clone());
        drop(tasks);
        let is_future = self.futures.futures.borrow().contains_key(name);
        let cancelled = match task {
            Some(task) => task.cancel(),
            None if is_future => self.futures.future(name).cancel(),
            None => return false,
        };
        self.log(&format!("cancel {name} {cancelled}"));
        true
    }

    fn spawn(self: &Rc<Self>, name: &str) {
        let handle = self.local.spawn_local(self.body(name));
        let cancel = handle.cancel_handle().expect("it has not been awaited");
        let task = Task {
            handle: Some(handle),
            cancel,
        };
        let mut tasks = self.futures.tasks.borrow_mut();
        tasks.insert(name.to_owned(), task);
    }

    /// What a task does. Boxed, for it may spawn another one.
    fn body(self: &Rc<Self>, name: &str) -> Pin<Box<dyn Future<Output = String>>> {
        let (stage, name) = (Rc::clone(self), name.to_owned());
        Box::pin(async move {
            let actions = stage.scenario.tasks.get(&name).expect("a task: line");
            let mut guards = Guards(Rc::clone(&stage), Vec::new());
            for action in actions {
                match action.as_slice() {
                    [word, name] if word == "guard" => guards.1.push(name.clone()),
                    _ => match stage.step(action).await {
                        Ok(()) => {}
                        Err(Left::Failed) => failing(),
                        Err(Left::Returned(value)) => return value,
                    },
                }
            }
            "none".to_owned()
        })
    }

    /// Tasks that end together.
    async fn group(self: &Rc<Self>, names: &[&str]) {
        let bodies: Vec<_> = names.iter().map(|name| self.body(name)).collect();
        let ended = TaskGroup::<Infallible>::scope(|group| async move {
            for body in bodies {
                group.spawn_local(async { Ok(body.await) });
            }
            Ok(())
        });
        match ended.await {
            Ok(()) => self.log("group ended"),
            Err(failed) => self.log(&format!("group failed {}", failed.errors.len())),
        }
    }

    /// False: it is not an action that waits for futures.
    pub(crate) async fn step_on_future(self: &Rc<Self>, action: &[&str]) -> bool {
        let all = &self.futures;
        let take = |names: &[&str]| -> Vec<_> { names.iter().map(|name| all.take(name)).collect() };
        match action {
            ["yield"] => yield_now().await,
            ["turns", count] => {
                for _ in 0..number(count) {
                    yield_now().await;
                }
            }
            ["sleep", ms] => sleep(milliseconds(ms)).await,
            ["await", name] => {
                let is_task = all.tasks.borrow().contains_key(*name);
                let line = if is_task {
                    outcome(all.take(name).await)
                } else {
                    let result = all.future(name).await;
                    result.unwrap_or_else(|_error| "cancelled".to_owned())
                };
                self.log(&format!("{name} -> {line}"));
            }
            ["gather", names @ ..] => match gather(take(names)).await {
                Ok(values) => self.log(&format!("gather -> {}", values.join(" "))),
                Err(error) => self.log(&format!("gather {}", outcome(Err(error)))),
            },
            ["gather_all", names @ ..] => {
                let ended = gather_all(take(names)).await;
                let ended: Vec<_> = ended.into_iter().map(outcome).collect();
                self.log(&format!("gather_all -> {}", ended.join(" ")));
            }
            ["wait_first", names @ ..] => self.wait(names, None, When::FirstCompleted).await,
            ["wait_exception", names @ ..] => self.wait(names, None, When::FirstFailure).await,
            ["wait_all", ms, names @ ..] => self.wait(names, Some(ms), When::All).await,
            ["wait_for", ms, name] => match wait_for(all.take(name), milliseconds(ms)).await {
                Ok(ended) => self.log(&format!("{name} -> {}", outcome(ended))),
                Err(_late) => self.log(&format!("{name} timed out")),
            },
            ["as_completed", names @ ..] => {
                let mut tasks = as_completed(take(names), None);
                let mut values = Vec::new();
                while let Some(task) = tasks.next().await {
                    values.push(outcome(task.expect("there is no limit").await));
                }
                self.log(&format!("as_completed -> {}", values.join(" ")));
            }
            ["group", names @ ..] => self.group(names).await,
            ["acquire", name] => named(&all.semaphores, name).acquire().await.forget(),
            ["event_wait", name] => named(&all.events, name).wait().await,
            ["put", name, value] => {
                let put = named(&all.queues, name).put((*value).to_owned()).await;
                put.expect("nobody shuts it down");
            }
            ["get", name] => {
                let item = named(&all.queues, name).get().await;
                let item = item.expect("nobody shuts it down");
                self.log(&format!("{name} gave {item}"));
            }
            _ => return false,
        }
        true
    }

    async fn wait(&self, names: &[&str], limit: Option<&str>, when: When) {
        let all = &self.futures;
        let handles: Vec<_> = names.iter().map(|name| all.take(name)).collect();
        let name_of: HashMap<_, _> = handles.iter().map(JoinHandle::id).zip(names).collect();
        let (done, pending) = wait(handles, limit.map(milliseconds), when).await;
        for (what, handles) in [("ended", done), ("live", pending)] {
            let here: Vec<_> = handles
                .iter()
                .map(|handle| *name_of[&handle.id()])
                .collect();
            let in_order = names.iter().filter(|name| here.contains(name));
            let line = in_order.fold(what.to_owned(), |line, name| format!("{line} {name}"));
            self.log(&line);
            for (name, handle) in here.into_iter().zip(handles) {
                let mut tasks = all.tasks.borrow_mut();
                tasks.get_mut(name).expect("just taken").handle = Some(handle);
            }
        }
    }
}

fn outcome(ended: Result<String, JoinError>) -> String {
    ended.unwrap_or_else(|error| match error {
        JoinError::Cancelled => "cancelled".to_owned(),
        _ => "failed".to_owned(),
    })
}
