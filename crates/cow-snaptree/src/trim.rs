//! Trim of branch points: a deleted node with two or more children holds blocks that none of them
//! has any more. Which of these trees must be looked at, how far that has come, and how the counts
//! follow. Design section 4, "Trim of a zombie".
//!
//! A trim clears, in the tree of the branch point, each pointer that no direct child has, as if the
//! branch point had discarded it. What was counted as dead in every child is then dead in the
//! branch point itself: it is *hoisted* from the children's kill rows into its own, or freed.

use crate::row::{add, sub, unit};
use crate::tree::Tree;
use cow_format::blob::{CELL_LEN, PAYLOAD};
use cow_format::entry::{Count, NodeState};
use cow_format::{Gen, NodeId, mutant};

/// A trim that nobody waits for begins when it could free so many data blocks (1 MiB).
const WORTH_BLOCKS: u64 = 256;
/// And this part of what was born in the branch point.
const WORTH_PART: u64 = 16;

impl Tree {
    /// Branch points whose trim could begin or go on: nothing is known to be left alone, and no
    /// neighbour is being walked. Children before parents, as a trim may leave work to its parent's.
    pub fn trimmable(&self) -> Vec<NodeId> {
        let walks =
            |id: NodeId| self.node(id).is_some_and(|other| other.entry.state == NodeState::Walking);
        let mut ids: Vec<(Gen, NodeId)> = self
            .untrimmed()
            .filter_map(|id| self.node(id))
            .filter(|node| {
                !walks(node.entry.parent) && !node.children.iter().any(|&child| walks(child))
            })
            .map(|node| (node.entry.label_gen, node.entry.id))
            .collect();
        ids.sort_unstable_by(|a, b| b.cmp(a));
        ids.into_iter().map(|(_, id)| id).collect()
    }

    /// Branch points that a trim has to look at, perhaps only when a walk is over.
    pub fn untrimmed(&self) -> impl Iterator<Item = NodeId> {
        self.dying.iter().copied().filter(|&id| {
            self.node(id).is_some_and(|node| {
                let done = node.entry.trimmed && node.entry.cursor == 0;
                node.is_branch_point() && node.rooted && !done
            })
        })
    }

    /// A trim of `z` looks at pointers that are younger than this: than the nearest node above that
    /// is in use, which has all others. One that a deleted node above has too is cleared and not
    /// freed, so that the trim of that node can see that it is dead here.
    pub fn trim_floor(&self, z: NodeId) -> Gen {
        let mut above = self.parent(z);
        while let Some(parent) = above.filter(|parent| !parent.is_live()) {
            above = self.parent(parent.entry.id);
        }
        above.map_or(Gen(0), |parent| parent.entry.label_gen)
    }

    /// Rows that a trim of `z` changes and that are not loaded: those of its children.
    pub fn rows_needed_for_trim(&self, z: NodeId) -> Vec<NodeId> {
        self.children(z).iter().copied().filter(|&id| !self.is_row_loaded(id)).collect()
    }

    /// At most how many of the blocks born in a branch point a trim would free: the least that is
    /// dead in one of its children. What its children's unread rows hold does not count.
    pub fn trim_gain(&self, z: NodeId) -> Count {
        let Some(node) = self.node(z) else { return Count::default() };
        let (above, entry) = (self.parent_gen(z), &node.entry);
        let rows = node.children.iter().filter_map(|&child| self.node(child)).map(|c| &c.row);
        let dead = rows.map(|row| sub(add(entry.born, row.sum(above, entry.label_gen)), entry.own));
        dead.reduce(|a, b| Count { data: a.data.min(b.data), map: a.map.min(b.map) })
            .unwrap_or_default()
    }

    /// The children whose pointers a trim of `z` looks at: all of them.
    pub fn compared_in_trim(&self, z: NodeId) -> impl Iterator<Item = NodeId> {
        let passed = |id: NodeId| {
            mutant::is("trimheld") && self.node(id).is_some_and(|node| node.entry.holds > 0)
        };
        self.children(z).iter().copied().filter(move |&id| !passed(id))
    }

    /// At most how many data pointers a trim of `z` would clear: those that it has from deleted
    /// nodes above count too. The rows of its children must be loaded.
    fn trim_hope(&self, z: NodeId) -> u64 {
        let Some(node) = self.node(z) else { return 0 };
        let above = self.trim_floor(z);
        let rows = self.compared_in_trim(z).filter_map(|child| self.node(child)).map(|c| &c.row);
        rows.map(|row| row.sum(above, node.entry.label_gen).data).min().unwrap_or(0)
    }

    /// Whether a trim of `z` is to begin: for `everything` if it could free anything at all, else
    /// if it could free a good part, and a quarter more than the last one had to leave. The rows of
    /// its children must be loaded. One that is under way goes on.
    pub fn is_trim_due(&self, z: NodeId, everything: bool) -> bool {
        let Some(node) = self.node(z) else { return false };
        let hope = self.trim_hope(z);
        let part = node.entry.born.data / WORTH_PART;
        let worth = hope > part.max(WORTH_BLOCKS) && hope - hope / 5 >= node.trim_left;
        node.entry.cursor > 0 || worth || (everything && hope > 0)
    }

    /// Whether a trim of `z` could clear nothing; then that is noted. The rows of its children must
    /// be loaded.
    pub fn settle_trim(&mut self, z: NodeId) -> bool {
        let rests = self.trim_hope(z) == 0 && self.node(z).is_some_and(|n| n.entry.cursor == 0);
        if rests && let Some(node) = self.node_mut(z) {
            node.entry.trimmed = true;
        }
        rests
    }

    /// The trim of a branch point begins, or goes on at its cursor.
    pub fn begin_trim(&mut self, z: NodeId) {
        debug_assert!(self.node(z).is_some_and(|node| node.is_branch_point() && node.rooted));
        if let Some(node) = self.node_mut(z)
            && node.entry.cursor == 0
        {
            node.entry.trimmed = true;
        }
    }

    /// The trim has passed all blocks below `block`.
    pub fn set_trim_cursor(&mut self, z: NodeId, block: u64) {
        if let Some(node) = self.node_mut(z) {
            debug_assert!(node.entry.cursor <= block, "the cursor goes back");
            node.entry.cursor = block;
        }
    }

    /// The trim has passed everything.
    pub fn finish_trim(&mut self, z: NodeId) {
        let left = self.trim_hope(z);
        if let Some(node) = self.node_mut(z) {
            node.entry.cursor = 0;
            node.trim_left = left;
        }
    }

    /// Something died below a branch point, or belongs to it from now on: its trim must look again.
    pub(crate) fn untrim(&mut self, z: NodeId) {
        if self.node(z).is_some_and(|node| node.entry.trimmed)
            && let Some(node) = self.node_mut(z)
        {
            node.entry.trimmed = false;
        }
    }

    /// A node is deleted: what the branch points below have from it, down to the next nodes in use,
    /// their trims may take now.
    pub(crate) fn untrim_below(&mut self, id: NodeId) {
        let mut stack = self.children(id).to_vec();
        while let Some(id) = stack.pop() {
            if self.node(id).is_some_and(|node| !node.is_live()) {
                self.untrim(id);
                stack.extend(self.children(id));
            }
        }
    }

    /// Trim cleared a pointer of branch point `z` that no child has, after a [`Tree::kill`] by
    /// `z`: that death moves from each child's row to `z` (R5).
    pub fn hoist(&mut self, z: NodeId, is_map: bool, birth: Gen) {
        if mutant::is("nohoist") {
            return;
        }
        for child in self.compared_in_trim(z).collect::<Vec<_>>() {
            let Some(node) = self.node_cache_mut(child) else { continue };
            debug_assert!(node.row.is_loaded(), "a hoist from an unread row");
            let taken = node.row.take(birth, unit(is_map, 1));
            // Damage may have kept a fold from counting.
            debug_assert!(taken || node.entry.inexact, "a hoist below zero");
            self.dirty_rows.insert(child);
        }
    }

    /// Trim wrote `count` map nodes anew for branch point `z`, which no child has.
    pub fn note_trim_born(&mut self, z: NodeId, count: u64) {
        if mutant::is("nohoist") {
            return;
        }
        let Some(node) = self.node(z) else { return };
        let label = node.entry.label_gen;
        for &child in node.children.clone().iter() {
            if let Some(node) = self.node_cache_mut(child) {
                node.row.add(label, unit(true, count));
                self.dirty_rows.insert(child);
            }
        }
    }

    /// At most so many blocks a fold needs for the kill rows that a trim of `z` changes. They must
    /// be loaded, that of `z` itself excepted.
    pub fn trim_row_blocks(&self, z: NodeId) -> u64 {
        let Some(node) = self.node(z) else { return 0 };
        let mut blocks = 0;
        // A row of `z` gets at most a cell for each birth that one of its children's has.
        let mut cells = 0;
        for child in node.children.iter().filter_map(|&child| self.node(child)) {
            blocks += row_blocks(child.row.encoded_len() as u64 + CELL_LEN as u64);
            cells += child.row.encoded_len() as u64;
        }
        let own = u64::from(node.entry.row.len).max(node.row.encoded_len() as u64);
        blocks + row_blocks(own + cells)
    }
}

fn row_blocks(bytes: u64) -> u64 {
    bytes.div_ceil(PAYLOAD as u64)
}
