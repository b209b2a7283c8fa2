//! What deleting a set of nodes would free, as of the last fold. Design section 3.
//!
//! A node is *removed* when it is deleted, already or by the question. The blocks born in a
//! removed node `y` are freed unless they live on in one of its *leaves*, the surviving nodes
//! that are first met below it. How many of them are dead in a leaf `l` follows from kill rows:
//! `dead(y, l) = born[y] - own[y] + sum of K[z][births that y owns]` over the path from `y` to `l`.
//!
//! * No leaf: all that was born in `y`.
//! * One leaf: exactly `dead(y, l)`.
//! * Several: at least what is dead on the common part of the paths, which the walker frees; at
//!   most the smallest `dead(y, l)`, as a block is freed (by trim) only if dead in all leaves.
//!
//! (A smallest value over surviving *branches*, of which one may begin with a branch point that
//! is deleted itself, would be too small: a block that lives there can be dead further down.)
//!
//! The leaves below a node are a range when leaves are numbered in depth-first order, so each
//! cell of a row adds to one range of leaves of one node: the whole costs O(cells log nodes).
//!
//! Where damage has kept a fold from counting, the answer is a lower bound of what the counters
//! show, and says that it is not exact.
//!
//! Only nodes whose leaves the question changes count: reclaim that is under way anyway is not
//! what this delete frees. Nor is what a trim is about to free: where there may be such blocks the
//! lower bound leaves them out, and is not the exact figure.

use crate::node::UNKNOWN;
use crate::row::{add, sub};
use crate::tree::Tree;
use cow_format::entry::Count;
use cow_format::{Gen, NodeId};
use std::collections::{BTreeMap, BTreeSet};

/// What deleting a set frees, in blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetSizeAnswer {
    /// At least so many: what the walker frees.
    pub freed: Count,
    /// At most so many, after trim.
    pub upper: Count,
    /// Whether the two are equal, as far as data goes.
    pub exact: bool,
}

/// A node met on the way down, in depth-first order.
pub(crate) struct Visit {
    pub(crate) id: NodeId,
    /// Nodes of the region above it.
    pub(crate) depth: usize,
    /// Its leaves: `first..end`.
    leaves: (u32, u32),
    pub(crate) survives: bool,
}

/// What is known of the blocks born in a removed node.
#[derive(Default)]
struct Dead {
    leaves: (u32, u32),
    /// Dead in all leaves, as it died above where they part.
    common: Count,
    /// Dead in a part of the leaves.
    parts: Vec<((u32, u32), Count)>,
}

impl Tree {
    /// What deleting exactly these live nodes together frees. Kill rows that
    /// [`Tree::rows_needed_for_set`] names must be loaded, else the bounds are wide.
    pub fn set_size(&self, ids: &[NodeId]) -> SetSizeAnswer {
        let set = self.live_set(ids);
        let region = self.region(&set);
        let after = self.visits(&region, &set);
        let complete = self.unread(&after).next().is_none() && !self.is_inexact(&after);
        let before = self.visits(&region, &BTreeSet::new());
        let at_rest = !self.is_untrimmed(&before);
        let before = self.dead(&region, &before);
        let after = self.dead(&region, &after);
        let (mut freed, mut upper) = (Count::default(), Count::default());
        for id in &region {
            let Some(dead) = after.get(id) else { continue };
            let (was, mut most) = match before.get(id) {
                Some(dead) => self.bounds(*id, dead),
                None => (Count::default(), Count::default()),
            };
            if at_rest {
                most = was;
            }
            let (low, mut high) = self.bounds(*id, dead);
            if !complete {
                high = self.node(*id).map_or_else(Count::default, |node| node.entry.born);
            }
            freed = add(freed, sub(low, most));
            upper = add(upper, sub(high, was));
        }
        SetSizeAnswer { freed, upper, exact: complete && freed.data == upper.data }
    }

    /// Nodes whose kill rows must be loaded for [`Tree::set_size`] of these.
    pub fn rows_needed_for_set(&self, ids: &[NodeId]) -> Vec<NodeId> {
        let set = self.live_set(ids);
        let visits = self.visits(&self.region(&set), &set);
        self.unread(&visits).collect()
    }

    /// What deleting a live node alone frees, and whether that is exact (else it is a lower
    /// bound). None for a node that is not live or that no fold has seen, and where a kill row
    /// would have to be loaded: see [`Tree::rows_needed_for_set`].
    pub fn unique(&self, id: NodeId) -> Option<(Count, bool)> {
        let node = self.node(id).filter(|node| node.is_live() && node.rooted)?;
        let entry = &node.entry;
        if self.parent(id).is_none_or(|parent| parent.is_live()) {
            // The usual case, which reads no row.
            let live = |id: NodeId| self.node(id).is_some_and(|node| node.is_live());
            match node.children.as_slice() {
                [] => return Some((entry.born, !self.is_miscounted(id))),
                &[child] if live(child) && entry.unique != UNKNOWN => {
                    let below = self.is_miscounted(child);
                    let unique = sub(add(entry.born, entry.unique), entry.own);
                    return Some((unique, !self.is_miscounted(id) && !below));
                }
                _ => {}
            }
        }
        if !self.rows_needed_for_set(&[id]).is_empty() {
            return None;
        }
        let size = self.set_size(&[id]);
        Some((size.freed, size.exact))
    }

    pub(crate) fn live_set(&self, ids: &[NodeId]) -> BTreeSet<NodeId> {
        let live = |id: &NodeId| self.node(*id).is_some_and(|node| node.is_live());
        ids.iter().copied().filter(live).collect()
    }

    /// The nodes whose leaves change when the set is deleted: the set, and the deleted nodes
    /// above that it hangs below with nothing live between.
    pub(crate) fn region(&self, set: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        let mut region = set.clone();
        for &id in set {
            let mut at = id;
            while let Some(parent) = self.parent(at) {
                at = parent.entry.id;
                if parent.is_live() || !region.insert(at) {
                    break;
                }
            }
        }
        region
    }

    /// The region and what lies below it, down to and with the nodes that survive the deletion
    /// of `set`.
    pub(crate) fn visits(&self, region: &BTreeSet<NodeId>, set: &BTreeSet<NodeId>) -> Vec<Visit> {
        let is_top = |id: &NodeId| self.parent(*id).is_none_or(|p| !region.contains(&p.entry.id));
        let mut tops: Vec<NodeId> = region.iter().copied().filter(is_top).collect();
        let (mut visits, mut leaves) = (Vec::<Visit>::new(), 0u32);
        while let Some(top) = tops.pop() {
            let (mut stack, mut path) = (vec![(top, 0)], Vec::<usize>::new());
            while let Some((id, depth)) = stack.pop() {
                let Some(node) = self.node(id) else { continue };
                for done in path.drain(depth.min(path.len())..) {
                    visits[done].leaves.1 = leaves;
                }
                let survives = node.is_live() && !set.contains(&id);
                path.push(visits.len());
                visits.push(Visit { id, depth, leaves: (leaves, leaves), survives });
                if !survives {
                    stack.extend(node.children.iter().map(|&child| (child, depth + 1)));
                    continue;
                }
                leaves += 1;
                if region.contains(&id) {
                    // What of the region lies below a survivor is seen on its own.
                    tops.extend(node.children.iter().filter(|child| region.contains(child)));
                }
            }
            for done in path {
                visits[done].leaves.1 = leaves;
            }
        }
        visits
    }

    fn unread(&self, visits: &[Visit]) -> impl Iterator<Item = NodeId> {
        let below = visits.iter().filter(|visit| visit.depth > 0).map(|visit| visit.id);
        below.filter(|&id| !self.is_row_loaded(id))
    }

    /// Whether a trim may be about to free some of what they have.
    fn is_untrimmed(&self, visits: &[Visit]) -> bool {
        let is_untrimmed = |visit: &Visit| {
            let node = self.node(visit.id).filter(|node| node.is_branch_point());
            node.is_some_and(|node| !node.entry.trimmed || node.entry.cursor > 0)
        };
        visits.iter().any(is_untrimmed)
    }

    /// Whether damage has made the figures of one of them wrong, or a discard for the time being.
    fn is_inexact(&self, visits: &[Visit]) -> bool {
        visits.iter().any(|visit| self.is_miscounted(visit.id))
    }

    /// For each removed node of the region: where its blocks are dead.
    fn dead(&self, region: &BTreeSet<NodeId>, visits: &[Visit]) -> BTreeMap<NodeId, Dead> {
        let mut dead: BTreeMap<NodeId, Dead> = visits
            .iter()
            .filter(|visit| !visit.survives && region.contains(&visit.id))
            .map(|visit| (visit.id, Dead { leaves: visit.leaves, ..Dead::default() }))
            .collect();
        // The removed nodes above the one at hand, by ascending gen, and the gen above them.
        let (mut path, mut above) = (Vec::<(Gen, NodeId)>::new(), Gen(0));
        for visit in visits {
            let Some(node) = self.node(visit.id) else { continue };
            path.truncate(visit.depth);
            if path.is_empty() {
                above = self.parent_gen(visit.id);
            }
            let (first, end) = visit.leaves;
            for (birth, count) in node.row.cells().filter(|_| first < end) {
                let owner = path.partition_point(|&(label, _)| label < birth);
                let Some(&(_, owner)) = path.get(owner).filter(|_| birth > above) else { continue };
                let Some(dead) = dead.get_mut(&owner) else { continue };
                if dead.leaves == visit.leaves {
                    dead.common = add(dead.common, count);
                } else {
                    dead.parts.push((visit.leaves, count));
                }
            }
            if !visit.survives {
                path.push((node.entry.label_gen, visit.id));
            }
        }
        dead
    }

    /// At least and at most so many of the blocks born in `id` are freed.
    fn bounds(&self, id: NodeId, dead: &Dead) -> (Count, Count) {
        let Some(entry) = self.node(id).map(|node| &node.entry) else {
            return (Count::default(), Count::default());
        };
        let (first, end) = dead.leaves;
        if first == end {
            return (entry.born, entry.born);
        }
        let freed = |dead: Count| sub(add(entry.born, dead), entry.own);
        let low = freed(dead.common);
        if end - first == 1 {
            return (low, low);
        }
        (low, freed(add(dead.common, least(dead.leaves, &dead.parts))))
    }
}

/// The least sum, over the leaves `first..end`, of the counts of the parts that hold the leaf;
/// for data and for map nodes.
fn least((first, end): (u32, u32), parts: &[((u32, u32), Count)]) -> Count {
    let mut steps: Vec<(u32, bool, Count)> = Vec::with_capacity(2 * parts.len());
    for &((from, to), count) in parts {
        steps.push((from, true, count));
        steps.push((to, false, count));
    }
    steps.sort_unstable_by_key(|step| step.0);
    let (mut least, mut sum, mut at) = (None::<Count>, Count::default(), 0);
    let mut leaf = first;
    while leaf < end {
        while let Some(&(_, begins, count)) = steps.get(at).filter(|step| step.0 <= leaf) {
            sum = if begins { add(sum, count) } else { sub(sum, count) };
            at += 1;
        }
        least = Some(match least {
            None => sum,
            Some(old) => Count { data: old.data.min(sum.data), map: old.map.min(sum.map) },
        });
        // Nothing changes before the next step.
        leaf = steps.get(at).map_or(end, |step| step.0);
    }
    least.unwrap_or_default()
}
