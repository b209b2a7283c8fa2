//! From a logical block to a physical one: unfolded layers first, newest node first, then the
//! radix map through the node cache.

use crate::core::Pool;
use crate::error::Error;
use crate::mapping::{Mapping, Mappings};
use crate::task::Cx;
use cow_extent::Probe;
use cow_format::entry::Root;
use cow_format::mapnode::{FANOUT_BITS, MapNode, NodePlace, Slot, span_blocks};
use cow_format::{FamilyId, FormatError, Lba, NodeId, mutant};
use std::sync::Arc;

/// The pointer that stands for a root.
pub(crate) fn root_slot(root: &Root) -> Slot {
    Slot { phys: root.phys, birth: root.birth, crc: root.crc }
}

impl Pool {
    /// What the layers say of `lba` as seen by `node`; `None` when the map must be asked. `chain`
    /// is from [`Pool::layer_chain`].
    pub(crate) fn probe(&self, chain: &[NodeId], lba: Lba) -> Option<Mapping> {
        let active =
            Some(&self.active).filter(|_| self.folding.is_none() || !mutant::is("foldblind"));
        let mut both = [active, self.folding.as_deref()];
        if mutant::is("oldlayer") {
            both.reverse();
        }
        for &node in chain {
            for layers in both.into_iter().flatten() {
                match layers.probe(node, lba) {
                    Probe::Mapped(phys, crc) => return Some(Mapping::At(phys, crc)),
                    Probe::Hole => return Some(Mapping::Hole),
                    Probe::Miss => {}
                }
            }
        }
        None
    }

    /// The nodes whose layers a reader of `node` goes through, newest first, and the root below
    /// them. A node that a fold has seen has a root that holds all its ancestors' writes.
    pub(crate) fn layer_chain(&self, node: NodeId) -> (Vec<NodeId>, Root, FamilyId) {
        let (mut chain, mut at) = (Vec::new(), node);
        loop {
            let Some(current) = self.tree.node(at) else {
                return (chain, Root::default(), FamilyId(0));
            };
            if self.has_layer(at) {
                chain.push(at);
            }
            if current.rooted || current.entry.parent.0 == 0 {
                return (chain, current.entry.root, current.entry.family);
            }
            at = current.entry.parent;
        }
    }

    pub(crate) fn has_layer(&self, node: NodeId) -> bool {
        self.active.node(node).is_some()
            || self.folding.as_ref().is_some_and(|layers| layers.node(node).is_some())
    }
}

/// Where `blocks` blocks from `first` on are for `node`, at this moment. The caller holds a pin.
pub(crate) async fn resolve(
    cx: &Cx,
    node: NodeId,
    first: Lba,
    blocks: usize,
) -> Result<Mappings, Error> {
    if let Some(found) = cx.core().pool()?.resolve_cached(node, first, blocks) {
        return Ok(found);
    }
    let (mut found, root, family) = {
        let mut core = cx.core();
        let pool = core.pool()?;
        let (chain, root, family) = pool.layer_chain(node);
        let lbas = (0..blocks as u64).map(|i| Lba(first.0 + i));
        let found: Vec<Option<Mapping>> = lbas.map(|lba| pool.probe(&chain, lba)).collect();
        (found, root, family)
    };
    let mut i = 0;
    while i < blocks {
        let lba = Lba(first.0 + i as u64);
        let in_leaf = (256 - usize::from(lba.slot())).min(blocks - i);
        if found[i..i + in_leaf].iter().any(Option::is_none) {
            let leaf = leaf_of(cx, &root, family, lba.leaf()).await?;
            for (j, mapping) in found[i..i + in_leaf].iter_mut().enumerate() {
                mapping.get_or_insert_with(|| leaf.mapping(usize::from(lba.slot()) + j));
            }
        }
        i += in_leaf;
    }
    Ok(Mappings::Many(found.into_iter().map(|m| m.unwrap_or(Mapping::Hole)).collect()))
}

impl Pool {
    /// What [`resolve`] finds, if all that it takes is in memory.
    pub(crate) fn resolve_cached(
        &mut self,
        node: NodeId,
        first: Lba,
        blocks: usize,
    ) -> Option<Mappings> {
        let (chain, root, _) = self.layer_chain(node);
        if blocks == 1 {
            let mapping = match self.probe(&chain, first) {
                Some(mapping) => mapping,
                None => self.cached_leaf(&root, first.leaf())?.mapping(usize::from(first.slot())),
            };
            return Some(Mappings::One([mapping]));
        }
        let mut found = Vec::with_capacity(blocks);
        let mut leaf: Option<(u64, Found)> = None;
        for i in 0..blocks as u64 {
            let lba = Lba(first.0 + i);
            if let Some(mapping) = self.probe(&chain, lba) {
                found.push(mapping);
                continue;
            }
            if leaf.as_ref().is_none_or(|&(index, _)| index != lba.leaf()) {
                leaf = Some((lba.leaf(), self.cached_leaf(&root, lba.leaf())?));
            }
            let (_, leaf) = leaf.as_ref()?;
            found.push(leaf.mapping(usize::from(lba.slot())));
        }
        Some(Mappings::Many(found))
    }

    /// What [`leaf_of`] finds, if all that it takes is in memory.
    fn cached_leaf(&mut self, root: &Root, leaf: u64) -> Option<Found> {
        let mut at = Descent::new(root, leaf);
        loop {
            if let Some(found) = at.end() {
                return Some(found);
            }
            let node = self.cached(at.slot)?;
            if let Some(leaf) = at.enter(node) {
                return Some(Found::Node(leaf));
            }
        }
    }

    /// The map node that `slot` points to, if it is in memory.
    fn cached(&mut self, slot: Slot) -> Option<Arc<MapNode>> {
        if !self.writing_nodes.is_empty()
            && let Some(node) = self.writing_nodes.get(&slot.phys)
        {
            return Some(Arc::clone(node));
        }
        self.cache.get(slot.phys, slot.crc)
    }
}

/// How many blocks from `lba` on are certainly holes because no layer touches them and the map
/// has no leaf there; 0 when that is not so.
pub(crate) async fn empty_run(cx: &Cx, node: NodeId, lba: Lba) -> Result<u64, Error> {
    let (root, family, next_layer) = {
        let mut core = cx.core();
        let pool = core.pool()?;
        let (chain, root, family) = pool.layer_chain(node);
        let mut next = u64::MAX;
        for &member in &chain {
            for layers in [Some(&pool.active), pool.folding.as_deref()].into_iter().flatten() {
                let Some(layer) = layers.node(member) else { continue };
                // Cleared leaves are holes whatever lies below; only changed leaves matter, and
                // cleared ones are left to the slow path when the map has something there.
                if let Some((&leaf, _)) = layer.leaves.range(lba.leaf()..).next() {
                    next = next.min(leaf);
                }
            }
        }
        (root, family, next)
    };
    if next_layer == lba.leaf() {
        return Ok(0);
    }
    let limit = next_layer.saturating_mul(256).saturating_sub(lba.0);
    match leaf_of(cx, &root, family, lba.leaf()).await? {
        Found::Hole(end_leaf) => Ok((end_leaf.saturating_mul(256) - lba.0).min(limit)),
        _ => Ok(0),
    }
}

/// What stands in the map at a leaf's place.
pub(crate) enum Found {
    /// The leaf.
    Node(Arc<MapNode>),
    /// A hole that reaches up to that leaf index (exclusive).
    Hole(u64),
    /// A lost subtree.
    Lost,
}

impl Found {
    /// Where the block of slot `slot` is.
    fn mapping(&self, slot: usize) -> Mapping {
        match self {
            Self::Node(node) => node.slots()[slot].into(),
            Self::Hole(_) => Mapping::Hole,
            Self::Lost => Mapping::Lost,
        }
    }
}

/// A way down from a root to a leaf: the pointer that it has come to.
struct Descent {
    leaf: u64,
    level: u8,
    slot: Slot,
    /// Holes that follow in the same map node, as far as known.
    more_holes: u64,
    is_outside: bool,
}

impl Descent {
    fn new(root: &Root, leaf: u64) -> Self {
        let is_outside = leaf >= span_blocks(root.level) >> FANOUT_BITS;
        Self { leaf, level: root.level, slot: root_slot(root), more_holes: 0, is_outside }
    }

    /// The index of the map node that the pointer is for.
    fn index(&self) -> u64 {
        self.leaf >> (FANOUT_BITS * u32::from(self.level))
    }

    /// Whether the way ends here, before a leaf.
    fn end(&self) -> Option<Found> {
        if self.is_outside {
            return Some(Found::Hole(u64::MAX >> FANOUT_BITS));
        }
        if self.slot.is_lost() {
            return Some(Found::Lost);
        }
        let after = self.index() + 1 + self.more_holes;
        self.slot.is_hole().then(|| Found::Hole(after << (FANOUT_BITS * u32::from(self.level))))
    }

    /// Goes on through `node`, to which the pointer leads; that again if it is the leaf.
    fn enter(&mut self, node: Arc<MapNode>) -> Option<Arc<MapNode>> {
        if self.level == 0 {
            return Some(node);
        }
        self.level -= 1;
        let child = (self.index() & 0xff) as usize;
        self.slot = node.slots()[child];
        let after = node.slots()[child + 1..].iter();
        self.more_holes =
            if self.slot.is_hole() { after.take_while(|s| s.is_hole()).count() as u64 } else { 0 };
        None
    }
}

/// Descends from `root` to the leaf with index `leaf`.
pub(crate) async fn leaf_of(
    cx: &Cx,
    root: &Root,
    family: FamilyId,
    leaf: u64,
) -> Result<Found, Error> {
    let mut at = Descent::new(root, leaf);
    loop {
        if let Some(found) = at.end() {
            return Ok(found);
        }
        let node = load(cx, family, at.level, at.index(), at.slot).await?;
        if let Some(leaf) = at.enter(node) {
            return Ok(Found::Node(leaf));
        }
    }
}

/// The map node that `slot` points to, if it is in memory.
pub(crate) fn cached(cx: &Cx, slot: Slot) -> Option<Arc<MapNode>> {
    cx.core().pool().ok()?.cached(slot)
}

/// Where the map node that `slot` points to must say that it is.
pub(crate) fn place_of(
    cx: &Cx,
    family: FamilyId,
    level: u8,
    index: u64,
    slot: Slot,
) -> Result<NodePlace, Error> {
    let pool_tag = cx.core().pool()?.pool_tag;
    let Slot { phys, birth, crc } = slot;
    Ok(NodePlace { pool_tag, family, level, index, phys, birth, crc })
}

/// Keeps what was read, if that is the map node that `slot` points to.
pub(crate) fn keep(
    cx: &Cx,
    family: FamilyId,
    level: u8,
    index: u64,
    slot: Slot,
    bytes: &[u8],
) -> Option<Arc<MapNode>> {
    let place = place_of(cx, family, level, index, slot).ok()?;
    insert(cx, &place, bytes).ok()?.ok()
}

fn insert(
    cx: &Cx,
    place: &NodePlace,
    bytes: &[u8],
) -> Result<Result<Arc<MapNode>, FormatError>, Error> {
    let mut core = cx.core();
    core.stats.map_nodes_read += 1;
    let pool = core.pool()?;
    Ok(MapNode::decode(bytes, place).map(|node| {
        let node = Arc::new(node);
        pool.cache.insert(place.phys, place.crc, Arc::clone(&node));
        node
    }))
}

/// The map node that `slot` points to: from the cache, else from the device, three tries.
pub(crate) async fn load(
    cx: &Cx,
    family: FamilyId,
    level: u8,
    index: u64,
    slot: Slot,
) -> Result<Arc<MapNode>, Error> {
    if let Some(node) = cached(cx, slot) {
        return Ok(node);
    }
    let place = place_of(cx, family, level, index, slot)?;
    let mut error = None;
    for attempt in 0..3 {
        match cx.read(place.phys, 1, attempt > 0).await {
            Ok(buf) => match insert(cx, &place, &buf)? {
                Ok(node) => return Ok(node),
                Err(cause) => error = Some(Error::Corrupt(describe(&place, &cause.to_string()))),
            },
            Err(failure) => {
                cx.core().stats.map_nodes_read += 1;
                if attempt == 2 {
                    cx.core().fold.note_unread(place.phys);
                }
                let offset = place.phys.byte_offset();
                error = Some(Error::Io { errno: failure.errno, op: "read of a map node", offset });
            }
        }
    }
    Err(error.unwrap_or_else(|| Error::Corrupt(describe(&place, "unreadable"))))
}

fn describe(place: &NodePlace, cause: &str) -> String {
    format!("{cause} (family {}, level {}, index {})", place.family, place.level, place.index)
}
