//! What is recorded of an operation.

/// A volume.
pub type VolumeId = u32;
/// A snapshot; ids are unique over all volumes.
pub type SnapId = u32;
/// A sector of a volume, by its place in the [`area`](super::area) that is looked at.
pub type Cell = u32;
pub use crate::sector::Token;

/// The head of a volume, or one of its snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    /// What is written to.
    Head(VolumeId),
    /// A snapshot.
    Snap(VolumeId, SnapId),
}

impl Node {
    /// The volume.
    #[must_use]
    pub fn volume(self) -> VolumeId {
        match self {
            Self::Head(volume) | Self::Snap(volume, _) => volume,
        }
    }
}

/// An operation with its answer. `fence` is the number of rollbacks of the volume that whoever asks knows of:
/// a later one fences it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// These sectors hold this from now on; of a write, of zeroes or of a discard.
    Write {
        /// Where.
        volume: VolumeId,
        /// Rollbacks before the handle was opened.
        fence: u64,
        /// In any order.
        cells: Vec<(Cell, Token)>,
    },
    /// These sectors, of one block, hold this.
    Read {
        /// Where.
        node: Node,
        /// Rollbacks before the handle was opened; of no matter for a snapshot.
        fence: u64,
        /// In any order.
        cells: Vec<(Cell, Token)>,
    },
    /// Refused, because a rollback has come since the handle was opened; nothing was changed.
    Fenced {
        /// Where.
        volume: VolumeId,
        /// Rollbacks before the handle was opened.
        fence: u64,
    },
    /// A handle was opened.
    Opened {
        /// On what.
        node: Node,
        /// Rollbacks until then.
        fence: u64,
    },
    /// Refused: it does not exist.
    Missing(Node),
    /// The head's content is kept.
    Snapshot(VolumeId, SnapId),
    /// Refused: the snapshot exists, or the volume does not.
    SnapshotRefused(VolumeId, SnapId),
    /// The head has the content of a snapshot from now on.
    Rollback {
        /// Of what.
        volume: VolumeId,
        /// To what.
        to: SnapId,
        /// The snapshot that has the content that was replaced.
        undo: Option<SnapId>,
    },
    /// A new volume with the content of a snapshot.
    Clone {
        /// Of which volume.
        from: VolumeId,
        /// Which.
        snap: SnapId,
        /// The new one.
        to: VolumeId,
    },
    /// The snapshot is gone.
    Delete(VolumeId, SnapId),
}

impl Call {
    /// The volumes that it is about.
    #[must_use]
    pub fn volumes(&self) -> [VolumeId; 2] {
        let (one, other) = match self {
            Self::Write { volume, .. }
            | Self::Fenced { volume, .. }
            | Self::Rollback { volume, .. }
            | Self::Snapshot(volume, _)
            | Self::SnapshotRefused(volume, _)
            | Self::Delete(volume, _) => (*volume, *volume),
            Self::Read { node, .. } | Self::Opened { node, .. } | Self::Missing(node) => {
                (node.volume(), node.volume())
            }
            Self::Clone { from, to, .. } => (*from, *to),
        };
        [one, other]
    }

    /// The snapshot that it looks at or needs, if any.
    #[must_use]
    pub fn seen(&self) -> Option<Node> {
        match *self {
            Self::Read { node, .. } | Self::Opened { node, .. } | Self::Missing(node) => Some(node),
            Self::Rollback { volume, to, .. } => Some(Node::Snap(volume, to)),
            Self::Clone { from, snap, .. } => Some(Node::Snap(from, snap)),
            Self::Snapshot(volume, snap)
            | Self::SnapshotRefused(volume, snap)
            | Self::Delete(volume, snap) => Some(Node::Snap(volume, snap)),
            Self::Write { .. } | Self::Fenced { .. } => None,
        }
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn observes(&self) -> bool {
        !matches!(
            self,
            Self::Write { .. }
                | Self::Snapshot(..)
                | Self::Rollback { .. }
                | Self::Clone { .. }
                | Self::Delete(..)
        )
    }
}

/// An operation of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// Who asked.
    pub client: u32,
    /// What, and what came of it.
    pub call: Call,
    /// When it was asked.
    pub asked: u64,
    /// When it was answered. None: it was not, or so that it may have happened or not, even later.
    pub answered: Option<u64>,
}
