//! `list_dir | filter | print`: a pipeline of tasks, each of which waits for the one before it.
//!
//! ```python
//! def list_dir(path, target):              @coroutine
//!     for name in sorted(listdir(path)):   def filter_by(suffix, target):
//!         target.send(name)                    while True:
//!     target.close()                               name = yield
//!                                                  if name.endswith(suffix):
//! @coroutine                                           target.send(name)
//! def printer():
//!     while True:
//!         print((yield))
//!
//! list_dir(".", filter_by(".rs", printer()))
//! ```
//!
//! Pushed: every stage is a task, `target.send` is a channel that holds one name, and a stage that ends
//! drops its channel, which ends the stage behind it. Pulled: the last stage asks the one before it, and
//! nothing runs that is not asked for; that is what a `Stream` is.
//!
//! `cargo run --example pipeline [-- FOLDER [SUFFIX]]`
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use async_channel::{Receiver, SendError, Sender, bounded};
use futures_lite::{Stream, StreamExt, stream};
use garland::{Builder, run_in_executor, spawn_local};

/// The names in a folder, in order. The folder is read on a thread that may block.
async fn names_in(path: PathBuf) -> Result<Vec<String>, Box<dyn Error>> {
    let listed = run_in_executor(move || {
        let entries = std::fs::read_dir(path)?;
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let mut names = names.collect::<io::Result<Vec<String>>>()?;
        names.sort();
        Ok::<_, io::Error>(names)
    });
    Ok(listed.await??)
}

// Pushed from the front.

async fn list_dir(path: PathBuf, target: Sender<String>) -> Result<(), Box<dyn Error>> {
    for name in names_in(path).await? {
        target.send(name).await?;
    }
    Ok(())
}

async fn filter_by(
    suffix: String,
    source: Receiver<String>,
    target: Sender<String>,
) -> Result<(), SendError<String>> {
    while let Ok(name) = source.recv().await {
        if name.ends_with(&suffix) {
            target.send(name).await?;
        }
    }
    Ok(())
}

async fn printer(source: Receiver<String>) {
    while let Ok(name) = source.recv().await {
        println!("{name}");
    }
}

async fn push(path: &Path, suffix: &str) -> Result<(), Box<dyn Error>> {
    let (names, listed) = bounded(1);
    let (matches, filtered) = bounded(1);
    let filter = spawn_local(filter_by(suffix.to_owned(), listed, matches));
    let print = spawn_local(printer(filtered));
    list_dir(path.to_owned(), names).await?;
    filter.await??;
    print.await?;
    Ok(())
}

// Pulled from the end.

async fn names(path: &Path) -> Result<impl Stream<Item = String>, Box<dyn Error>> {
    Ok(stream::iter(names_in(path.to_owned()).await?))
}

async fn pull(path: &Path, suffix: &str) -> Result<(), Box<dyn Error>> {
    let matches = names(path).await?.filter(|name| name.ends_with(suffix));
    matches.for_each(|name| println!("{name}")).await;
    Ok(())
}

/// Prints the names in `path` that end with `suffix`, twice.
pub(crate) fn run(path: &Path, suffix: &str) -> Result<(), Box<dyn Error>> {
    let runtime = Builder::new().loops(1).build()?;
    runtime.block_on(async {
        println!("pushed:");
        push(path, suffix).await?;
        println!("pulled:");
        pull(path, suffix).await
    })?
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().unwrap_or_else(|| "examples".to_owned());
    let suffix = args.next().unwrap_or_else(|| ".rs".to_owned());
    run(Path::new(&path), &suffix)
}
