//! Map nodes that cannot be read are cut out.
//!
//! What points to such a node points to a new one, which holds what is known of it from the maps below,
//! or says that all of it is lost. The nodes above are written anew, once each, whichever maps share
//! them, and nothing gets another birth: so whatever the ownership lemma says of two maps it goes on saying.

use super::RepairError;
use super::action::{Action, Lost};
use super::work::{Survey, Work};
use crate::tree::{is_walking, name_of};
use crate::unread::{BadNode, Pointer};
use cow_format::entry::{NodeEntry, Root};
use cow_format::mapnode::{FANOUT, FANOUT_BITS, MapNode, NodePlace, Slot, span_blocks};
use cow_format::{BLOCK_SIZE, FamilyId, NodeId, mutant};
use std::collections::{BTreeMap, HashMap};

/// Where a pointer stands: which map, and from which of its blocks on that is to be looked at.
#[derive(Clone, Copy)]
struct Place {
    family: FamilyId,
    from: u64,
    level: u8,
    index: u64,
}

impl Place {
    fn first(&self) -> u64 {
        self.index << (FANOUT_BITS * (u32::from(self.level) + 1))
    }

    fn end(&self) -> u64 {
        self.first().saturating_add(span_blocks(self.level))
    }

    fn child(&self, at: usize) -> Self {
        Self { level: self.level - 1, index: (self.index << FANOUT_BITS) + at as u64, ..*self }
    }

    fn holds(&self, bad: &BadNode) -> bool {
        let up = FANOUT_BITS * u32::from(self.level.saturating_sub(bad.place.level));
        self.family == bad.place.family
            && self.level >= bad.place.level
            && bad.place.index >> up == self.index
    }

    fn of(&self, slot: Slot, tag: u64) -> NodePlace {
        NodePlace {
            pool_tag: tag,
            family: self.family,
            level: self.level,
            index: self.index,
            phys: slot.phys,
            birth: slot.birth,
            crc: slot.crc,
        }
    }
}

/// Where the map of an entry begins, and what stands there.
fn top_of(entry: &NodeEntry, from: u64) -> (Place, Slot) {
    let root = &entry.root;
    let place = Place { family: entry.family, from, level: root.level, index: 0 };
    (place, Slot { phys: root.phys, birth: root.birth, crc: root.crc })
}

/// Cuts out every map node that the survey could not read.
pub(super) fn cut(work: &mut Work<'_>, survey: &Survey) -> Result<(), RepairError> {
    let mut cut = Cut { work, survey, new: HashMap::new(), ends: HashMap::new() };
    for (pointer, bad) in &survey.unread.nodes {
        cut.tell(bad);
        let end = cut.end_of(*pointer, bad);
        let replacement = cut.replace(bad, end, bad.place.level, bad.place.index)?;
        cut.ends.insert(*pointer, end);
        cut.new.insert(*pointer, replacement);
    }
    // A map that is being reclaimed has fewer nodes to be written anew than those that share them.
    let (walking, whole): (Vec<_>, Vec<_>) = cut
        .work
        .entries
        .iter()
        .map(|(slot, entry)| (*slot, entry.clone()))
        .partition(|(_, entry)| is_walking(&survey.tree, entry.id));
    for (slot, entry) in whole.into_iter().chain(walking) {
        cut.cut_tree(slot, &entry)?;
    }
    Ok(())
}

struct Cut<'c, 'b> {
    work: &'c mut Work<'b>,
    survey: &'c Survey,
    /// What stands for a pointer now.
    new: HashMap<Pointer, Slot>,
    /// See [`Cut::end_of`].
    ends: HashMap<Pointer, u64>,
}

impl Cut<'_, '_> {
    fn tell(&mut self, bad: &BadNode) {
        let lba = bad.place.index << (FANOUT_BITS * (u32::from(bad.place.level) + 1));
        self.work.actions.push(Action::CutMapNode {
            name: name_of(&self.survey.tree, bad.id),
            level: bad.place.level,
            lba,
            block: bad.place.phys.0,
            known: bad.known.len(),
            what: bad.what.clone(),
        });
        self.work.believed.push(bad.place);
    }

    /// From this block on nothing was mapped below a node: the smallest volume or snapshot ends there that has it. What
    /// is a hole is not lost, and a volume may grow again.
    fn end_of(&mut self, pointer: Pointer, bad: &BadNode) -> u64 {
        let tree = &self.survey.tree;
        let is_live = |entry: &&NodeEntry| tree.node(entry.id).is_some_and(|node| node.is_live());
        let live: Vec<NodeEntry> = self.work.entries.values().filter(is_live).cloned().collect();
        let mut end = u64::MAX;
        for entry in live {
            let (place, slot) = top_of(&entry, 0);
            let blocks = entry.size_bytes.div_ceil(BLOCK_SIZE as u64);
            let is_less = blocks < end && place.holds(bad) && !mutant::is("pastlost");
            if is_less && self.points_to(place, slot, bad) == Some(pointer) {
                end = blocks;
            }
        }
        end
    }

    /// What is known of a node and of what is below it; lost where that is nothing.
    fn replace(
        &mut self,
        bad: &BadNode,
        end: u64,
        level: u8,
        index: u64,
    ) -> Result<Slot, RepairError> {
        let NodePlace { family, birth, .. } = bad.place;
        let first = index << (FANOUT_BITS * (u32::from(level) + 1));
        let is_whole = end >= first.saturating_add(span_blocks(level));
        if !bad.knows_below(level, index) && (is_whole || end <= first) {
            return Ok(if is_whole { Slot::lost(birth) } else { Slot::hole(birth) });
        }
        let mut node = MapNode::empty(family, level, index, birth);
        for at in 0..FANOUT {
            let child = (index << FANOUT_BITS) + at as u64;
            let spot = (level, index, at);
            let is_first = bad.known.keys().next() == Some(&spot);
            let known = bad.known.get(&spot).filter(|_| !is_first || !mutant::is("knownlost"));
            node.slots_mut()[at] = match known {
                Some(slot) => *slot,
                None if level > 0 => self.replace(bad, end, level - 1, child)?,
                None if child < end => Slot::lost(birth),
                None => Slot::hole(birth),
            };
        }
        self.work.store(self.survey, node)
    }

    fn cut_tree(&mut self, slot: u32, entry: &NodeEntry) -> Result<(), RepairError> {
        let walking = is_walking(&self.survey.tree, entry.id);
        let from = if walking { entry.cursor } else { 0 };
        let (place, old) = top_of(entry, from);
        let lost = self.lost_of(entry, place, old);
        let new = self.rewrite(place, old)?;
        if new == old {
            return Ok(());
        }
        if let Some(entry) = self.work.entries.get_mut(&slot) {
            let level = entry.root.level;
            entry.root = Root { phys: new.phys, crc: new.crc, birth: new.birth, level };
            entry.inexact = true;
            if !lost.is_empty() {
                // It was that of what is no more.
                entry.merkle = None;
            }
        }
        let live = self.survey.tree.node(entry.id).is_some_and(|node| node.is_live());
        if live {
            self.work.lost.extend(lost.into_iter().map(|lost| (entry.id, lost)));
        }
        Ok(())
    }

    /// The pointer that takes the place of `slot`.
    fn rewrite(&mut self, place: Place, slot: Slot) -> Result<Slot, RepairError> {
        if !slot.is_mapped() || place.end() <= place.from {
            return Ok(slot);
        }
        if let Some(new) = self.new.get(&(slot.phys, slot.crc)) {
            return Ok(*new);
        }
        let is_above = |bad: &BadNode| place.level > bad.place.level && place.holds(bad);
        if !self.survey.unread.nodes.values().any(is_above) {
            return Ok(slot);
        }
        let Some(mut node) = self.work.load(&place.of(slot, self.work.tag())) else {
            return Ok(slot);
        };
        let mut changed = false;
        for at in 0..FANOUT {
            let child = place.child(at);
            if !self.survey.unread.nodes.values().any(|bad| child.holds(bad)) {
                continue;
            }
            let old = node.slots()[at];
            let new = self.rewrite(child, old)?;
            node.slots_mut()[at] = new;
            changed |= new != old;
            if new != old && mutant::is("cutmore") {
                let birth = node.birth;
                node.slots_mut()[at ^ 1] = Slot::lost(birth);
            }
        }
        if !changed {
            return Ok(slot);
        }
        let new = self.work.store(self.survey, node)?;
        self.new.insert((slot.phys, slot.crc), new);
        Ok(new)
    }

    /// What this map has lost.
    fn lost_of(&mut self, entry: &NodeEntry, root: Place, slot: Slot) -> Vec<Lost> {
        let survey = self.survey;
        let end = entry.size_bytes.div_ceil(BLOCK_SIZE as u64);
        let bad = survey.unread.nodes.iter().filter(|(_, bad)| root.holds(bad));
        let mut all = Vec::new();
        for (pointer, bad) in bad {
            if self.points_to(root, slot, bad) == Some(*pointer) {
                let name = name_of(&survey.tree, entry.id);
                let end = self.ends.get(pointer).map_or(end, |least| end.min(*least));
                let ranges = ranges(bad, end).into_iter();
                all.extend(ranges.map(|(lba, blocks)| Lost {
                    name: name.clone(),
                    lba,
                    blocks,
                    block: bad.place.phys.0,
                }));
            }
        }
        all
    }

    /// What a map has where `bad` is in others.
    fn points_to(&mut self, mut place: Place, mut slot: Slot, bad: &BadNode) -> Option<Pointer> {
        while slot.is_mapped() {
            if place.level == bad.place.level {
                return Some((slot.phys, slot.crc));
            }
            let node = self.work.load(&place.of(slot, self.work.tag()))?;
            let at = (0..FANOUT).find(|at| place.child(*at).holds(bad))?;
            (place, slot) = (place.child(at), node.slots()[at]);
        }
        None
    }
}

/// The blocks of a node that are not known from elsewhere, as far as a volume of `end` blocks goes.
fn ranges(bad: &BadNode, end: u64) -> Vec<(u64, u64)> {
    let mut ranges = Vec::new();
    add_ranges(bad, bad.place.level, bad.place.index, end, &mut ranges);
    ranges
}

fn add_ranges(bad: &BadNode, level: u8, index: u64, end: u64, ranges: &mut Vec<(u64, u64)>) {
    let span = span_blocks(level) >> FANOUT_BITS;
    for at in 0..FANOUT {
        let child = (index << FANOUT_BITS) + at as u64;
        let from = child.saturating_mul(span);
        let known = bad.known.get(&(level, index, at));
        if from >= end || known.is_some_and(|slot| !slot.is_lost()) {
            continue;
        }
        if known.is_none() && level > 0 && bad.knows_below(level - 1, child) {
            add_ranges(bad, level - 1, child, end, ranges);
            continue;
        }
        let blocks = span.min(end - from);
        match ranges.last_mut() {
            Some((lba, len)) if *lba + *len == from => *len += blocks,
            _ => ranges.push((from, blocks)),
        }
    }
}

/// Nodes of the snapshot tree by id, with the slots of their entries.
pub(super) fn slots_by_id(entries: &BTreeMap<u32, NodeEntry>) -> HashMap<NodeId, u32> {
    entries.iter().map(|(slot, entry)| (entry.id, *slot)).collect()
}
