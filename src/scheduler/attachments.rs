//! What the layers above keep for one loop: tables that are made at their first use, one of each type.
//!
//! A loop knows nothing about them; their entries end with the loop because each is a handler in its
//! table of sockets.

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;

#[derive(Default)]
pub(crate) struct Attachments(RefCell<Vec<Rc<dyn Any>>>);

impl Attachments {
    /// The one of this type; made now if there is none.
    pub(crate) fn get<T: Default + 'static>(&self) -> Rc<T> {
        let mut all = self.0.borrow_mut();
        let found = all.iter().find_map(|one| Rc::clone(one).downcast().ok());
        found.unwrap_or_else(|| {
            let made = Rc::<T>::default();
            all.push(Rc::<T>::clone(&made));
            made
        })
    }
}
