//! Names and places in the snapshot tree.

use cow_format::entry::NodeState;
use cow_format::{Gen, Lba, NodeId, Phys};
use cow_snaptree::Tree;

/// `VOL`, `VOL@SNAP`, or what else a node is.
pub(crate) fn name_of(tree: &Tree, id: NodeId) -> String {
    if id == cow_snaptree::POOL_NODE {
        return "the pool".to_owned();
    }
    tree.full_name(id).unwrap_or_else(|| format!("deleted node {id}"))
}

/// `vm1@snap, lba 12 (byte 49152), block 777`.
pub(crate) fn place(tree: &Tree, id: NodeId, lba: u64, phys: Phys) -> String {
    place_in(&name_of(tree, id), Lba(lba), phys)
}

/// The same, for a name that is known.
pub(crate) fn place_in(name: &str, lba: Lba, phys: Phys) -> String {
    let byte = lba.0.saturating_mul(cow_format::BLOCK_SIZE as u64);
    if phys.is_none() {
        return format!("{name}, lba {lba} (byte {byte})");
    }
    format!("{name}, lba {lba} (byte {byte}), block {phys}")
}

pub(crate) fn is_walking(tree: &Tree, id: NodeId) -> bool {
    tree.node(id).is_some_and(|node| node.entry.state == NodeState::Walking)
}

/// The node whose map is compared with that of `id`: its parent, or the one above where the
/// parent is being reclaimed.
pub(crate) fn above(tree: &Tree, id: NodeId) -> Option<NodeId> {
    let parent = tree.node(id)?.entry.parent;
    let parent = if is_walking(tree, parent) { tree.node(parent)?.entry.parent } else { parent };
    tree.node(parent).map(|node| node.entry.id)
}

/// Label of a node; 0 for none.
pub(crate) fn gen_of(tree: &Tree, id: Option<NodeId>) -> Gen {
    id.and_then(|id| tree.node(id)).map_or(Gen(0), |node| node.entry.label_gen)
}
