//! What discards have cut off and no fold has given back yet: lines of the checkpoint that point to
//! map nodes which are in no map any more.
//!
//! Of such a subtree of node x, behind the line's cursor, what is younger than x's parent stands
//! nowhere else, and must not have been met before. The rest is in the map of the parent, unless that is
//! being reclaimed itself and has passed the place: then it was kept for x alone.

use crate::map::{Maps, Walk};
use crate::report::Structure;
use crate::tree::{gen_of, is_walking, name_of};
use cow_format::checkpoint::Detached;
use cow_format::mapnode::{FANOUT_BITS, Slot, span_blocks};
use cow_format::{Gen, NodeId};

/// Which pointers belong to the subtree alone.
#[derive(Clone, Copy)]
struct Ownership {
    /// Gen of the parent.
    above: Gen,
    /// A parent that is being reclaimed has passed everything before this block,
    passed: u64,
    /// and has left what is younger than its own parent.
    below: Gen,
}

impl Ownership {
    fn has(&self, slot: &Slot, end: u64) -> bool {
        slot.birth > self.above || (end <= self.passed && slot.birth > self.below)
    }
}

impl Walk<'_, '_> {
    /// Marks what is left of each detached subtree.
    pub(crate) fn follow_detached(&mut self, lines: &[Detached]) {
        for line in lines {
            let tree = self.tree;
            let Some(node) = tree.node(line.node) else {
                let what = "a detached subtree belongs to no node";
                self.cx.corrupt(Structure::Ownership, format!("node {}", line.node), what);
                self.cx.incomplete = true;
                continue;
            };
            let parent = node.entry.parent;
            let above = gen_of(tree, Some(parent));
            let mut ownership = Ownership { above, passed: 0, below: above };
            if is_walking(tree, parent)
                && let Some(parent) = tree.node(parent)
            {
                ownership.passed = parent.entry.cursor;
                ownership.below = gen_of(tree, Some(parent.entry.parent));
            }
            let maps = Maps {
                id: line.node,
                family: node.entry.family,
                label: node.entry.label_gen,
                above,
                inherited: above,
                end: u64::MAX,
                from: line.cursor,
                trimmed: false,
                first: true,
            };
            if line.slot.birth > maps.label {
                let what = "a detached subtree is younger than its node";
                self.cx.corrupt(Structure::Ownership, name_of(tree, line.node), what);
            }
            self.follow_cut(&maps, ownership, line.level, line.index, line.slot);
        }
        self.take_tally();
    }

    fn follow_cut(&mut self, m: &Maps, own: Ownership, level: u8, index: u64, slot: Slot) {
        let first = index << (FANOUT_BITS * (u32::from(level) + 1));
        let end = first.saturating_add(span_blocks(level));
        // Nothing below is younger than the pointer to it.
        if !slot.is_mapped() || slot.birth <= own.below || end <= m.from {
            return;
        }
        if own.has(&slot, end) && !self.mark(m.id, Some(level), first, slot) {
            return;
        }
        let Some(node) = self.load(m, level, index, slot, true) else { return };
        if level > 0 {
            for (at, child) in node.slots().iter().enumerate() {
                let index = (index << FANOUT_BITS) + at as u64;
                self.follow_cut(m, own, level - 1, index, *child);
            }
            return;
        }
        let mut to_verify = Vec::new();
        for (at, slot) in node.slots().iter().enumerate() {
            let lba = first + at as u64;
            let is_own = slot.is_mapped() && lba >= m.from && own.has(slot, lba + 1);
            if is_own && self.mark(m.id, None, lba, *slot) {
                to_verify.push((slot.phys, slot.crc, lba));
            }
        }
        self.verify_data(m.id, to_verify);
    }

    /// Whether something of a node is detached, so that its counts miss something.
    pub(crate) fn is_detached(lines: &[Detached], id: NodeId) -> bool {
        lines.iter().any(|line| line.node == id)
    }
}
