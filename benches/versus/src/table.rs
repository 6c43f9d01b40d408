//! Pure: figures with their spread, and tables of them as text and as Markdown.
//!
//! What stands in the tables is the business of [`echo_table`](crate::echo_table) and
//! [`latency_table`](crate::latency_table).

use std::fmt;

/// Median, least and greatest of a few values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The middle one, or the mean of the middle two.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The greatest.
    pub greatest: f64,
}

impl Spread {
    /// Nothing for no values.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (least, greatest) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Self {
            median,
            least,
            greatest,
        })
    }

    /// As it stands in tables, with as many figures as mean something; a dash for nothing.
    #[must_use]
    pub fn text(spread: Option<Self>) -> String {
        match spread {
            Some(Self {
                median,
                least,
                greatest,
            }) => {
                let digits = digits(median);
                format!("{median:.digits$} [{least:.digits$}-{greatest:.digits$}]")
            }
            None => "-".into(),
        }
    }
}

/// How many decimals a value of this size is shown with.
#[must_use]
pub fn digits(value: f64) -> usize {
    if value < 100.0 { 2 } else { 0 }
}

/// Lines of cells below a head; the first cell of a line names what the line is about.
#[derive(Clone, Debug)]
pub struct Table {
    /// What it shows.
    pub title: String,
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty one with these columns.
    pub fn new<'h>(title: impl Into<String>, head: impl IntoIterator<Item = &'h str>) -> Self {
        Self {
            title: title.into(),
            head: head.into_iter().map(Into::into).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a line: a name, and a cell for each other column.
    pub fn row(&mut self, name: &str, cells: impl IntoIterator<Item = String>) {
        let row: Vec<String> = [name.to_owned()].into_iter().chain(cells).collect();
        assert_eq!(row.len(), self.head.len(), "{name} in {:?}", self.title);
        self.rows.push(row);
    }

    /// Whether no server has a line.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// As a section of a Markdown document.
    #[must_use]
    pub fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rule = format!("|---|{}\n", "--:|".repeat(self.head.len() - 1));
        let rows: String = self.rows.iter().map(|row| line(row)).collect();
        format!("## {}\n\n{}{rule}{rows}\n", self.title, line(&self.head))
    }
}

impl fmt::Display for Table {
    /// Title, head and lines, each column as wide as its widest cell.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        let lines = || [&self.head].into_iter().chain(&self.rows);
        let width = |column: usize| lines().map(|row| row[column].chars().count()).max();
        let widths: Vec<usize> = (0..self.head.len()).filter_map(width).collect();
        for row in lines() {
            write!(f, "{:<1$}", row[0], widths[0])?;
            for (cell, width) in row.iter().zip(&widths).skip(1) {
                write!(f, "  {cell:>width$}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::table::{Spread, Table};

    #[test]
    fn median_of_an_even_number_is_the_mean_of_the_middle_two() {
        let spread = Spread::of([4.0, 1.0, 3.0, 100.0]).expect("four values");
        assert_eq!(
            spread,
            Spread {
                median: 3.5,
                least: 1.0,
                greatest: 100.0
            }
        );
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new("title", ["server", "x"]);
        table.row("mio", ["1.00 [0.90-1.10]".into()]);
        let text = "title\nserver                 x\nmio     1.00 [0.90-1.10]\n";
        assert_eq!(table.to_string(), text);
        let markdown = "## title\n\n| server | x |\n|---|--:|\n| mio | 1.00 [0.90-1.10] |\n\n";
        assert_eq!(table.markdown(), markdown);
    }
}
