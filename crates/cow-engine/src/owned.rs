//! Which leaves of a head are its own, so that clearing them takes no space in the end.
//!
//! A leaf born above the parent's gen is in no other tree, and neither are the map nodes above it,
//! which are as young: whatever a fold writes instead of them takes the place of a block that it
//! frees. A leaf that a snapshot has too stays when the head lets go of it, and clearing a part of
//! it costs a new one for good; with a discard per leaf no reserve would suffice (design section 7).

use crate::core::Pool;
use crate::error::Error;
use crate::lookup::{Found, leaf_of, load, root_slot};
use crate::read::Pin;
use crate::task::Cx;
use cow_extent::Probe;
use cow_format::mapnode::{FANOUT, FANOUT_BITS, Slot};
use cow_format::{FamilyId, Gen, Lba, NodeId};

/// Runs that are looked for at once.
const MAX_RUNS: usize = 64;

/// What a map has in a range of blocks, as of the last fold.
#[derive(Debug, Default)]
pub(crate) struct Owned {
    /// `(first, end)` of runs of blocks in leaves that nothing else has, with the holes between.
    pub(crate) runs: Vec<(u64, u64)>,
    /// There is something else as well.
    pub(crate) shared: bool,
    /// Everything before this block was looked at.
    pub(crate) until: u64,
}

/// A subtree that is to be looked at.
struct Place {
    level: u8,
    index: u64,
    slot: Slot,
}

/// Looks through `first .. end` of the map of `head`.
pub(crate) async fn owned(cx: &Cx, head: NodeId, first: u64, end: u64) -> Result<Owned, Error> {
    let (root, family, above) = {
        let mut core = cx.core();
        core.pool()?.own_map(head)?
    };
    let mut found = Owned { until: end, ..Owned::default() };
    let mut joined = false;
    let mut todo = vec![root];
    while let Some(Place { level, index, slot }) = todo.pop() {
        let bits = FANOUT_BITS * (u32::from(level) + 1);
        let (from, to) = (index << bits, (index + 1) << bits);
        if to <= first || end <= from || slot.is_hole() {
            continue;
        }
        // What is lost is shared too: a new leaf would take the place of none.
        if !slot.is_mapped() || slot.birth <= above {
            found.shared = true;
            joined = false;
            continue;
        }
        if level > 0 {
            let node = load(cx, family, level, index, slot).await?;
            let child = |(at, slot): (usize, &Slot)| Place {
                level: level - 1,
                index: (index << FANOUT_BITS) + at as u64,
                slot: *slot,
            };
            todo.extend(node.slots().iter().enumerate().rev().map(child));
            continue;
        }
        if let Some(run) = found.runs.last_mut().filter(|_| joined) {
            run.1 = to.min(end);
        } else if found.runs.len() < MAX_RUNS {
            found.runs.push((from.max(first), to.min(end)));
        } else {
            found.until = from;
            break;
        }
        joined = true;
    }
    Ok(found)
}

/// How many blocks of these runs hold data that `head` has alone: to write them anew gives as many
/// back. What cannot be read is not counted.
pub(crate) async fn own_data(cx: &Cx, head: NodeId, runs: &[(Lba, u64)]) -> Result<u64, Error> {
    let _pin = Pin::new(cx);
    let mut own = 0;
    for &(first, blocks) in runs {
        let (mut at, end) = (first.0, first.0.saturating_add(blocks));
        while at < end {
            let lba = Lba(at);
            let stop = end.min(at - u64::from(lba.slot()) + FANOUT as u64);
            let (root, family, above, in_layers) = {
                let mut core = cx.core();
                let pool = core.pool()?;
                let Some(node) = pool.tree.node(head) else { return Ok(0) };
                let root = node.rooted.then_some(node.entry.root);
                let probes: Vec<Probe> =
                    (at..stop).map(|at| pool.probe_own(head, Lba(at))).collect();
                (root, node.entry.family, pool.tree.parent_gen(head), probes)
            };
            let leaf = match root {
                Some(root) => leaf_of(cx, &root, family, lba.leaf()).await.ok(),
                None => None,
            };
            for (i, probe) in in_layers.into_iter().enumerate() {
                let is_own = match (probe, &leaf) {
                    (Probe::Mapped(..), _) => true,
                    (Probe::Miss, Some(Found::Node(leaf))) => {
                        let slot = leaf.slots()[usize::from(lba.slot()) + i];
                        slot.is_mapped() && slot.birth > above
                    }
                    _ => false,
                };
                own += u64::from(is_own);
            }
            at = stop;
        }
    }
    Ok(own)
}

impl Pool {
    /// What the layers of `node` itself know of a block.
    fn probe_own(&self, node: NodeId, lba: Lba) -> Probe {
        let layers = [Some(&self.active), self.folding.as_deref()].into_iter().flatten();
        let mut probes = layers.map(|layers| layers.probe(node, lba));
        probes.find(|probe| *probe != Probe::Miss).unwrap_or(Probe::Miss)
    }

    /// The root of a node's map, its family, and the gen above which its map is its own.
    fn own_map(&self, id: NodeId) -> Result<(Place, FamilyId, Gen), Error> {
        let node = self.tree.node(id).ok_or_else(|| Error::Stale(format!("node {id}")))?;
        let root = &node.entry.root;
        // A node that no fold has seen has nothing of its own.
        let slot = if node.rooted { root_slot(root) } else { Slot::hole(Gen(0)) };
        let place = Place { level: root.level, index: 0, slot };
        Ok((place, node.entry.family, self.tree.parent_gen(id)))
    }
}
