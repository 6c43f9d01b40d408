//! A tree walked in order, with and without delegation.
//!
//! ```python
//! def walk(tree):                          def walk(tree):
//!     if tree is not None:                     if tree is not None:
//!         for value in walk(tree.left):            yield from walk(tree.left)
//!             yield value                          yield tree.value
//!         yield tree.value                         yield from walk(tree.right)
//!         for value in walk(tree.right):
//!             yield value
//! ```
//!
//! Without delegation every value is handed up through each level above it, and every level is there to
//! pass it on. With it (`yield from`, and `await` grew out of that) the innermost walk talks to the
//! consumer itself. Counted here as the hands a value goes through.
//!
//! `cargo run --example tree`
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::cell::Cell;
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use async_channel::{SendError, Sender, bounded};
use garland::{Builder, spawn_local};

struct Tree {
    left: Option<Box<Tree>>,
    value: u32,
    right: Option<Box<Tree>>,
}

impl Tree {
    /// A balanced tree of the numbers from `first` to `last`.
    fn of(first: u32, last: u32) -> Option<Box<Tree>> {
        (first <= last).then(|| {
            let value = first + (last - first) / 2;
            Box::new(Tree {
                left: Tree::of(first, value - 1),
                value,
                right: Tree::of(value + 1, last),
            })
        })
    }
}

/// How often a value was handed from one to another.
type Hands = Rc<Cell<u32>>;

fn hand(hands: &Hands, value: u32) -> u32 {
    hands.set(hands.get() + 1);
    value
}

/// Without delegation: each level asks the walk of its child and hands every value on.
fn walk_by_hand(tree: Option<&Tree>, hands: Hands) -> Box<dyn Iterator<Item = u32> + '_> {
    let Some(tree) = tree else {
        return Box::new(std::iter::empty());
    };
    let left = walk_by_hand(tree.left.as_deref(), Rc::clone(&hands));
    let right = walk_by_hand(tree.right.as_deref(), Rc::clone(&hands));
    let values = left.chain([tree.value]).chain(right);
    Box::new(values.map(move |value| hand(&hands, value)))
}

/// With it: the walk of a child is awaited, and sends to the consumer itself.
fn walk<'a>(
    tree: Option<&'a Tree>,
    consumer: &'a Sender<u32>,
    hands: &'a Hands,
) -> Pin<Box<dyn Future<Output = Result<(), SendError<u32>>> + 'a>> {
    Box::pin(async move {
        if let Some(tree) = tree {
            walk(tree.left.as_deref(), consumer, hands).await?;
            consumer.send(hand(hands, tree.value)).await?;
            walk(tree.right.as_deref(), consumer, hands).await?;
        }
        Ok(())
    })
}

fn show(how: &str, values: &[u32], hands: &Hands) {
    println!("{how}: {values:?}, through {} hands", hands.get());
}

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let tree = Tree::of(1, 15);

    let hands = Hands::default();
    let values: Vec<u32> = walk_by_hand(tree.as_deref(), Rc::clone(&hands)).collect();
    show("without delegation", &values, &hands);

    let hands = Hands::default();
    let runtime = Builder::new().loops(1).build()?;
    let values = runtime.block_on(async {
        // The walk waits in `send` until the consumer has taken the value before.
        let (consumer, walked) = bounded(1);
        let counted = Rc::clone(&hands);
        let walking = spawn_local(async move { walk(tree.as_deref(), &consumer, &counted).await });
        let mut values = Vec::new();
        while let Ok(value) = walked.recv().await {
            values.push(value);
        }
        walking.await??;
        Ok::<_, Box<dyn Error>>(values)
    })??;
    show("with delegation", &values, &hands);
    Ok(())
}
