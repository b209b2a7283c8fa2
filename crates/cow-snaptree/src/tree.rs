//! The tree: its nodes, volumes and counters.

use crate::chunkmap::ChunkMap;
use crate::error::{TreeError, corrupt};
use crate::groups::Groups;
use crate::idset::IdSet;
use crate::name::{NameIndex, snapshot_hash, volume_hash};
use crate::node::Node;
use crate::space::SpacePolicy;
use cow_format::entry::{NodeEntry, NodeKind};
use cow_format::table::page_of;
use cow_format::{Gen, NodeId, VolumeId};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The node that carries the properties of the pool; records call it node 0. It is made by the
/// first change of them and is not part of the tree.
pub const POOL_NODE: NodeId = NodeId(u64::MAX);

/// A volume: what belongs to its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Its head.
    pub head: NodeId,
    /// Live snapshots of kinds user and auto, by ascending id, which is by age.
    pub snapshots: IdSet,
    /// Live undo snapshots, by age.
    pub undos: BTreeSet<NodeId>,
    /// What its properties say about space; after an open not before they are loaded.
    pub space: SpacePolicy,
}

impl Volume {
    /// One without snapshots, whose properties say nothing.
    pub(crate) fn new(name: &str, head: NodeId) -> Self {
        Self {
            name: name.to_owned(),
            head,
            snapshots: IdSet::default(),
            undos: BTreeSet::new(),
            space: SpacePolicy::default(),
        }
    }
}

/// Limits of the whole pool; those of a volume are properties of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Volumes in the pool.
    pub volumes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { volumes: usize::MAX }
    }
}

/// The last ids that were given out; the checkpoint stores them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Last generation.
    pub last_gen: Gen,
    /// Last node id.
    pub last_node: NodeId,
    /// Last volume id.
    pub last_volume: VolumeId,
    /// Last snapshot group id.
    pub last_group: u64,
}

/// How many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeCounts {
    /// Volumes.
    pub volumes: u64,
    /// Live snapshots, undo included.
    pub snapshots: u64,
    /// Nodes that were deleted and are not reclaimed yet.
    pub deleting: u64,
}

/// The snapshot tree. Cloning is cheap: see [`crate`].
#[derive(Clone, Debug)]
pub struct Tree {
    pub(crate) nodes: ChunkMap<Arc<Node>>,
    pub(crate) volumes: ChunkMap<Arc<Volume>>,
    pub(crate) volume_names: NameIndex,
    pub(crate) snapshot_names: NameIndex,
    /// Which volumes are in which group.
    pub(crate) groups: Groups,
    /// Blocks of data that a volume pays for, by its id; nothing for 0.
    pub(crate) charges: ChunkMap<u64>,
    /// Node by slot of the table.
    pub(crate) slots: ChunkMap<NodeId>,
    pub(crate) counters: Counters,
    pub(crate) limits: Limits,
    /// Entries that the table has; all ones until [`Tree::set_total_slots`] says.
    pub(crate) total_slots: u32,
    /// No slot below is free.
    pub(crate) low_slot: u32,
    /// Nodes without a slot.
    pub(crate) unslotted: BTreeSet<NodeId>,
    /// Nodes that no fold has seen.
    pub(crate) unrooted: BTreeSet<NodeId>,
    /// Nodes deleted and not reclaimed.
    pub(crate) dying: BTreeSet<NodeId>,
    /// Table pages that differ from what was written last.
    pub(crate) dirty_pages: BTreeSet<u32>,
    pub(crate) dirty_rows: BTreeSet<NodeId>,
    pub(crate) dirty_props: BTreeSet<NodeId>,
    /// Nodes whose discards are not all counted.
    pub(crate) detached: BTreeSet<NodeId>,
}

impl Default for Tree {
    fn default() -> Self {
        Self {
            nodes: ChunkMap::default(),
            volumes: ChunkMap::default(),
            volume_names: NameIndex::default(),
            snapshot_names: NameIndex::default(),
            groups: Groups::default(),
            charges: ChunkMap::default(),
            slots: ChunkMap::default(),
            counters: Counters::default(),
            limits: Limits::default(),
            total_slots: u32::MAX,
            low_slot: 0,
            unslotted: BTreeSet::new(),
            unrooted: BTreeSet::new(),
            dying: BTreeSet::new(),
            dirty_pages: BTreeSet::new(),
            dirty_rows: BTreeSet::new(),
            dirty_props: BTreeSet::new(),
            detached: BTreeSet::new(),
        }
    }
}

impl Tree {
    /// Makes a volume known whose head is in the map or about to be.
    pub(crate) fn add_volume(
        &mut self,
        id: VolumeId,
        name: &str,
        head: NodeId,
    ) -> Result<(), TreeError> {
        if self.volumes.contains_key(id.0) {
            return corrupt(format!("volume {id} has two heads"));
        }
        if self.volume_by_name(name).is_some() {
            return corrupt(format!("volume name {name} twice"));
        }
        self.volume_names.insert(volume_hash(name), id.0);
        self.volumes.insert(id.0, Arc::new(Volume::new(name, head)));
        Ok(())
    }

    /// Enters a snapshot under its name and in its volume.
    pub(crate) fn add_snapshot(&mut self, entry: &NodeEntry) -> Result<(), TreeError> {
        if self.snapshot_by_name(entry.volume, &entry.name).is_some() {
            return corrupt(format!("snapshot name {} twice", entry.name));
        }
        let Some(volume) = self.volumes.get_mut(entry.volume.0) else {
            return corrupt(format!("snapshot {} belongs to no volume", entry.id));
        };
        self.snapshot_names.insert(snapshot_hash(entry.volume, &entry.name), entry.id.0);
        let volume = Arc::make_mut(volume);
        match entry.kind {
            NodeKind::Undo => volume.undos.insert(entry.id),
            _ => volume.snapshots.insert(entry.id),
        };
        Ok(())
    }

    /// A node, to be changed: its page of the table is dirty from now on.
    pub(crate) fn node_mut(&mut self, id: NodeId) -> Option<&mut Node> {
        let node = Arc::make_mut(self.nodes.get_mut(id.0)?);
        if let Some(slot) = node.slot {
            self.dirty_pages.insert(page_of(slot));
        }
        Some(node)
    }

    /// A node, to be changed in what only memory knows.
    pub(crate) fn node_cache_mut(&mut self, id: NodeId) -> Option<&mut Node> {
        self.nodes.get_mut(id.0).map(Arc::make_mut)
    }
}
