//! Reads paths out of Rust source text.
//!
//! Not a parser: comments and literals are blanked, then everything of the shape `a::b` is a path.
//! Offsets survive the blanking, so that lines are true. Nested block comments are not understood.

/// One file as the rules see it.
pub(crate) struct Source<'a> {
    pub(crate) path: &'a str,
    pub(crate) text: &'a str,
    /// The text with comments and literals blanked, line for line.
    pub(crate) code: String,
    /// Every `a::b` in the code with its line; `a::{b, c::d}` is `a::b` and `a::c::d`.
    pub(crate) paths: Vec<(usize, String)>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(path: &'a str, text: &'a str) -> Self {
        let code = blank(text);
        let (mut paths, mut at) = (Vec::new(), 0);
        while let Some(n) = code[at..].find(is_word) {
            at = read_path(&code, at + n, "", &mut paths);
        }
        let mut lines = Vec::with_capacity(paths.len());
        let (mut line, mut seen) = (1, 0);
        for (at, path) in paths {
            line += code[seen..at].matches('\n').count();
            seen = at;
            lines.push((line, path));
        }
        Source {
            path,
            text,
            code,
            paths: lines,
        }
    }

    /// The top module of a library file: `net` of `src/net/tcp.rs`; nothing for files elsewhere.
    pub(crate) fn module(&self) -> Option<&'a str> {
        self.path.strip_prefix("src/")?.split(['/', '.']).next()
    }
}

pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// `a::b` is in `a` and in `a::b`, `ab` is not in `a`.
pub(crate) fn is_in(path: &str, root: &str) -> bool {
    let rest = path.strip_prefix(root);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Reads the path or the group at `start`, adds its leaves to `found`, returns where it ends.
fn read_path(code: &str, start: usize, prefix: &str, found: &mut Vec<(usize, String)>) -> usize {
    let skip = |at: usize| code.len() - code[at..].trim_start_matches([' ', '\n', ',']).len();
    if code[start..].starts_with('{') {
        let mut at = skip(start + 1);
        while code[at..].starts_with(|c| is_word(c) || c == '*') {
            at = read_path(code, at, prefix, found);
            let end = code[at..].find([',', '}']).unwrap_or(code.len() - at);
            at = skip(at + end);
        }
        return (at + 1).min(code.len());
    }
    let rest = &code[start..];
    let name = match rest.find(|c| !is_word(c)) {
        Some(0) => "*",
        n => &rest[..n.unwrap_or(rest.len())],
    };
    let end = start + name.len();
    let path = match name {
        "self" if !prefix.is_empty() => prefix.trim_end_matches("::").to_owned(),
        _ => format!("{prefix}{name}"),
    };
    let next = code[end..].strip_prefix("::").unwrap_or("");
    if next.starts_with(|c| is_word(c) || c == '{' || c == '*') {
        return read_path(code, end + 2, &format!("{path}::"), found);
    }
    if path.contains("::") || !prefix.is_empty() {
        found.push((start, path));
    }
    end
}

fn blank(text: &str) -> String {
    let (mut code, mut at) = (String::with_capacity(text.len()), 0);
    while let Some(c) = text[at..].chars().next() {
        let end = at + blanked(&text[at..], code.ends_with(is_word));
        if end == at {
            code.push(c);
            at += c.len_utf8();
        }
        for c in text[at..end.max(at)].chars() {
            code.push(if c == '\n' { c } else { ' ' });
        }
        at = at.max(end);
    }
    code
}

/// The length of the comment or literal that `rest` begins with, or 0.
fn blanked(rest: &str, after_word: bool) -> usize {
    let until = |from: usize, stop: &str| {
        let found = rest.get(from..).and_then(|tail| tail.find(stop));
        found.map_or(rest.len(), |n| from + n + stop.len())
    };
    let mut letters = rest.chars();
    match (letters.next(), letters.next(), letters.next()) {
        (Some('/'), Some('/'), _) => rest.find('\n').unwrap_or(rest.len()),
        (Some('/'), Some('*'), _) => until(2, "*/"),
        (Some('\''), Some('\\'), _) => until(3, "'"),
        (Some('\''), Some(c), Some('\'')) => c.len_utf8() + 2,
        (Some('"'), ..) => string(rest),
        (Some('r'), ..) if !after_word => {
            let hashes = rest[1..].bytes().take_while(|b| *b == b'#').count();
            let open = rest[1 + hashes..].starts_with('"');
            if open {
                until(2 + hashes, &format!("\"{}", "#".repeat(hashes)))
            } else {
                0
            }
        }
        _ => 0,
    }
}

/// The length of the string literal that `rest` begins with, escapes obeyed.
fn string(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            '"' if !escaped => return at + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    rest.len()
}
