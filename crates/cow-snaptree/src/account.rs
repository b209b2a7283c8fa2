//! The fold's accounting: who is born, who dies, who is free. Design sections 1 and 3.

use crate::node::UNKNOWN;
use crate::row::{add, sub, unit};
use crate::tree::Tree;
use cow_format::entry::{Count, NodeState, Root};
use cow_format::{Gen, NodeId, mutant};

impl Tree {
    /// Nodes that no fold has seen, parents before children (R1): each must go through
    /// [`Tree::root_for_fold`] in this fold even if it has no layer.
    pub fn unrooted(&self) -> Vec<NodeId> {
        let mut ids: Vec<NodeId> = self.unrooted.iter().copied().collect();
        ids.sort_by_key(|&id| (self.node(id).map(|node| node.entry.label_gen), id));
        ids
    }

    /// The root that a fold merges the node's layers into. A node that no fold has seen gets its
    /// parent's, as folded in this fold, and its mapped counts with it.
    pub fn root_for_fold(&mut self, id: NodeId) -> Root {
        let Some(node) = self.node(id) else { return Root::default() };
        if node.rooted {
            return node.entry.root;
        }
        let from = self.parent(id).map(|parent| {
            debug_assert!(parent.rooted, "a node is folded before its parent");
            (parent.entry.root, parent.entry.mapped)
        });
        self.unrooted.remove(&id);
        let Some(node) = self.node_mut(id) else { return Root::default() };
        node.rooted = true;
        if let Some((root, mapped)) = from {
            node.entry.root = root;
            node.entry.mapped = mapped;
        }
        node.entry.root
    }

    /// A fold wrote the node's map anew.
    pub fn set_root(&mut self, id: NodeId, root: Root) {
        if let Some(node) = self.node_mut(id) {
            debug_assert!(node.rooted, "a root for a node whose fold was not begun");
            node.entry.root = root;
            node.map_changes += 1;
        }
    }

    /// A content root was computed for the node's tree.
    pub fn set_merkle(&mut self, id: NodeId, merkle: [u8; 32]) {
        if let Some(node) = self.node_mut(id) {
            node.entry.merkle = Some(Box::new(merkle));
        }
    }

    /// Node `x` replaces or discards a pointer: to a map node or a data block, of this birth,
    /// whose range ends before block `range_end`. Returns whether the block is free; if not it
    /// is counted in the kill row.
    ///
    /// While the parent is being walked and its walker has passed the range, the pointer is
    /// judged against the grandparent: the walker kept it only because `x` had it (R4).
    pub fn kill(&mut self, x: NodeId, is_map: bool, birth: Gen, range_end: u64) -> bool {
        let Some(node) = self.node(x) else { return false };
        debug_assert!(birth <= node.entry.label_gen, "a pointer from the future");
        let parent = node.entry.parent;
        let above = self.parent_gen(x);
        let one = unit(is_map, 1);
        let passed = !mutant::is("nocursor")
            && self.node(parent).is_some_and(|node| {
                node.entry.state == NodeState::Walking && range_end <= node.entry.cursor
            });
        let equal = birth == above && birth > Gen(0) && mutant::is("killequal");
        let owner = if birth > above || equal {
            x
        } else if passed && birth > self.parent_gen(parent) {
            parent
        } else {
            self.count_kill(x, birth, one);
            return false;
        };
        debug_assert!(equal || owner == self.owner(x, birth), "a freed pointer has another owner");
        if let Some(node) = self.node_mut(owner) {
            node.entry.own = sub(node.entry.own, one);
            let born = sub(node.entry.born, one);
            self.set_born(owner, born);
        }
        true
    }

    fn count_kill(&mut self, x: NodeId, birth: Gen, one: Count) {
        let Some(node) = self.node_cache_mut(x) else { return };
        node.row.add(birth, one);
        node.row_changes += 1;
        let parent = node.entry.parent;
        self.dirty_rows.insert(x);
        self.untrim(parent);
        // The parent's own figure goes with it while `x` is its only child.
        let grand = self.parent_gen(parent);
        if birth > grand
            && let Some(above) = self.node(parent)
            && above.children.len() == 1
            && above.entry.unique != UNKNOWN
            && !mutant::is("uniquestale")
            && let Some(above) = self.node_mut(parent)
        {
            above.entry.unique = add(above.entry.unique, one);
        }
    }

    /// The fold wrote `count` new blocks on behalf of `x`.
    pub fn note_born(&mut self, x: NodeId, is_map: bool, count: u64) {
        if let Some(node) = self.node_mut(x) {
            node.entry.own = add(node.entry.own, unit(is_map, count));
            let born = add(node.entry.born, unit(is_map, count));
            self.set_born(x, born);
        }
    }

    /// The map of `x` has `delta` more blocks: one less for each kill, one more for each block
    /// born, and what damage takes away.
    pub fn note_mapped_delta(&mut self, x: NodeId, is_map: bool, delta: i64) {
        if let Some(node) = self.node_mut(x) {
            let count = unit(is_map, delta.unsigned_abs());
            let mapped = node.entry.mapped;
            node.entry.mapped = if delta < 0 { sub(mapped, count) } else { add(mapped, count) };
        }
    }

    /// The walker of `walked` freed a block of this birth.
    pub fn note_walk_free(&mut self, walked: NodeId, is_map: bool, birth: Gen) {
        let owner = self.owner(walked, birth);
        debug_assert_eq!(owner, walked, "a walker frees what its node owns");
        if let Some(node) = self.node(owner) {
            let born = sub(node.entry.born, unit(is_map, 1));
            self.set_born(owner, born);
        }
    }
}
