//! Subtrees that a discard has cut off as a whole, and that are given back later, a bounded piece in
//! each fold. Design section 7, Discard.
//!
//! The merge puts a hole where the subtree was and a line into the queue, which is part of the
//! checkpoint; nothing is read. Later its pointers are let go of one by one, exactly as the merge would
//! have done it: judged by the lemma, on behalf of the node that discarded them. For that to be the
//! same, no node may be spliced meanwhile: walks and trims wait until the queue is empty. Map nodes
//! go when all below them has gone; how far that has come is part of the line.

use super::Fold;
use crate::ahead::{FOR_FOLDS, load_near};
use crate::error::Error;
use crate::lookup::load;
use crate::space::Tier;
use cow_format::blob::{CELL_LEN, PAYLOAD};
use cow_format::checkpoint::{Detached, MAX_DETACHED};
use cow_format::entry::Count;
use cow_format::mapnode::{FANOUT, FANOUT_BITS, MapNode, Slot};
use cow_format::{FamilyId, NodeId};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;

/// Map nodes that are read ahead at once.
const READ_AHEAD: usize = 16;
/// Pointers that die with a leaf: its blocks, itself, and less than one map node above it.
const DEATHS: u64 = FANOUT as u64 + 2;

/// A map node of a detached subtree.
#[derive(Clone, Copy)]
struct Place {
    level: u8,
    index: u64,
    slot: Slot,
}

impl Place {
    /// One past the last block.
    fn end(&self) -> u64 {
        (self.index + 1) << (FANOUT_BITS * (u32::from(self.level) + 1))
    }
}

/// Whose subtree, how far it has gone, and how much more may.
struct Pass {
    x: NodeId,
    family: FamilyId,
    cursor: u64,
    leaves: usize,
    /// Pointers that it has let go of.
    gone: Count,
}

impl Fold {
    /// Cuts a subtree off; false, and nothing was done, if that has to be done at once: when there
    /// is no place for one more, or it is as easily done.
    pub(super) fn detach(&mut self, x: NodeId, level: u8, index: u64, slot: Slot) -> bool {
        if level == 0 || self.detached.len() >= MAX_DETACHED {
            return false;
        }
        self.detached.push(Detached { node: x, level, index, slot, cursor: 0 });
        self.tree.note_detached(x);
        true
    }

    /// Gives back what was cut off, within the budget; whether all of it is gone.
    pub(super) async fn drain_detached(&mut self) -> Result<bool, Error> {
        if self.detached.is_empty() {
            return Ok(true);
        }
        let mut leaves = {
            let mut core = self.cx.core();
            core.fold.detach_starved = false;
            core.config.walk_leaves.max(1)
        };
        // For how many more leaves of each node the row has room.
        let mut room: BTreeMap<NodeId, usize> = BTreeMap::new();
        while let Some(line) = self.detached.last().copied().filter(|_| leaves > 0) {
            let x = line.node;
            let Some(family) = self.tree.node(x).map(|node| node.entry.family) else {
                // Nodes do not go while something of theirs is in the queue.
                self.leaks = true;
                self.detached.pop();
                continue;
            };
            let left = match room.get(&x) {
                Some(left) => *left,
                None => self.grant_deaths(x, leaves),
            };
            let granted = left.min(leaves);
            if granted == 0 {
                self.cx.core().fold.detach_starved = true;
                break;
            }
            let gone = Count::default();
            let mut pass = Pass { x, family, cursor: line.cursor, leaves: granted, gone };
            let top = Place { level: line.level, index: line.index, slot: line.slot };
            let done = self.let_go(&mut pass, top).await?;
            self.tree.note_detached_gone(x, pass.gone);
            let used = granted - pass.leaves;
            leaves -= used;
            room.insert(x, left - used);
            if done {
                self.detached.pop();
            } else if let Some(line) = self.detached.last_mut() {
                line.cursor = pass.cursor;
            }
        }
        let waiting = self.detached.iter().map(|line| line.node).collect();
        self.tree.set_detached(waiting);
        Ok(self.detached.is_empty())
    }

    /// Keeps blocks for the kill row that the deaths of so many leaves make longer; how many leaves
    /// that is for.
    fn grant_deaths(&mut self, x: NodeId, leaves: usize) -> usize {
        let births = u64::from(self.tree.parent_gen(x).0);
        let row = self.tree.row_blob(x).blocks();
        let blocks = |leaves: u64| {
            let cells = births.min(leaves * DEATHS);
            row + (cells * CELL_LEN as u64).div_ceil(PAYLOAD as u64) + 1
        };
        let mut core = self.cx.core();
        // Half of it: a layer that came after the freeze counts the row as well.
        let have = core.available(Tier::Reclaim, None) / 2;
        let mut granted = leaves;
        while granted > 0 && blocks(granted as u64) > have {
            granted /= 2;
        }
        if granted > 0 {
            let blocks = blocks(granted as u64);
            core.fold.splice_blocks += blocks;
            self.reserved += blocks;
        }
        granted
    }

    /// Whether the subtree is gone; not when the budget ran out inside.
    fn let_go<'a>(
        &'a mut self,
        pass: &'a mut Pass,
        place: Place,
    ) -> Pin<Box<dyn Future<Output = Result<bool, Error>> + 'a>> {
        Box::pin(async move {
            if place.end() <= pass.cursor || !place.slot.is_mapped() {
                return Ok(true);
            }
            if pass.leaves == 0 {
                return Ok(false);
            }
            let Place { level, index, slot } = place;
            match load(&self.cx, pass.family, level, index, slot).await {
                Err(_) => self.note_damage(pass.x, level, index),
                Ok(node) if level == 0 => {
                    pass.leaves -= 1;
                    let mapped =
                        (0..=u8::MAX).zip(node.slots()).filter(|(_, slot)| slot.is_mapped());
                    let killed: Vec<_> = mapped.map(|(at, slot)| (at, *slot)).collect();
                    self.kill_in_leaf(pass.x, index, &killed);
                    pass.gone.data += killed.len() as u64;
                    self.went_on().await;
                }
                Ok(node) => {
                    if !self.let_children_go(pass, place, &node).await? {
                        return Ok(false);
                    }
                }
            }
            self.kill(pass.x, true, &slot, place.end());
            pass.gone.map += 1;
            pass.cursor = place.end();
            Ok(true)
        })
    }

    async fn let_children_go(
        &mut self,
        pass: &mut Pass,
        place: Place,
        node: &MapNode,
    ) -> Result<bool, Error> {
        let level = place.level - 1;
        let child = |(at, slot): (usize, &Slot)| Place {
            level,
            index: (place.index << FANOUT_BITS) + at as u64,
            slot: *slot,
        };
        let cursor = pass.cursor;
        let left = |place: &Place| place.slot.is_mapped() && place.end() > cursor;
        let places: Vec<Place> = node.slots().iter().enumerate().map(child).filter(left).collect();
        for window in places.chunks(READ_AHEAD) {
            if pass.leaves == 0 {
                return Ok(false);
            }
            let ahead = window.iter().take(pass.leaves);
            let wanted: Vec<_> = ahead.map(|place| (place.index, place.slot)).collect();
            // Held until the window is through, so that the cache cannot lose them.
            let _held = load_near(&self.cx, pass.family, level, &wanted, FOR_FOLDS).await;
            for place in window {
                if !self.let_go(pass, *place).await? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}
