//! docs/invariants.md: made of the table and of what a run has measured.

use crate::faults::MUTANTS;
use crate::table::INVARIANTS;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// How a fault was found.
pub struct Found {
    pub seed: Option<u64>,
    pub seconds: f64,
    /// What was said of it.
    pub line: String,
}

pub type Results = BTreeMap<&'static str, Found>;

const HEAD: &str = "\
# Invariants

What each promise (P), each invariant (I) and some other sections (S) of the design say, and what a repair (R) does, the tests that check it, and the faults that are planted for
it. `cargo xtask invariants` writes this file: it plants each fault (`mutant::is` in the sources), runs what should find it, and
fails where one lives on. The table it is made of is in `crates/cow-sim/tests/mutants`; a test compares the two.

| | says | tests | mutants |
|---|---|---|---|
";

const MIDDLE: &str = "
*Found at seed*: where chance looks for a fault, seeds are tried from the one that is known to find it. *Seconds*: until it was found, on
one thread, in the profile of the tests; where a test of another file finds it, with the start of cargo. The engine without the fault
passes the same seed, script or test.

| mutant | what it breaks | of | found by | seed | seconds |
|---|---|---|---|---|---|
";

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/invariants.md")
}

/// Without results the last two columns are empty.
fn render(results: &Results) -> String {
    let mut out = HEAD.to_owned();
    for row in INVARIANTS {
        let tests: Vec<String> = row.tests.iter().map(|test| short(test)).collect();
        let names: Vec<String> = row.mutants.iter().map(|name| format!("`{name}`")).collect();
        let (id, says) = (row.id, row.says);
        let _ = writeln!(out, "| {id} | {says} | {} | {} |", tests.join("; "), names.join(", "));
    }
    out.push_str(MIDDLE);
    for mutant in MUTANTS {
        let name = mutant.name;
        let of = INVARIANTS.iter().filter(|row| row.mutants.contains(&name)).map(|row| row.id);
        let of = of.collect::<Vec<_>>().join(", ");
        let found = results.get(name);
        let seed = found.and_then(|found| found.seed).map_or_else(String::new, |s| s.to_string());
        let seconds = found.map_or_else(String::new, |found| format!("{:.1}", found.seconds));
        let (breaks, killer) = (mutant.breaks, mutant.killer);
        let _ = writeln!(out, "| `{name}` | {breaks} | {of} | {killer} | {seed} | {seconds} |");
    }
    out
}

/// `cow-sim/tests/engine.rs crash_histories` as `engine.rs` crash_histories; other crates by name.
fn short(test: &str) -> String {
    let (file, name) = test.split_once(' ').unwrap_or((test, ""));
    let file = file.strip_prefix("cow-sim/tests/").unwrap_or(file);
    format!("`{file}` {name}")
}

/// Without what was measured: the last two columns of the second table.
fn names(text: &str) -> String {
    let (first, second) = text.split_once(MIDDLE).unwrap_or((text, ""));
    let rows = second.lines().map(|line| line.rsplitn(4, '|').last().unwrap_or_default());
    first.to_owned() + &rows.collect::<Vec<_>>().join("\n")
}

pub fn write(results: &Results) {
    std::fs::write(path(), render(results)).unwrap();
    println!("docs/invariants.md is written");
}

/// It is what `cargo xtask invariants` would write, but for what that measures.
#[test]
fn the_committed_table_is_this_one() {
    let committed = std::fs::read_to_string(path()).expect("docs/invariants.md");
    let (is, should) = (names(&committed), names(&render(&Results::new())));
    let differing = is.lines().zip(should.lines()).find(|(is, should)| is != should);
    assert_eq!(differing, None, "`cargo xtask invariants` writes it anew");
    assert_eq!(
        is.lines().count(),
        should.lines().count(),
        "`cargo xtask invariants` writes it anew"
    );
}
