//! One map in lockstep with the one above it in the snapshot tree.
//!
//! Both are followed from the top, position by position. Where the pointers are equal, all below
//! is equal too and nothing is read. Where they differ, the lemma (I4) says that the lower node
//! has replaced the pointer: its birth is above the upper node's gen. Then its block is its own,
//! and must not have been met before (I2).

use crate::context::{Cx, Phase};
use crate::reach::{Mark, Reach};
use crate::report::Structure;
use crate::tally::{Sums, Tally, bump};
use crate::tree::place;
use crate::unread::Pointer;
use cow_extent::NodeCache;
use cow_format::entry::Root;
use cow_format::mapnode::{FANOUT, FANOUT_BITS, MapNode, NodePlace, Slot, span_blocks};
use cow_format::{FamilyId, Gen, NodeId, Phys, checksum};
use cow_snaptree::Tree;
use std::sync::Arc;

/// Memory of the cache of map nodes.
const CACHE_BYTES: usize = 16 << 20;
/// Data blocks that are read at once.
const MAX_RUN: usize = 64;

/// Two maps to be compared.
#[derive(Clone, Copy)]
pub(crate) struct Maps {
    /// The lower node.
    pub(crate) id: NodeId,
    /// Its family.
    pub(crate) family: FamilyId,
    /// Its gen.
    pub(crate) label: Gen,
    /// Gen of the upper node; 0 for none.
    pub(crate) above: Gen,
    /// Gen of the parent: pointers not above it were inherited.
    pub(crate) inherited: Gen,
    /// Blocks of the volume: nothing is mapped behind.
    pub(crate) end: u64,
    /// Nothing is looked at before this block.
    pub(crate) from: u64,
    /// Whether the upper node is deleted. A trim of it makes holes, and one that stands for a map node
    /// that it left empty is younger than those that the lower node has of it, which mean the same.
    pub(crate) trimmed: bool,
    /// Whether the lower node's own blocks are met here for the first time, and counted.
    pub(crate) first: bool,
}

/// What one of the maps has at a position.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    /// A pointer.
    At(Slot),
    /// Nothing: its root is lower, and stands below here as the first child of first children.
    Above(Slot, u8),
    /// Nothing, and nothing below: not under its root. Holes of any birth mean the same here, as
    /// nobody above in the tree has ever mapped anything.
    Outside,
}

impl Side {
    /// The map with this root, seen from position 0 of `level`.
    pub(crate) fn of(root: &Root, level: u8) -> Self {
        let slot = Slot { phys: root.phys, birth: root.birth, crc: root.crc };
        if root.level >= level { Self::At(slot) } else { Self::Above(slot, root.level) }
    }

    fn slot(&self) -> Slot {
        match self {
            Self::At(slot) => *slot,
            Self::Above(..) | Self::Outside => Slot::hole(Gen(0)),
        }
    }

    /// Whether the other map is sure to have the same, here and below.
    fn equals(&self, other: &Slot) -> bool {
        match self {
            Self::At(slot) => slot == other,
            Self::Above(root, _) => root.is_hole() && root == other,
            Self::Outside => other.is_hole(),
        }
    }

    /// Whether nothing is mapped below.
    fn is_empty(&self) -> bool {
        match self {
            Self::At(slot) | Self::Above(slot, _) => !slot.is_mapped(),
            Self::Outside => true,
        }
    }

    /// What stands below, in slot `at` of the node at this position, which is at `level`.
    fn below(&self, node: Option<&MapNode>, level: u8, at: usize) -> Self {
        match (self, node) {
            (Self::At(_), Some(node)) => Self::At(node.slots()[at]),
            (Self::At(slot), None) => Self::At(*slot),
            (Self::Above(root, root_level), _) if at == 0 => match level - 1 == *root_level {
                true => Self::At(*root),
                false => Self::Above(*root, *root_level),
            },
            (Self::Above(..) | Self::Outside, _) => Self::Outside,
        }
    }
}

/// What a pointer is that differs from the one above it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// The lower node's own.
    Own,
    /// It should be the upper one's.
    Strange,
    /// Not to be followed.
    Stop,
}

/// A walk over all maps. See the module.
pub(crate) struct Walk<'w, 'a> {
    pub(crate) cx: &'w mut Cx<'a>,
    pub(crate) tree: &'w Tree,
    pub(crate) reach: &'w mut Reach,
    pub(crate) sums: Sums,
    pub(crate) tally: Tally,
    cache: NodeCache,
    expected: u64,
    done: u64,
}

impl<'w, 'a> Walk<'w, 'a> {
    pub(crate) fn new(
        cx: &'w mut Cx<'a>,
        tree: &'w Tree,
        reach: &'w mut Reach,
        expected: u64,
    ) -> Self {
        Self {
            cx,
            tree,
            reach,
            sums: Sums::default(),
            tally: Tally::default(),
            cache: NodeCache::new(CACHE_BYTES),
            expected,
            done: 0,
        }
    }

    /// Compares what both have at `index` of `level`: pointers to map nodes of that level.
    pub(crate) fn compare(&mut self, m: &Maps, level: u8, index: u64, low: Side, up: Side) {
        let first = index << (FANOUT_BITS * (u32::from(level) + 1));
        let (Side::At(pointer), end) = (low, first.saturating_add(span_blocks(level))) else {
            return;
        };
        if end <= m.from || up.equals(&pointer) {
            return;
        }
        let verdict = self.judge(m, Some(level), first, pointer, up.slot());
        if pointer.is_lost() && m.first {
            self.tell_lost(m, first, end.min(m.end).saturating_sub(first));
        }
        let is_over = !pointer.is_mapped() && (!m.first || up.is_empty());
        if verdict == Verdict::Stop || is_over {
            return;
        }
        // Told of once: what is below stands for nothing, as below a hole.
        let low = if pointer.is_lost() { Side::At(Slot::hole(pointer.birth)) } else { low };
        let pointer = low.slot();
        // Below a pointer that should not be here, nothing can be expected of births.
        let m = &if verdict == Verdict::Strange { Maps { above: Gen(0), ..*m } } else { *m };
        let low_node = if pointer.is_mapped() {
            let Some(node) = self.load(m, level, index, pointer, m.first) else { return };
            self.check_node(m, level, first, pointer, &node);
            Some(node)
        } else {
            None
        };
        let up_node = match up {
            Side::At(slot) if slot.is_mapped() => self.load(m, level, index, slot, false),
            _ => None,
        };
        if up_node.is_none() && up.slot().is_mapped() {
            // Was told of when the upper map was walked.
            if let (true, Some(node)) = (self.cx.unread.is_some(), &low_node) {
                let bad = (up.slot().phys, up.slot().crc);
                self.learn(m, bad, level, index, node);
            }
            return;
        }
        if level == 0 {
            self.compare_leaf(m, first, (pointer, low_node.as_deref()), (up, up_node.as_deref()));
            return;
        }
        for at in 0..FANOUT {
            let child = (index << FANOUT_BITS) + at as u64;
            let low = low.below(low_node.as_deref(), level, at);
            let up = up.below(up_node.as_deref(), level, at);
            self.compare(m, level - 1, child, low, up);
        }
    }

    /// What the lower node has inherited from a map node that cannot be read, or from what is below that.
    fn learn(&mut self, m: &Maps, bad: Pointer, level: u8, index: u64, node: &MapNode) {
        for (at, slot) in node.slots().iter().enumerate() {
            let child = (index << FANOUT_BITS) + at as u64;
            if slot.birth <= m.above {
                if let Some(unread) = &mut self.cx.unread {
                    unread.learn(bad, (level, index, at), *slot);
                }
            } else if let Some(level) = level.checked_sub(1).filter(|_| slot.is_mapped())
                && let Some(node) = self.load(m, level, child, *slot, false)
            {
                self.learn(m, bad, level, child, &node);
            }
        }
    }

    fn compare_leaf(
        &mut self,
        m: &Maps,
        first: u64,
        (low, low_node): (Slot, Option<&MapNode>),
        (up, up_node): (Side, Option<&MapNode>),
    ) {
        let (mut to_verify, mut lost) = (Vec::new(), 0..0);
        for at in 0..FANOUT {
            let lba = first + at as u64;
            let slot = low_node.map_or(low, |node| node.slots()[at]);
            let other = up.below(up_node, 0, at);
            if other.equals(&slot) || lba < m.from {
                continue;
            }
            let other = other.slot();
            let verdict = self.judge(m, None, lba, slot, other);
            if slot.is_lost() && m.first && lba < m.end {
                if lost.end != lba {
                    self.tell_lost(m, lost.start, lost.end - lost.start);
                    lost.start = lba;
                }
                lost.end = lba + 1;
            }
            if verdict != Verdict::Stop && m.first && slot.is_mapped() {
                to_verify.push((slot.phys, slot.crc, lba));
            }
        }
        self.tell_lost(m, lost.start, lost.end - lost.start);
        self.verify_data(m.id, to_verify);
    }

    /// Blocks of the lower node that are lost and the upper one has not lost.
    fn tell_lost(&mut self, m: &Maps, first: u64, blocks: u64) {
        if blocks == 0 {
            return;
        }
        self.tally.lossy = true;
        self.cx.report.stats.lost_blocks += blocks;
        let place = match blocks {
            1 => place(self.tree, m.id, first, Phys::NONE),
            _ => format!("{} to {}", place(self.tree, m.id, first, Phys::NONE), first + blocks - 1),
        };
        self.cx.corrupt(Structure::KnownDamage, place, "lost: reads of it fail");
    }

    /// Looks at a pointer that differs from the one above it: to a map node of `level`, or to
    /// data.
    fn judge(&mut self, m: &Maps, level: Option<u8>, first: u64, low: Slot, up: Slot) -> Verdict {
        let (is_map, at) = (level.is_some(), low.phys);
        if low.birth > m.label {
            let what = format!("birth {} is above the gen {} of its tree", low.birth, m.label);
            self.cx.corrupt(Structure::Ownership, place(self.tree, m.id, first, at), what);
        }
        let inherited = low.birth <= m.above;
        if inherited {
            if !(m.trimmed && low.is_hole() && up.is_hole()) {
                self.tell_strange(m, first, low, up);
            }
            if !low.is_mapped() || low.phys == up.phys {
                return Verdict::Stop;
            }
        }
        if m.first && up.is_mapped() && up.phys != low.phys {
            bump(self.tally.lost.entry(up.birth).or_default(), is_map);
        }
        let verdict = if inherited { Verdict::Strange } else { Verdict::Own };
        if !low.is_mapped() || !m.first {
            return verdict;
        }
        if first >= m.end {
            let kind = kind_of(level);
            self.cx.corrupt(
                kind,
                place(self.tree, m.id, first, at),
                "mapped past the volume's end",
            );
        }
        bump(&mut self.tally.gained, is_map);
        if low.birth > m.inherited {
            bump(&mut self.tally.own, is_map);
        }
        if self.mark(m.id, level, first, low) { verdict } else { Verdict::Stop }
    }

    /// A pointer that the lower node should have inherited is not that of the upper one.
    fn tell_strange(&mut self, m: &Maps, first: u64, low: Slot, up: Slot) {
        let (kind, what) = if low.is_mapped() && low.phys == up.phys {
            (Structure::SharedBlock, "the parent has it with another birth or checksum".to_owned())
        } else {
            let what = format!(
                "birth {} is not above the parent's gen {}, but the parent has block {} of birth \
                 {} here",
                low.birth, m.above, up.phys, up.birth
            );
            (Structure::Ownership, what)
        };
        self.cx.corrupt(kind, place(self.tree, m.id, first, low.phys), what);
        self.tally.inexact = true;
    }

    /// Notes that a block is in use; whether it was not before.
    pub(crate) fn mark(&mut self, id: NodeId, level: Option<u8>, first: u64, slot: Slot) -> bool {
        let is_map = level.is_some();
        match self.reach.mark(slot.phys) {
            Mark::New => {
                let owner = self.tree.owner(id, slot.birth);
                bump(self.sums.born.entry(owner).or_default(), is_map);
                bump(&mut self.sums.total, is_map);
                let stats = &mut self.cx.report.stats;
                *if is_map { &mut stats.map_nodes } else { &mut stats.data_blocks } += 1;
                self.done += 1;
                if self.done.is_multiple_of(4096) {
                    self.cx.progress(Phase::Maps, self.done, self.expected);
                }
                true
            }
            Mark::Again => {
                let place = place(self.tree, id, first, slot.phys);
                self.cx.corrupt(Structure::SharedBlock, place, "the block is used elsewhere too");
                self.tally.inexact = true;
                self.cx.incomplete |= is_map;
                false
            }
            Mark::NoData => {
                let place = place(self.tree, id, first, slot.phys);
                self.cx.corrupt(kind_of(level), place, "points to no block that may hold data");
                self.tally.inexact = true;
                self.cx.incomplete |= is_map;
                false
            }
        }
    }

    /// The map node that `slot` points to. With `tell` a failure is a finding.
    pub(crate) fn load(
        &mut self,
        m: &Maps,
        level: u8,
        index: u64,
        slot: Slot,
        tell: bool,
    ) -> Option<Arc<MapNode>> {
        if let Some(node) = self.cache.get(slot.phys, slot.crc)
            && (node.family, node.level, node.index, node.birth)
                == (m.family, level, index, slot.birth)
        {
            return Some(node);
        }
        let at = NodePlace {
            pool_tag: self.cx.tag,
            family: m.family,
            level,
            index,
            phys: slot.phys,
            birth: slot.birth,
            crc: slot.crc,
        };
        let read = self.cx.read(slot.phys, 1);
        let node = read.and_then(|buf| MapNode::decode(&buf, &at).map_err(|e| e.to_string()));
        match node {
            Ok(node) => {
                let node = Arc::new(node);
                self.cache.insert(slot.phys, slot.crc, Arc::clone(&node));
                Some(node)
            }
            Err(error) => {
                self.tally.inexact = true;
                if let Some(unread) = self.cx.unread.as_mut().filter(|_| tell) {
                    unread.note(m.id, at, &error);
                }
                if tell {
                    let first = index << (FANOUT_BITS * (u32::from(level) + 1));
                    let place = place(self.tree, m.id, first, slot.phys);
                    self.cx.corrupt(kind_of(Some(level)), place, error);
                    self.cx.incomplete = true;
                }
                None
            }
        }
    }

    /// I3, and that empty nodes are pruned. Between an old root and one that is higher by two or
    /// more levels stand nodes that hold nothing but it.
    fn check_node(&mut self, m: &Maps, level: u8, first: u64, slot: Slot, node: &MapNode) {
        if !m.first {
            return;
        }
        let youngest = node.slots().iter().map(|slot| slot.birth).max().unwrap_or_default();
        let only_raises = level > 0
            && first == 0
            && node.slots()[1..].iter().all(|slot| *slot == Slot::hole(Gen(0)));
        if youngest != node.birth && !only_raises {
            let what = format!("birth {}, its youngest slot has {youngest}", node.birth);
            self.cx.corrupt(Structure::Ownership, place(self.tree, m.id, first, slot.phys), what);
        }
        if node.is_empty() {
            let place = place(self.tree, m.id, first, slot.phys);
            self.cx.corrupt(kind_of(Some(level)), place, "nothing is mapped in it");
        }
    }

    /// Reads data and compares its checksums. `blocks` are address, checksum and position.
    pub(crate) fn verify_data(&mut self, id: NodeId, mut blocks: Vec<(Phys, u32, u64)>) {
        if !self.cx.options.data {
            return;
        }
        blocks.sort_unstable();
        let mut rest = blocks.as_slice();
        while let Some(&(start, ..)) = rest.first() {
            let run = rest
                .iter()
                .take(MAX_RUN)
                .enumerate()
                .take_while(|(i, block)| block.0.0 == start.0 + *i as u64)
                .count();
            let (now, later) = rest.split_at(run);
            rest = later;
            let whole = self.cx.read(start, run);
            for (i, &(phys, crc, lba)) in now.iter().enumerate() {
                let sum = match &whole {
                    Ok(buf) => Ok(checksum::data(buf.block(i))),
                    Err(_) => self.cx.read(phys, 1).map(|buf| checksum::data(buf.block(0))),
                };
                let what = match sum {
                    Ok(sum) if sum == crc => {
                        self.cx.report.stats.data_verified += 1;
                        continue;
                    }
                    Ok(_) => "checksum mismatch".to_owned(),
                    Err(cause) => cause,
                };
                self.cx.corrupt(Structure::Data, place(self.tree, id, lba, phys), what);
            }
        }
    }

    /// What was counted since the last call.
    pub(crate) fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }
}

pub(crate) fn kind_of(level: Option<u8>) -> Structure {
    match level {
        None => Structure::Data,
        Some(0) => Structure::MapLeaf,
        Some(_) => Structure::MapNode,
    }
}
