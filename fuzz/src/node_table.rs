//! Any bytes in place of entries of the node table and their overflow entries: each by itself, and all of
//! them as the tree of a pool.

use cow_format::entry::NodeEntry;
use cow_format::{Gen, NodeId, Phys, VolumeId};
use cow_snaptree::{Counters, Props, Row, Tree};

const LEN: usize = 256;
/// Most entries of an input.
const MOST: usize = 64;

/// See the module. An input is an entry, its overflow entry, the next entry and so on.
pub fn run(data: &[u8]) {
    let _ = Row::decode(data);
    let _ = Props::decode(data);
    let mut entries = Vec::new();
    for (slot, pair) in data.chunks(2 * LEN).take(MOST).enumerate() {
        let (entry, overflow) = pair.split_at(pair.len().min(LEN));
        let Ok(Some(entry)) = NodeEntry::decode(entry, overflow, Phys(1)) else { continue };
        let bytes = (entry.encode(), entry.encode_overflow().unwrap_or([0; LEN]));
        assert_eq!(NodeEntry::decode(&bytes.0, &bytes.1, Phys(1)), Ok(Some(entry.clone())));
        entries.push((slot as u32, entry));
    }
    let counters = Counters {
        last_gen: Gen(1000),
        last_node: NodeId(1000),
        last_volume: VolumeId(1000),
        last_group: 1000,
    };
    let Ok(tree) = Tree::from_entries(entries.into_iter(), counters) else { return };
    for node in tree.iter() {
        let _ = tree.node(node.entry.parent);
    }
    let _ = (tree.walkable(), tree.counts());
}
