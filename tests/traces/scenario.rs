//! Scenarios, and how they are read out of their files. What the words mean is on the page of `main.rs`.
//!
//! The reader is as simple as the language; it checks no action. An action that nobody knows ends up in
//! the trace of the scenario, which fails.

use std::collections::HashMap;

/// A word of an action; what stood in quotes keeps the opening one.
pub(crate) type Word = String;

/// The action's name and what it acts on.
pub(crate) type Action = Vec<Word>;

#[derive(Clone, Debug, Default)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    /// File and line.
    pub(crate) place: String,
    pub(crate) side: Vec<Word>,
    /// Why garland's trace is another one.
    pub(crate) differs: Option<String>,
    /// The first Python that does it as garland does.
    pub(crate) since: Option<(u32, u32)>,
    pub(crate) reactions: Vec<Reaction>,
    pub(crate) tasks: HashMap<String, Vec<Action>>,
    pub(crate) script: Vec<Action>,
    /// The trace that garland must give, where asyncio cannot say it.
    pub(crate) pinned: Vec<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct Reaction {
    pub(crate) event: String,
    pub(crate) is_once: bool,
    pub(crate) actions: Vec<Action>,
}

impl Scenario {
    /// Whether the traces of garland and of this Python must be different ones.
    pub(crate) fn is_different(&self, python: (u32, u32)) -> bool {
        self.differs.is_some() && self.since.is_none_or(|since| python < since)
    }
}

/// All scenarios of a file.
///
/// # Errors
/// The line that is none.
pub(crate) fn parse(path: &str, text: &str) -> Result<Vec<Scenario>, String> {
    let mut all: Vec<Scenario> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        let place = format!("{path}:{}", number + 1);
        if let Some(name) = line.strip_prefix('[') {
            let name = name.strip_suffix(']');
            all.push(Scenario {
                name: name.ok_or(format!("{place}: no ] at the end"))?.to_owned(),
                place,
                side: vec!["server".to_owned()],
                ..Scenario::default()
            });
        } else if !line.is_empty() && !line.starts_with('#') {
            let scenario = all.last_mut();
            let scenario = scenario.ok_or(format!("{place}: a scenario begins with [its name]"))?;
            scenario
                .read(line)
                .map_err(|what| format!("{place}: {what}"))?;
        }
    }
    match all
        .iter()
        .find(|one| one.differs.is_some() && one.pinned.is_empty())
    {
        Some(one) => Err(format!(
            "{}: garland's trace must stand behind |",
            one.place
        )),
        None => Ok(all),
    }
}

impl Scenario {
    fn read(&mut self, line: &str) -> Result<(), &'static str> {
        if let Some(pinned) = line.strip_prefix('|') {
            self.pinned.push(pinned.trim().to_owned());
            return Ok(());
        }
        let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
        match first {
            "side" => self.side = rest.split_whitespace().map(str::to_owned).collect(),
            "differs" => self.differs = Some(rest.to_owned()),
            "since" => {
                let (version, why) = rest.split_once(' ').ok_or("since VERSION why")?;
                let numbers = version.split_once('.').ok_or("a version is X.Y")?;
                let part = |text: &str| text.parse().map_err(|_error| "a version is X.Y");
                self.since = Some((part(numbers.0)?, part(numbers.1)?));
                self.differs = Some(why.to_owned());
            }
            "on" | "once" | "task" => {
                let (name, block) = rest.split_once(':').ok_or("no : behind the name")?;
                let actions = actions(block)?;
                if first == "task" {
                    self.tasks.insert(name.to_owned(), actions);
                    return Ok(());
                }
                self.reactions.push(Reaction {
                    event: name.to_owned(),
                    is_once: first == "once",
                    actions,
                });
            }
            _ => self.script.extend(actions(line)?),
        }
        Ok(())
    }
}

/// Actions, separated by `;`, each a list of words.
fn actions(text: &str) -> Result<Vec<Action>, &'static str> {
    let mut actions = vec![Action::new()];
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        let mut word = char.to_string();
        match char {
            ';' => {
                actions.push(Action::new());
                continue;
            }
            '"' => loop {
                match chars.next().ok_or("no quote at the end")? {
                    '"' => break,
                    '\\' => word.push(match chars.next().ok_or("nothing behind \\")? {
                        'n' => '\n',
                        'r' => '\r',
                        't' => '\t',
                        other => other,
                    }),
                    other => word.push(other),
                }
            },
            char if char.is_whitespace() => continue,
            _ => {
                let inside = |char: &char| !char.is_whitespace() && !";\"".contains(*char);
                while let Some(more) = chars.next_if(inside) {
                    word.push(more);
                }
            }
        }
        actions.last_mut().expect("never empty").push(word);
    }
    actions.retain(|action| !action.is_empty());
    Ok(actions)
}

/// The bytes a word stands for: its text, or that many dots.
pub(crate) fn data(word: &str) -> Vec<u8> {
    match word.strip_prefix('"') {
        Some(text) => text.as_bytes().to_vec(),
        None => vec![b'.'; number(word)],
    }
}

/// `5`, `64k` or `16M`.
pub(crate) fn number(word: &str) -> usize {
    let digits = word.trim_end_matches(['k', 'M']);
    let unit = match word.chars().last() {
        Some('k') => 1024,
        Some('M') => 1024 * 1024,
        _ => 1,
    };
    let number: usize = digits
        .parse()
        .unwrap_or_else(|_| panic!("not a number: {word}"));
    number * unit
}

/// Bytes as they stand in a trace.
pub(crate) fn show(data: &[u8]) -> String {
    /// More than this is told by its length.
    const SHOWN_MAX: usize = 40;
    if data.len() > SHOWN_MAX {
        return format!("{} bytes", data.len());
    }
    let text = String::from_utf8_lossy(data);
    let text = text.replace('\n', "\\n").replace('\r', "\\r");
    format!("\"{}\"", text.replace('"', "\\\""))
}
