//! One node: what the table stores of it, and what only memory knows.

use crate::children::Children;
use crate::props::{Edit, Kept, Props};
use crate::row::Row;
use cow_format::NodeId;
use cow_format::entry::{Count, NodeEntry, NodeKind, NodeState};

/// In [`NodeEntry::unique`]: not known without reading kill rows.
pub(crate) const UNKNOWN: Count = Count { data: u64::MAX, map: u64::MAX };

/// A head or snapshot (deleted or not), or the holder of the pool's properties.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The fields that the node table stores. `unique` here is the number of blocks of this
    /// node's interval that its *only* child has no more, all ones where there is no only child
    /// or its row would have to be read.
    pub entry: NodeEntry,
    /// Nodes whose parent this is, by ascending id.
    pub children: Children,
    /// A fold has seen it: `entry.root` is valid; else its map is still the parent's.
    pub rooted: bool,
    /// Its entry in the node table.
    pub slot: Option<u32>,
    /// Kill row against the parent.
    pub(crate) row: Row,
    /// Properties and holds; `None` until their blob is read.
    pub(crate) props: Option<Kept>,
    /// Changes made before that.
    pub(crate) edits: Vec<Edit>,
    /// Whose name the blob `entry.props` carries: another node's from the snapshot or rollback
    /// that passed the volume's properties to a new head until the next fold writes them.
    pub(crate) props_owner: NodeId,
    /// Goes up when its row, or whom that is against, changes.
    pub(crate) row_changes: u64,
    /// Goes up when a fold wrote its map anew.
    pub(crate) map_changes: u64,
    /// What the last trim could have freed at most and did not, in data blocks.
    pub(crate) trim_left: u64,
}

impl Node {
    /// A node made by a record: nothing of it is on the device yet.
    pub(crate) fn new(entry: NodeEntry) -> Self {
        Self {
            props_owner: entry.id,
            entry: NodeEntry { unique: UNKNOWN, ..entry },
            children: Children::NONE,
            rooted: false,
            slot: None,
            row: Row::empty(),
            props: Some(Kept::default()),
            edits: Vec::new(),
            row_changes: 0,
            map_changes: 0,
            trim_left: 0,
        }
    }

    /// A node read from the table.
    pub(crate) fn from_entry(slot: u32, entry: NodeEntry) -> Self {
        Self {
            props_owner: entry.id,
            children: Children::NONE,
            rooted: true,
            slot: Some(slot),
            row: if entry.row.len == 0 { Row::empty() } else { Row::unloaded() },
            props: (entry.props.len == 0).then(Kept::default),
            edits: Vec::new(),
            row_changes: 0,
            map_changes: 0,
            trim_left: 0,
            entry,
        }
    }

    /// Its kill row.
    pub fn row(&self) -> &Row {
        &self.row
    }

    /// Its properties and holds; `None` until loaded.
    pub fn props(&self) -> Option<&Props> {
        self.props.as_deref()
    }

    /// In use: not deleted, and part of the tree.
    pub fn is_live(&self) -> bool {
        self.entry.state == NodeState::Live && self.entry.kind != NodeKind::Pool
    }

    /// A live snapshot, whatever its kind.
    pub fn is_snapshot(&self) -> bool {
        self.is_live() && self.entry.kind != NodeKind::Head
    }

    /// The writable end of a volume.
    pub fn is_head(&self) -> bool {
        self.is_live() && self.entry.kind == NodeKind::Head
    }

    /// Deleted with two or more children: waits until one is left.
    pub fn is_branch_point(&self) -> bool {
        self.entry.state != NodeState::Live && self.children.len() >= 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_takes_little_memory() {
        // An open of ten thousand snapshots spends a good part of its time on fresh memory.
        assert!(size_of::<Node>() <= 416, "{}", size_of::<Node>());
    }
}
