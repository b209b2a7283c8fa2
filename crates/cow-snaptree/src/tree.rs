//! The tree: its nodes, volumes and counters, and how it is read from the node table.

use crate::chunkmap::ChunkMap;
use crate::error::{TreeError, corrupt};
use crate::groups::{Groups, membership};
use crate::idset::IdSet;
use crate::name::{NameIndex, valid_name};
use crate::node::{Node, page_of};
use crate::space::SpacePolicy;
use cow_format::entry::{NodeEntry, NodeKind, NodeState};
use cow_format::{FamilyId, Gen, NodeId, VolumeId};
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
    pub(crate) names: NameIndex,
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
            names: NameIndex::default(),
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

/// A tree whose entries come one by one, in any order, so that they need not all be in memory twice.
#[derive(Debug)]
pub struct Loading(Tree);

impl Loading {
    /// Nothing has come yet.
    pub fn new(counters: Counters) -> Self {
        Self(Tree { counters, ..Tree::default() })
    }

    /// An entry, with its slot.
    ///
    /// # Errors
    /// `Corrupt`, naming what cannot be: a duplicate id or slot, an id that was never given out.
    pub fn enter(&mut self, slot: u32, entry: NodeEntry) -> Result<(), TreeError> {
        let tree = &mut self.0;
        tree.check_entry(&entry)?;
        let id = entry.id;
        if tree.slots.insert(u64::from(slot), id).is_some() {
            return corrupt(format!("slot {slot} twice"));
        }
        if entry.state != NodeState::Live {
            tree.dying.insert(id);
        }
        tree.recharge(entry.volume, 0, entry.born.data);
        let node = Node::from_entry(slot, entry);
        if tree.nodes.insert(id.0, Arc::new(node)).is_some() {
            return corrupt(format!("node {id} twice"));
        }
        Ok(())
    }

    /// All have come.
    ///
    /// # Errors
    /// `Corrupt`, naming what cannot be: a duplicate name, an unknown parent, a gen that is not above
    /// the parent's (which excludes cycles), a volume without a head.
    pub fn finish(self) -> Result<Tree, TreeError> {
        let mut tree = self.0;
        tree.link_children()?;
        tree.index_names()?;
        Ok(tree)
    }
}

impl Tree {
    /// The tree of a checkpoint: its table entries with their slots, and its counters.
    ///
    /// # Errors
    /// As [`Loading::enter`] and [`Loading::finish`].
    pub fn from_entries(
        entries: impl Iterator<Item = (u32, NodeEntry)>,
        counters: Counters,
    ) -> Result<Self, TreeError> {
        let mut loading = Loading::new(counters);
        for (slot, entry) in entries {
            loading.enter(slot, entry)?;
        }
        loading.finish()
    }

    /// What one entry must hold, without looking at others.
    fn check_entry(&self, entry: &NodeEntry) -> Result<(), TreeError> {
        let id = entry.id;
        let is_pool = entry.kind == NodeKind::Pool;
        if is_pool != (id == POOL_NODE) {
            return corrupt(format!("node {id}: kind"));
        }
        if is_pool {
            let alone = entry.parent == NodeId(0) && entry.state == NodeState::Live;
            return if alone { Ok(()) } else { corrupt("the pool's node is in the tree") };
        }
        let counters = &self.counters;
        let known = id <= counters.last_node
            && entry.label_gen <= counters.last_gen
            && entry.volume <= counters.last_volume
            && entry.group <= counters.last_group;
        if !known {
            return corrupt(format!("node {id}: id, gen, volume or group was never given out"));
        }
        if entry.state == NodeState::Live && !valid_name(&entry.name) {
            return corrupt(format!("node {id}: name"));
        }
        if entry.label_gen == Gen(0) || entry.volume == VolumeId(0) || entry.family == FamilyId(0) {
            return corrupt(format!("node {id}: gen, volume or family is 0"));
        }
        Ok(())
    }

    fn link_children(&mut self) -> Result<(), TreeError> {
        let links: Vec<(NodeId, NodeId)> = self
            .nodes
            .iter()
            .map(|(id, node)| (NodeId(id), node.entry.parent))
            .filter(|(_, parent)| *parent != NodeId(0))
            .collect();
        for (id, parent) in links {
            let (Some(child), Some(above)) = (self.node(id), self.node(parent)) else {
                return corrupt(format!("node {id}: unknown parent {parent}"));
            };
            let fits = above.entry.kind != NodeKind::Pool
                && above.entry.label_gen < child.entry.label_gen
                && above.entry.family == child.entry.family
                && above.entry.kind != NodeKind::Head;
            // A walk has one child at most, and its neighbours rest.
            let walks = |node: &Node| node.entry.state == NodeState::Walking;
            if !fits || (walks(above) && (walks(child) || !above.children.is_empty())) {
                return corrupt(format!("node {id}: cannot stand below node {parent}"));
            }
            if let Some(above) = self.nodes.get_mut(parent.0) {
                Arc::make_mut(above).add_child(id);
            }
        }
        Ok(())
    }

    fn index_names(&mut self) -> Result<(), TreeError> {
        let live: Vec<Arc<Node>> =
            self.nodes.iter().map(|(_, n)| n).filter(|n| n.is_live()).cloned().collect();
        for node in live.iter().filter(|n| n.is_head()) {
            let entry = &node.entry;
            self.add_volume(entry.volume, &entry.name, entry.id)?;
            self.groups.set(entry.volume, membership(node));
        }
        for node in live.iter().filter(|n| n.is_snapshot()) {
            self.add_snapshot(&node.entry)?;
        }
        Ok(())
    }

    /// Makes a volume known whose head is in the map or about to be.
    pub(crate) fn add_volume(
        &mut self,
        id: VolumeId,
        name: &str,
        head: NodeId,
    ) -> Result<(), TreeError> {
        let volume = Volume {
            name: name.to_owned(),
            head,
            snapshots: IdSet::default(),
            undos: BTreeSet::new(),
            space: SpacePolicy::default(),
        };
        if self.volumes.contains_key(id.0) {
            return corrupt(format!("volume {id} has two heads"));
        }
        if !self.names.insert(VolumeId(0), name, id.0) {
            return corrupt(format!("volume name {name} twice"));
        }
        self.volumes.insert(id.0, Arc::new(volume));
        Ok(())
    }

    /// Enters a snapshot under its name and in its volume.
    pub(crate) fn add_snapshot(&mut self, entry: &NodeEntry) -> Result<(), TreeError> {
        let Some(volume) = self.volumes.get_mut(entry.volume.0) else {
            return corrupt(format!("snapshot {} belongs to no volume", entry.id));
        };
        if !self.names.insert(entry.volume, &entry.name, entry.id.0) {
            return corrupt(format!("snapshot name {} twice", entry.name));
        }
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
