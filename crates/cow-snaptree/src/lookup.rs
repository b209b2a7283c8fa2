//! Finding nodes: by id, by name, up and down the tree.

use crate::error::TreeError;
use crate::name::{snapshot_hash, volume_hash};
use crate::node::Node;
use crate::tree::{Counters, Limits, Tree, TreeCounts, Volume};
use cow_format::entry::{Count, NodeEntry};
use cow_format::{Gen, NodeId, VolumeId};

impl Tree {
    /// A node of the tree, or [`crate::POOL_NODE`] if there is one.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id.0).map(AsRef::as_ref)
    }

    /// All nodes by ascending id, deleted ones and the pool's included.
    pub fn iter(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().map(|(_, node)| node.as_ref())
    }

    /// Nodes below `id`, by ascending id.
    pub fn children(&self, id: NodeId) -> &[NodeId] {
        self.node(id).map_or(&[], |node| &node.children)
    }

    /// The node that `VOL` (its head) or `VOL@SNAP` names. Deleted nodes have no name.
    ///
    /// # Errors
    /// `NotFound` with the name.
    pub fn resolve(&self, name: &str) -> Result<NodeId, TreeError> {
        let missing = || TreeError::NotFound(name.to_owned());
        match name.split_once('@') {
            None => self.volume_by_name(name).and_then(|v| self.head(v)).ok_or_else(missing),
            Some((volume, snapshot)) => {
                let volume = self.volume_by_name(volume).ok_or_else(missing)?;
                self.snapshot_by_name(volume, snapshot).ok_or_else(missing)
            }
        }
    }

    /// The volume with this name.
    pub fn volume_by_name(&self, name: &str) -> Option<VolumeId> {
        let mut may = self.volume_names.candidates(volume_hash(name)).map(VolumeId);
        may.find(|&id| self.volume(id).is_some_and(|volume| volume.name == name))
    }

    /// The live snapshot of a volume with this name.
    pub fn snapshot_by_name(&self, volume: VolumeId, name: &str) -> Option<NodeId> {
        let mut may = self.snapshot_names.candidates(snapshot_hash(volume, name)).map(NodeId);
        may.find(|&id| self.node(id).is_some_and(|node| is_named(&node.entry, volume, name)))
    }

    /// A volume.
    pub fn volume(&self, id: VolumeId) -> Option<&Volume> {
        self.volumes.get(id.0).map(AsRef::as_ref)
    }

    /// All volumes by ascending id.
    pub fn volumes(&self) -> impl Iterator<Item = (VolumeId, &Volume)> {
        self.volumes.iter().map(|(id, volume)| (VolumeId(id), volume.as_ref()))
    }

    /// The head of a volume.
    pub fn head(&self, volume: VolumeId) -> Option<NodeId> {
        self.volume(volume).map(|volume| volume.head)
    }

    /// Live snapshots of a volume, undo included, oldest first.
    pub fn snapshots_of(&self, volume: VolumeId) -> Vec<NodeId> {
        let Some(volume) = self.volume(volume) else { return Vec::new() };
        let mut all: Vec<NodeId> =
            volume.snapshots.iter().chain(volume.undos.iter().copied()).collect();
        all.sort_unstable();
        all
    }

    /// `VOL` for a head, `VOL@SNAP` for a snapshot; none for a deleted node.
    pub fn full_name(&self, id: NodeId) -> Option<String> {
        let node = self.node(id).filter(|node| node.is_live())?;
        let volume = &self.volume(node.entry.volume)?.name;
        Some(match node.is_head() {
            true => volume.clone(),
            false => format!("{volume}@{}", node.entry.name),
        })
    }

    /// The snapshot that the volume of this node began as (clone) or went back to (rollback);
    /// none if that was deleted or never was.
    pub fn origin_name(&self, id: NodeId) -> Option<String> {
        self.full_name(self.node(id)?.entry.origin)
    }

    /// Label of the parent; 0 for the root of a family.
    pub fn parent_gen(&self, id: NodeId) -> Gen {
        self.parent(id).map_or(Gen(0), |parent| parent.entry.label_gen)
    }

    pub(crate) fn parent(&self, id: NodeId) -> Option<&Node> {
        self.node(id).and_then(|node| self.node(node.entry.parent))
    }

    /// Who owns a pointer of this birth in the tree of `id`: the first node on the path from the
    /// root whose gen is not below it. Climbs from `id`, so that young pointers are quick. For a
    /// birth above `id`'s own gen, which no valid tree holds, `id` itself.
    pub fn owner(&self, id: NodeId, birth: Gen) -> NodeId {
        let mut at = id;
        while let Some(parent) = self.parent(at).filter(|p| p.entry.label_gen >= birth) {
            at = parent.entry.id;
        }
        at
    }

    /// Blocks that the node maps, as of the last fold; none before a fold has seen it.
    pub fn referenced(&self, id: NodeId) -> Option<Count> {
        let node = self.node(id).filter(|node| node.rooted && !self.is_mapped_inexact(id))?;
        Some(node.entry.mapped)
    }

    /// The last ids given out: for the checkpoint.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// How many volumes, snapshots and deleted nodes there are.
    pub fn counts(&self) -> TreeCounts {
        let pool = u64::from(self.node(crate::POOL_NODE).is_some());
        let (volumes, deleting) = (self.volumes.len() as u64, self.dying.len() as u64);
        let snapshots = self.nodes.len() as u64 - volumes - deleting - pool;
        TreeCounts { volumes, snapshots, deleting }
    }

    /// Sets what `plan_*` refuses to exceed.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }
}

fn is_named(entry: &NodeEntry, volume: VolumeId, name: &str) -> bool {
    entry.volume == volume && entry.name == *name
}
