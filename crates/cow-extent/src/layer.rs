//! The layers of a pool: everything sequenced and not yet folded.
//!
//! Beside the changes themselves a layer counts what its fold may have to write (`reserve`): one
//! map node for each distinct dirty (level, index), those by which a root grows, and the blocks of
//! the node's kill row. Admission keeps that many blocks free, so an acknowledged write can always
//! be folded (design section 7).

use crate::leaf::{Entry, LeafLayer};
use crate::ranges::RangeSet;
use cow_format::blob::{CELL_LEN, PAYLOAD};
use cow_format::mapnode::{FANOUT, FANOUT_BITS};
use cow_format::{IdMap, IdSet, Lba, NodeId, Phys, mutant};
use std::collections::BTreeMap;
use std::collections::btree_map;

/// What a layer knows of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// It lies there.
    Mapped(Phys, u32),
    /// It reads as zeros.
    Hole,
    /// Nothing: ask an older layer, or the map.
    Miss,
}

/// Approximate memory of an entry and of a leaf with its tree node.
const ENTRY_BYTES: usize = 16;
const LEAF_BYTES: usize = 96;
const DEAD_BYTES: usize = 8;

/// What the fold of a layer depends on, beside what the layer itself holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Base {
    /// Level of the root that the layer is merged into. It may be higher by then, not lower.
    pub root_level: u8,
    /// The level that it may have by then, whatever the size of the volume is now.
    pub top_level: u8,
    /// A kill is counted in the node's row only if it was born at or below this gen: the parent's,
    /// and 0 for a node without one. So this is also how many cells a row can have.
    pub births: u64,
    /// Blocks that the row takes now.
    pub row_blocks: u64,
}

/// The layer of one node of the snapshot tree.
#[derive(Clone, Debug, Default)]
pub struct NodeLayer {
    /// Leaves with changes.
    pub leaves: BTreeMap<u64, LeafLayer>,
    /// Leaves that are cleared as a whole and have no changes since.
    pub clears: RangeSet,
    /// Blocks that were written and overwritten inside this layer: freed with its fold.
    pub dead: Vec<Phys>,
    spine: Spine,
    /// [`Layers::set_base`] was called.
    has_base: bool,
    /// No more pointers than this die with it.
    kills: u64,
    /// Blocks that were written into it, those overwritten since included.
    data_blocks: u64,
}

/// What of the map over its leaves a layer changes.
#[derive(Clone, Debug, Default)]
struct Spine {
    /// Distinct dirty inner map nodes, as `level << 56 | index`.
    inner: IdSet<u64>,
    base: Base,
    /// The highest level up to which the growth of the root is counted.
    top_level: u8,
}

impl Spine {
    /// Marks the map nodes over `leaf` dirty up to `top_level`; how many that adds.
    fn dirty(&mut self, leaf: u64, top_level: u8) -> u64 {
        let mut added = 0;
        let top_level = top_level.max(self.base.top_level);
        // The old root becomes child 0 of the new ones, which are written even where nothing else
        // below child 0 is.
        let skipped = u8::from(mutant::is("growthless"));
        for level in self.top_level.max(self.base.root_level) + 1 + skipped..=top_level {
            added += u64::from(self.inner.insert(u64::from(level) << 56));
            self.top_level = level;
        }
        for level in 1..=top_level {
            let index = leaf >> (FANOUT_BITS * u32::from(level));
            added += u64::from(self.inner.insert(u64::from(level) << 56 | index));
        }
        added
    }
}

impl NodeLayer {
    /// Blocks that the fold of this layer may write.
    pub fn reserve_blocks(&self) -> u64 {
        (self.leaves.len() + self.spine.inner.len()) as u64 + self.row_blocks()
    }

    /// Blocks of data that it holds, those included that it has overwritten itself.
    pub fn data_blocks(&self) -> u64 {
        self.data_blocks
    }

    /// The level up to which map nodes are counted.
    pub fn top_level(&self) -> u8 {
        self.spine.top_level.max(self.spine.base.top_level)
    }

    /// Blocks that the kill row may take after the fold.
    fn row_blocks(&self) -> u64 {
        row_blocks(&self.spine.base, self.kills)
    }

    /// What is known of `lba`.
    pub fn probe(&self, lba: Lba) -> Probe {
        if let Some(leaf) = self.leaves.get(&lba.leaf()) {
            return match leaf.get(lba.slot()) {
                Some(e) if e.phys.is_none() => Probe::Hole,
                Some(e) => Probe::Mapped(e.phys, e.crc),
                None if leaf.cleared => Probe::Hole,
                None => Probe::Miss,
            };
        }
        if self.clears.contains(lba.leaf()) { Probe::Hole } else { Probe::Miss }
    }

    /// The changes of a leaf, and how many map nodes it makes dirty that were not.
    fn leaf_mut(&mut self, leaf: u64, top_level: u8) -> (&mut LeafLayer, u64) {
        match self.leaves.entry(leaf) {
            btree_map::Entry::Occupied(found) => (found.into_mut(), 0),
            btree_map::Entry::Vacant(place) => {
                let added = 1 + self.spine.dirty(leaf, top_level);
                (place.insert(LeafLayer::over(self.clears.remove(leaf))), added)
            }
        }
    }
}

/// Blocks of a kill row to which so many kills are added at most.
pub fn row_blocks(base: &Base, kills: u64) -> u64 {
    if base.births == 0 {
        return 0;
    }
    let bytes = kills.min(base.births).saturating_mul(CELL_LEN as u64);
    base.row_blocks + bytes.div_ceil(PAYLOAD as u64)
}

/// All layers of a pool.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    nodes: IdMap<NodeId, NodeLayer>,
    bytes: usize,
    reserve: u64,
    data_blocks: u64,
}

impl Layers {
    /// Whether nothing was sequenced into it.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Approximate memory in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Blocks that the fold of all layers may write as map nodes and kill rows.
    pub fn reserve_blocks(&self) -> u64 {
        self.reserve
    }

    /// Blocks of data that were written into any of them, those overwritten since included.
    pub fn data_blocks(&self) -> u64 {
        self.data_blocks
    }

    /// Blocks that were written and overwritten since the last fold.
    pub fn dead_blocks(&self) -> usize {
        self.nodes.values().map(|layer| layer.dead.len()).sum()
    }

    /// The layer of `node`.
    pub fn node(&self, node: NodeId) -> Option<&NodeLayer> {
        self.nodes.get(&node)
    }

    /// Nodes that have a layer, in no order.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes.keys().copied()
    }

    /// Whether there is a layer of `node` whose base is known.
    pub fn has_base(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|layer| layer.has_base)
    }

    /// Says what the fold of the layer of `node` depends on: before its first change, and again
    /// when that has changed.
    pub fn set_base(&mut self, node: NodeId, base: Base) {
        let layer = self.nodes.entry(node).or_default();
        let before = layer.row_blocks();
        layer.spine.base = base;
        layer.has_base = true;
        self.reserve = self.reserve - before + layer.row_blocks();
    }

    /// What the layer of `node` knows of `lba`.
    pub fn probe(&self, node: NodeId, lba: Lba) -> Probe {
        self.nodes.get(&node).map_or(Probe::Miss, |layer| layer.probe(lba))
    }

    /// `crcs.len()` blocks from `lba` on lie at `phys` on. `top_level` is the highest level that
    /// a map of the volume's size has.
    pub fn set_run(&mut self, node: NodeId, lba: Lba, phys: Phys, crcs: &[u32], top_level: u8) {
        let entry = |at: Lba, i: usize| Entry {
            phys: phys.offset(i as u64),
            crc: crcs[i],
            slot: at.slot(),
        };
        let mut done = 0usize;
        while done < crcs.len() {
            let at = Lba(lba.0 + done as u64);
            let count = (FANOUT - usize::from(at.slot())).min(crcs.len() - done);
            if count == 1 {
                self.change(node, at.leaf(), 1, top_level, |leaf, dead| {
                    dead.extend(leaf.put(entry(at, done)));
                });
            } else {
                let entries: Vec<Entry> =
                    (0..count as u64).map(|i| entry(Lba(at.0 + i), done + i as usize)).collect();
                self.splice(node, at.leaf(), &entries, top_level);
            }
            done += count;
        }
        self.nodes.entry(node).or_default().data_blocks += crcs.len() as u64;
        self.data_blocks += crcs.len() as u64;
    }

    /// `blocks` blocks from `lba` on read as zeros.
    pub fn clear_run(&mut self, node: NodeId, lba: Lba, blocks: u64, top_level: u8) {
        let end = lba.0.saturating_add(blocks);
        let mut at = lba.0;
        while at < end {
            let leaf_start = at & !(FANOUT as u64 - 1);
            let leaf_end = leaf_start + FANOUT as u64;
            if at == leaf_start && end >= leaf_end {
                let last = end >> FANOUT_BITS;
                self.clear_leaves(node, at >> FANOUT_BITS, last, top_level);
                at = last << FANOUT_BITS;
            } else {
                let stop = end.min(leaf_end);
                let holes: Vec<Entry> = (at..stop)
                    .map(|b| Entry { phys: Phys::NONE, crc: 0, slot: (b - leaf_start) as u8 })
                    .collect();
                self.splice(node, at >> FANOUT_BITS, &holes, top_level);
                at = stop;
            }
        }
    }

    /// Whether the entry of `lba` in the layer of `node` names `phys`.
    pub fn has(&self, node: NodeId, lba: Lba, phys: Phys) -> bool {
        matches!(self.probe(node, lba), Probe::Mapped(at, _) if at == phys)
    }

    /// A block moved without changing its content: patched only where the entry still names
    /// `old`. Whether it did.
    pub fn move_block(&mut self, node: NodeId, lba: Lba, old: Phys, new: Phys) -> bool {
        let entry = self
            .nodes
            .get_mut(&node)
            .and_then(|layer| layer.leaves.get_mut(&lba.leaf()))
            .and_then(|leaf| leaf.get_mut(lba.slot()))
            .filter(|entry| entry.phys == old);
        match entry {
            Some(entry) => {
                entry.phys = new;
                true
            }
            None => false,
        }
    }

    /// A block that was given out and is already superseded: freed with the layer of `node`.
    pub fn add_dead(&mut self, node: NodeId, phys: Phys) {
        let layer = self.nodes.entry(node).or_default();
        layer.dead.push(phys);
        layer.data_blocks += 1;
        self.data_blocks += 1;
        self.bytes += DEAD_BYTES;
    }

    /// Takes the superseded blocks away from the layers, so that no fold frees them. Only a planted
    /// fault wants that.
    pub fn take_dead(&mut self) -> Vec<(NodeId, Phys)> {
        let mut dead = Vec::new();
        for (&node, layer) in &mut self.nodes {
            dead.extend(layer.dead.drain(..).map(|phys| (node, phys)));
        }
        self.bytes = self.bytes.saturating_sub(dead.len() * DEAD_BYTES);
        dead
    }

    fn splice(&mut self, node: NodeId, leaf: u64, entries: &[Entry], top_level: u8) {
        self.change(node, leaf, entries.len(), top_level, |slots, dead| {
            slots.splice(entries, |phys| dead.push(phys));
        });
    }

    /// Changes so many slots of a leaf. `make` names the blocks that are replaced.
    fn change(
        &mut self,
        node: NodeId,
        leaf: u64,
        count: usize,
        top_level: u8,
        make: impl FnOnce(&mut LeafLayer, &mut Vec<Phys>),
    ) {
        let layer = self.nodes.entry(node).or_default();
        let row = layer.row_blocks();
        let mut dead = std::mem::take(&mut layer.dead);
        let died_before = dead.len();
        let (slots, added) = layer.leaf_mut(leaf, top_level);
        let before = slots.entries().len();
        make(slots, &mut dead);
        self.bytes += (slots.entries().len() - before) * ENTRY_BYTES;
        self.bytes += (dead.len() - died_before) * DEAD_BYTES;
        if added > 0 {
            self.bytes += LEAF_BYTES;
        }
        layer.dead = dead;
        layer.kills = layer.kills.saturating_add(count as u64 + added);
        self.reserve += added + layer.row_blocks() - row;
    }

    fn clear_leaves(&mut self, node: NodeId, first: u64, end: u64, top_level: u8) {
        let layer = self.nodes.entry(node).or_default();
        let gone: Vec<u64> = layer.leaves.range(first..end).map(|(&leaf, _)| leaf).collect();
        for leaf in gone {
            let Some(old) = layer.leaves.remove(&leaf) else { continue };
            let blocks = old.entries().iter().filter(|e| !e.phys.is_none());
            layer.dead.extend(blocks.map(|e| e.phys));
            // The spine stays counted: it may have to be rewritten all the same.
            self.reserve -= 1;
        }
        layer.clears.insert(first, end);
        let row = layer.row_blocks();
        // Whatever the map has there dies.
        layer.kills = u64::MAX;
        self.reserve += layer.row_blocks() - row;
        self.reserve += layer.spine.dirty(first, top_level);
        self.reserve += layer.spine.dirty(end - 1, top_level);
        self.bytes += LEAF_BYTES;
    }
}
