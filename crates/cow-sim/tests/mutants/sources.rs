//! The table against the sources: whatever is planted stands in it, and whatever it names is there.

use crate::faults::MUTANTS;
use crate::table::{self, INVARIANTS, Killer};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
}

/// The faults that the sources ask for.
fn planted() -> BTreeSet<String> {
    let mut files = Vec::new();
    for dir in std::fs::read_dir(crates()).unwrap() {
        let src = dir.unwrap().path().join("src");
        if src.is_dir() {
            rust_files(&src, &mut files);
        }
    }
    let mut names = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(file).unwrap();
        let calls = text.split("mutant::is(\"").skip(1);
        names.extend(calls.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
    }
    names
}

#[test]
fn every_invariant_and_promise_has_a_mutant_and_a_test() {
    let promises = (1..=7).map(|n| format!("P{n}"));
    let wanted: Vec<String> = promises.chain((1..=28).map(|n| format!("I{n}"))).collect();
    let found: Vec<&str> = INVARIANTS.iter().map(|row| row.id).collect();
    assert_eq!(found[..wanted.len()], wanted);
    for row in INVARIANTS {
        assert!(!row.mutants.is_empty(), "{} has no mutant", row.id);
        assert!(!row.tests.is_empty(), "{} has no test", row.id);
    }
}

#[test]
fn every_mutant_belongs_to_an_invariant() {
    let known: Vec<&str> = MUTANTS.iter().map(|mutant| mutant.name).collect();
    let names: BTreeSet<&str> = known.iter().copied().collect();
    assert_eq!(names.len(), known.len(), "one stands there twice");
    let in_rows: BTreeSet<&str> =
        INVARIANTS.iter().flat_map(|row| row.mutants.iter().copied()).collect();
    assert_eq!(names, in_rows, "mutants, and those that rows name");
}

#[test]
fn every_planted_fault_is_in_the_table() {
    let names: BTreeSet<String> = MUTANTS.iter().map(|mutant| mutant.name.to_owned()).collect();
    assert_eq!(planted(), names, "in the sources, and in the table");
}

/// A test is named as `CRATE/FILE NAME`.
#[test]
fn every_test_that_is_named_is_there() {
    let killers = MUTANTS.iter().filter_map(|mutant| match mutant.killer {
        Killer::Test(target, name) | Killer::Planted(target, name) => {
            Some(table::test_of(target, name))
        }
        Killer::Threads(name) => Some(format!("cowstore/tests/threads/checks.rs {name}")),
        _ => None,
    });
    let rows = INVARIANTS.iter().flat_map(|row| row.tests.iter().map(|test| (*test).to_owned()));
    for test in killers.chain(rows) {
        let (file, name) =
            test.split_once(' ').unwrap_or_else(|| panic!("{test}: no test is named"));
        let text = std::fs::read_to_string(crates().join(file));
        let text = text.unwrap_or_else(|error| panic!("{test}: {error}"));
        assert!(text.contains(&format!("fn {name}(")), "{test}: there is no such test");
    }
}
