//! What a run is shown as: text for a terminal, a page for a browser.
//!
//! Both state, neither decides: [`crate::outcome`] says what a run is worth, [`crate::verdict`]
//! whether it is the target's. They are made from the [record](crate::record::RunRecord) alone, so a
//! stored run gives the reports it gave when it was new. [`facts`] holds the words they share.

mod facts;
mod page;
mod text;

pub(crate) use crate::report::facts::latency_rows;
pub(crate) use crate::report::page::page;
pub(crate) use crate::report::text::Report;
