//! The table entry of an export.

use cow_format::{NodeId, VolumeId};

/// What an export stands for.
pub(crate) struct Export {
    pub(crate) name: String,
    pub(crate) volume: VolumeId,
    /// The snapshot; `None` for the volume itself, whose head changes with each snapshot.
    pub(crate) snapshot: Option<NodeId>,
    pub(crate) write: bool,
    pub(crate) rollback_gen: u64,
}
