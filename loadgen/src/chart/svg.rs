//! The elements of a picture, with classes for [`STYLE`](super::STYLE) to colour.

use std::fmt::Write;

use crate::chart::Size;

/// A picture that is being drawn.
#[derive(Debug)]
pub(crate) struct Svg {
    text: String,
}

/// Which end of a word stands at its place.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// Text as it stands between tags and in attributes.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // No control characters but these may stand in XML.
            c if c.is_control() && !matches!(c, '\n' | '\t') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

impl Svg {
    /// An empty picture; `label` is what those who cannot see it are told.
    pub(crate) fn new(label: &str, size: Size) -> Svg {
        let Size { width, height } = size;
        Svg {
            text: format!(
                "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"chart\" role=\"img\" \
                 aria-label=\"{}\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
                 height=\"{height}\">\n",
                escaped(label)
            ),
        }
    }

    pub(crate) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        self.push(format_args!(
            "<line class=\"{class}\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>\n",
            from.0, from.1, to.0, to.1
        ));
    }

    /// A line through points; one alone is a dot.
    pub(crate) fn path(&mut self, class: &str, points: &[(f64, f64)]) {
        match points {
            [] => {}
            [only] => self.dot(class, *only, None),
            _ => {
                let data = data(points);
                self.push(format_args!(
                    "<path class=\"line {class}\" d=\"{data}\"/>\n"
                ));
            }
        }
    }

    /// The area between a line and the height `floor`.
    pub(crate) fn area(&mut self, class: &str, points: &[(f64, f64)], floor: f64) {
        if let ([(first, _), ..], [.., (last, _)]) = (points, points) {
            let data = data(points);
            self.push(format_args!(
                "<path class=\"{class}\" d=\"{data}L{last:.1} {floor:.1}L{first:.1} {floor:.1}Z\"/>\n"
            ));
        }
    }

    /// A rectangle from its upper left corner, with words for who points at it.
    pub(crate) fn rectangle(
        &mut self,
        class: &str,
        corner: (f64, f64),
        size: Size,
        words: Option<&str>,
    ) {
        let Size { width, height } = size;
        self.push(format_args!(
            "<rect class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{height:.1}\">{}</rect>\n",
            corner.0,
            corner.1,
            title(words)
        ));
    }

    pub(crate) fn dot(&mut self, class: &str, at: (f64, f64), words: Option<&str>) {
        self.push(format_args!(
            "<circle class=\"{class} dot\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\">{}</circle>\n",
            at.0,
            at.1,
            title(words)
        ));
    }

    pub(crate) fn text(&mut self, class: &str, anchor: Anchor, at: (f64, f64), text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        self.push(format_args!(
            "<text class=\"{class}\" text-anchor=\"{anchor}\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\n",
            at.0,
            at.1,
            escaped(text)
        ));
    }

    pub(crate) fn finish(mut self) -> String {
        self.text.push_str("</svg>");
        self.text
    }

    fn push(&mut self, element: std::fmt::Arguments<'_>) {
        self.text
            .write_fmt(element)
            .expect("a String takes everything");
    }
}

fn data(points: &[(f64, f64)]) -> String {
    let commands = points.iter().enumerate().map(|(index, (x, y))| {
        let command = if index == 0 { 'M' } else { 'L' };
        format!("{command}{x:.1} {y:.1}")
    });
    commands.collect()
}

fn title(words: Option<&str>) -> String {
    words.map_or(String::new(), |words| {
        format!("<title>{}</title>", escaped(words))
    })
}

#[cfg(test)]
mod tests {
    use super::{Anchor, Svg, escaped};
    use crate::chart::WIDE;

    #[test]
    fn words_cannot_leave_their_element() {
        assert_eq!(
            escaped("<script>&\"'\u{1b}"),
            "&lt;script&gt;&amp;&quot;&#39;\u{fffd}"
        );
        let mut svg = Svg::new("a \"label\"", WIDE);
        svg.text("x", Anchor::Start, (1.0, 2.0), "</text><script>");
        let text = svg.finish();
        assert!(!text.contains("<script") && text.contains("a &quot;label&quot;"));
    }

    #[test]
    fn lines_begin_with_a_move_and_one_point_is_a_dot() {
        let mut svg = Svg::new("", WIDE);
        svg.path("a", &[(0.0, 1.0), (2.0, 3.25)]);
        svg.path("b", &[(5.0, 6.0)]);
        svg.path("c", &[]);
        let text = svg.finish();
        assert!(text.contains("d=\"M0.0 1.0L2.0 3.2\""), "{text}");
        assert_eq!(text.matches("<circle").count(), 1);
        assert!(!text.contains("line c"));
    }
}
