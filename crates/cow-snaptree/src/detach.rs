//! Subtrees of maps that were cut off by a discard and are counted later, bit by bit.
//!
//! Until then the node that discarded them has counts and a kill row that miss what is left: sizes that
//! need these are not exact. What it maps is too high, and so is what every node below it maps:
//! they all began after the discard, from its map.

use crate::tree::Tree;
use cow_format::NodeId;
use cow_format::entry::Count;
use std::collections::BTreeSet;

impl Tree {
    /// A subtree of the map of `x` was cut off.
    pub fn note_detached(&mut self, x: NodeId) {
        self.detached.insert(x);
        if let Some(node) = self.node_cache_mut(x) {
            node.row_changes += 1;
        }
    }

    /// Exactly these nodes have subtrees that were cut off and are not all counted.
    pub fn set_detached(&mut self, ids: BTreeSet<NodeId>) {
        self.detached = ids;
    }

    /// So many pointers of a subtree that `x` had cut off were let go of, on behalf of `x`: the nodes
    /// below it do not have them either.
    pub fn note_detached_gone(&mut self, x: NodeId, gone: Count) {
        let mut stack = self.children(x).to_vec();
        while let Some(id) = stack.pop() {
            stack.extend(self.children(id));
            if self.node(id).is_some_and(|node| node.rooted) {
                self.note_mapped_delta(id, false, -(gone.data as i64));
                self.note_mapped_delta(id, true, -(gone.map as i64));
            }
        }
    }

    /// Whether counts or the kill row of a node miss something.
    pub(crate) fn is_miscounted(&self, id: NodeId) -> bool {
        self.detached.contains(&id) || self.node(id).is_some_and(|node| node.entry.inexact)
    }

    /// Whether what a node maps is counted too high.
    pub(crate) fn is_mapped_inexact(&self, id: NodeId) -> bool {
        let mut at = Some(id).filter(|_| !self.detached.is_empty());
        while let Some(id) = at {
            if self.detached.contains(&id) {
                return true;
            }
            at = self.parent(id).map(|parent| parent.entry.id);
        }
        false
    }
}
