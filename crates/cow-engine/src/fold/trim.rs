//! The trim: gives back what a deleted branch point has and none of its children uses any more.
//! Design section 4, "Trim of a zombie".
//!
//! Z is deleted and has several children. A data pointer of tree(Z) that no child has is cleared as
//! if Z had discarded it: leaf and spine are written anew with birth gen(Z), map nodes that are empty
//! go, and the death is hoisted from the children's kill rows. A subtree is skipped as soon as one
//! child has the same pointer, or when it is older than the nearest node above that is in use. So
//! each node of Z that is read has been replaced in every child.
//!
//! It runs after the merges and walks of a fold, on folded roots, children before parents, never
//! beside a walk. Cursor and frees commit in the same checkpoint. It is optional: with no blocks at
//! hand for what it writes it waits, and deletes go on.

use super::Fold;
use crate::ahead::{FOR_FOLDS, load_near};
use crate::error::Error;
use crate::lookup::root_slot;
use crate::space::Tier;
use cow_format::entry::Root;
use cow_format::mapnode::{FANOUT, FANOUT_BITS, MAX_LEVEL, MapNode, Slot};
use cow_format::{FamilyId, Gen, NodeId, mutant};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// Map nodes that are read ahead at once.
const READ_AHEAD: usize = 32;

/// What is being trimmed.
#[derive(Clone, Copy)]
struct Trim {
    z: NodeId,
    family: FamilyId,
    /// Pointers up to this birth are left alone.
    floor: Gen,
    /// Birth of what is written.
    born: Gen,
    /// Map nodes that lie above a leaf, which must be written when something below was.
    spine: u64,
}

/// What a pass may still take.
struct Means {
    leaves: usize,
    nodes: u64,
    stopped: bool,
}

/// The same place in tree(Z) and in those of its children.
struct Place {
    level: u8,
    index: u64,
    z: Slot,
    /// Different pointers only.
    children: Vec<Slot>,
}

impl Place {
    fn end(&self) -> u64 {
        (self.index + 1) << (FANOUT_BITS * (u32::from(self.level) + 1))
    }

    /// Nodes that must be read: index, and what points to it.
    fn wanted(&self) -> impl Iterator<Item = (u64, Slot)> {
        let children = self.children.iter().filter(|slot| slot.is_mapped());
        std::iter::once(&self.z).chain(children).map(|slot| (self.index, *slot))
    }

    /// Whether nothing below can be cleared.
    fn rests(&self, floor: Gen) -> bool {
        // What is lost in a child may have been anything.
        let kept = |child: &Slot| child.phys == self.z.phys || child.is_lost();
        !self.z.is_mapped() || self.z.birth <= floor || self.children.iter().any(kept)
    }
}

/// A place with its nodes.
struct Opened {
    z: Arc<MapNode>,
    children: Vec<Arc<MapNode>>,
}

impl Opened {
    /// The pointers of the children at slot `at`, each once.
    fn slots(&self, at: usize) -> Vec<Slot> {
        let mut slots: Vec<Slot> = Vec::new();
        for node in &self.children {
            let slot = node.slots()[at];
            let known = |other: &Slot| other.phys == slot.phys && other.is_lost() == slot.is_lost();
            if !slot.is_hole() && !slots.iter().any(known) {
                slots.push(slot);
            }
        }
        slots
    }
}

impl Fold {
    /// Trims branch points whose deletion was at or before the freeze, within the budget.
    pub(super) async fn trim_all(&mut self) -> Result<(), Error> {
        let (everything, mut leaves) = {
            let mut core = self.cx.core();
            core.fold.trim_starved = false;
            core.fold.trim_again = false;
            let everything = std::mem::take(&mut core.fold.trim_everything);
            (everything, core.config.walk_leaves.max(1))
        };
        for z in self.tree.trimmable() {
            for id in self.tree.rows_needed_for_trim(z) {
                self.load_row(id).await;
            }
            if self.tree.settle_trim(z) || !self.tree.is_trim_due(z, everything) {
                continue;
            }
            if leaves == 0 || !self.trim_node(z, &mut leaves).await? {
                self.cx.core().fold.trim_again = true;
                return Ok(());
            }
        }
        Ok(())
    }

    /// Trims one branch point; whether that is done.
    async fn trim_node(&mut self, z: NodeId, leaves: &mut usize) -> Result<bool, Error> {
        let Some(node) = self.tree.node(z) else { return Ok(true) };
        let (family, root, born) = (node.entry.family, node.entry.root, node.entry.label_gen);
        let spine = u64::from(root.level);
        let Some(granted) = self.grant_trim(z, spine, *leaves) else { return Ok(false) };
        let trim = Trim { z, family, floor: self.tree.trim_floor(z), born, spine };
        let mut children = Vec::new();
        for child in self.tree.compared_in_trim(z).collect::<Vec<_>>() {
            match self.pointer_at(child, family, root.level).await {
                Some(slot) if !children.contains(&slot) => children.push(slot),
                Some(_) => {}
                // What cannot be compared is left alone.
                None => children.push(Slot::lost(Gen(0))),
            }
        }
        self.tree.begin_trim(z);
        let place = Place { level: root.level, index: 0, z: root_slot(&root), children };
        let mut means = Means { leaves: *leaves, nodes: granted, stopped: false };
        let new = self.trim(trim, place, &mut means).await?;
        let root = Root { phys: new.phys, crc: new.crc, birth: new.birth, level: root.level };
        self.tree.set_root(z, root);
        if !means.stopped {
            self.tree.finish_trim(z);
        }
        *leaves = means.leaves;
        // Rows stay counted until the fold is over; what was not needed goes back.
        self.cx.core().fold.splice_blocks -= means.nodes;
        self.reserved -= means.nodes;
        Ok(!means.stopped)
    }

    /// Keeps blocks for the map nodes and rows that a pass writes: how many of the former. `None`
    /// when there are too few to get anywhere.
    fn grant_trim(&mut self, z: NodeId, spine: u64, leaves: usize) -> Option<u64> {
        let rows = self.tree.trim_row_blocks(z);
        let mut core = self.cx.core();
        // Half of it: a layer that came after the freeze counts the rows as well.
        let have = core.available(Tier::Discard, None) / 2;
        if have < rows + spine + 2 {
            core.fold.trim_starved = true;
            return None;
        }
        // A leaf, and no more than one inner node for each, and the last spine.
        let nodes = (have - rows).min(2 * leaves as u64 + u64::from(MAX_LEVEL) + 1);
        core.fold.splice_blocks += rows + nodes;
        self.reserved += rows + nodes;
        Some(nodes)
    }

    /// Trims a subtree; the slot that stands for it afterwards.
    fn trim<'a>(
        &'a mut self,
        t: Trim,
        place: Place,
        means: &'a mut Means,
    ) -> Pin<Box<dyn Future<Output = Result<Slot, Error>> + 'a>> {
        Box::pin(async move {
            let cursor = self.tree.node(t.z).map_or(0, |node| node.entry.cursor);
            if place.end() <= cursor || means.stopped {
                return Ok(place.z);
            }
            if place.rests(t.floor) {
                self.tree.set_trim_cursor(t.z, place.end());
                return Ok(place.z);
            }
            if means.leaves == 0 || means.nodes <= t.spine {
                means.stopped = true;
                return Ok(place.z);
            }
            let Some(opened) = open(&self.cx, t.family, &place).await else {
                self.note_damage(t.z, place.level, place.index);
                self.tree.set_trim_cursor(t.z, place.end());
                return Ok(place.z);
            };
            if place.level > 0 {
                return self.trim_inner(t, place, opened, means).await;
            }
            means.leaves -= 1;
            self.went_on().await;
            let node = self.trim_leaf(t, &place, &opened);
            self.tree.set_trim_cursor(t.z, place.end());
            match node {
                Some(node) => self.trim_replace(t, &place, node, means).await,
                None => Ok(place.z),
            }
        })
    }

    /// The leaf without what no child has; `None` if there is no such thing.
    fn trim_leaf(&mut self, t: Trim, place: &Place, opened: &Opened) -> Option<MapNode> {
        let mut new = (*opened.z).clone();
        let mut killed = Vec::new();
        for (at, slot) in (0..=u8::MAX).zip(opened.z.slots()) {
            if !slot.is_mapped() || slot.birth <= t.floor {
                continue;
            }
            let kept = |node: &Arc<MapNode>| {
                let child = &node.slots()[usize::from(at)];
                child.phys == slot.phys || child.is_lost()
            };
            if opened.children.iter().any(kept) {
                continue;
            }
            killed.push((at, *slot));
        }
        self.kill_in_leaf(t.z, place.index, &killed);
        if mutant::is("trimstale") {
            return None;
        }
        for (at, slot) in &killed {
            self.tree.hoist(t.z, false, slot.birth);
            new.slots_mut()[usize::from(*at)] = Slot::hole(t.born);
        }
        (!killed.is_empty()).then_some(new)
    }

    async fn trim_inner(
        &mut self,
        t: Trim,
        place: Place,
        opened: Opened,
        means: &mut Means,
    ) -> Result<Slot, Error> {
        let below = |at: usize| Place {
            level: place.level - 1,
            index: (place.index << FANOUT_BITS) + at as u64,
            z: opened.z.slots()[at],
            children: opened.slots(at),
        };
        let mut new: Option<MapNode> = None;
        let window = (READ_AHEAD / (opened.children.len() + 1)).max(1);
        for first in (0..FANOUT).step_by(window) {
            if means.stopped {
                break;
            }
            let cursor = self.tree.node(t.z).map_or(0, |node| node.entry.cursor);
            let places: Vec<Place> = (first..FANOUT.min(first + window)).map(below).collect();
            let ahead = places.iter().filter(|place| place.end() > cursor && !place.rests(t.floor));
            let wanted: Vec<_> = ahead.flat_map(Place::wanted).collect();
            // Held until the window is through, so that the cache cannot lose them.
            let _held = load_near(&self.cx, t.family, place.level - 1, &wanted, FOR_FOLDS).await;
            for (at, child) in (first..).zip(places) {
                let old = child.z;
                let slot = self.trim(t, child, means).await?;
                if slot != old {
                    new.get_or_insert_with(|| (*opened.z).clone()).slots_mut()[at] = slot;
                }
            }
        }
        match new {
            Some(node) => self.trim_replace(t, &place, node, means).await,
            None => Ok(place.z),
        }
    }

    /// The node of Z at `place` gives way to `node`.
    async fn trim_replace(
        &mut self,
        t: Trim,
        place: &Place,
        node: MapNode,
        means: &mut Means,
    ) -> Result<Slot, Error> {
        self.kill(t.z, true, &place.z, place.end());
        self.tree.hoist(t.z, true, place.z.birth);
        if node.is_empty() {
            return Ok(Slot::hole(t.born));
        }
        means.nodes = means.nodes.saturating_sub(1);
        let slot = self.store(t.z, node, t.born).await?;
        self.tree.note_trim_born(t.z, 1);
        Ok(slot)
    }
}

/// The nodes at `place`, of Z and of its children; `None` when one cannot be read.
async fn open(cx: &crate::task::Cx, family: FamilyId, place: &Place) -> Option<Opened> {
    let wanted: Vec<_> = place.wanted().collect();
    let mut nodes = load_near(cx, family, place.level, &wanted, FOR_FOLDS).await.into_iter();
    let z = nodes.next()??;
    Some(Opened { z, children: nodes.collect::<Option<Vec<_>>>()? })
}
