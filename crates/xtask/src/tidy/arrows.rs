//! Arrows between crates: what cargo reports against what docs/ARCHITECTURE.md lists.
//!
//! The document holds a fenced block `arrows` with lines `from -> to to ...`; dev-dependencies, which
//! may point upwards, stand in a block `dev-arrows`.

use super::Report;
use super::files::Tree;
use super::graph::{Graph, find_cycle};
use crate::metadata::{Metadata, Package};
use std::collections::BTreeSet;

const MAP: &str = "docs/ARCHITECTURE.md";

type Arrows = BTreeSet<(String, String)>;

pub fn check(metadata: &Metadata, tree: &Tree, report: &mut Report) {
    let Some(text) = tree.text(MAP) else {
        report.error(format!("{MAP}: not there, or not text"));
        return;
    };
    let members: BTreeSet<&str> = metadata.members().map(|package| package.name.as_str()).collect();
    for (block, dev) in [("arrows", false), ("dev-arrows", true)] {
        let listed = parse(text, block, report);
        for name in listed.iter().flat_map(|(from, to)| [from, to]) {
            if !members.contains(name.as_str()) {
                report.error(format!("{MAP}: `{name}` is no crate of the workspace"));
            }
        }
        let actual = actual(metadata, &members, dev);
        for (from, to) in actual.difference(&listed) {
            report.error(format!("{from} -> {to}: not among the `{block}` of {MAP}"));
        }
        for (from, to) in listed.difference(&actual) {
            report.error(format!(
                "{MAP}: {from} -> {to} is listed in `{block}` but no longer exists"
            ));
        }
        if !dev && let Some(cycle) = find_cycle(&graph(&listed)) {
            report.error(format!("{MAP}: the arrows run in a circle: {}", cycle.join(" -> ")));
        }
    }
}

/// The arrows of one fenced block; `#` starts a comment.
fn parse(text: &str, block: &str, report: &mut Report) -> Arrows {
    let mut arrows = Arrows::new();
    let fence = format!("```{block}");
    let lines = text.lines().enumerate().skip_while(|(_, line)| line.trim_end() != fence).skip(1);
    for (index, line) in lines.take_while(|(_, line)| !line.starts_with("```")) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let Some((from, to)) = line.split_once("->") else {
            report.error(format!("{MAP}:{}: not of the form `from -> to to ...`", index + 1));
            continue;
        };
        for to in to.split_whitespace() {
            if !arrows.insert((from.trim().to_owned(), to.to_owned())) {
                report.error(format!("{MAP}:{}: the arrow to {to} is listed twice", index + 1));
            }
        }
    }
    arrows
}

fn actual(metadata: &Metadata, members: &BTreeSet<&str>, dev: bool) -> Arrows {
    let inside = |package: &Package| {
        let deps = package.deps.iter();
        deps.filter(|dep| dep.local && dep.dev == dev && members.contains(dep.name.as_str()))
            .map(|dep| (package.name.clone(), dep.name.clone()))
            .collect::<Vec<_>>()
    };
    metadata.members().flat_map(inside).collect()
}

fn graph(arrows: &Arrows) -> Graph {
    let mut graph = Graph::new();
    for (from, to) in arrows {
        graph.entry(from.clone()).or_default().insert(to.clone());
    }
    graph
}
