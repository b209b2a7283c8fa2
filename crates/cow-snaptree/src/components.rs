//! The parts of a set whose sizes are independent of each other, for the walk that makes a size
//! exact where branches leave bounds.
//!
//! A part is a connected piece of the tree that goes when the set is deleted: nodes of the set, with
//! the deleted nodes above and between them. Its *leaves* are the surviving nodes first met below it.
//! A block born in the part lives on if and only if one of the leaves has it: what is below a leaf
//! has a pointer of that birth only if the leaf has (the lemma). What is older belongs to a node above
//! that survives. So the set frees, of this part, exactly the pointers that are younger than the node
//! above, that a node of the set has, and that no leaf has.

use crate::tree::Tree;
use cow_format::{Gen, NodeId};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Component {
    /// Nodes of the set, by ascending id.
    pub wanted: Vec<NodeId>,
    /// Surviving nodes below.
    pub leaves: Vec<NodeId>,
    /// Gen of the surviving node above.
    pub floor: Gen,
    /// Changes when the exact size may have.
    pub stamp: u64,
}

impl Tree {
    /// The parts of a set of live nodes, each with at least one of them.
    pub fn components(&self, ids: &[NodeId]) -> Vec<Component> {
        let set = self.live_set(ids);
        let region = self.region(&set);
        let mut found: BTreeMap<NodeId, (Component, DefaultHasher)> = BTreeMap::new();
        let mut top = NodeId(0);
        for visit in self.visits(&region, &set) {
            if visit.depth == 0 {
                top = visit.id;
            }
            let Some(node) = self.node(visit.id) else { continue };
            let (part, hasher) = found.entry(top).or_insert_with(|| {
                let part = Component { floor: self.parent_gen(top), ..Component::default() };
                (part, DefaultHasher::new())
            });
            (visit.id.0, visit.survives, node.row_changes, node.rooted).hash(hasher);
            if node.entry.inexact {
                // Damage kept a fold from counting what its map lost.
                node.map_changes.hash(hasher);
            }
            if visit.survives {
                part.leaves.push(visit.id);
            } else if set.contains(&visit.id) {
                node.map_changes.hash(hasher);
                part.wanted.push(visit.id);
            }
        }
        let parts = found.into_values().map(|(mut part, hasher)| {
            part.stamp = hasher.finish();
            part.wanted.sort_unstable();
            part
        });
        parts.filter(|part| !part.wanted.is_empty()).collect()
    }
}
