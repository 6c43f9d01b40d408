//! The shell and the small parts of every page: one file that needs nothing else, no network and no
//! script.
//!
//! Its own policy forbids the browser to load anything. Whatever comes from outside the program
//! goes through [`escaped`].

use crate::chart;
use crate::chart::escaped;

const STYLE: &str = include_str!("page.css");

/// How good the news of a [`banner`] are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Good,
    Warning,
    Bad,
}

/// A whole page around `body`.
pub(crate) fn document(title: &str, body: &str) -> String {
    let (title, version) = (escaped(title), env!("CARGO_PKG_VERSION"));
    let charts = chart::STYLE;
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         style-src 'unsafe-inline'; img-src data:\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <link rel=\"icon\" href=\"data:,\">\n\
         <title>{title}</title>\n<style>\n{STYLE}{charts}</style>\n</head>\n<body>\n<main>\n\
         {body}<footer>loadgen {version}</footer>\n</main>\n</body>\n</html>\n"
    )
}

/// The verdict: one line in large letters, as a sentence, and what there is to say about it.
pub(crate) fn banner(tone: Tone, words: &str, reasons: &[String]) -> String {
    let class = match tone {
        Tone::Good => "good",
        Tone::Warning => "warning",
        Tone::Bad => "bad",
    };
    let reasons = reasons.iter().map(|r| format!("<p>{}</p>", escaped(r)));
    let mut words = words.to_owned();
    if let Some(first) = words.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    format!(
        "<div class=\"banner {class}\" role=\"status\"><strong>{}</strong>{}</div>\n",
        escaped(&words),
        reasons.collect::<String>()
    )
}

/// One of the figures at the top.
pub(crate) fn tile(name: &str, value: &str, about: &str) -> String {
    let (name, value, about) = (escaped(name), escaped(value), escaped(about));
    format!(
        "<div class=\"tile\"><span class=\"name\">{name}</span><span class=\"value\">{value}</span>\
         <span class=\"about\">{about}</span></div>\n"
    )
}

/// A titled part of the page; `about` says what it shows and how to read it.
pub(crate) fn section(title: &str, about: &str, content: &str) -> String {
    let (title, about) = (escaped(title), escaped(about));
    let about = if about.is_empty() {
        String::new()
    } else {
        format!("<p class=\"about\">{about}</p>\n")
    };
    format!("<section>\n<h2>{title}</h2>\n{about}{content}</section>\n")
}

/// A table with a head; the first column holds names, the others figures.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let cells = |tag: &str, cells: &mut dyn Iterator<Item = &str>| {
        let cells = cells.map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell)));
        format!("<tr>{}</tr>\n", cells.collect::<String>())
    };
    let head = cells("th", &mut head.iter().copied());
    let body = rows
        .iter()
        .map(|row| cells("td", &mut row.iter().map(String::as_str)));
    format!(
        "<div class=\"scroll\"><table>\n<thead>{head}</thead>\n<tbody>{}</tbody>\n</table></div>\n",
        body.collect::<String>()
    )
}

/// A list of names and what belongs to them.
pub(crate) fn facts(rows: &[(&str, String)]) -> String {
    let rows = rows
        .iter()
        .map(|(name, value)| format!("<dt>{}</dt><dd>{}</dd>\n", escaped(name), escaped(value)));
    format!("<dl>\n{}</dl>\n", rows.collect::<String>())
}

/// A bar of shares from 0 to 1, each with its class and name, and what is left of it empty.
pub(crate) fn bar(shares: &[(&str, &str, f64)]) -> String {
    let part = |(class, name, share): &(&str, &str, f64)| {
        let percent = (share * 100.0).clamp(0.0, 100.0);
        let name = escaped(name);
        format!(
            "<i class=\"{class}\" style=\"width:{percent:.2}%\" title=\"{name} {percent:.2} %\"></i>"
        )
    };
    format!(
        "<div class=\"bar\">{}</div>\n",
        shares.iter().map(part).collect::<String>()
    )
}

/// A picture in the two sizes of which the page shows the one that fits.
pub(crate) fn picture(draw: impl Fn(chart::Size) -> String) -> String {
    format!(
        "<figure class=\"wide\">{}</figure>\n<figure class=\"narrow\">{}</figure>\n",
        draw(chart::WIDE),
        draw(chart::NARROW)
    )
}

#[cfg(test)]
mod tests {
    use super::{Tone, banner, document, facts, section, table, tile};

    /// A target or a command line may hold anything.
    #[test]
    fn nothing_from_outside_becomes_a_tag() {
        let evil = "<script>alert(1)</script>";
        let page = document(
            evil,
            &[
                banner(Tone::Bad, evil, &[evil.to_owned()]),
                tile(evil, evil, evil),
                section(evil, evil, ""),
                table(&[evil], &[vec![evil.to_owned()]]),
                facts(&[(evil, evil.to_owned())]),
            ]
            .concat(),
        );
        assert!(!page.contains("<script"), "{page}");
        assert_eq!(page.matches("&lt;script&gt;").count(), 12);
    }
}
