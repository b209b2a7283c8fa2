//! `tree`.

use crate::args::Json;
use crate::commands::list::row;
use crate::failure::Failure;
use crate::output;
use crate::session::{self, Access};
use crate::units::{human_size, human_time};
use cowstore::{NodeInfo, NodeKind};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

pub fn tree(path: &Path, args: &Json) -> Result<(), Failure> {
    let nodes = session::with(path, Access::Look, |pool| pool.list(true))?;
    if args.json {
        // Flat, each with its depth and parent: a chain may be thousands deep.
        let item = |found: Found<'_>| {
            let mut value = row(found.node);
            value["depth"] = json!(found.depth);
            value
        };
        let items: Vec<Value> = walk(&nodes).into_iter().map(item).collect();
        return output::json("tree", json!({"items": items}));
    }
    draw(&nodes).iter().try_for_each(output::line)
}

/// The tree in lines of text. A chain stays in its column; only branches are set in.
pub fn draw(nodes: &[NodeInfo]) -> Vec<String> {
    walk(nodes).iter().map(|found| format!("{}{}", found.indent, label(found.node))).collect()
}

/// A node, where the walk meets it.
struct Found<'a> {
    node: &'a NodeInfo,
    depth: usize,
    indent: String,
}

/// Depth first, the older before the younger. Deleted nodes are not listed: what was below one
/// is a root here.
fn walk(nodes: &[NodeInfo]) -> Vec<Found<'_>> {
    let by_id: BTreeMap<u64, &NodeInfo> = nodes.iter().map(|node| (node.node, node)).collect();
    let mut children: BTreeMap<Option<u64>, Vec<u64>> = BTreeMap::new();
    for (&id, node) in &by_id {
        let parent = node.parent.filter(|parent| *parent != id && by_id.contains_key(parent));
        children.entry(parent).or_default().push(id);
    }
    for siblings in children.values_mut() {
        siblings.sort_by_key(|id| by_id.get(id).map(|n| (n.is_volume(), n.created_ns, *id)));
    }
    let below = |id: Option<u64>| children.get(&id).map_or(&[][..], Vec::as_slice);
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    let roots = below(None).iter().rev();
    let mut stack: Vec<_> = roots.map(|&id| (id, 0, String::new(), String::new())).collect();
    while let Some((id, depth, indent, rest)) = stack.pop() {
        let Some(node) = by_id.get(&id).filter(|_| seen.insert(id)) else { continue };
        found.push(Found { node, depth, indent });
        let siblings = below(Some(id));
        for (index, &child) in siblings.iter().enumerate().rev() {
            let (arm, bar) = match (siblings.len(), index + 1 == siblings.len()) {
                (1, _) => ("", ""),
                (_, false) => ("├─ ", "│  "),
                (_, true) => ("└─ ", "   "),
            };
            stack.push((child, depth + 1, format!("{rest}{arm}"), format!("{rest}{bar}")));
        }
    }
    found
}

fn label(node: &NodeInfo) -> String {
    let unique = node.unique_bytes.map_or_else(|| "computing".to_owned(), human_size);
    let kind = match (node.is_volume(), node.kind) {
        (true, _) => "  (volume)",
        (_, NodeKind::Undo) => "  (undo)",
        (_, NodeKind::Auto) => "  (auto)",
        _ => "",
    };
    let when = human_time(node.created_ns).unwrap_or_default();
    format!("{}{kind}  unique {unique}  {when}", node.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, id: u64, parent: Option<u64>) -> NodeInfo {
        let kind = if name.contains('@') { NodeKind::User } else { NodeKind::Head };
        let created_ns = id * 1_000_000_000;
        NodeInfo { name: name.into(), node: id, parent, kind, created_ns, ..NodeInfo::default() }
    }

    #[test]
    fn branches_are_set_in_and_chains_are_not() {
        let nodes = [
            node("vm", 9, Some(2)),
            node("vm@a", 1, None),
            node("vm@b", 2, Some(1)),
            node("vm@undo.1", 3, Some(2)),
            node("other", 5, None),
        ];
        let words: Vec<String> =
            draw(&nodes).iter().map(|line| line.split("  unique").next().unwrap().into()).collect();
        let want = ["vm@a", "vm@b", "├─ vm@undo.1", "└─ vm  (volume)", "other  (volume)"];
        assert_eq!(words, want);
        assert_eq!(walk(&nodes).iter().map(|f| f.depth).collect::<Vec<_>>(), [0, 1, 2, 2, 0]);
    }

    #[test]
    fn a_circle_ends() {
        assert!(walk(&[node("a", 1, Some(2)), node("b", 2, Some(1))]).is_empty());
    }
}
