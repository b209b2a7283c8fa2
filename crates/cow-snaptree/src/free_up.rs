//! Which snapshots to delete so that a given amount of space comes back.
//!
//! The rule, so that nobody is surprised: candidates are the snapshots that are neither held nor
//! excluded by the caller, in the order *expired, undo, auto, user*, and in each class the oldest
//! first. The shortest beginning of that list that frees enough is taken; then, from its end
//! backwards, each snapshot is left out again without which the rest still frees enough. So nothing
//! of a later class goes while earlier ones suffice, and every snapshot that is named is needed.

use crate::node::Node;
use crate::tree::Tree;
use cow_format::NodeId;
use cow_format::entry::NodeKind;
use std::collections::BTreeSet;

/// Snapshots that are tried to be left out, at most: each costs the size of a set.
const MAX_TRIALS: usize = 512;

impl Tree {
    /// All that [`Tree::free_up`] may choose from, in its order. `now_ns` decides what has expired.
    pub fn free_up_candidates(&self, now_ns: u64, excluded: &BTreeSet<NodeId>) -> Vec<NodeId> {
        let may = |node: &&Node| {
            node.is_snapshot() && node.entry.holds == 0 && !excluded.contains(&node.entry.id)
        };
        let class = |node: &Node| match node.entry.kind {
            _ if node.entry.expiry_ns != 0 && node.entry.expiry_ns <= now_ns => 0,
            NodeKind::Undo => 1,
            NodeKind::Auto => 2,
            _ => 3,
        };
        let key = |node: &Node| (class(node), node.entry.created_ns, node.entry.id);
        let mut found: Vec<_> = self.iter().filter(may).map(key).collect();
        found.sort_unstable();
        found.into_iter().map(|(_, _, id)| id).collect()
    }

    /// A set of `candidates` whose deletion frees at least so many data blocks, as far as counts
    /// alone can tell; `None` if all of them together do not. Their kill rows must be loaded.
    pub fn free_up(&self, blocks: u64, candidates: &[NodeId]) -> Option<Vec<NodeId>> {
        let frees = |set: &[NodeId]| self.set_size(set).freed.data >= blocks;
        if !frees(candidates) {
            return None;
        }
        // More snapshots never free less.
        let (mut short, mut enough) = (0, candidates.len());
        while short < enough {
            let middle = (short + enough) / 2;
            if frees(&candidates[..middle]) {
                enough = middle;
            } else {
                short = middle + 1;
            }
        }
        let mut set = candidates[..enough].to_vec();
        // The last one is needed: it made the beginning long enough.
        let last = set.len().saturating_sub(1);
        for at in (last.saturating_sub(MAX_TRIALS)..last).rev() {
            let without = [&set[..at], &set[at + 1..]].concat();
            if frees(&without) {
                set = without;
            }
        }
        Some(set)
    }
}
