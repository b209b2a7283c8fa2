//! Circles among the top-level modules of a crate.
//!
//! A module points at another when it names a path into it: `crate::x`, `super::x`, or a name that
//! the crate root re-exports from it. The root itself (lib.rs, main.rs) belongs to no circle, and
//! neither does code for tests.

use super::Report;
use super::files::Tree;
use super::graph::{Graph, find_cycle};
use super::lex::{Shipped, Token, Word, lex, without_tests};
use crate::metadata::{Metadata, Package};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Module path from the crate root; empty for the root.
type ModPath = Vec<String>;

struct Source<'a> {
    file: &'a str,
    module: ModPath,
    code: Shipped,
}

/// A path as written, with the name it goes by where it is imported.
struct Named {
    segments: Vec<String>,
    alias: Option<String>,
    line: usize,
}

pub fn check(metadata: &Metadata, tree: &Tree, report: &mut Report) {
    for package in metadata.members() {
        let Some(dir) = source_dir(package, &metadata.root) else { continue };
        let sources = read(tree, &dir);
        let (graph, places) = imports(&sources);
        if let Some(cycle) = find_cycle(&graph) {
            let steps = cycle.windows(2).map(|step| {
                let place = places.get(&(step[0].clone(), step[1].clone()));
                format!("{} -> {} ({})", step[0], step[1], place.map_or("", String::as_str))
            });
            let steps: Vec<_> = steps.collect();
            report.error(format!("{}: modules in a circle: {}", package.name, steps.join(", ")));
        }
    }
}

/// `src` of the package, from the root of the workspace.
pub fn source_dir(package: &Package, root: &Path) -> Option<String> {
    let dir = package.dir.strip_prefix(root).ok()?.join("src");
    Some(dir.to_str()?.to_owned())
}

fn read<'a>(tree: &'a Tree, dir: &str) -> Vec<Source<'a>> {
    let mut sources = Vec::new();
    for (file, text) in tree.rust_files(dir) {
        if let Some(module) = module_path(&file[dir.len() + 1..]) {
            sources.push(Source { file, module, code: without_tests(&lex(text)) });
        }
    }
    let test_modules: Vec<ModPath> = sources
        .iter()
        .flat_map(|source| {
            let inside =
                |name: &String| [source.module.as_slice(), std::slice::from_ref(name)].concat();
            source.code.test_modules.iter().map(inside)
        })
        .collect();
    sources.retain(|source| !test_modules.iter().any(|test| source.module.starts_with(test)));
    sources
}

/// `None` for what belongs to no module: tests and further binaries.
fn module_path(file: &str) -> Option<ModPath> {
    let mut path: ModPath = file.strip_suffix(".rs")?.split('/').map(str::to_owned).collect();
    if path.last().is_some_and(|last| last == "mod") {
        path.pop();
    }
    if path[0] == "bin" || path.iter().any(|part| part == "tests") {
        return None;
    }
    if path.len() == 1 && (path[0] == "lib" || path[0] == "main") {
        path.clear();
    }
    Some(path)
}

/// The arrows between top-level modules, and where each is first seen.
fn imports(sources: &[Source]) -> (Graph, BTreeMap<(String, String), String>) {
    let modules: BTreeSet<&str> =
        sources.iter().filter_map(|source| Some(source.module.first()?.as_str())).collect();
    let reexports = reexports(sources, &modules);
    let (mut graph, mut places) = (Graph::new(), BTreeMap::new());
    for source in sources {
        let Some(from) = source.module.first() else { continue };
        for (path, line) in resolved_paths(&source.code.tokens, &source.module) {
            let Some(name) = path.first() else { continue };
            let module = modules.get(name.as_str()).copied();
            let Some(to) = module.or_else(|| reexports.get(name).map(String::as_str)) else {
                continue;
            };
            if to != from {
                graph.entry(from.clone()).or_default().insert(to.to_owned());
                places
                    .entry((from.clone(), to.to_owned()))
                    .or_insert_with(|| format!("{}:{line}", source.file));
            }
        }
    }
    (graph, places)
}

/// Names that the crate root takes from a module, with that module.
fn reexports(sources: &[Source], modules: &BTreeSet<&str>) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for source in sources.iter().filter(|source| source.module.is_empty()) {
        let tokens = &source.code.tokens;
        for at in (0..tokens.len()).filter(|at| tokens[*at].is_ident("use")) {
            let mut names = Vec::new();
            path_tree(tokens, at + 1, &[], &mut names);
            for Named { mut segments, alias, .. } in names {
                if matches!(segments[0].as_str(), "crate" | "self") {
                    segments.remove(0);
                }
                if segments.len() > 1 && modules.contains(segments[0].as_str()) {
                    let name = alias.or_else(|| segments.last().cloned()).unwrap_or_default();
                    found.insert(name, segments[0].clone());
                }
            }
        }
    }
    found
}

/// Every path in `tokens` that starts at `crate`, `super` or `self`, counted from the crate root.
fn resolved_paths(tokens: &[Token], module: &[String]) -> Vec<(ModPath, usize)> {
    let mut found = Vec::new();
    let mut here = module.to_vec();
    // Brace depths at which an inline module began.
    let mut inline = Vec::new();
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        match &token.word {
            Word::Sign('{') => {
                depth += 1;
                if at >= 2 && tokens[at - 2].is_ident("mod") {
                    here.extend(tokens[at - 1].ident().map(str::to_owned));
                    inline.push(depth);
                }
            }
            Word::Sign('}') => {
                if inline.last() == Some(&depth) {
                    inline.pop();
                    here.pop();
                }
                depth -= 1;
            }
            Word::Ident(name) if matches!(name.as_str(), "crate" | "super" | "self") => {
                let continues = at > 0 && tokens[at - 1].word == Word::PathSep;
                let leads = tokens.get(at + 1).is_some_and(|next| next.word == Word::PathSep);
                if leads && !continues {
                    let mut names = Vec::new();
                    path_tree(tokens, at, &[], &mut names);
                    found.extend(names.into_iter().map(|n| (resolve(&n.segments, &here), n.line)));
                }
            }
            _ => {}
        }
    }
    found
}

fn resolve(segments: &[String], here: &[String]) -> ModPath {
    let mut path = here.to_vec();
    for segment in segments {
        match segment.as_str() {
            "crate" => path.clear(),
            "self" => {}
            "super" => {
                path.pop();
            }
            name => path.push(name.to_owned()),
        }
    }
    path
}

/// Flattens the path at `at`, braces included; returns where it ends.
fn path_tree(tokens: &[Token], mut at: usize, prefix: &[String], out: &mut Vec<Named>) -> usize {
    let line = tokens.get(at).map_or(0, |token| token.line);
    let mut segments = prefix.to_vec();
    let mut alias = None;
    while let Some(token) = tokens.get(at) {
        if token.is_sign('{') {
            at += 1;
            while tokens.get(at).is_some_and(|token| !token.is_sign('}')) {
                at = path_tree(tokens, at, &segments, out).max(at + 1);
                at += usize::from(tokens.get(at).is_some_and(|token| token.is_sign(',')));
            }
            return at + 1;
        }
        if let Some(name) = token.ident() {
            segments.push(name.to_owned());
            at += 1;
        } else if token.is_sign('*') {
            at += 1;
            break;
        } else if token.word != Word::PathSep {
            break;
        }
        if tokens.get(at).is_none_or(|token| token.word != Word::PathSep) {
            break;
        }
        at += 1;
    }
    if tokens.get(at).is_some_and(|token| token.is_ident("as")) {
        alias = tokens.get(at + 1).and_then(Token::ident).map(str::to_owned);
        at += 2;
    }
    if !segments.is_empty() {
        out.push(Named { segments, alias, line });
    }
    at
}
