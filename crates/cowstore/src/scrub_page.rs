//! What a scrub answers, in a form that can be sent.

use cow_engine::{ScrubCursor, ScrubFault, ScrubKind, ScrubStep};
use cow_format::{BLOCK_SIZE, NodeId, Phys};
use serde::{Deserialize, Serialize};

const BLOCK: u64 = BLOCK_SIZE as u64;

/// Something that is damaged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// `VOL` or `VOL@SNAP`: the oldest that has it. So have those that came from it and have not
    /// written there since.
    pub name: String,
    /// Its node.
    pub node: u64,
    /// `data`, `map leaf`, `map node`, or `lost`.
    pub kind: String,
    /// The first byte of the volume that cannot be read for that.
    pub offset: u64,
    /// How many there are from there on.
    pub length: u64,
    /// The block of the pool: the first of the data, or the map node; `None` for what was lost
    /// before.
    pub block: Option<u64>,
    /// What is wrong.
    pub what: String,
}

/// How far a scrub has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Scrubbed {
    /// Data blocks that were read, by an interrupted one before included.
    pub data_blocks: u64,
    /// Map nodes that were read.
    pub map_nodes: u64,
    /// Those of them that an interrupted one had read.
    pub resumed_blocks: u64,
    /// What is damaged.
    pub damage: Vec<Damage>,
    /// Whether it has come to the end.
    pub complete: bool,
    /// Whether the pool knows how far it is, so that the next one goes on from there.
    pub kept: bool,
}

/// A step of a scrub, in a form that can be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScrubPage {
    /// Where to go on: node, block, last node.
    pub next: Option<(u64, u64, u64)>,
    /// Data blocks that were read.
    pub data_blocks: u64,
    /// Map nodes that were read.
    pub map_nodes: u64,
    /// What is damaged.
    pub damage: Vec<Damage>,
}

impl From<ScrubStep> for ScrubPage {
    fn from(step: ScrubStep) -> Self {
        Self {
            next: step.next.map(|at| (at.node.0, at.block, at.end.0)),
            data_blocks: step.data_blocks,
            map_nodes: step.map_nodes,
            damage: step.faults.into_iter().map(Damage::from).collect(),
        }
    }
}

impl From<ScrubFault> for Damage {
    fn from(fault: ScrubFault) -> Self {
        let ScrubFault { node, name, kind, first, blocks, phys, what } = fault;
        Self {
            name,
            node: node.0,
            kind: name_of(kind).into(),
            offset: first.saturating_mul(BLOCK),
            length: blocks.saturating_mul(BLOCK),
            block: (phys != Phys(0)).then_some(phys.0),
            what,
        }
    }
}

/// What may be damaged.
pub(crate) const KINDS: [&str; 4] = ["data", "map leaf", "map node", "lost"];

fn name_of(kind: ScrubKind) -> &'static str {
    match kind {
        ScrubKind::Data => KINDS[0],
        ScrubKind::MapNode(0) => KINDS[1],
        ScrubKind::MapNode(_) => KINDS[2],
        ScrubKind::Lost => KINDS[3],
    }
}

/// The cursor as [`Verb::Scrub`] has it.
pub(crate) fn cursor_of((node, block, end): (u64, u64, u64)) -> ScrubCursor {
    ScrubCursor { node: NodeId(node), block, end: NodeId(end) }
}
