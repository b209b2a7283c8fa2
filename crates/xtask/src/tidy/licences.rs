//! Licences of everything that is linked or run, from cargo's metadata alone.

use super::Report;
use crate::metadata::Metadata;

/// Permissive licences, as SPDX names them.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "Unlicense",
    "Zlib",
];

pub fn check(metadata: &Metadata, report: &mut Report) {
    for package in &metadata.packages {
        let crate_ = format!("{} {}", package.name, package.version);
        match &package.license {
            None => report.error(format!("{crate_}: names no licence")),
            Some(licence) if !is_allowed(licence) => {
                report.error(format!("{crate_}: the licence `{licence}` is not on tidy's list"));
            }
            Some(_) => {}
        }
    }
}

/// Does the expression leave us a choice that is on the list? A malformed one does not.
pub fn is_allowed(expression: &str) -> bool {
    // `MIT/Apache-2.0` is the old way to write OR.
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    any_of(&mut rest) == Some(true) && rest.is_empty()
}

fn any_of(rest: &mut &[&str]) -> Option<bool> {
    let mut allowed = all_of(rest)?;
    while take(rest, "OR") {
        allowed |= all_of(rest)?;
    }
    Some(allowed)
}

fn all_of(rest: &mut &[&str]) -> Option<bool> {
    let mut allowed = one(rest)?;
    while take(rest, "AND") {
        allowed &= one(rest)?;
    }
    Some(allowed)
}

fn one(rest: &mut &[&str]) -> Option<bool> {
    if take(rest, "(") {
        let allowed = any_of(rest)?;
        return take(rest, ")").then_some(allowed);
    }
    let name = next(rest)?;
    if take(rest, "WITH") {
        let with = format!("{name} WITH {}", next(rest)?);
        return Some(ALLOWED.contains(&with.as_str()));
    }
    Some(ALLOWED.contains(&name))
}

fn next<'a>(rest: &mut &[&'a str]) -> Option<&'a str> {
    let (first, tail) = rest.split_first()?;
    *rest = tail;
    Some(first)
}

fn take(rest: &mut &[&str], word: &str) -> bool {
    let found = rest.first() == Some(&word);
    if found {
        *rest = &rest[1..];
    }
    found
}
