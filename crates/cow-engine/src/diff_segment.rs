//! What a comparison sees of two nodes at one moment: runs of leaves that no unfolded layer
//! touches, where the maps alone decide, and single leaves that one does.

use crate::core::Pool;
use crate::error::Error;
use crate::lookup::root_slot;
use crate::mapping::Mapping;
use cow_extent::NodeLayer;
use cow_format::entry::Root;
use cow_format::mapnode::{FANOUT, FANOUT_BITS, Slot};
use cow_format::{FamilyId, Gen, Lba, NodeId, mutant};

/// A slot with the level of what it points to.
pub(crate) type Side = (Slot, u8);

/// What layers say of the blocks of one leaf; nothing where the map must be asked.
pub(crate) type Probes = Vec<Option<Mapping>>;

/// From one leaf up to another, both sides alike in kind.
pub(crate) struct Segment {
    /// The leaf after its last one.
    pub(crate) end: u64,
    pub(crate) family: FamilyId,
    /// The roots; a hole where a layer clears all of the segment.
    pub(crate) a: Side,
    pub(crate) b: Side,
    /// For a segment of one leaf that layers touch: what they say.
    pub(crate) probes: Option<(Probes, Probes)>,
}

/// A node with the layers above its root, newest first.
struct View<'a> {
    chain: Vec<NodeId>,
    layers: Vec<&'a NodeLayer>,
    root: Root,
    family: FamilyId,
}

impl<'a> View<'a> {
    fn new(pool: &'a Pool, node: NodeId) -> Self {
        let (chain, root, family) = pool.layer_chain(node);
        let layers = chain.iter().flat_map(|&member| layers_of(pool, member)).collect();
        Self { chain, layers, root, family }
    }

    fn is_cleared(&self, leaf: u64) -> bool {
        self.layers.iter().any(|layer| layer.clears.contains(leaf))
    }

    fn side(&self, leaf: u64) -> Side {
        match self.is_cleared(leaf) {
            true => (Slot::hole(Gen(0)), self.root.level),
            false => (root_slot(&self.root), self.root.level),
        }
    }

    fn probes(&self, pool: &Pool, leaf: u64) -> Probes {
        let first = leaf << FANOUT_BITS;
        (first..first + FANOUT as u64).map(|lba| pool.probe(&self.chain, Lba(lba))).collect()
    }
}

fn layers_of(pool: &Pool, node: NodeId) -> impl Iterator<Item = &NodeLayer> {
    let layers = [Some(&pool.active), pool.folding.as_deref()];
    layers.into_iter().flatten().filter_map(move |layers| layers.node(node))
}

/// The segment of `a` and `b` that begins at `leaf`, which lies before `end`.
pub(crate) fn segment(
    pool: &Pool,
    (a, b): (NodeId, NodeId),
    leaf: u64,
    end: u64,
) -> Result<Segment, Error> {
    for node in [a, b] {
        if pool.tree.node(node).is_none() {
            return Err(Error::NotFound(format!("#{node}")));
        }
    }
    let (a, b) = (View::new(pool, a), View::new(pool, b));
    // What both have in the layers of common ancestors is equal, unless one of them cleared it.
    let own = |view: &View<'_>, other: &View<'_>| -> Vec<NodeId> {
        view.chain.iter().copied().filter(|node| !other.chain.contains(node)).collect()
    };
    let (of_a, mut of_b) = (own(&a, &b), own(&b, &a));
    if mutant::is("difflayer") {
        of_b.clear();
    }
    let own: Vec<&NodeLayer> =
        of_a.into_iter().chain(of_b).flat_map(|node| layers_of(pool, node)).collect();
    let all = own.iter().any(|layer| !layer.clears.is_empty()) && !mutant::is("diffclear");
    let deciding = match all {
        true => a.layers.iter().chain(&b.layers).copied().collect(),
        false => own,
    };
    let touched = |layer: &&NodeLayer| layer.leaves.range(leaf..end).next().map(|(&at, _)| at);
    let touched = deciding.iter().filter_map(touched).min().unwrap_or(end);
    let family = a.family;
    if touched == leaf {
        let probes = Some((a.probes(pool, leaf), b.probes(pool, leaf)));
        let roots = [&a, &b].map(|view| (root_slot(&view.root), view.root.level));
        return Ok(Segment { end: leaf + 1, family, a: roots[0], b: roots[1], probes });
    }
    // Up to the next place where a cleared range begins or ends.
    let edge = |layer: &&NodeLayer| {
        let (from, to) = layer.clears.overlapping(leaf, end).next()?;
        Some(if from > leaf { from } else { to })
    };
    let edge = a.layers.iter().chain(&b.layers).filter_map(edge).min().unwrap_or(end);
    let end = edge.min(touched);
    Ok(Segment { end, family, a: a.side(leaf), b: b.side(leaf), probes: None })
}
