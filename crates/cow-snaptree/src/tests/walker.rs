//! The walker and the trim of the miniature pool, one step at a time.

use super::sim::{FAN, Fold, Ptr, Sim, span};
use super::trees::set_root;
use crate::Tree;
use cow_format::entry::{NodeState, Root};
use cow_format::{Gen, NodeId};
use std::collections::BTreeMap;

/// A step of the walk of one node.
struct Step<'a> {
    sim: &'a mut Sim,
    tree: &'a mut Tree,
    id: NodeId,
    /// The only child's tree.
    child: Option<Root>,
    above: Gen,
    cursor: u64,
}

impl Step<'_> {
    fn down(&mut self, level: u32, ptr: Ptr, start: u64) {
        let end = start + span(level);
        let shared = |child: &Root| self.sim.at(child, level, start).map(|p| p.0) == Some(ptr.0);
        if ptr.0 == 0 || ptr.1 <= self.above.0 || self.child.as_ref().is_some_and(shared) {
            self.cursor = end;
            return;
        }
        if level > 0 {
            let slot = (self.cursor - start) / span(level - 1);
            let next = self.sim.maps[&ptr.0][slot as usize];
            self.down(level - 1, next, start + slot * span(level - 1));
        } else {
            self.cursor = end;
        }
        if self.cursor >= end {
            // Post-order: the walker has left the range of a map node.
            self.tree.note_walk_freed(self.id, level > 0, [Gen(ptr.1)]);
            self.sim.release(ptr.0, level > 0);
        }
    }
}

impl Sim {
    /// One step of a random walk in the fold; false if there is nothing to walk.
    pub(crate) fn walk_step(&mut self) -> bool {
        let Some(Fold { mut tree, log }) = self.fold.take() else { return false };
        let all = tree.walkable();
        let picked = self.rng.pick(&all);
        if let Some(id) = picked {
            self.walk_one(&mut tree, id);
        }
        self.fold = Some(Fold { tree, log });
        picked.is_some()
    }

    fn walk_one(&mut self, tree: &mut Tree, id: NodeId) {
        tree.begin_walk(id);
        let node = tree.node(id).unwrap().clone();
        assert!(node.children.len() <= 1 && node.entry.state == NodeState::Walking);
        let root = node.entry.root;
        let level = u32::from(root.level) + 1;
        if node.entry.cursor >= span(level) {
            for id in tree.rows_needed_for_splice(id) {
                self.load_row(tree, id);
            }
            let splice = tree.finish_walk(id);
            assert_eq!(splice.into, node.children.first().copied());
            assert!(splice.into.is_some() || node.entry.born == Default::default(), "leaf left");
            self.old_blobs.extend(splice.freed.iter().map(|old| old.blob.phys.0));
            return;
        }
        let child = node.children.first().map(|&child| tree.node(child).unwrap().entry.root);
        let above = tree.parent_gen(id);
        let cursor = node.entry.cursor;
        let mut step = Step { sim: self, tree, id, child, above, cursor };
        step.down(level, (root.phys.0, root.birth.0), 0);
        let cursor = step.cursor;
        assert!(cursor > node.entry.cursor);
        tree.set_cursor(id, cursor);
    }

    /// Trims every branch point once; returns how many blocks were cleared in trees.
    pub(crate) fn trim(&mut self) -> usize {
        let Some(Fold { mut tree, log }) = self.fold.take() else { return 0 };
        let mut cleared = 0;
        for id in tree.trimmable() {
            cleared += self.trim_one(&mut tree, id);
        }
        self.fold = Some(Fold { tree, log });
        cleared
    }

    fn trim_one(&mut self, tree: &mut Tree, id: NodeId) -> usize {
        for child in tree.rows_needed_for_trim(id) {
            self.load_row(tree, child);
        }
        let hopeless = tree.settle_trim(id);
        tree.begin_trim(id);
        let node = tree.node(id).unwrap().clone();
        let (root, above) = (node.entry.root, tree.trim_floor(id));
        let level = u32::from(root.level) + 1;
        let mut clear = BTreeMap::new();
        for at in 0..FAN.pow(level) {
            let ptr = self.at(&root, 0, at).unwrap();
            let in_child = |&child: &NodeId| {
                self.at(&tree.node(child).unwrap().entry.root, 0, at).unwrap().0 == ptr.0
            };
            let may = ptr.0 != 0 && ptr.1 > above.0;
            if may && !node.children.iter().any(in_child) {
                clear.insert(at, None);
            }
        }
        let ptr = self.merge(tree, id, level, (root.phys.0, root.birth.0), 0, &clear, true);
        set_root(tree, id, level, ptr);
        tree.finish_trim(id);
        assert!(!hopeless || clear.is_empty(), "a trim of {id} was thought to be in vain");
        clear.len()
    }

    /// Folds and walks, and trims if asked, until all is at rest.
    pub(crate) fn quiesce(&mut self, trim: bool) {
        loop {
            if self.fold.is_none() {
                self.fold_start();
            }
            while self.walk_step() {}
            let cleared = if trim { self.trim() } else { 0 };
            self.fold_end();
            if cleared == 0 && self.tree.walkable().is_empty() && self.layers.is_empty() {
                return;
            }
        }
    }
}
