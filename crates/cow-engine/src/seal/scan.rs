//! Where a map has something, or something new: by births, which a child has in common with its
//! ancestors up to their gen. So what changed since an ancestor is found without its map.

use super::view::View;
use crate::ahead::{ASKED_FOR, load_near};
use crate::error::Error;
use crate::lookup::{Found, empty_run, leaf_of, load, resolve, root_slot};
use crate::mapping::Mapping;
use crate::task::Cx;
use cow_format::entry::Root;
use cow_format::mapnode::{FANOUT, FANOUT_BITS, Slot};
use cow_format::{Gen, Lba, mutant};

/// Leaves that are read at once: those of the same 16 places.
const GROUP: usize = 16;

/// What is looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// All that is no hole.
    Data,
    /// All that is younger than this, holes too.
    Since(Gen),
}

impl Look {
    pub(super) fn wants(self, slot: &Slot) -> bool {
        match self {
            Self::Data => !slot.is_hole(),
            Self::Since(above) if mutant::is("rootsince") => slot.birth.0 > above.0 + 1,
            Self::Since(above) => slot.birth > above,
        }
    }
}

/// The first place from a block on that is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Block(u64),
    /// A hole that nothing is below of, from its first block (or where the search began) to its
    /// end: not to be looked through block by block.
    Hole(u64, u64),
    End,
}

/// Finds the next place at or behind block `from`.
pub(super) async fn next(cx: &Cx, view: &View, look: Look, from: u64) -> Result<Next, Error> {
    let Some(root) = view.map else { return next_in_layers(cx, view, from).await };
    // Nodes still to be looked at, the next one last.
    let mut todo = vec![(root.level, 0u64, root_slot(&root))];
    while let Some((level, index, slot)) = todo.pop() {
        let bits = FANOUT_BITS * (u32::from(level) + 1);
        let (first, end) = (index << bits, (index + 1) << bits);
        if end <= from || !look.wants(&slot) {
            continue;
        }
        if slot.is_hole() {
            return Ok(Next::Hole(first.max(from), end));
        }
        if slot.is_lost() {
            return Ok(Next::Block(first.max(from)));
        }
        let node = load(cx, view.family, level, index, slot).await?;
        let below = node.slots().iter().enumerate();
        if level == 1 {
            read_ahead(cx, view, look, (index, node.slots()), from).await;
        }
        if level > 0 {
            let child =
                |(at, slot): (usize, &Slot)| (level - 1, (index << FANOUT_BITS) + at as u64, *slot);
            todo.extend(below.rev().map(child));
            continue;
        }
        let mut blocks = below.map(|(at, slot)| (first + at as u64, slot));
        if let Some((block, _)) = blocks.find(|(at, slot)| *at >= from && look.wants(slot)) {
            return Ok(Next::Block(block));
        }
    }
    Ok(Next::End)
}

/// Reads the first leaf that is looked for together with those of its group that are too: they come
/// next.
async fn read_ahead(
    cx: &Cx,
    view: &View,
    look: Look,
    (index, slots): (u64, &[Slot; FANOUT]),
    from: u64,
) {
    let wants = |at: &usize| {
        let end = ((index << FANOUT_BITS) + *at as u64 + 1) << FANOUT_BITS;
        end > from && look.wants(&slots[*at]) && slots[*at].is_mapped()
    };
    let Some(first) = (0..FANOUT).find(wants) else { return };
    let group = (first..FANOUT.min((first / GROUP + 1) * GROUP)).filter(wants);
    let leaves: Vec<(u64, Slot)> =
        group.map(|at| ((index << FANOUT_BITS) + at as u64, slots[at])).collect();
    // The cache keeps them, unless it is very small.
    load_near(cx, view.family, 0, &leaves, ASKED_FOR).await;
}

/// The same through layers, where births say nothing.
async fn next_in_layers(cx: &Cx, view: &View, from: u64) -> Result<Next, Error> {
    let blocks = view.blocks();
    let mut at = from;
    while at < blocks {
        match empty_run(cx, view.node, Lba(at)).await? {
            0 => return Ok(Next::Block(at)),
            empty => at = at.saturating_add(empty),
        }
    }
    Ok(Next::End)
}

/// What `count` blocks from `first` on, all of one leaf, point to.
pub(super) async fn slots(
    cx: &Cx,
    view: &View,
    first: u64,
    count: usize,
) -> Result<Vec<Slot>, Error> {
    match &view.map {
        Some(root) => in_map(cx, view, root, first, count).await,
        None => {
            let mappings = resolve(cx, view.node, Lba(first), count).await?;
            Ok(mappings.iter().copied().map(without_birth).collect())
        }
    }
}

async fn in_map(
    cx: &Cx,
    view: &View,
    root: &Root,
    first: u64,
    count: usize,
) -> Result<Vec<Slot>, Error> {
    let lba = Lba(first);
    Ok(match leaf_of(cx, root, view.family, lba.leaf()).await? {
        Found::Node(node) => {
            node.slots().iter().skip(usize::from(lba.slot())).take(count).copied().collect()
        }
        Found::Hole(_) => vec![Slot::hole(Gen(0)); count],
        // Younger than anything, so that nobody passes over it.
        Found::Lost => vec![Slot::lost(Gen(u32::MAX)); count],
    })
}

fn without_birth(mapping: Mapping) -> Slot {
    match mapping {
        Mapping::Hole => Slot::hole(Gen(0)),
        Mapping::Lost => Slot::lost(Gen(0)),
        Mapping::At(phys, crc) => Slot { phys, birth: Gen(0), crc },
    }
}
