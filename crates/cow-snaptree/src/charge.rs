//! Who pays for a block: the volume of the node that it was born in, until it is freed or a
//! reclaimed node leaves it to another volume. Design section 14, "Budgets". The sums are kept
//! as the counters change, so that admission asks for one in constant time.

use crate::node::Node;
use crate::space::SpacePolicy;
use crate::tree::Tree;
use cow_format::entry::Count;
use cow_format::record::PropChange;
use cow_format::{NodeId, VolumeId};
use std::sync::Arc;

impl Tree {
    /// Blocks of data that `volume` pays for as of the last fold: those born in its head and its
    /// snapshots, of deleted ones too until they are reclaimed.
    pub fn charge(&self, volume: VolumeId) -> u64 {
        self.charges.get(volume.0).copied().unwrap_or(0)
    }

    /// Blocks that the head of a volume has alone, as of the last fold: to write such a block
    /// anew gives one back. With the blocks of its kill row, which goes the same way.
    pub fn own_blocks(&self, head: NodeId) -> u64 {
        self.node(head).map_or(0, |node| {
            let Count { data, map } = node.entry.born;
            data.saturating_add(map).saturating_add(node.entry.row.blocks())
        })
    }

    /// The figure `born` of a node becomes `born`; whoever pays for its blocks pays for that.
    pub(crate) fn set_born(&mut self, id: NodeId, born: Count) {
        let Some(node) = self.node_mut(id) else { return };
        let old = std::mem::replace(&mut node.entry.born, born);
        let volume = node.entry.volume;
        self.recharge(volume, old.data, born.data);
    }

    pub(crate) fn recharge(&mut self, volume: VolumeId, old: u64, new: u64) {
        if old == new {
            return;
        }
        let charge = self.charge(volume);
        match charge.saturating_sub(old).saturating_add(new) {
            0 => drop(self.charges.remove(volume.0)),
            sum => drop(self.charges.insert(volume.0, sum)),
        }
    }

    /// Takes note of what changed properties of a volume say about space.
    pub(crate) fn note_space(&mut self, volume: VolumeId, changes: &[PropChange]) {
        let Some(found) = self.volumes.get_mut(volume.0) else { return };
        let mut space = found.space;
        changes.iter().for_each(|(key, value)| space.set(key, value.as_deref()));
        if space != found.space {
            Arc::make_mut(found).space = space;
        }
    }

    /// The same of the properties of a head that were just loaded.
    pub(crate) fn learn_space(&mut self, id: NodeId) {
        let Some(node) = self.node(id).filter(|node| Node::is_head(node)) else { return };
        let volume = node.entry.volume;
        let mut space = SpacePolicy::default();
        let props = node.props.iter().flat_map(|props| &props.map);
        props.for_each(|(key, value)| space.set(key, Some(value)));
        if let Some(found) = self.volumes.get_mut(volume.0).filter(|found| found.space != space) {
            Arc::make_mut(found).space = space;
        }
    }
}
