//! Pictures of results as SVG, written by hand: a few lines, paths and words, small enough to stand
//! inside a page, without a library, a script or a font of their own.
//!
//! [`svg`] writes elements, [`scale`] places values and chooses ticks, [`percentiles`] draws how
//! latency is distributed, [`mod@timeline`] how it went. A picture has no colours of its own: [`STYLE`]
//! gives them, for light and dark, to files and pages alike. Pure.

mod percentiles;
mod scale;
mod svg;
mod timeline;

use crate::record::RunRecord;

pub(crate) use crate::chart::percentiles::{Curve, curves};
pub(crate) use crate::chart::svg::escaped;

/// Colours and fonts of every picture.
pub(crate) const STYLE: &str = include_str!("chart.css");

/// The size of a picture, in the units of its own coordinates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) width: f64,
    pub(crate) height: f64,
}

/// For a window of a desktop, and for files.
pub(crate) const WIDE: Size = Size {
    width: 860.0,
    height: 380.0,
};
/// For a telephone: fewer ticks, letters of the same size.
pub(crate) const NARROW: Size = Size {
    width: 350.0,
    height: 300.0,
};

/// Below this width there is room for half the ticks.
const ROOMY: f64 = 600.0;

/// The percentile curve of a run, from the intended and from the real send.
pub(crate) fn latency(record: &RunRecord, size: Size) -> String {
    let samples = &record.outcome.measured.samples;
    let mut shown = vec![Curve {
        class: "one",
        name: "from the intended send",
        histogram: &samples.latency,
    }];
    match &samples.open {
        Some(open) => shown.push(Curve {
            class: "two",
            name: "from the real send",
            histogram: &open.from_send,
        }),
        None => shown[0].name = "from the send; closed loop: intended and real are one",
    }
    curves("Latency by percentile", &shown, size)
}

/// How rate and latency went from interval to interval.
pub(crate) fn timeline(record: &RunRecord, size: Size) -> String {
    timeline::draw(record, size)
}

/// `latency.svg`.
pub(crate) fn latency_file(record: &RunRecord) -> String {
    file(&latency(record, WIDE))
}

/// `timeline.svg`.
pub(crate) fn timeline_file(record: &RunRecord) -> String {
    file(&timeline(record, WIDE))
}

/// A picture as a file of its own: with its style and a ground.
pub(crate) fn file(picture: &str) -> String {
    let (open, rest) = picture
        .split_once('>')
        .expect("a picture begins with its tag");
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{open}><style>{STYLE}</style>\
         <rect class=\"ground\" width=\"100%\" height=\"100%\"/>{rest}\n"
    )
}
