//! Whether the traces of a scenario are as they should be, and the two of them side by side.

use crate::scenario::{Scenario, parse};

/// What the two loops did in one scenario.
pub(crate) struct Traces<'a> {
    /// With one loop, and with two.
    pub(crate) garland: [Vec<String>; 2],
    /// Without a Python there is none.
    pub(crate) asyncio: Option<&'a [String]>,
}

impl Traces<'_> {
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn judge(&self, scenario: &Scenario, python: (u32, u32)) -> Result<(), String> {
        let [garland, with_two] = &self.garland;
        let is_broken = |line: &&String| line.starts_with('!');
        if let Some(line) = garland.iter().chain(with_two).find(is_broken) {
            return Err(format!("on garland {line}"));
        }
        if garland != with_two {
            return Err(format!("with two loops garland's trace is {with_two:#?}"));
        }
        if !scenario.pinned.is_empty() && *garland != scenario.pinned {
            let pinned = &scenario.pinned;
            return Err(format!(
                "garland's trace is not the one in the file, {pinned:#?}"
            ));
        }
        let Some(asyncio) = self.asyncio else {
            return Ok(());
        };
        if let Some(line) = asyncio.iter().find(is_broken) {
            return Err(format!("on asyncio {line}"));
        }
        match (garland == asyncio, scenario.is_different(python)) {
            (true, true) => Err("they are the same, but the file says that they differ".to_owned()),
            (false, false) => Err("they differ".to_owned()),
            (true, false) | (false, true) => Ok(()),
        }
    }

    /// One line a step; `<>` where the traces part.
    pub(crate) fn side_by_side(&self) -> String {
        let [garland, _] = &self.garland;
        let asyncio = self.asyncio.unwrap_or_default();
        let width = asyncio.iter().map(String::len).max().unwrap_or(0).max(24);
        let mut text = format!("    {:width$}     garland\n", "asyncio");
        for index in 0..asyncio.len().max(garland.len()) {
            let at = |trace: &[String]| trace.get(index).cloned().unwrap_or_default();
            let (left, right) = (at(asyncio), at(garland));
            let mark = if left == right { "  " } else { "<>" };
            text += format!("    {left:width$}  {mark} {right}").trim_end();
            text.push('\n');
        }
        text
    }
}

/// A comparison that cannot fail is worth nothing: each of these must be judged as it says.
pub(crate) fn catches_what_is_planted() {
    let lines = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
    let judged = |garland: [&str; 2], asyncio: &str, file: &str| {
        let scenario = parse("planted", &format!("[planted]\n{file}"));
        let scenario = scenario.expect("it is one").pop().expect("just one");
        let traces = Traces {
            garland: garland.map(lines),
            asyncio: Some(&lines(asyncio)),
        };
        traces.judge(&scenario, (3, 11)).is_ok()
    };
    let same = ["made lost"; 2];
    assert!(judged(same, "made lost", ""));
    assert!(!judged(same, "made eof lost", ""), "another trace");
    assert!(!judged(same, "made", ""), "a shorter one");
    assert!(
        !judged(["made lost", "lost made"], "made lost", ""),
        "two loops"
    );
    assert!(
        !judged(["! late"; 2], "! late", ""),
        "a mistake on both sides"
    );
    let differs = "differs X: why\n| made\n| lost";
    assert!(judged(same, "made", differs));
    assert!(!judged(same, "made lost", differs), "it does not differ");
    assert!(
        !judged(["made"; 2], "lost", differs),
        "not the trace in the file"
    );
    let since = |version: &str| format!("since {version} X: why\n| made\n| lost");
    assert!(judged(same, "made", &since("3.12")));
    assert!(
        !judged(same, "made lost", &since("3.12")),
        "this one is older"
    );
    assert!(
        !judged(same, "made", &since("3.11")),
        "this one is new enough"
    );
}
