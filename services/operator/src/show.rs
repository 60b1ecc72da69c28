//! How replies are printed: aligned columns for operators, JSON for programs.

use std::io::Write as _;

use anyhow::Context as _;
use chrono::{DateTime, SecondsFormat};
use serde_json::Value;

/// Rows under their headings.
pub struct Table {
    rows: Vec<Vec<String>>,
    nobody: &'static str,
}

impl Table {
    /// A table with these headings.
    pub fn new<const N: usize>(headings: [&str; N]) -> Self {
        Self {
            rows: vec![headings.map(str::to_owned).to_vec()],
            nobody: "nothing",
        }
    }

    /// A table of people, with these headings.
    pub fn of_people<const N: usize>(headings: [&str; N]) -> Self {
        Self {
            nobody: "nobody",
            ..Self::new(headings)
        }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }

    /// The lines, columns aligned; `nobody` under the headings where there is no row.
    fn lines(&self) -> Vec<String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths);
            let padded: Vec<String> = cells.map(|(cell, width)| format!("{cell:<width$}")).collect();
            padded.join("  ").trim_end().to_owned()
        };
        let mut lines: Vec<String> = self.rows.iter().map(line).collect();
        if self.rows.len() == 1 {
            lines.push(self.nobody.to_owned());
        }
        lines
    }
}

/// Prints one or the other.
pub fn print(json: bool, value: &Value, table: &Table) -> anyhow::Result<()> {
    let text = if json {
        serde_json::to_string_pretty(value)?
    } else {
        table.lines().join("\n")
    };
    line(&text)
}

/// Prints a line.
pub fn line(text: &str) -> anyhow::Result<()> {
    // What others chose, an id or an error, must not steer the terminal.
    let text: String = text.chars().filter(|c| *c == '\n' || !c.is_control()).collect();
    writeln!(std::io::stdout().lock(), "{text}").context("cannot print")
}

/// A word beside the answer.
pub fn warn(text: &str) {
    // Nothing is left to report to when stderr is closed.
    let _ = writeln!(std::io::stderr().lock(), "parlance: {text}");
}

/// A time as text.
pub fn at_ms(ms: i64) -> String {
    match DateTime::from_timestamp_millis(ms) {
        Some(at) if ms != 0 => at.to_rfc3339_opts(SecondsFormat::Millis, true),
        _ => "-".to_owned(),
    }
}

/// A time as text.
pub fn at_seconds(seconds: i64) -> String {
    at_ms(seconds.saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(["GATEWAY", "N"]);
        table.row(["gw-1".to_owned(), "7".to_owned()]);
        table.row(["a longer one".to_owned(), "12".to_owned()]);
        assert_eq!(
            table.lines(),
            ["GATEWAY       N", "gw-1          7", "a longer one  12"]
        );
    }

    #[test]
    fn a_table_without_rows_says_so() {
        assert_eq!(Table::of_people(["USER", "N"]).lines(), ["USER  N", "nobody"]);
        assert_eq!(Table::new(["ID"]).lines(), ["ID", "nothing"]);
    }

    #[test]
    fn times_are_readable() {
        assert_eq!(at_seconds(1_700_000_000), "2023-11-14T22:13:20.000Z");
        assert_eq!(at_ms(0), "-");
    }
}
