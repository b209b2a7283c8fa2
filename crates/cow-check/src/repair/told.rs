//! What is lost to whoever opens the pool: what the journal has written since the checkpoint is not.

use super::action::Lost;
use super::work::{Survey, Work};
use crate::tree::name_of;
use cow_format::record::Record;
use cow_format::{BLOCK_SIZE, NodeId, mutant};
use cow_snaptree::Tree;
use std::collections::BTreeMap;

/// First block, number of blocks, and the block of the map node.
type Range = (u64, u64, u64);

/// The ranges of all volumes and snapshots, by name.
pub(super) fn lost(work: &Work<'_>, survey: &Survey) -> Vec<Lost> {
    let mut by_node: BTreeMap<NodeId, Vec<Range>> = BTreeMap::new();
    for (id, lost) in work.lost.iter().filter(|_| !mutant::is("lossmute")) {
        by_node.entry(*id).or_default().push((lost.lba, lost.blocks, lost.block));
    }
    let mut tree = survey.tree.clone();
    if !by_node.is_empty() {
        for (frame, record) in &work.base.records {
            let last = tree.counters().last_node;
            if let Some((id, lba, blocks)) = healed(&tree, record) {
                take_off(by_node.entry(id).or_default(), lba, blocks);
            } else if tree.apply(record, *frame).is_err() {
                // The check of the journal has told of it.
                break;
            }
            // What begins as another node has lost what that has.
            for id in (last.0 + 1..=tree.counters().last_node.0).map(NodeId) {
                let parent = tree.node(id).map(|node| node.entry.parent);
                let inherited = parent.and_then(|parent| by_node.get(&parent)).cloned();
                by_node.insert(id, inherited.unwrap_or_default());
            }
        }
    }
    let mut all = Vec::new();
    for (id, mut ranges) in by_node {
        let Some(node) = tree.node(id).filter(|node| node.is_live()) else { continue };
        let end = node.entry.size_bytes.div_ceil(BLOCK_SIZE as u64);
        take_off(&mut ranges, end, u64::MAX - end);
        let name = name_of(&tree, id);
        let told = |(lba, blocks, block)| Lost { name: name.clone(), lba, blocks, block };
        all.extend(ranges.into_iter().map(told));
    }
    all.sort();
    all
}

/// What a record writes or clears, and of which node.
fn healed(tree: &Tree, record: &Record) -> Option<(NodeId, u64, u64)> {
    match record {
        Record::MapSet { volume, lba, crcs, .. } => {
            Some((tree.head(*volume)?, lba.0, crcs.len() as u64))
        }
        Record::MapClear { volume, lba, blocks } => Some((tree.head(*volume)?, lba.0, *blocks)),
        _ => None,
    }
}

fn take_off(ranges: &mut Vec<Range>, from: u64, blocks: u64) {
    let to = from.saturating_add(blocks);
    let rest = ranges.iter().flat_map(|&(lba, len, block)| {
        let end = lba + len;
        let before = (lba, from.min(end).saturating_sub(lba), block);
        let after = (lba.max(to), end.saturating_sub(lba.max(to)), block);
        match from < end && lba < to {
            true => vec![before, after],
            false => vec![(lba, len, block)],
        }
    });
    *ranges = rest.filter(|(_, len, _)| *len > 0).collect();
}
