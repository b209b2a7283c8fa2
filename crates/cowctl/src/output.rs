//! Standard output: tables for people, tabs for scripts, JSON for programs.

use crate::failure::Failure;
use serde_json::{Map, Value, json};
use std::io::{self, Write};

/// Writes one line.
pub fn line(text: impl AsRef<str>) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_ref().as_bytes())
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush())
        .map_err(Failure::Output)
}

/// Writes an object with its schema, `cowctl.NAME/1`.
pub fn json(name: &str, body: Value) -> Result<(), Failure> {
    let value = with_schema(name, body);
    let text = serde_json::to_string_pretty(&value).map_err(|e| Failure::Failed(e.to_string()))?;
    line(text)
}

/// The object with its schema.
pub fn with_schema(name: &str, body: Value) -> Value {
    let mut object = Map::new();
    object.insert("schema".into(), json!(format!("cowctl.{name}/1")));
    if let Value::Object(fields) = body {
        object.extend(fields);
    }
    Value::Object(object)
}

/// Rows of cells, shown in columns.
#[derive(Debug, Default)]
pub struct Table {
    /// Heads of the columns.
    pub heads: Vec<String>,
    /// Whether a column is of numbers, which stand to the right.
    pub right: Vec<bool>,
    /// The cells, as many in each row as there are heads.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// Writes it: aligned with its heads, or, for `scripts`, with tabs and without.
    pub fn print(&self, scripts: bool) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        let mut put = |text: String| writeln!(out, "{text}").map_err(Failure::Output);
        if scripts {
            return self.rows.iter().try_for_each(|row| put(row.join("\t")));
        }
        let width = |column: usize| {
            let cells = self.rows.iter().chain([&self.heads]).filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.heads.len()).map(width).collect();
        for row in [&self.heads].into_iter().chain(&self.rows) {
            let cells = row.iter().enumerate().map(|(column, cell)| {
                let width = widths.get(column).copied().unwrap_or(0);
                match self.right.get(column) {
                    Some(true) => format!("{cell:>width$}"),
                    _ => format!("{cell:<width$}"),
                }
            });
            put(cells.collect::<Vec<_>>().join("  ").trim_end().to_owned())?;
        }
        out.flush().map_err(Failure::Output)
    }
}
