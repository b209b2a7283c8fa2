//! Reclaim: which deleted nodes can be walked, the walk's cursor, and the splice at its end.

use crate::node::UNKNOWN;
use crate::row::{add, sub};
use crate::tree::Tree;
use cow_format::blob::{BlobKind, BlobRef, PAYLOAD};
use cow_format::entry::{Count, NodeState};
use cow_format::{BLOCK_SIZE, Gen, NodeId, mutant};

/// A blob that nothing points to any more; its blocks are to be freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OldBlob {
    /// What it holds.
    pub kind: BlobKind,
    /// The node whose name it carries.
    pub node: NodeId,
    /// Where it begins.
    pub blob: BlobRef,
}

impl OldBlob {
    pub(crate) fn of(kind: BlobKind, node: NodeId, blob: BlobRef) -> Option<Self> {
        (blob.len > 0).then_some(Self { kind, node, blob })
    }
}

/// What the end of a walk did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Splice {
    /// The only child, which took over counters and kill row; none for a leaf.
    pub into: Option<NodeId>,
    /// Blobs of the node that is gone.
    pub freed: Vec<OldBlob>,
}

impl Tree {
    /// Deleted nodes that a walker may work on now, by ascending id: those that it has begun,
    /// and those with at most one child no neighbour of which is being walked.
    pub fn walkable(&self) -> Vec<NodeId> {
        self.dying.iter().copied().filter(|&id| self.is_walkable(id)).collect()
    }

    fn is_walkable(&self, id: NodeId) -> bool {
        let Some(node) = self.node(id) else { return false };
        let walks =
            |id: NodeId| self.node(id).is_some_and(|other| other.entry.state == NodeState::Walking);
        match node.entry.state {
            NodeState::Live => false,
            NodeState::Walking => true,
            NodeState::Deleting => {
                node.rooted
                    && node.children.len() <= 1
                    && !walks(node.entry.parent)
                    && !node.children.iter().any(|&child| walks(child))
            }
        }
    }

    /// The walker begins with a node that [`Tree::walkable`] named.
    pub fn begin_walk(&mut self, id: NodeId) {
        debug_assert!(self.is_walkable(id), "a walk of a node that is not walkable");
        if let Some(node) = self.node_mut(id)
            && node.entry.state == NodeState::Deleting
        {
            node.entry.state = NodeState::Walking;
            node.entry.cursor = 0;
        }
    }

    /// The walker has passed all blocks below `block`.
    pub fn set_cursor(&mut self, id: NodeId, block: u64) {
        if let Some(node) = self.node_mut(id) {
            debug_assert!(node.entry.state == NodeState::Walking, "the cursor of no walk");
            debug_assert!(node.entry.cursor <= block, "the cursor goes back");
            node.entry.cursor = block;
        }
    }

    /// How much of a deleted node's map the walker has passed; `None` for what is not deleted, and for
    /// a branch point.
    pub fn reclaimed_percent(&self, id: NodeId) -> Option<u8> {
        let node = self.node(id)?;
        let entry = &node.entry;
        match entry.state {
            NodeState::Live => None,
            NodeState::Deleting => (!node.is_branch_point()).then_some(0),
            NodeState::Walking => {
                let end = entry.size_bytes.div_ceil(BLOCK_SIZE as u64).max(1);
                Some((u128::from(entry.cursor.min(end)) * 100 / u128::from(end)) as u8)
            }
        }
    }

    /// Rows that [`Tree::finish_walk`] reads and that are not loaded: those of the node and of
    /// its only child.
    pub fn rows_needed_for_splice(&self, id: NodeId) -> Vec<NodeId> {
        let Some(&[child]) = self.node(id).map(|node| node.children.as_slice()) else {
            return Vec::new();
        };
        [id, child].into_iter().filter(|&id| !self.is_row_loaded(id)).collect()
    }

    /// At most so many blocks the fold needs for the kill row of the only child after
    /// [`Tree::finish_walk`]. The rows of [`Tree::rows_needed_for_splice`] must be loaded.
    pub fn splice_blocks(&self, id: NodeId) -> u64 {
        let Some(node) = self.node(id) else { return 0 };
        let Some(child) = node.children.first().and_then(|&child| self.node(child)) else {
            return 0;
        };
        let gone = child.row.sum(self.parent_gen(id), node.entry.label_gen);
        if gone == Count::default() && node.row.is_empty() {
            return 0;
        }
        (node.row.encoded_len() + child.row.encoded_len()).div_ceil(PAYLOAD) as u64
    }

    /// The walker has passed everything: the node goes, and its interval, counters and kill row
    /// become its only child's. The rows of [`Tree::rows_needed_for_splice`] must be loaded.
    pub fn finish_walk(&mut self, id: NodeId) -> Splice {
        let Some(node) = self.nodes.get(id.0).cloned() else { return Splice::default() };
        debug_assert!(node.entry.state == NodeState::Walking, "the end of no walk");
        debug_assert!(node.children.len() <= 1, "a branch point is spliced");
        debug_assert!(self.rows_needed_for_splice(id).is_empty(), "a splice of unread rows");
        let parent = node.entry.parent;
        let into = node.children.first().copied();
        let above = self.parent_gen(id);
        if let Some(child) = into.and_then(|child| self.node_mut(child)) {
            let label = node.entry.label_gen;
            // What died between the two is freed by now; the rest of the node's is the child's.
            let mut gone = child.row.drop_range(above, label);
            if mutant::is("spliceown") {
                gone = Count::default();
            }
            child.row.merge(&node.row);
            child.row_changes += 1;
            child.entry.own = add(child.entry.own, sub(node.entry.own, gone));
            child.entry.parent = parent;
            child.entry.inexact |= node.entry.inexact;
            let born = add(child.entry.born, node.entry.born);
            if gone != Count::default() || !node.row.is_empty() {
                self.dirty_rows.extend(into);
            }
            if let Some(child) = into {
                self.set_born(child, born);
            }
        }
        self.forget(id);
        if let Some(parent) = self.node_mut(parent) {
            parent.children.remove(id);
            if let Some(child) = into {
                parent.children.insert(child);
            }
        }
        // The child's interval grew, and the parent may have another only child now.
        self.untrim(parent);
        self.relearn_unique(parent);
        if let Some(child) = into {
            self.relearn_unique(child);
        }
        let entry = &node.entry;
        let freed = [
            OldBlob::of(BlobKind::Row, id, entry.row),
            OldBlob::of(BlobKind::Props, node.props_owner, entry.props),
        ];
        Splice { into, freed: freed.into_iter().flatten().collect() }
    }

    /// Takes a node out of every index.
    fn forget(&mut self, id: NodeId) {
        let Some(node) = self.nodes.remove(id.0) else { return };
        self.recharge(node.entry.volume, node.entry.born.data, 0);
        if let Some(slot) = node.slot {
            self.free_slot(slot);
        }
        for set in [
            &mut self.unslotted,
            &mut self.unrooted,
            &mut self.dying,
            &mut self.dirty_rows,
            &mut self.dirty_props,
        ] {
            set.remove(&id);
        }
    }

    /// Sets `unique` of a node from the row of its only child; unknown if there is none or the
    /// row is not loaded.
    pub(crate) fn relearn_unique(&mut self, id: NodeId) {
        let Some(node) = self.node(id) else { return };
        let (above, label) = (self.parent_gen(id), node.entry.label_gen);
        let unique = self.only_child_dead(&node.children, above, label).unwrap_or(UNKNOWN);
        if unique != node.entry.unique
            && let Some(node) = self.node_mut(id)
        {
            node.entry.unique = unique;
        }
    }

    /// Sets `unique` of a node where it was unknown.
    pub(crate) fn learn_unique(&mut self, id: NodeId) {
        if self.node(id).is_some_and(|node| node.entry.unique == UNKNOWN) {
            self.relearn_unique(id);
        }
    }

    fn only_child_dead(&self, children: &[NodeId], above: Gen, to: Gen) -> Option<Count> {
        let &[child] = children else { return None };
        let row = &self.node(child)?.row;
        row.is_loaded().then(|| row.sum(above, to))
    }
}
