//! How a tree is read from the node table: the entries come in any order, and what must be in order
//! is sorted once, when all are there.

use crate::chunkmap::ChunkMap;
use crate::error::{TreeError, corrupt};
use crate::groups::membership;
use crate::idset::IdSet;
use crate::name::{NameIndex, snapshot_hash, valid_name};
use crate::node::Node;
use crate::table::MAX_NODES;
use crate::tree::{Counters, POOL_NODE, Tree, Volume};
use cow_format::entry::{NodeEntry, NodeKind, NodeState};
use cow_format::{FamilyId, Gen, NodeId, VolumeId};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A tree whose entries come one by one, in any order, so that they need not all be in memory twice.
#[derive(Debug)]
pub struct Loading {
    tree: Tree,
    /// By slot.
    nodes: Vec<Option<(u64, Arc<Node>)>>,
    /// Hash of the name, and id, of each snapshot.
    names: Vec<(u64, u64)>,
    /// What a volume pays for, as far as it has not been charged: most nodes that follow each other
    /// are of one volume.
    charge: (VolumeId, u64),
}

/// Live nodes by ascending id: heads, and the snapshots of each volume.
#[derive(Default)]
struct Live {
    heads: Vec<NodeId>,
    snapshots: Vec<(VolumeId, NodeId)>,
    undos: Vec<(VolumeId, NodeId)>,
}

impl Loading {
    /// Nothing has come yet, of a table with about `slots` slots.
    pub fn new(counters: Counters, slots: usize) -> Self {
        Self {
            tree: Tree { counters, ..Tree::default() },
            nodes: Vec::with_capacity(slots),
            names: Vec::with_capacity(slots),
            charge: (VolumeId(0), 0),
        }
    }

    /// An entry, with its slot.
    ///
    /// # Errors
    /// `Corrupt`, naming what cannot be: a slot that is taken or that no table has, an id that was
    /// never given out, a field that holds what it cannot.
    pub fn enter(&mut self, slot: u32, entry: NodeEntry) -> Result<(), TreeError> {
        check_entry(&self.tree.counters, &entry)?;
        if slot >= MAX_NODES {
            return corrupt(format!("slot {slot}: a table has {MAX_NODES} at most"));
        }
        let place = slot as usize;
        if place >= self.nodes.len() {
            self.nodes.resize(place + 1, None);
        }
        if self.nodes[place].is_some() {
            return corrupt(format!("slot {slot} twice"));
        }
        if entry.state != NodeState::Live {
            self.tree.dying.insert(entry.id);
        } else if !matches!(entry.kind, NodeKind::Head | NodeKind::Pool) {
            self.names.push((snapshot_hash(entry.volume, &entry.name), entry.id.0));
        }
        if self.charge.0 != entry.volume {
            self.settle();
            self.charge.0 = entry.volume;
        }
        self.charge.1 = self.charge.1.saturating_add(entry.born.data);
        self.nodes[place] = Some((entry.id.0, Arc::new(Node::from_entry(slot, entry))));
        Ok(())
    }

    fn settle(&mut self) {
        let (volume, blocks) = std::mem::take(&mut self.charge);
        self.tree.recharge(volume, 0, blocks);
    }

    /// All have come.
    ///
    /// # Errors
    /// `Corrupt`, naming what cannot be: a duplicate id or name, an unknown parent, a gen that is not
    /// above the parent's (which excludes cycles), a snapshot of no volume, a volume with two heads.
    pub fn finish(mut self) -> Result<Tree, TreeError> {
        self.settle();
        let Self { mut tree, nodes, names, .. } = self;
        let slots = nodes.iter().zip(0..);
        let slots = slots.filter_map(|(node, slot)| Some((slot, NodeId(node.as_ref()?.0))));
        tree.slots = ChunkMap::from_sorted(slots.collect());
        let mut nodes: Vec<_> = nodes.into_iter().flatten().collect();
        // Not `unstable`: that is slower where most are in order, as ids by slot are.
        nodes.sort_by_key(|node| node.0);
        if let Some(pair) = nodes.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return corrupt(format!("node {} twice", pair[0].0));
        }
        let live = link(&mut nodes)?;
        tree.nodes = ChunkMap::from_sorted(nodes);
        tree.enter_volumes(&live.heads)?;
        tree.enter_snapshots(live.snapshots, |volume, ids| {
            volume.snapshots = IdSet::from_sorted(ids);
        })?;
        tree.enter_snapshots(live.undos, |volume, ids| volume.undos = ids.collect())?;
        tree.snapshot_names = NameIndex::new(&names);
        tree.check_snapshot_names()?;
        Ok(tree)
    }
}

/// What one entry must hold, without looking at others.
fn check_entry(counters: &Counters, entry: &NodeEntry) -> Result<(), TreeError> {
    let id = entry.id;
    let is_pool = entry.kind == NodeKind::Pool;
    if is_pool != (id == POOL_NODE) {
        return corrupt(format!("node {id}: kind"));
    }
    if is_pool {
        let alone = entry.parent == NodeId(0) && entry.state == NodeState::Live;
        return if alone { Ok(()) } else { corrupt("the pool's node is in the tree") };
    }
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

/// Tells the nodes, by ascending id, of their children.
fn link(nodes: &mut [(u64, Arc<Node>)]) -> Result<Live, TreeError> {
    let mut live = Live::default();
    for at in 0..nodes.len() {
        let child = &nodes[at].1;
        let (id, parent, volume) = (child.entry.id, child.entry.parent, child.entry.volume);
        match child.entry.kind {
            _ if !child.is_live() => {}
            NodeKind::Head => live.heads.push(id),
            NodeKind::Undo => live.undos.push((volume, id)),
            _ => live.snapshots.push((volume, id)),
        }
        if parent == NodeId(0) {
            continue;
        }
        // Most often it is the one before.
        let before = at.checked_sub(1).filter(|&before| nodes[before].0 == parent.0);
        let find = || nodes.binary_search_by_key(&parent.0, |node| node.0).ok();
        let Some(above_at) = before.or_else(find) else {
            return corrupt(format!("node {id}: unknown parent {parent}"));
        };
        let above = &nodes[above_at].1;
        let fits = above.entry.kind != NodeKind::Pool
            && above.entry.label_gen < child.entry.label_gen
            && above.entry.family == child.entry.family
            && above.entry.kind != NodeKind::Head;
        // A walk has one child at most, and its neighbours rest.
        let walks = |node: &Node| node.entry.state == NodeState::Walking;
        if !fits || (walks(above) && (walks(child) || !above.children.is_empty())) {
            return corrupt(format!("node {id}: cannot stand below node {parent}"));
        }
        Arc::make_mut(&mut nodes[above_at].1).children.insert(id);
    }
    Ok(live)
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
        let mut loading = Loading::new(counters, 0);
        for (slot, entry) in entries {
            loading.enter(slot, entry)?;
        }
        loading.finish()
    }

    fn enter_volumes(&mut self, heads: &[NodeId]) -> Result<(), TreeError> {
        for head in heads {
            let Some(node) = self.nodes.get(head.0).cloned() else { continue };
            let entry = &node.entry;
            self.add_volume(entry.volume, &entry.name, entry.id)?;
            self.groups.set(entry.volume, membership(&node));
        }
        Ok(())
    }

    /// Gives each volume its snapshots, which come by ascending id.
    fn enter_snapshots(
        &mut self,
        mut all: Vec<(VolumeId, NodeId)>,
        give: impl Fn(&mut Volume, &mut dyn Iterator<Item = NodeId>),
    ) -> Result<(), TreeError> {
        all.sort_by_key(|of| of.0);
        for of_one in all.chunk_by(|a, b| a.0 == b.0) {
            let (volume, first) = of_one[0];
            let Some(volume) = self.volumes.get_mut(volume.0) else {
                return corrupt(format!("snapshot {first} belongs to no volume"));
            };
            give(Arc::make_mut(volume), &mut of_one.iter().map(|(_, id)| *id));
        }
        Ok(())
    }

    /// No two snapshots of a volume have one name: they would have one hash.
    fn check_snapshot_names(&self) -> Result<(), TreeError> {
        for same_hash in self.snapshot_names.collisions() {
            let mut seen = BTreeSet::new();
            let nodes = same_hash.iter().filter_map(|&(_, id)| self.node(NodeId(id)));
            for entry in nodes.map(|node| &node.entry) {
                if !seen.insert((entry.volume, &entry.name)) {
                    return corrupt(format!("snapshot name {} twice", entry.name));
                }
            }
        }
        Ok(())
    }
}
