//! Directed graphs of names, small enough for the plainest search.

use std::collections::{BTreeMap, BTreeSet};

/// From each name to the names it points at.
pub type Graph = BTreeMap<String, BTreeSet<String>>;

/// Some circle, its first name repeated at the end; `None` if there is none.
pub fn find_cycle(graph: &Graph) -> Option<Vec<String>> {
    let mut finished = BTreeSet::new();
    graph.keys().find_map(|start| visit(graph, start, &mut Vec::new(), &mut finished))
}

fn visit<'a>(
    graph: &'a Graph,
    name: &'a str,
    path: &mut Vec<&'a str>,
    finished: &mut BTreeSet<&'a str>,
) -> Option<Vec<String>> {
    if finished.contains(name) {
        return None;
    }
    if let Some(start) = path.iter().position(|seen| *seen == name) {
        let mut cycle: Vec<String> = path[start..].iter().map(|name| (*name).to_owned()).collect();
        cycle.push(name.to_owned());
        return Some(cycle);
    }
    path.push(name);
    let found =
        graph.get(name).into_iter().flatten().find_map(|next| visit(graph, next, path, finished));
    path.pop();
    finished.insert(name);
    found
}
