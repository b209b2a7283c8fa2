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

/// The largest volume.
const MAX_BYTES: u64 = 4 << 50;

/// A tree whose entries come one by one, in any order, so that they need not all be in memory twice.
#[derive(Debug)]
pub struct Loading {
    tree: Tree,
    /// By slot.
    nodes: Vec<Option<(u64, Arc<Node>)>>,
    /// Slot of the entry that came last.
    last: usize,
    /// Nodes whose parent did not come just before them, and that parent: linked when all are there.
    unlinked: Vec<(NodeId, NodeId)>,
    live: Live,
    /// Hash of the name, and id, of each snapshot.
    names: Vec<(u64, u64)>,
    /// What a volume pays for, as far as it has not been charged: most nodes that follow each other
    /// are of one volume.
    charge: (VolumeId, u64),
}

/// Live nodes: heads, and the snapshots of each volume.
#[derive(Debug, Default)]
struct Live {
    heads: Vec<NodeId>,
    snapshots: Vec<(VolumeId, NodeId)>,
    undos: Vec<(VolumeId, NodeId)>,
}

impl Live {
    fn note(&mut self, node: &Node) {
        let (id, volume) = (node.entry.id, node.entry.volume);
        match node.entry.kind {
            _ if !node.is_live() => {}
            NodeKind::Head => self.heads.push(id),
            NodeKind::Undo => self.undos.push((volume, id)),
            _ => self.snapshots.push((volume, id)),
        }
    }
}

impl Loading {
    /// Nothing has come yet, of a table with about `slots` slots.
    pub fn new(counters: Counters, slots: usize) -> Self {
        Self {
            tree: Tree { counters, ..Tree::default() },
            nodes: Vec::with_capacity(slots),
            last: 0,
            unlinked: Vec::new(),
            live: Live { snapshots: Vec::with_capacity(slots), ..Live::default() },
            names: Vec::with_capacity(slots),
            charge: (VolumeId(0), 0),
        }
    }

    /// An entry, with its slot.
    ///
    /// # Errors
    /// `Corrupt`, naming what cannot be: a slot that is taken or that no table has, an id that was
    /// never given out, a field that holds what it cannot, a parent that the node cannot have.
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
        let node = Node::from_entry(slot, entry);
        self.live.note(&node);
        self.link_to_last(&node)?;
        self.nodes[place] = Some((node.entry.id.0, Arc::new(node)));
        self.last = place;
        Ok(())
    }

    /// Tells the parent of its child if it is the node before, as it is most often: that one is still
    /// in the processor's cache.
    fn link_to_last(&mut self, child: &Node) -> Result<(), TreeError> {
        let (id, parent) = (child.entry.id, child.entry.parent);
        if parent == NodeId(0) {
            return Ok(());
        }
        match self.nodes.get_mut(self.last) {
            Some(Some((last, above))) if *last == parent.0 => {
                check_parent(above, child)?;
                Arc::make_mut(above).children.insert(id);
            }
            _ => self.unlinked.push((id, parent)),
        }
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
        let Self { mut tree, nodes, unlinked, live, names, .. } = self;
        let slots = nodes.iter().zip(0..);
        let slots = slots.filter_map(|(node, slot)| Some((slot, NodeId(node.as_ref()?.0))));
        tree.slots = ChunkMap::from_sorted(slots.collect());
        let mut nodes: Vec<_> = nodes.into_iter().flatten().collect();
        // Not `unstable`: that is slower where most are in order, as ids by slot are.
        nodes.sort_by_key(|node| node.0);
        if let Some(pair) = nodes.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return corrupt(format!("node {} twice", pair[0].0));
        }
        link(&mut nodes, &unlinked)?;
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
    if entry.size_bytes > MAX_BYTES {
        return corrupt(format!("node {id}: {} bytes are more than 4 PiB", entry.size_bytes));
    }
    if entry.root.birth > entry.label_gen {
        return corrupt(format!("node {id}: its root is younger than itself"));
    }
    Ok(())
}

/// Tells nodes, which are in order of their ids, of these children, which come with their parents.
fn link(nodes: &mut [(u64, Arc<Node>)], children: &[(NodeId, NodeId)]) -> Result<(), TreeError> {
    for &(id, parent) in children {
        let at = |id: NodeId| nodes.binary_search_by_key(&id.0, |node| node.0).ok();
        let (Some(child), Some(above)) = (at(id), at(parent)) else {
            return corrupt(format!("node {id}: unknown parent {parent}"));
        };
        check_parent(&nodes[above].1, &nodes[child].1)?;
        Arc::make_mut(&mut nodes[above].1).children.insert(id);
    }
    Ok(())
}

/// Whether `child` can stand below `above`, which does not know of it yet.
fn check_parent(above: &Node, child: &Node) -> Result<(), TreeError> {
    let fits = above.entry.kind != NodeKind::Pool
        && above.entry.label_gen < child.entry.label_gen
        && above.entry.family == child.entry.family
        && above.entry.kind != NodeKind::Head;
    // A walk has one child at most, and its neighbours rest.
    let walks = |node: &Node| node.entry.state == NodeState::Walking;
    if !fits || (walks(above) && (walks(child) || !above.children.is_empty())) {
        let (id, parent) = (child.entry.id, above.entry.id);
        return corrupt(format!("node {id}: cannot stand below node {parent}"));
    }
    Ok(())
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

    /// Gives each volume its snapshots, by ascending id.
    fn enter_snapshots(
        &mut self,
        mut all: Vec<(VolumeId, NodeId)>,
        give: impl Fn(&mut Volume, &mut dyn Iterator<Item = NodeId>),
    ) -> Result<(), TreeError> {
        all.sort();
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
                if !seen.insert((entry.volume, entry.name.as_str())) {
                    return corrupt(format!("snapshot name {} twice", entry.name));
                }
            }
        }
        Ok(())
    }
}
