//! What a scrub is asked and answers.

use cow_format::{NodeId, Phys};

/// How far a scrub has come. The default is its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubCursor {
    /// The node of the snapshot tree that comes next.
    pub node: NodeId,
    /// The first block of it that has not been looked at.
    pub block: u64,
    /// The last node; those that came later are for the next scrub.
    pub end: NodeId,
}

/// What is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScrubKind {
    /// Data blocks.
    Data,
    /// A map node of that level; 0 is a leaf.
    MapNode(u8),
    /// Blocks that were given up earlier: reads of them fail.
    Lost,
}

/// Damage. Every descendant that has not written there since has it too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScrubFault {
    /// The oldest live node of the snapshot tree that has it.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// What is damaged.
    pub kind: ScrubKind,
    /// The first logical block that cannot be read for that.
    pub first: u64,
    /// How many there are from there on; of a map node, those that it covers.
    pub blocks: u64,
    /// Where it lies: data blocks, one behind the other; or the map node.
    pub phys: Phys,
    /// What is wrong.
    pub what: String,
}

/// What a step has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubStep {
    /// Where to go on; `None` at the end.
    pub next: Option<ScrubCursor>,
    /// Data blocks that were read.
    pub data_blocks: u64,
    /// Map nodes that were read.
    pub map_nodes: u64,
    /// What is damaged, in the order of node and block.
    pub faults: Vec<ScrubFault>,
}
