//! A set of node ids whose clones share what neither side changes: a volume with ten thousand
//! snapshots is copied by every verb that changes it.

use crate::chunkmap::ChunkMap;
use cow_format::NodeId;

/// Node ids, by ascending id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdSet(ChunkMap<()>);

impl IdSet {
    /// Whether `id` is in it.
    pub fn contains(&self, id: NodeId) -> bool {
        self.0.contains_key(id.0)
    }

    /// The ids, ascending.
    pub fn iter(&self) -> impl Iterator<Item = NodeId> {
        self.0.iter().map(|(id, ())| NodeId(id))
    }

    /// A set of these, which ascend.
    pub(crate) fn from_sorted(ids: impl Iterator<Item = NodeId>) -> Self {
        Self(ChunkMap::from_sorted(ids.map(|id| (id.0, ())).collect()))
    }

    pub(crate) fn insert(&mut self, id: NodeId) -> bool {
        self.0.insert(id.0, ()).is_none()
    }

    pub(crate) fn remove(&mut self, id: NodeId) -> bool {
        self.0.remove(id.0).is_some()
    }
}
