//! Which leaves of a head are its own, so that clearing them takes no space in the end.
//!
//! A leaf born above the parent's gen is in no other tree, and neither are the map nodes above it,
//! which are as young: whatever a fold writes instead of them takes the place of a block that it
//! frees. A leaf that a snapshot has too stays when the head lets go of it, and clearing a part of
//! it costs a new one for good; with a discard per leaf no reserve would suffice (design section 7).

use crate::core::Pool;
use crate::error::Error;
use crate::lookup::{load, root_slot};
use crate::task::Cx;
use cow_format::mapnode::{FANOUT_BITS, Slot};
use cow_format::{FamilyId, Gen, NodeId};

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

impl Pool {
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
