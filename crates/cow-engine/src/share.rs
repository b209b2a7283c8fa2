//! The space of single volumes: what each may take (property `budget`) and what is kept for it
//! (property `reserve`). Design sections 7 and 14; the arithmetic is in decision 18.
//!
//! *Budget.* A volume is charged with the blocks of data born in its nodes, as of the last fold,
//! and with what was written since. Each block has one payer.
//!
//! *Reserve.* A volume of `n` blocks is promised `n` blocks of data, the map nodes over all of
//! it, and headroom in which what it overwrites is written before the old comes back. Its
//! *guarantee* is what of that it does not have yet. Others see the pool smaller by the
//! guarantees of all; the volume's own writes turn its guarantee into blocks, and nobody else
//! notices. The guarantees are kept up to date as their parts change, so admission asks for one
//! sum.

use crate::core::{Core, Pool, is_map_record};
use crate::space::Tier;
use cow_extent::NodeLayer;
use cow_format::mapnode::{FANOUT_BITS, MAX_LEVEL};
use cow_format::record::{PropChange, Record};
use cow_format::{BLOCK_SIZE, NodeId, VolumeId};
use cow_snaptree::{RESERVE, Reserve, Tree};
use std::collections::BTreeSet;

const BLOCK: u64 = BLOCK_SIZE as u64;
/// Least headroom: 16 MiB.
const HEADROOM_BLOCKS: u64 = (16 << 20) / BLOCK;

/// Map nodes over a volume of `blocks` blocks, all of it written.
fn map_nodes(blocks: u64) -> u64 {
    let mut nodes = 0;
    for level in 0..=u32::from(MAX_LEVEL) {
        let here = blocks.div_ceil(1 << (FANOUT_BITS * (level + 1)));
        nodes += here;
        if here <= 1 {
            break;
        }
    }
    nodes
}

/// All that a volume of this size is promised, in blocks.
fn promised_blocks(size_bytes: u64, reserve: Reserve) -> u64 {
    let all = size_bytes.div_ceil(BLOCK);
    let data = match reserve {
        Reserve::Full => all,
        Reserve::Bytes(bytes) => bytes.div_ceil(BLOCK).min(all),
    };
    data + map_nodes(all) + HEADROOM_BLOCKS.max(data / 64)
}

impl Pool {
    /// Blocks of data that a volume is charged with.
    pub(crate) fn charge(&self, volume: VolumeId) -> u64 {
        self.tree.charge(volume) + self.shares.charge(volume)
    }

    /// Blocks of data that a volume may be charged with, where that is limited.
    pub(crate) fn budget(&self, volume: VolumeId) -> Option<u64> {
        self.tree.volume(volume)?.space.budget.map(|bytes| bytes / BLOCK)
    }

    /// Whether something deleted or discarded of a volume is still being given back.
    pub(crate) fn is_reclaiming(&self, volume: VolumeId) -> bool {
        let walks = || self.tree.walkable().iter().any(|&id| self.is_of(id, volume));
        self.cp.detached.iter().any(|cut| self.is_of(cut.node, volume)) || walks()
    }

    /// Whether a trim of branch points of a volume could bring space back.
    pub(crate) fn is_trimming(&self, volume: VolumeId) -> bool {
        self.tree.untrimmed().any(|id| self.is_of(id, volume))
    }

    fn is_of(&self, id: NodeId, volume: VolumeId) -> bool {
        self.tree.node(id).is_some_and(|node| node.entry.volume == volume)
    }

    /// An operation on a volume was admitted.
    pub(crate) fn take_off(&mut self, volume: VolumeId, charge: u64, blocks: u64) {
        self.shares.take_off(volume, charge, blocks);
        self.refresh_guarantee(volume);
    }

    /// The same operation is sequenced, or given up.
    pub(crate) fn land(&mut self, volume: VolumeId, charge: u64, blocks: u64) {
        self.shares.land(volume, charge, blocks);
        self.refresh_guarantee(volume);
    }

    /// What is kept for a volume, if `tree` is the tree: what it is promised, less what its head
    /// has alone, what is not folded of it, and what is on its way there.
    fn guarantee_in(&self, tree: &Tree, volume: VolumeId) -> Option<u64> {
        let found = tree.volume(volume)?;
        let promised =
            promised_blocks(tree.node(found.head)?.entry.size_bytes, found.space.reserve?);
        let layer = |layer: &NodeLayer| layer.data_blocks() + layer.reserve_blocks();
        let layers = [Some(&self.active), self.folding.as_deref()].into_iter().flatten();
        let unfolded: u64 = layers.filter_map(|layers| layers.node(found.head)).map(layer).sum();
        let taken = tree.own_blocks(found.head) + unfolded + self.shares.in_flight(volume);
        Some(promised.saturating_sub(taken))
    }

    /// Something has changed that the guarantee of a volume depends on.
    pub(crate) fn refresh_guarantee(&mut self, volume: VolumeId) {
        let blocks = self.guarantee_in(&self.tree, volume);
        if blocks.is_some() || self.shares.guarantee(volume).is_some() {
            self.shares.set_guarantee(volume, blocks);
        }
    }

    /// Of any volume that has one.
    pub(crate) fn refresh_guarantees(&mut self) {
        for volume in self.shares.volumes() {
            self.refresh_guarantee(volume);
        }
    }

    /// After an open: of every volume.
    pub(crate) fn find_guarantees(&mut self) {
        let all: Vec<VolumeId> = self.tree.volumes().map(|(id, _)| id).collect();
        all.into_iter().for_each(|volume| self.refresh_guarantee(volume));
    }

    /// Volumes whose reserve, size or head these records change.
    pub(crate) fn volumes_of(&self, records: &[Record]) -> BTreeSet<VolumeId> {
        let of = |id: &NodeId| self.tree.node(*id).map(|node| node.entry.volume);
        let mut found = BTreeSet::new();
        for record in records {
            match record {
                Record::VolCreate { volume, .. }
                | Record::Clone { volume, .. }
                | Record::VolResize { volume, .. } => found.extend([*volume]),
                Record::SnapCreate { members, .. } => {
                    found.extend(members.iter().map(|m| m.volume))
                }
                Record::Rollback { members, .. } => found.extend(members.iter().map(|m| m.volume)),
                Record::SetProps { node, .. } => found.extend(of(node)),
                Record::NodeDelete { nodes } => found.extend(nodes.iter().filter_map(of)),
                _ => {}
            }
        }
        found
    }

    /// By how many blocks the guarantees rise with these records.
    fn rise_of_guarantees(&self, records: &[Record]) -> u64 {
        let names = |props: &[PropChange]| props.iter().any(|(key, _)| key == RESERVE);
        let gives = |record: &Record| match record {
            Record::VolCreate { props, .. }
            | Record::Clone { props, .. }
            | Record::SetProps { props, .. } => names(props),
            _ => false,
        };
        if !self.shares.has_guarantees() && !records.iter().any(gives) {
            return 0;
        }
        let volumes = self.volumes_of(records);
        let concerned = |volume: &VolumeId| self.shares.guarantee(*volume).is_some();
        if !volumes.iter().any(concerned) && !records.iter().any(gives) {
            return 0;
        }
        let mut tree = self.tree.clone();
        for record in records.iter().filter(|record| !is_map_record(record)) {
            if tree.apply(record, self.journal.next().seq).is_err() {
                // Whoever sequences it says why.
                return 0;
            }
        }
        let new: u64 = volumes.iter().filter_map(|&v| self.guarantee_in(&tree, v)).sum();
        let old: u64 = volumes.iter().filter_map(|&v| self.shares.guarantee(v)).sum();
        new.saturating_sub(old)
    }
}

impl Core {
    /// Blocks that are missing to keep what these records promise to volumes.
    pub(crate) fn missing_for(&self, records: &[Record]) -> u64 {
        let rise = self.pool.as_ref().map_or(0, |pool| pool.rise_of_guarantees(records));
        if rise == 0 { 0 } else { rise.saturating_sub(self.available(Tier::Data, None)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn map_nodes_of_a_full_volume() {
        for (blocks, nodes) in [
            (1, 1),
            (256, 1),
            (257, 3),
            (65_536, 257),
            (65_537, 257 + 1 + 1 + 1),
            (1 << 24, 65_793),
        ] {
            assert_eq!(map_nodes(blocks), nodes, "{blocks}");
        }
    }

    #[test]
    fn what_is_promised() {
        const MIB: u64 = 256;
        assert_eq!(promised_blocks(64 << 20, Reserve::Full), 64 * MIB + 65 + 16 * MIB);
        assert_eq!(promised_blocks(64 << 20, Reserve::Bytes(1 << 20)), MIB + 65 + 16 * MIB);
        assert_eq!(promised_blocks(64 << 20, Reserve::Bytes(1 << 40)), 64 * MIB + 65 + 16 * MIB);
        let (blocks, nodes) = (1 << 28, (1 << 20) + (1 << 12) + 16 + 1);
        assert_eq!(promised_blocks(1 << 40, Reserve::Full), blocks + nodes + blocks / 64);
    }
}
