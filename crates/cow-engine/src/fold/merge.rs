//! Merging the frozen layers into the map, node by node of the snapshot tree.
//!
//! Nodes are visited by ascending gen. One that no fold has seen starts from its parent's root
//! *as folded in this same fold*, even with no layer of its own: else a clean clone of an
//! unfolded snapshot would lose the snapshot's data.

use super::Fold;
use crate::ahead::{FOR_FOLDS, load_near};
use crate::error::Error;
use crate::lookup::{load, root_slot};
use cow_extent::{LeafChange, NodeLayer, merge_leaf};
use cow_format::entry::{NodeKind, NodeState, Root};
use cow_format::mapnode::{FANOUT, FANOUT_BITS, MAX_LEVEL, MapNode, Slot, span_blocks};
use cow_format::{FamilyId, Gen, NodeId, mutant};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// Children that are read at once.
const PREFETCH: usize = 16;

/// A subtree in a merge: where it is, and what stands there now.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) level: u8,
    pub(super) index: u64,
    pub(super) slot: Slot,
    /// Level of the node that `slot` points to: lower than `level` where the root grows.
    pub(super) slot_level: u8,
    pub(super) loaded: Option<Arc<MapNode>>,
}

impl Place {
    /// One past the last block of the subtree.
    fn end(&self) -> u64 {
        (self.index + 1) << (FANOUT_BITS * (u32::from(self.level) + 1))
    }

    /// The leaves of the subtree.
    fn leaves(&self) -> (u64, u64) {
        let bits = FANOUT_BITS * u32::from(self.level);
        (self.index << bits, (self.index + 1) << bits)
    }
}

/// On whose behalf, and what.
#[derive(Clone, Copy)]
pub(super) struct Merging<'a> {
    pub(super) x: NodeId,
    pub(super) family: FamilyId,
    pub(super) born: Gen,
    pub(super) layer: &'a NodeLayer,
}

type SlotFuture<'a> = Pin<Box<dyn Future<Output = Result<Slot, Error>> + 'a>>;

impl Fold {
    pub(super) async fn merge_all(&mut self) -> Result<(), Error> {
        let layers = Arc::clone(&self.layers);
        let mut ids: Vec<NodeId> = layers.nodes().chain(self.tree.unrooted()).collect();
        ids.sort_unstable_by_key(|&id| (self.tree.node(id).map(|n| n.entry.label_gen), id));
        ids.dedup();
        for id in ids {
            let Some(node) = self.tree.node(id) else {
                layers.node(id).iter().for_each(|layer| self.drop_layer(layer));
                continue;
            };
            let ends = node.entry.state == NodeState::Deleting
                || mutant::is("undolayer") && node.entry.kind == NodeKind::Undo;
            let dropped = ends && node.children.is_empty();
            let (family, born) = (node.entry.family, node.entry.label_gen);
            let stale = self.root_before_this_fold(id);
            let root = self.tree.root_for_fold(id);
            if mutant::is("cleanclone")
                && layers.node(id).is_none()
                && let Some(root) = stale
            {
                self.tree.set_root(id, root);
            }
            let Some(layer) = layers.node(id) else { continue };
            if dropped {
                self.drop_layer(layer);
                continue;
            }
            layer.dead.iter().for_each(|&phys| self.dead(phys));
            let merging = Merging { x: id, family, born, layer };
            self.merge_node(merging, root).await?;
            // A child that starts from this root may read what was just written.
            self.writes_done().await?;
        }
        Ok(())
    }

    /// The fault that the mutant `cleanclone` is: what the parent's root was when the fold began.
    fn root_before_this_fold(&self, id: NodeId) -> Option<Root> {
        if !mutant::is("cleanclone") {
            return None;
        }
        let parent = self.tree.node(id).filter(|node| !node.rooted)?.entry.parent;
        Some(self.cx.core().pool.as_ref()?.tree.node(parent)?.entry.root)
    }

    /// Nothing will ever read this layer: its blocks go without having been in any map.
    fn drop_layer(&mut self, layer: &NodeLayer) {
        layer.dead.iter().for_each(|&phys| self.dead(phys));
        for leaf in layer.leaves.values() {
            let blocks = leaf.entries().iter().filter(|e| !e.phys.is_none());
            blocks.for_each(|entry| self.dead(entry.phys));
        }
    }

    async fn merge_node(&mut self, m: Merging<'_>, root: Root) -> Result<(), Error> {
        let level = root.level.max(needed_level(m.layer));
        let slot = root_slot(&root);
        let place = Place { level, index: 0, slot, slot_level: root.level, loaded: None };
        let new = self.merge(m, place).await?;
        let root = Root { phys: new.phys, crc: new.crc, birth: new.birth, level };
        self.tree.set_root(m.x, root);
        Ok(())
    }

    /// Merges the layer into one subtree; the slot that stands for it afterwards.
    fn merge<'a>(&'a mut self, m: Merging<'a>, place: Place) -> SlotFuture<'a> {
        Box::pin(async move {
            let (first, end) = place.leaves();
            if m.layer.clears.covers(first, end) {
                return self.clear_subtree(m, place).await;
            }
            if place.level == 0 {
                self.merge_leaf(m, place).await
            } else {
                self.merge_inner(m, place).await
            }
        })
    }

    /// The node that stands at `place`: read, or made of holes, or (where it cannot be read) of
    /// lost slots.
    async fn open(&mut self, m: Merging<'_>, place: &Place) -> MapNode {
        let Place { level, index, slot, .. } = *place;
        if slot.is_hole() {
            let birth = if mutant::is("holezero") { Gen(0) } else { slot.birth };
            return MapNode::empty(m.family, level, index, birth);
        }
        if slot.is_mapped() {
            if let Some(node) = &place.loaded {
                return (**node).clone();
            }
            if let Ok(node) = load(&self.cx, m.family, level, index, slot).await {
                return (*node).clone();
            }
            self.note_damage(m.x, level, index);
        }
        let mut node = MapNode::empty(m.family, level, index, m.born);
        let lost = if mutant::is("losthole") { Slot::hole(m.born) } else { Slot::lost(m.born) };
        node.slots_mut().fill(lost);
        node
    }

    async fn merge_leaf(&mut self, m: Merging<'_>, place: Place) -> Result<Slot, Error> {
        let Some(changes) = m.layer.leaves.get(&place.index) else { return Ok(place.slot) };
        let mut node = self.open(m, &place).await;
        let (mut killed, mut born) = (Vec::new(), 0u64);
        let changed = merge_leaf(&mut node, Some(changes), false, m.born, |change| match change {
            LeafChange::Killed(slot, old) => killed.push((slot, old)),
            LeafChange::Born(_) => born += 1,
        });
        if !changed {
            return Ok(place.slot);
        }
        if mutant::is("birthcopy") {
            let mut old = node.slots_mut().iter_mut().filter(|s| s.is_mapped() && s.birth < m.born);
            old.next().into_iter().for_each(|slot| slot.birth = m.born);
        }
        self.kill_in_leaf(m.x, place.index, &killed);
        for entry in changes.entries().iter().filter(|e| !e.phys.is_none()) {
            self.add(entry.phys);
        }
        self.tree.note_born(m.x, false, born);
        self.tree.note_mapped_delta(m.x, false, born as i64);
        self.count(false, born as i64);
        self.went_on().await;
        self.replace(m, &place, node).await
    }

    async fn merge_inner(&mut self, m: Merging<'_>, place: Place) -> Result<Slot, Error> {
        let grows = place.slot_level < place.level && !place.slot.is_hole();
        let mut node = if grows {
            // What stood at the root is child 0, perhaps of further new levels; the rest of the
            // range was never written by anybody: holes of the beginning.
            let mut node = MapNode::empty(m.family, place.level, 0, Gen(0));
            node.slots_mut()[0] = place.slot;
            node
        } else {
            self.open(m, &place).await
        };
        let child_level = place.level - 1;
        let below = |slot: Slot, at: usize| Place {
            level: child_level,
            index: (place.index << FANOUT_BITS) + at as u64,
            slot,
            slot_level: if grows && at == 0 { place.slot_level } else { child_level },
            loaded: None,
        };
        let grows_below = grows && place.slot_level < child_level;
        let touched: Vec<usize> = (0..FANOUT)
            .filter(|&at| {
                let (first, end) = below(Slot::hole(Gen(0)), at).leaves();
                (at == 0 && grows_below)
                    || m.layer.leaves.range(first..end).next().is_some()
                    || m.layer.clears.overlapping(first, end).next().is_some()
            })
            .collect();
        let mut changed = grows;
        for window in touched.chunks(PREFETCH) {
            let mut children: Vec<Place> =
                window.iter().map(|&at| below(node.slots()[at], at)).collect();
            self.prefetch(m, &mut children).await;
            for (&at, child) in window.iter().zip(children) {
                let old = child.slot;
                let new = self.merge(m, child).await?;
                if new != old {
                    node.slots_mut()[at] = new;
                    changed = true;
                }
            }
        }
        if !changed { Ok(place.slot) } else { self.replace_inner(m, &place, node, grows).await }
    }

    /// Reads the map nodes of several children at once.
    async fn prefetch(&self, m: Merging<'_>, children: &mut [Place]) {
        let wants = |child: &Place| child.slot.is_mapped() && child.slot_level == child.level;
        let Some(level) = children.first().map(|child| child.level) else { return };
        let wanted = children.iter().filter(|child| wants(child));
        let wanted: Vec<_> = wanted.map(|child| (child.index, child.slot)).collect();
        let loaded = load_near(&self.cx, m.family, level, &wanted, FOR_FOLDS).await;
        for (child, node) in children.iter_mut().filter(|child| wants(child)).zip(loaded) {
            child.loaded = node;
        }
    }

    async fn replace_inner(
        &mut self,
        m: Merging<'_>,
        place: &Place,
        node: MapNode,
        grows: bool,
    ) -> Result<Slot, Error> {
        // A root that grew is kept as child 0, not killed.
        if grows { self.store_or_prune(m, node).await } else { self.replace(m, place, node).await }
    }

    /// The node at `place` gives way to `node`.
    async fn replace(
        &mut self,
        m: Merging<'_>,
        place: &Place,
        node: MapNode,
    ) -> Result<Slot, Error> {
        if place.slot.is_mapped() {
            self.kill(m.x, true, &place.slot, place.end());
        }
        self.store_or_prune(m, node).await
    }

    async fn store_or_prune(&mut self, m: Merging<'_>, node: MapNode) -> Result<Slot, Error> {
        if node.is_empty() {
            return Ok(Slot::hole(m.born));
        }
        self.store(m.x, node, m.born).await
    }

    /// The whole subtree reads as zeros from now on.
    async fn clear_subtree(&mut self, m: Merging<'_>, place: Place) -> Result<Slot, Error> {
        if place.slot.is_hole() {
            return Ok(place.slot);
        }
        if place.slot.is_mapped() {
            let top = Place { level: place.slot_level, ..place };
            if !self.detach(m.x, top.level, top.index, top.slot) {
                self.kill_subtree(m, top).await?;
            }
        }
        Ok(Slot::hole(m.born))
    }

    fn kill_subtree<'a>(
        &'a mut self,
        m: Merging<'a>,
        place: Place,
    ) -> Pin<Box<dyn Future<Output = Result<(), Error>> + 'a>> {
        Box::pin(async move {
            let Place { level, index, slot, .. } = place;
            match load(&self.cx, m.family, level, index, slot).await {
                Err(_) => self.note_damage(m.x, level, index),
                Ok(node) => {
                    let mapped =
                        || (0..=u8::MAX).zip(node.slots()).filter(|(_, slot)| slot.is_mapped());
                    if level == 0 {
                        let killed: Vec<_> = mapped().map(|(at, slot)| (at, *slot)).collect();
                        self.kill_in_leaf(m.x, index, &killed);
                    } else {
                        for (at, slot) in mapped() {
                            let below = Place {
                                level: level - 1,
                                index: (index << FANOUT_BITS) + u64::from(at),
                                slot: *slot,
                                slot_level: level - 1,
                                loaded: None,
                            };
                            self.kill_subtree(m, below).await?;
                        }
                    }
                }
            }
            self.kill(m.x, true, &slot, place.end());
            Ok(())
        })
    }
}

/// The level that a root needs to reach the last block that the layer maps.
fn needed_level(layer: &NodeLayer) -> u8 {
    let last = layer
        .leaves
        .iter()
        .rev()
        .find(|(_, leaf)| leaf.entries().iter().any(|e| !e.phys.is_none()))
        .map_or(0, |(&leaf, _)| leaf);
    (0..=MAX_LEVEL).find(|&level| span_blocks(level) >> FANOUT_BITS > last).unwrap_or(MAX_LEVEL)
}
