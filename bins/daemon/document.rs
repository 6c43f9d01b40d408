//! TOML text and `--set` arguments, read into one tree whose every value knows its place.
//!
//! The tree is what makes the daemon's error messages possible: whoever reads a value out of it can
//! say `FILE:LINE:COL` (or `--set KEY=VALUE`) about it, and reading goes on after an error, so that
//! one run shows every mistake of a file. That is why this is not serde's `deny_unknown_fields`: it
//! stops at the first error.
//!
//! It knows no key of the daemon and no default: those are in [`crate::settings`].
//!
//! Invariants: a key that [`Fields`] was not asked for is an error; problems come out in the order of
//! the file, those of `--set` after them in the order of the command line.

use std::{cmp::Ordering, fmt};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// How alike two keys must be to be proposed for one another; below it a proposal is noise.
const LIKENESS_MIN: f64 = 0.8;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// The file as a whole, when nothing of it could be read.
    Unread,
    /// Line and column in the file, both from 1; the column counts characters.
    File { line: usize, column: usize },
    /// The argument of that number, as it was typed.
    Argument { number: usize, text: String },
}

/// One mistake: its place, what is wrong and what is allowed.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub(crate) place: Place,
    pub(crate) message: String,
}

/// Everything that is wrong with a configuration, in the order in which it was written.
#[derive(Debug)]
pub struct Problems {
    file: String,
    list: Vec<Problem>,
}

impl Problems {
    /// Collects problems of `file`; sorts them by place.
    pub(crate) fn new(file: &str, mut list: Vec<Problem>) -> Problems {
        list.sort_by(|one, other| match one.place.cmp(&other.place) {
            Ordering::Equal => one.message.cmp(&other.message),
            order => order,
        });
        Problems {
            file: file.to_owned(),
            list,
        }
    }
}

impl fmt::Display for Problems {
    /// One line a problem: `FILE:LINE:COL: what is wrong, what is allowed`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, problem) in self.list.iter().enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            match &problem.place {
                Place::Unread => write!(f, "{}", self.file)?,
                Place::File { line, column } => write!(f, "{}:{line}:{column}", self.file)?,
                Place::Argument { text, .. } => write!(f, "--set {text}")?,
            }
            write!(f, ": {}", problem.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A value and its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Value,
}

/// A TOML value; what no key of ours takes (floats, dates) is kept only to be shown in an error.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Text(String),
    Integer(i64),
    Boolean(bool),
    Other(String),
    Array(Vec<Node>),
    Table(Vec<Entry>),
}

/// A key with its own place, and its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    place: Place,
    name: String,
    node: Node,
}

impl Node {
    /// The value as one would type it, for messages.
    pub(crate) fn shown(&self) -> String {
        match &self.value {
            Value::Text(text) => format!("{text:?}"),
            Value::Integer(number) => number.to_string(),
            Value::Boolean(flag) => flag.to_string(),
            Value::Other(text) => text.clone(),
            Value::Array(_) => "a list".to_owned(),
            Value::Table(_) => "a table".to_owned(),
        }
    }

    /// A problem about this value.
    pub(crate) fn problem(&self, message: impl Into<String>) -> Problem {
        Problem {
            place: self.place.clone(),
            message: message.into(),
        }
    }
}

/// Reads `text`; every syntax error that the parser recovers from is reported.
pub(crate) fn parse(text: &str) -> Result<Node, Vec<Problem>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let places = Places(text);
    if errors.is_empty() {
        let value = read_table(table.get_ref(), &|offset| places.at(offset));
        return Ok(Node {
            place: Place::File { line: 1, column: 1 },
            value,
        });
    }
    Err(errors
        .iter()
        .map(|error| Problem {
            place: places.at(error.span().map_or(0, |span| span.start)),
            // The parser writes some of its messages on two lines; ours are one line each.
            message: error.message().trim().replace('\n', "; "),
        })
        .collect())
}

/// Turns byte offsets of a text into places.
struct Places<'a>(&'a str);

impl Places<'_> {
    fn at(&self, offset: usize) -> Place {
        // An error at the end of input may point past it, or (never seen) into a character.
        let before = self.0.get(..offset).unwrap_or(self.0);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Place::File {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

fn read_table(table: &DeTable<'_>, place_of: &dyn Fn(usize) -> Place) -> Value {
    let entries = table.iter().map(|(key, value)| Entry {
        place: place_of(key.span().start),
        name: key.get_ref().to_string(),
        node: read_value(value, place_of),
    });
    Value::Table(entries.collect())
}

fn read_value(spanned: &Spanned<DeValue<'_>>, place_of: &dyn Fn(usize) -> Place) -> Node {
    let value = match spanned.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        // The parser has checked the digits; what does not fit an i64 fits no key of ours either.
        DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_too_large) => Value::Other(integer.as_str().to_owned()),
        },
        DeValue::Float(float) => Value::Other(float.as_str().to_owned()),
        DeValue::Boolean(flag) => Value::Boolean(*flag),
        DeValue::Datetime(datetime) => Value::Other(datetime.to_string()),
        DeValue::Array(array) => Value::Array(
            array
                .iter()
                .map(|item| read_value(item, place_of))
                .collect(),
        ),
        DeValue::Table(table) => read_table(table, place_of),
    };
    Node {
        place: place_of(spanned.span().start),
        value,
    }
}

/// Lays `KEY=VALUE`, the `number`th argument, over the tree.
///
/// The key is a dotted path; an entry of a list of tables is named by its index or by its `name`.
/// The value is read as TOML; what is not TOML is text, so that `log.level=debug` needs no quotes.
pub(crate) fn set(root: &mut Node, number: usize, argument: &str) -> Result<(), Problem> {
    let place = Place::Argument {
        number,
        text: argument.to_owned(),
    };
    let problem = |message: String| Problem {
        place: place.clone(),
        message,
    };
    let Some((path, text)) = argument.split_once('=') else {
        return Err(problem(
            "there is no '=': give KEY=VALUE, like runtime.loops=2".to_owned(),
        ));
    };
    let node = match DeValue::parse(text) {
        Ok(value) => read_value(&value, &|_offset| place.clone()),
        Err(_not_toml) => Node {
            place: place.clone(),
            value: Value::Text(text.to_owned()),
        },
    };
    let mut parts: Vec<&str> = path.split('.').map(str::trim).collect();
    let last = parts.pop().filter(|part| !part.is_empty());
    let Some(last) = last.filter(|_| parts.iter().all(|part| !part.is_empty())) else {
        return Err(problem(
            "a part of the key is empty: give KEY=VALUE, like log.level=debug".into(),
        ));
    };
    let mut table = root;
    for part in parts {
        table = descend(table, part, &place).map_err(problem)?;
    }
    let Value::Table(entries) = &mut table.value else {
        return Err(problem(format!(
            "what holds {last:?} is {}, not a table",
            table.shown()
        )));
    };
    entries.retain(|entry| entry.name != last);
    entries.push(Entry {
        place,
        name: last.to_owned(),
        node,
    });
    Ok(())
}

/// One step of a `--set` path: into a table (made if it is missing) or into an entry of a list.
fn descend<'a>(node: &'a mut Node, part: &str, place: &Place) -> Result<&'a mut Node, String> {
    let shown = node.shown();
    match &mut node.value {
        Value::Table(entries) => {
            let index = match entries.iter().position(|entry| entry.name == part) {
                Some(index) => index,
                None => {
                    let node = Node {
                        place: place.clone(),
                        value: Value::Table(Vec::new()),
                    };
                    entries.push(Entry {
                        place: place.clone(),
                        name: part.to_owned(),
                        node,
                    });
                    entries.len() - 1
                }
            };
            Ok(&mut entries[index].node)
        }
        Value::Array(items) => {
            let names: Vec<&str> = items.iter().filter_map(name_of).collect();
            let index = match part.parse::<usize>() {
                Ok(index) => Some(index).filter(|index| *index < items.len()),
                Err(_not_a_number) => items.iter().position(|item| name_of(item) == Some(part)),
            };
            let missing = || {
                let last = items.len().saturating_sub(1);
                format!("there is no entry {part:?}: give 0..={last} or a name of {names:?}")
            };
            let index = index.ok_or_else(missing)?;
            Ok(&mut items[index])
        }
        _ => Err(format!("cannot look for {part:?} inside {shown}")),
    }
}

/// The `name` of an entry in a list of tables.
fn name_of(node: &Node) -> Option<&str> {
    let Value::Table(entries) = &node.value else {
        return None;
    };
    let entry = entries.iter().find(|entry| entry.name == "name")?;
    match &entry.node.value {
        Value::Text(name) => Some(name),
        _ => None,
    }
}

/// A table being read: each key is taken once, and [`finish`](Fields::finish) refuses the others.
#[derive(Debug)]
pub(crate) struct Fields {
    place: Place,
    entries: Vec<Entry>,
    known: Vec<&'static str>,
}

impl Fields {
    /// Opens `node`, called `what` in the error that is made when it is no table.
    pub(crate) fn open(node: Node, what: &str) -> Result<Fields, Problem> {
        let shown = node.shown();
        match node.value {
            Value::Table(entries) => Ok(Fields {
                place: node.place,
                entries,
                known: Vec::new(),
            }),
            _ => Err(Problem {
                place: node.place,
                message: format!("{what} = {shown} is not allowed: give a table"),
            }),
        }
    }

    /// Takes the value of `key`, if it was written.
    pub(crate) fn take(&mut self, key: &'static str) -> Option<Node> {
        self.known.push(key);
        self.remove(key).map(|entry| entry.node)
    }

    /// Where the value of `key` was written, if it was.
    pub(crate) fn place_of(&self, key: &str) -> Option<Place> {
        self.entries
            .iter()
            .find(|entry| entry.name == key)
            .map(|entry| entry.node.place.clone())
    }

    /// Where the table itself was written.
    pub(crate) fn place(&self) -> Place {
        self.place.clone()
    }

    /// A problem about the table as a whole.
    pub(crate) fn problem(&self, message: impl Into<String>) -> Problem {
        Problem {
            place: self.place.clone(),
            message: message.into(),
        }
    }

    /// Every key that was not taken is unknown.
    pub(crate) fn finish(self, problems: &mut Vec<Problem>) {
        for entry in self.entries {
            let known = self.known.join(", ");
            let message = match likest(&entry.name, &self.known) {
                Some(meant) => format!(
                    "unknown key {:?}: did you mean {meant:?}? Allowed are {known}",
                    entry.name
                ),
                None => format!("unknown key {:?}: allowed are {known}", entry.name),
            };
            problems.push(Problem {
                place: entry.place,
                message,
            });
        }
    }

    fn remove(&mut self, key: &str) -> Option<Entry> {
        let index = self.entries.iter().position(|entry| entry.name == key)?;
        Some(self.entries.swap_remove(index))
    }
}

/// The known key that was most probably meant.
fn likest(written: &str, known: &[&'static str]) -> Option<&'static str> {
    known
        .iter()
        .map(|key| (strsim::jaro_winkler(written, key), *key))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, key)| key)
}
