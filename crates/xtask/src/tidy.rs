//! `cargo xtask tidy`: the rules of the house that neither the compiler nor clippy checks.
//!
//! Everything is read at the level of text and of `cargo metadata`: quick, and wrong only on the
//! side that a reader notices. A rule that needs an exception has a list with a reason beside it;
//! an exception that is no longer needed is an error too, so the lists only shrink.

mod arrows;
mod files;
mod graph;
mod lex;
mod licences;
mod modules;
mod sources;
#[cfg(test)]
mod tests;

use crate::metadata::Metadata;
use anyhow::{Result, bail};
use std::path::Path;

/// What tidy found.
#[derive(Default)]
struct Report {
    errors: Vec<String>,
    notes: Vec<String>,
}

impl Report {
    fn error(&mut self, message: impl Into<String>) {
        self.errors.push(message.into());
    }

    fn note(&mut self, message: impl Into<String>) {
        self.notes.push(message.into());
    }
}

pub fn run() -> Result<()> {
    let report = check(Path::new("."))?;
    for note in &report.notes {
        println!("note: {note}");
    }
    for error in &report.errors {
        println!("error: {error}");
    }
    match report.errors.len() {
        0 => println!("clean"),
        count => bail!("{count} errors"),
    }
    Ok(())
}

/// Checks the workspace around `dir`.
fn check(dir: &Path) -> Result<Report> {
    let metadata = Metadata::load(dir)?;
    let tree = files::Tree::read(&metadata.root)?;
    let mut report = Report::default();
    arrows::check(&metadata, &tree, &mut report);
    modules::check(&metadata, &tree, &mut report);
    licences::check(&metadata, &mut report);
    files::check(&tree, &mut report);
    sources::check(&metadata, &tree, &mut report);
    Ok(report)
}
