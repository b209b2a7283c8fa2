//! The files of the tree: which there may be, how long, and what must not stand in them.

use super::Report;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

/// What may lie at the top of the tree, beside dotfiles and licences.
const TOP_LEVEL: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "CHANGELOG.md",
    "benches",
    "crates",
    "docs",
    "fuzz",
    "tests",
];

/// Above this a file is named, so that a reader may think of a seam to cut it at.
const LONG_LINES: usize = 400;
/// Above this it is refused.
const TOO_LONG_LINES: usize = 700;
/// Files that may be longer, each with its reason.
const TOO_LONG_ALLOWED: &[(&str, &str)] = &[];

/// Paths that exist on one machine only. In pieces: this file is searched too.
const MACHINE_PATHS: &[&str] =
    &[concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Us", "ers/"), concat!("/wo", "rk/")];

/// What a merge that was not finished leaves at the beginning of a line; it says more behind it.
const CONFLICTS: &[&str] = &[concat!("<<<<", "<<< "), concat!(">>>>", ">>> ")];

/// Macros that leave a hole in the code.
const HOLES: &[&str] = &[concat!("to", "do!("), concat!("unimple", "mented!(")];

/// The files that are, or are about to be, under version control.
pub struct Tree {
    /// Path from the root, text if it is text.
    files: BTreeMap<String, Option<String>>,
}

impl Tree {
    pub fn read(root: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        for path in paths(root)? {
            let file = root.join(&path);
            // Deleted but still in the index, or a link: nothing to read.
            if file.symlink_metadata().is_ok_and(|m| m.is_file()) {
                let bytes = std::fs::read(&file).with_context(|| format!("reading {path}"))?;
                files.insert(path, String::from_utf8(bytes).ok());
            }
        }
        Ok(Self { files })
    }

    pub fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path)?.as_deref()
    }

    /// All text files with their paths.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().filter_map(|(path, text)| Some((path.as_str(), text.as_deref()?)))
    }

    /// The Rust files below the directory `dir`.
    pub fn rust_files(&self, dir: &str) -> impl Iterator<Item = (&str, &str)> {
        let prefix = format!("{dir}/");
        self.texts().filter(move |(path, _)| path.starts_with(&prefix) && path.ends_with(".rs"))
    }
}

/// From git when there is a checkout and a git that accepts it, else from the directory itself.
fn paths(root: &Path) -> Result<Vec<String>> {
    if root.join(".git").exists()
        && let Ok(output) = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
        && output.status.success()
    {
        let text = String::from_utf8(output.stdout).context("a file name that is not UTF-8")?;
        return Ok(text.split_terminator('\0').map(str::to_owned).collect());
    }
    let mut found = Vec::new();
    walk(root, "", &mut found)?;
    Ok(found)
}

fn walk(dir: &Path, prefix: &str, found: &mut Vec<String>) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().into_string().ok().context("a file name that is not UTF-8")?;
        let path = format!("{prefix}{name}");
        if !entry.file_type()?.is_dir() {
            found.push(path);
        } else if name != "target" && name != ".git" {
            walk(&entry.path(), &format!("{path}/"), found)?;
        }
    }
    Ok(())
}

pub fn check(tree: &Tree, report: &mut Report) {
    top_level(tree, report);
    lengths(tree, report);
    for (path, text) in tree.texts() {
        words(path, text, report);
    }
}

fn top_level(tree: &Tree, report: &mut Report) {
    let mut entries: Vec<&str> =
        tree.files.keys().map(|path| path.split('/').next().unwrap_or(path)).collect();
    entries.dedup();
    for entry in entries {
        let allowed = entry.starts_with('.') || entry.starts_with("LICENSE-");
        if !allowed && !TOP_LEVEL.contains(&entry) {
            report.error(format!("{entry}: not among the top-level entries that tidy knows"));
        }
    }
}

fn lengths(tree: &Tree, report: &mut Report) {
    for (path, text) in tree.texts().filter(|(path, _)| path.ends_with(".rs")) {
        let lines = text.lines().count();
        let allowed = TOO_LONG_ALLOWED.iter().any(|(file, _)| *file == path);
        if lines > TOO_LONG_LINES && !allowed {
            report.error(format!("{path}: {lines} lines, {TOO_LONG_LINES} at most"));
        } else if lines > LONG_LINES {
            report.note(format!("{path}: {lines} lines, about {LONG_LINES} is the aim"));
        }
    }
    for (path, _) in TOO_LONG_ALLOWED {
        if tree.text(path).is_none_or(|text| text.lines().count() <= TOO_LONG_LINES) {
            report.error(format!("{path}: take it off tidy's list of longer files"));
        }
    }
}

fn words(path: &str, text: &str, report: &mut Report) {
    for (index, line) in text.lines().enumerate() {
        let mut refuse = |word| report.error(format!("{path}:{}: `{word}`", index + 1));
        MACHINE_PATHS.iter().filter(|word| names_absolute_path(line, word)).for_each(&mut refuse);
        CONFLICTS.iter().filter(|word| line.starts_with(**word)).for_each(&mut refuse);
        if path.ends_with(".rs") {
            HOLES.iter().filter(|word| line.contains(**word)).for_each(&mut refuse);
        }
    }
}

/// Does `word` begin a path in `line`, and not merely continue one?
fn names_absolute_path(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| !(c.is_alphanumeric() || "/._-})>*".contains(c)))
            || line[..at].ends_with("file://")
    })
}
