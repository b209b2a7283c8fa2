//! What a walk could not read, one by one, and what it has counted: for a repair.
//!
//! A map node that cannot be read need not be lost as a whole. A node of the snapshot tree below has, at
//! the same position, a map node of its own if it has changed anything there; and whatever it has
//! inherited in it, or further below, is by the ownership lemma what the lost one had there too. That is not
//! only worth having: two maps below may share such a pointer, and only the one above says that they may.

use cow_format::entry::Count;
use cow_format::mapnode::{FANOUT_BITS, NodePlace, Slot};
use cow_format::{Gen, NodeId, Phys};
use std::collections::{BTreeMap, BTreeSet};

/// A pointer to a map node, as a key.
pub(crate) type Pointer = (Phys, u32);

/// See the module.
#[derive(Default)]
pub(crate) struct Unread {
    /// Map nodes.
    pub(crate) nodes: BTreeMap<Pointer, BadNode>,
    /// Nodes whose kill row cannot be read.
    pub(crate) rows: BTreeSet<NodeId>,
    /// Nodes whose properties cannot be read.
    pub(crate) props: BTreeSet<NodeId>,
    /// What was counted of the nodes of which all could be read.
    pub(crate) counted: BTreeMap<NodeId, Counted>,
}

/// A map node that cannot be read.
pub(crate) struct BadNode {
    /// The node of the snapshot tree in whose map it was met first.
    pub(crate) id: NodeId,
    /// Where it is, and what it should be.
    pub(crate) place: NodePlace,
    /// What is wrong.
    pub(crate) what: String,
    /// Slots of it, and of what is below it, that are known from elsewhere.
    pub(crate) known: BTreeMap<Spot, Slot>,
}

/// A slot of a map: level and index of the node that it is in, and its number there.
pub(crate) type Spot = (u8, u64, usize);

/// What a walk counts of one node of the snapshot tree.
pub(crate) struct Counted {
    /// Blocks born in it that it still has.
    pub(crate) own: Count,
    /// Blocks that it maps, where that is known.
    pub(crate) mapped: Option<Count>,
    /// What of its parent it has no more, by birth; none where the parent is being reclaimed and that is not known.
    pub(crate) row: Option<BTreeMap<Gen, Count>>,
    /// Whether its kill row says the same.
    pub(crate) same: bool,
}

impl Unread {
    /// A map node could not be read.
    pub(crate) fn note(&mut self, id: NodeId, place: NodePlace, what: &str) {
        let (key, what) = ((place.phys, place.crc), what.to_owned());
        let bad = BadNode { id, place, what, known: BTreeMap::new() };
        self.nodes.entry(key).or_insert(bad);
    }

    /// A map below has this in the place of a slot of a map node that could not be read, or of one below that.
    pub(crate) fn learn(&mut self, bad: Pointer, spot: Spot, slot: Slot) {
        if let Some(bad) = self.nodes.get_mut(&bad) {
            bad.known.entry(spot).or_insert(slot);
        }
    }
}

impl BadNode {
    /// Whether something is known of the node that would stand at `index` of `level`.
    pub(crate) fn knows_below(&self, level: u8, index: u64) -> bool {
        (0..=level).any(|deep| {
            let bits = FANOUT_BITS * u32::from(level - deep);
            let (from, to) = (index << bits, (index + 1) << bits);
            self.known.range((deep, from, 0)..(deep, to, 0)).next().is_some()
        })
    }
}
