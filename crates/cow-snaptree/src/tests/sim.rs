//! A pool in miniature around the real [`Tree`]: radix trees of fan-out 2 whose map nodes are
//! allocated, owned and freed, layers that folds merge, a blob store and a node table. A fold
//! works on a clone while verbs and writes go on, as in the engine.
//!
//! Levels are counted here as in a pointer: 0 is a data block, 1 a leaf.

use super::Rng;
use super::trees::set_root;
use crate::{Tree, TreeError};
use cow_format::blob::BlobRef;
use cow_format::record::Record;
use cow_format::{BLOCK_SIZE, Buf, FrameSeq, Gen, NodeId, Phys, VolumeId};
use std::collections::BTreeMap;

pub(crate) const FAN: u64 = 2;
pub(crate) const MAX_LEVEL: u32 = 3;
/// A pointer: block (0 for a hole) and birth.
pub(crate) type Ptr = (u64, u32);

/// Blocks that a pointer of this level spans.
pub(crate) fn span(level: u32) -> u64 {
    FAN.pow(level)
}

#[derive(Clone)]
pub(crate) struct Fold {
    pub tree: Tree,
    pub log: Vec<Record>,
}

#[derive(Clone)]
pub(crate) struct Sim {
    pub tree: Tree,
    pub fold: Option<Fold>,
    /// Unfolded writes of a node: block to data, none for a discard.
    pub layers: BTreeMap<NodeId, BTreeMap<u64, Option<u64>>>,
    /// Blocks superseded inside a layer.
    pub dead: BTreeMap<NodeId, Vec<u64>>,
    /// Allocated blocks: whether it is a map node.
    pub alloc: BTreeMap<u64, bool>,
    pub maps: BTreeMap<u64, Vec<Ptr>>,
    pub free: Vec<u64>,
    pub quarantine: Vec<u64>,
    pub next: u64,
    /// What each data block holds, and what each node should.
    pub stamps: BTreeMap<u64, u64>,
    pub shadow: BTreeMap<NodeId, Vec<u64>>,
    pub stamp: u64,
    /// Blobs: whose name they carry, and their payload.
    pub blobs: BTreeMap<u64, (NodeId, Vec<u8>)>,
    pub old_blobs: Vec<u64>,
    pub pages: BTreeMap<u32, Buf>,
    /// Most nodes so far: the table is no longer.
    pub slots: u32,
    /// Exact sizes of components, by nodes and stamp.
    pub exact: BTreeMap<(Vec<NodeId>, u64), u64>,
    /// Snapshots that prunes have deleted.
    pub pruned: u64,
    pub rng: Rng,
}

impl Sim {
    pub(crate) fn new(seed: u64) -> Self {
        let mut sim = Self {
            tree: Tree::default(),
            fold: None,
            layers: BTreeMap::new(),
            dead: BTreeMap::new(),
            alloc: BTreeMap::new(),
            maps: BTreeMap::new(),
            free: Vec::new(),
            quarantine: Vec::new(),
            next: 1,
            stamps: BTreeMap::new(),
            shadow: BTreeMap::new(),
            stamp: 0,
            blobs: BTreeMap::new(),
            old_blobs: Vec::new(),
            pages: BTreeMap::new(),
            slots: 0,
            exact: BTreeMap::new(),
            pruned: 0,
            rng: Rng(seed),
        };
        let size = span(1) * BLOCK_SIZE as u64;
        sim.run(|tree| tree.plan_create_volumes(&[super::new_volume("v0", size)], 1)).unwrap();
        sim
    }

    // ---- blocks

    /// Reuses soon what was freed: that makes a stale pointer deadly.
    pub(crate) fn take_block(&mut self, is_map: bool) -> u64 {
        let block = if self.free.len() > 2 {
            self.free.remove(0)
        } else {
            self.next += 1;
            self.next - 1
        };
        assert!(self.alloc.insert(block, is_map).is_none());
        block
    }

    pub(crate) fn release(&mut self, block: u64, is_map: bool) {
        assert_eq!(self.alloc.remove(&block), Some(is_map), "double free of {block}");
        self.maps.remove(&block);
        self.quarantine.push(block);
    }

    // ---- verbs

    /// Plans with `plan`, loads what it asks for, applies the records here and notes them for
    /// the fold in progress.
    pub(crate) fn run(
        &mut self,
        plan: impl Fn(&Tree) -> Result<Vec<Record>, TreeError>,
    ) -> Result<Vec<Record>, TreeError> {
        let records = loop {
            match plan(&self.tree) {
                Err(TreeError::NotLoaded(id)) => {
                    let mut tree = std::mem::take(&mut self.tree);
                    self.load_props(&mut tree, id);
                    self.tree = tree;
                }
                other => break other?,
            }
        };
        for record in &records {
            self.note_shadow(record);
            self.tree.apply(record, FrameSeq(7)).expect("a planned record applies");
            if let Some(fold) = &mut self.fold {
                fold.log.push(record.clone());
            }
        }
        Ok(records)
    }

    /// What the new heads of a record must hold.
    fn note_shadow(&mut self, record: &Record) {
        let new: Vec<(NodeId, Option<NodeId>)> = match record {
            Record::VolCreate { node, .. } => vec![(*node, None)],
            Record::Clone { node, parent, .. } => vec![(*node, Some(*parent))],
            Record::SnapCreate { members, .. } => {
                members.iter().map(|m| (m.new_head, self.tree.head(m.volume))).collect()
            }
            Record::Rollback { members, .. } => {
                members.iter().map(|m| (m.new_head, Some(m.target))).collect()
            }
            _ => Vec::new(),
        };
        for (node, from) in new {
            let zeros = vec![0; span(MAX_LEVEL) as usize];
            self.shadow.insert(node, from.map_or(zeros, |from| self.shadow[&from].clone()));
        }
    }

    pub(crate) fn write(&mut self, head: NodeId, at: u64, discard: bool) {
        self.stamp += 1;
        let block = (!discard).then(|| self.take_block(false));
        if let Some(block) = block {
            self.stamps.insert(block, self.stamp);
        }
        let old = self.layers.entry(head).or_default().insert(at, block);
        self.dead.entry(head).or_default().extend(old.flatten());
        let stamp = if discard { 0 } else { self.stamp };
        self.shadow.get_mut(&head).unwrap()[at as usize] = stamp;
    }

    // ---- blobs

    pub(crate) fn load_row(&self, tree: &mut Tree, id: NodeId) {
        if !tree.is_row_loaded(id) {
            let (owner, payload) = &self.blobs[&tree.row_blob(id).phys.0];
            assert_eq!(*owner, id, "a row under another name");
            tree.load_row(id, payload).unwrap();
        }
    }

    pub(crate) fn load_props(&self, tree: &mut Tree, id: NodeId) {
        if !tree.is_props_loaded(id) {
            let (owner, blob) = tree.props_blob(id);
            let (found, payload) = &self.blobs[&blob.phys.0];
            assert_eq!(*found, owner, "properties under another name");
            tree.load_props(id, payload).unwrap();
        }
    }

    pub(crate) fn load_all(&self, tree: &mut Tree) {
        let ids: Vec<NodeId> = tree.iter().map(|node| node.entry.id).collect();
        for id in ids {
            self.load_row(tree, id);
            self.load_props(tree, id);
        }
    }

    fn store(&mut self, id: NodeId, payload: Vec<u8>) -> BlobRef {
        if payload.is_empty() {
            return BlobRef::default();
        }
        let (at, len) = (self.next, payload.len() as u32);
        self.next += 1;
        self.blobs.insert(at, (id, payload));
        BlobRef { phys: Phys(at), crc: 0, len }
    }

    // ---- fold

    /// Freezes, and merges every layer into a clone of the tree.
    pub(crate) fn fold_start(&mut self) {
        assert!(self.fold.is_none());
        self.free.append(&mut self.quarantine);
        for blob in std::mem::take(&mut self.old_blobs) {
            assert!(self.blobs.remove(&blob).is_some(), "a blob freed twice");
        }
        let mut tree = self.tree.clone();
        let mut layers = std::mem::take(&mut self.layers);
        let mut dead = std::mem::take(&mut self.dead);
        let mut ids: Vec<NodeId> = layers.keys().copied().chain(tree.unrooted()).collect();
        ids.sort_by_key(|&id| (tree.node(id).unwrap().entry.label_gen, id));
        ids.dedup();
        for id in ids {
            tree.root_for_fold(id);
            for block in dead.remove(&id).unwrap_or_default() {
                self.release(block, false);
            }
            if let Some(layer) = layers.remove(&id) {
                self.fold_layer(&mut tree, id, layer);
            }
        }
        assert!(tree.unrooted().is_empty());
        self.fold = Some(Fold { tree, log: Vec::new() });
    }

    fn fold_layer(&mut self, tree: &mut Tree, id: NodeId, layer: BTreeMap<u64, Option<u64>>) {
        let born = layer.values().flatten().count() as u64;
        tree.note_born(id, false, born);
        tree.note_mapped_delta(id, false, born as i64);
        let root = tree.node(id).unwrap().entry.root;
        let (mut ptr, mut level) = ((root.phys.0, root.birth.0), u32::from(root.level) + 1);
        let label = tree.node(id).unwrap().entry.label_gen.0;
        while layer.iter().any(|(&at, block)| block.is_some() && at >= span(level)) {
            if ptr.0 != 0 {
                // The old root becomes child 0 and keeps its birth: nothing is killed.
                let block = self.take_block(true);
                self.maps.insert(block, vec![ptr, (0, 0)]);
                tree.note_born(id, true, 1);
                tree.note_mapped_delta(id, true, 1);
                ptr = (block, label);
            }
            level += 1;
        }
        let layer = layer.into_iter().filter(|&(at, _)| at < span(level)).collect();
        let ptr = self.merge(tree, id, level, ptr, 0, &layer, false);
        set_root(tree, id, level, ptr);
    }

    /// Merges `layer` below a pointer. A trim counts kills and map nodes for the children too.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn merge(
        &mut self,
        tree: &mut Tree,
        id: NodeId,
        level: u32,
        ptr: Ptr,
        start: u64,
        layer: &BTreeMap<u64, Option<u64>>,
        trim: bool,
    ) -> Ptr {
        let end = start + span(level);
        if layer.range(start..end).next().is_none() {
            return ptr;
        }
        let label = tree.node(id).unwrap().entry.label_gen.0;
        let old = match ptr.0 {
            0 => vec![(0, ptr.1); FAN as usize],
            block => self.maps[&block].clone(),
        };
        let mut new = old.clone();
        for (slot, child) in new.iter_mut().enumerate() {
            let at = start + slot as u64 * span(level - 1);
            if level > 1 {
                *child = self.merge(tree, id, level - 1, *child, at, layer, trim);
                continue;
            }
            let Some(&block) = layer.get(&at) else { continue };
            if block.is_none() && child.0 == 0 {
                continue; // a tombstone over a hole
            }
            let was = std::mem::replace(child, (block.unwrap_or(0), label));
            if was.0 != 0 {
                self.kill(tree, id, false, was, at + 1, trim);
            }
        }
        if new == old {
            return ptr;
        }
        if ptr.0 != 0 {
            self.kill(tree, id, true, ptr, end, trim);
        }
        if new.iter().all(|child| child.0 == 0) {
            return (0, label);
        }
        assert_eq!(new.iter().map(|child| child.1).max(), Some(label), "I3");
        let block = self.take_block(true);
        self.maps.insert(block, new);
        tree.note_born(id, true, 1);
        if trim {
            tree.note_trim_born(id, 1);
        }
        tree.note_mapped_delta(id, true, 1);
        (block, label)
    }

    fn kill(&mut self, tree: &mut Tree, id: NodeId, is_map: bool, ptr: Ptr, end: u64, trim: bool) {
        if tree.kill(id, is_map, Gen(ptr.1), end) {
            self.release(ptr.0, is_map);
        }
        tree.note_mapped_delta(id, is_map, -1);
        if trim {
            tree.hoist(id, is_map, Gen(ptr.1));
        }
    }

    /// Blobs, table pages; then the clone, with the later records applied, becomes the tree.
    pub(crate) fn fold_end(&mut self) {
        let Some(Fold { mut tree, log }) = self.fold.take() else { return };
        for id in tree.dirty_rows() {
            self.load_row(&mut tree, id);
            let blob = self.store(id, tree.row_payload(id));
            self.old_blobs.extend(tree.set_row_blob(id, blob).map(|old| old.blob.phys.0));
        }
        for id in tree.dirty_props() {
            self.load_props(&mut tree, id);
            let blob = self.store(id, tree.props_payload(id));
            self.old_blobs.extend(tree.set_props_blob(id, blob).map(|old| old.blob.phys.0));
        }
        self.slots = self.slots.max(tree.iter().count() as u32);
        tree.assign_slots(self.slots).unwrap();
        assert_eq!(tree.free_slots(), self.slots - tree.iter().count() as u32);
        tree.set_total_slots(u32::MAX);
        super::table::write(&tree, &mut self.pages);
        tree.clear_dirty();
        super::oracle::check(self, &tree);
        check_charges(&tree);
        let mut again = super::table::read(&self.pages, tree.counters());
        check_charges(&again);
        super::oracle::assert_same(self, &tree, &again);
        for record in &log {
            tree.apply(record, FrameSeq(7)).expect("a later record applies to the fold's tree");
            again.apply(record, FrameSeq(7)).expect("a replayed record applies");
        }
        super::oracle::assert_same(self, &tree, &again);
        // A crash, or a long life: rows and properties are read again where needed.
        self.tree = if self.rng.chance(10) {
            // What was known is lost with the process.
            self.exact.clear();
            again
        } else {
            tree
        };
        let ids: Vec<NodeId> = self.tree.iter().map(|node| node.entry.id).collect();
        for id in ids.into_iter().filter(|id| id.0 % 3 == 0) {
            self.tree.unload_row(id);
            self.tree.unload_props(id);
        }
    }
}

/// Each block has one payer: the sums that are kept are those of the nodes.
fn check_charges(tree: &Tree) {
    let mut sums = std::collections::BTreeMap::<VolumeId, u64>::new();
    for node in tree.iter() {
        *sums.entry(node.entry.volume).or_default() += node.entry.born.data;
    }
    for (volume, sum) in sums {
        assert_eq!(tree.charge(volume), sum, "volume {volume}");
    }
}
