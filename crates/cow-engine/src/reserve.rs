//! What folds will have to write for changes, in blocks: what admission keeps free for them.
//!
//! Four things take blocks in a fold: map nodes, kill rows, properties and, rarely, a chunk of the
//! node table (which is done without where there is no room). Map nodes and rows belong to a layer,
//! which counts them itself from its first change on (`cow-extent/src/layer.rs`) and takes them
//! along into the fold; properties are counted by the snapshot tree. What is here bounds by how
//! much a request raises these counts, so that it can be promised before the request is sequenced.
//!
//! A kill row has at most one cell for each gen up to the parent's, and gets at most one for each
//! pointer that dies: it never grows by more than the smaller of the two.

use crate::core::Pool;
use cow_extent::{Base, row_blocks};
use cow_format::mapnode::{FANOUT_BITS, MAX_LEVEL};
use cow_format::record::Record;
use cow_format::{Lba, NodeId};
use cow_snaptree::PROPS_BLOCKS;

/// Most map nodes that a root grows by.
const GROWTH: u64 = MAX_LEVEL as u64;
/// Paths from a leaf to the root that the ends of a clear touch: a leaf that is cleared in part,
/// and one that is cleared as a whole, at each end.
const CLEAR_PATHS: u64 = 4;

/// Map nodes over the blocks `first .. end` that a write of them dirties.
fn write_nodes(first: u64, end: u64) -> u64 {
    (0..=u32::from(MAX_LEVEL)).map(|level| nodes_of_level(first, end, level)).sum()
}

/// Map nodes that clearing the blocks `first .. end` dirties: those over its two ends.
fn clear_nodes(first: u64, end: u64) -> u64 {
    let inner = (1..=u32::from(MAX_LEVEL)).map(|level| nodes_of_level(first, end, level));
    2 + inner.map(|nodes| nodes.min(CLEAR_PATHS)).sum::<u64>()
}

fn nodes_of_level(first: u64, end: u64, level: u32) -> u64 {
    let bits = FANOUT_BITS * (level + 1);
    let last = end.max(first + 1) - 1;
    (last >> bits) - (first >> bits) + 1
}

/// What a request changes, as it is put together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Need {
    nodes: u64,
    kills: u64,
}

impl Need {
    /// These blocks are written.
    pub(crate) fn write(&mut self, first: Lba, blocks: u64) {
        let nodes = write_nodes(first.0, first.0.saturating_add(blocks));
        self.nodes += nodes;
        self.kills = self.kills.saturating_add(nodes + blocks);
    }

    /// These blocks become holes.
    pub(crate) fn clear(&mut self, first: Lba, blocks: u64) {
        self.nodes += clear_nodes(first.0, first.0.saturating_add(blocks));
        // Whatever is there dies.
        self.kills = u64::MAX;
    }
}

impl Pool {
    /// Blocks by which the reserve rises, at most, when a request with this `need` is sequenced for
    /// `head` or, if a snapshot comes first, for the head after it.
    pub(crate) fn blocks_for(&self, head: NodeId, need: Need) -> u64 {
        if need.nodes == 0 {
            return 0;
        }
        // As for a layer that has yet to begin: a fold may take the one that there is before this is
        // sequenced. And as for the head after a snapshot, which has a parent.
        let births = self.tree.node(head).map_or(0, |node| u64::from(node.entry.label_gen.0));
        let row_blocks_now = self.tree.row_blob(head).blocks();
        let row = Base { births, row_blocks: row_blocks_now, ..Base::default() };
        // One more, as rounding up twice is more than rounding up once.
        need.nodes + GROWTH + row_blocks(&row, need.kills) + 1
    }

    /// Blocks that a fold needs for the records of a verb.
    pub(crate) fn blocks_for_records(&self, records: &[Record]) -> u64 {
        records.iter().map(|record| self.blocks_for_record(record)).sum()
    }

    fn blocks_for_record(&self, record: &Record) -> u64 {
        let given = |props: &Vec<_>| if props.is_empty() { 0 } else { PROPS_BLOCKS };
        // A new head takes over the properties of the old one, and they are written under its name.
        let passed_on = |volume| {
            let head = self.head(volume);
            if head.is_some_and(|head| self.tree.has_props(head)) { PROPS_BLOCKS } else { 0 }
        };
        match record {
            Record::SetProps { .. } | Record::Hold { .. } => PROPS_BLOCKS,
            Record::VolCreate { props, .. } | Record::Clone { props, .. } => given(props),
            Record::SnapCreate { members, props, .. } => {
                members.iter().map(|member| passed_on(member.volume) + given(props)).sum()
            }
            Record::Rollback { members, .. } => {
                members.iter().map(|member| passed_on(member.volume)).sum()
            }
            Record::MapClear { volume, lba, blocks } => {
                let mut need = Need::default();
                need.clear(*lba, *blocks);
                self.head(*volume).map_or(0, |head| self.blocks_for(head, need))
            }
            _ => 0,
        }
    }

    /// Tells the layer of `node`, before its first change, what its fold depends on.
    pub(crate) fn begin_layer(&mut self, node: NodeId) {
        if !self.active.has_base(node) {
            let base = self.fold_base(node);
            self.active.set_base(node, base);
        }
    }

    /// A fold has been published: roots and rows are others.
    pub(crate) fn rebase_layers(&mut self) {
        let ids: Vec<NodeId> = self.active.nodes().collect();
        for id in ids {
            let base = self.fold_base(id);
            self.active.set_base(id, base);
        }
    }

    fn fold_base(&self, id: NodeId) -> Base {
        let (mut root_level, mut top_level) = (0, 0);
        let mut at = id;
        while let Some(node) = self.tree.node(at) {
            // A volume that has become smaller keeps the levels that it had.
            for layers in [Some(&self.active), self.folding.as_deref()].into_iter().flatten() {
                top_level = layers.node(at).map_or(0, |layer| layer.top_level()).max(top_level);
            }
            if node.rooted {
                root_level = node.entry.root.level;
                break;
            }
            at = node.entry.parent;
        }
        Base {
            root_level,
            top_level: top_level.max(root_level),
            births: u64::from(self.tree.parent_gen(id).0),
            row_blocks: self.tree.row_blob(id).blocks(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_over_a_range_are_counted_as_a_layer_counts_them() {
        let runs =
            [(0, 1), (255, 2), (65_535, 2), (1000, 3000), (1 << 24, 700), ((1 << 32) - 1, 2)];
        for (first, blocks) in runs {
            let crcs = vec![1; blocks as usize];
            let (mut set, mut cleared) =
                (cow_extent::Layers::default(), cow_extent::Layers::default());
            let base = Base { root_level: MAX_LEVEL, ..Base::default() };
            set.set_base(NodeId(1), base);
            set.set_run(NodeId(1), Lba(first), cow_format::Phys(9), &crcs, MAX_LEVEL);
            assert_eq!(
                set.reserve_blocks(),
                write_nodes(first, first + blocks),
                "{first} {blocks}"
            );
            cleared.set_base(NodeId(1), base);
            cleared.clear_run(NodeId(1), Lba(first), blocks, MAX_LEVEL);
            assert!(cleared.reserve_blocks() <= clear_nodes(first, first + blocks));
        }
    }
}
