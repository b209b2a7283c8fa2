//! All maps of the snapshot tree, parents first; and the maps that are being reclaimed.
//!
//! A node S that is being walked, with parent P and only child N, has lost what is before its
//! cursor. So N is compared with P, which finds all that N has, and S is followed afterwards,
//! behind the cursor, where neither P nor N has the same pointer. What S inherits from P and N
//! from S behind the cursor is compared once more, for the lemma alone.

use crate::blobs;
use crate::context::Cx;
use crate::map::{Maps, Side, Walk};
use crate::reach::Reach;
use crate::report::Structure;
use crate::tally::Sums;
use crate::tree::{above, gen_of, is_walking, name_of};
use cow_format::checkpoint::Checkpoint;
use cow_format::entry::Root;
use cow_format::mapnode::{FANOUT, FANOUT_BITS, MapNode, Slot, span_blocks};
use cow_format::{BLOCK_SIZE, Gen, NodeId};
use cow_snaptree::{POOL_NODE, Tree};

/// Walks everything that the node table points to.
pub(crate) fn walk_all(
    cx: &mut Cx<'_>,
    tree: &Tree,
    reach: &mut Reach,
    cp: &Checkpoint,
    exact: bool,
) -> Sums {
    let expected = cp.data_blocks.saturating_add(cp.meta_blocks);
    let mut ids: Vec<(Gen, NodeId)> =
        tree.iter().map(|node| (node.entry.label_gen, node.entry.id)).collect();
    ids.sort_unstable();
    cx.report.stats.nodes = ids.len() as u64;
    let mut walk = Walk::new(cx, tree, reach, expected);
    for &(_, id) in &ids {
        blobs::props(walk.cx, tree, walk.reach, id);
        if id == POOL_NODE {
            continue;
        }
        let row = blobs::row(walk.cx, tree, walk.reach, id);
        if is_walking(tree, id) {
            // Counts that miss what is cut off say nothing of the child's either.
            if !Walk::is_detached(&cp.detached, id) {
                walk.sums.note_walking(id, row.as_ref());
            }
            continue;
        }
        let above = above(tree, id);
        walk.compare_with(id, above, 0, true);
        let mut tally = walk.take_tally();
        tally.inexact |= !exact || Walk::is_detached(&cp.detached, id);
        walk.sums.settle(walk.cx, tree, id, above, &tally, row.as_ref());
    }
    for &(_, id) in ids.iter().filter(|(_, id)| is_walking(tree, *id)) {
        walk.follow_walking(id);
    }
    walk.follow_detached(&cp.detached);
    if exact && !walk.cx.incomplete {
        let sums = std::mem::take(&mut walk.sums);
        sums.settle_born(walk.cx, tree);
        walk.sums = sums;
    }
    walk.sums
}

impl Walk<'_, '_> {
    /// Compares the map of `id` with that of `up`, from block `from` on.
    fn compare_with(&mut self, id: NodeId, up: Option<NodeId>, from: u64, first: bool) {
        let tree = self.tree;
        let Some(node) = tree.node(id) else { return };
        let (entry, root) = (&node.entry, node.entry.root);
        let upper = up.and_then(|up| tree.node(up)).map_or(Root::default(), |up| up.entry.root);
        let maps = Maps {
            id,
            family: entry.family,
            label: entry.label_gen,
            above: gen_of(tree, up),
            inherited: gen_of(tree, Some(entry.parent)),
            // What was cut off from a head that was then deleted goes with its map.
            end: if node.is_live() {
                entry.size_bytes.div_ceil(BLOCK_SIZE as u64)
            } else {
                u64::MAX
            },
            from,
            trimmed: up.and_then(|up| tree.node(up)).is_some_and(|up| !up.is_live()),
            first,
        };
        if upper.level > root.level && !slot_of(&root).is_hole() {
            let what = "its root is lower than its parent's";
            self.cx.corrupt(Structure::Ownership, name_of(tree, id), what);
            self.tally.inexact = true;
            self.cx.incomplete = true;
            return;
        }
        let level = root.level.max(upper.level);
        self.compare(&maps, level, 0, Side::of(&root, level), Side::of(&upper, level));
    }

    /// Follows what is left of a map that is being reclaimed.
    fn follow_walking(&mut self, id: NodeId) {
        let tree = self.tree;
        let Some(node) = tree.node(id) else { return };
        let (root, cursor) = (node.entry.root, node.entry.cursor);
        let child = node.children.first().copied();
        let maps = Maps {
            id,
            family: node.entry.family,
            label: node.entry.label_gen,
            above: gen_of(tree, Some(node.entry.parent)),
            inherited: Gen(0),
            end: u64::MAX,
            from: cursor,
            trimmed: false,
            first: true,
        };
        let below = child.and_then(|child| self.pointer_at(&maps, child, root.level));
        match below.or(child.is_none().then(|| Slot::hole(Gen(0)))) {
            Some(below) => self.follow(&maps, root.level, 0, slot_of(&root), below),
            None => self.cx.incomplete = true,
        }
        let parent = Some(node.entry.parent).filter(|parent| tree.node(*parent).is_some());
        self.compare_with(id, parent, cursor, false);
        if let Some(child) = child {
            self.compare_with(child, Some(id), cursor, false);
        }
        self.take_tally();
    }

    /// The pointer of `node` at index 0 of `level`; `None` when what is above it is damaged.
    fn pointer_at(&mut self, maps: &Maps, node: NodeId, level: u8) -> Option<Slot> {
        let root = self.tree.node(node)?.entry.root;
        let mut slot = slot_of(&root);
        for at in (level + 1..=root.level).rev() {
            if slot.is_mapped() {
                slot = self.load(maps, at, 0, slot, false)?.slots()[0];
            }
        }
        Some(slot)
    }

    /// Marks what `s` has behind the cursor and neither the parent nor `n` has.
    fn follow(&mut self, m: &Maps, level: u8, index: u64, s: Slot, n: Slot) {
        let first = index << (FANOUT_BITS * (u32::from(level) + 1));
        let shared = !s.is_mapped() || s.birth <= m.above || s.phys == n.phys;
        if shared || first.saturating_add(span_blocks(level)) <= m.from {
            return;
        }
        if !self.mark(m.id, Some(level), first, s) {
            return;
        }
        let Some(s_node) = self.load(m, level, index, s, true) else { return };
        let n_node = if n.is_mapped() {
            let Some(node) = self.load(m, level, index, n, false) else { return };
            Some(node)
        } else {
            None
        };
        let n_at = |at: usize| n_node.as_ref().map_or(n, |node| node.slots()[at]);
        if level > 0 {
            for at in 0..FANOUT {
                let child = (index << FANOUT_BITS) + at as u64;
                self.follow(m, level - 1, child, s_node.slots()[at], n_at(at));
            }
            return;
        }
        self.follow_leaf(m, first, &s_node, n_at);
    }

    fn follow_leaf(&mut self, m: &Maps, first: u64, s: &MapNode, n_at: impl Fn(usize) -> Slot) {
        let mut to_verify = Vec::new();
        for (at, slot) in s.slots().iter().enumerate() {
            let (lba, n) = (first + at as u64, n_at(at));
            let shared = !slot.is_mapped() || slot.birth <= m.above || slot.phys == n.phys;
            if shared || lba < m.from {
                continue;
            }
            if self.mark(m.id, None, lba, *slot) {
                to_verify.push((slot.phys, slot.crc, lba));
            }
        }
        self.verify_data(m.id, to_verify);
    }
}

fn slot_of(root: &Root) -> Slot {
    Slot { phys: root.phys, birth: root.birth, crc: root.crc }
}
