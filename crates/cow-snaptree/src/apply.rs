//! Applying records: the one function that changes the tree, at runtime and in a replay.
//!
//! Every part checks first and changes after, so that an error leaves the tree as it was.

use crate::error::{TreeError, corrupt};
use crate::name::valid_name;
use crate::node::Node;
use crate::plan::valid_size;
use crate::props::{Edit, Kept, Props};
use crate::tree::{POOL_NODE, Tree};
use cow_format::entry::{Consistency, NodeEntry, NodeKind};
use cow_format::record::{PropChange, Record, Replaced, RollbackMember, SnapMember};
use cow_format::{FamilyId, FrameSeq, Gen, NodeId, VolumeId};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What `VolCreate` and `Clone` have in common.
struct VolumeRecord<'a> {
    label_gen: Gen,
    volume: VolumeId,
    node: NodeId,
    parent: NodeId,
    time_ns: u64,
    name: &'a str,
    props: &'a [PropChange],
}

/// What the members of a `SnapCreate` have in common.
struct SnapCommon<'a> {
    label_gen: Gen,
    time_ns: u64,
    group: u64,
    kind: NodeKind,
    consistency: Consistency,
    freeze_ms: u32,
    expiry_ns: u64,
    props: &'a [PropChange],
}

impl Tree {
    /// Applies a record that stands in frame `frame`. Records of data (`MapSet`, `MapClear`,
    /// `Move`), `PoolGrow` and `Marker` change nothing here.
    ///
    /// # Errors
    /// `Corrupt` when the record does not fit the tree: a journal that does not belong to it. The
    /// tree is as before.
    pub fn apply(&mut self, record: &Record, frame: FrameSeq) -> Result<(), TreeError> {
        match record {
            Record::MapSet { .. }
            | Record::MapClear { .. }
            | Record::Move { .. }
            | Record::PoolGrow { .. }
            | Record::Marker => Ok(()),
            Record::VolCreate { label_gen, volume, node, size_bytes, time_ns, name, props } => {
                let new = VolumeRecord {
                    label_gen: *label_gen,
                    volume: *volume,
                    node: *node,
                    parent: NodeId(0),
                    time_ns: *time_ns,
                    name,
                    props,
                };
                self.apply_new_volume(&new, *size_bytes)
            }
            Record::Clone { label_gen, volume, node, parent, time_ns, name, props } => {
                let size = self.clone_size(*parent)?;
                let new = VolumeRecord {
                    label_gen: *label_gen,
                    volume: *volume,
                    node: *node,
                    parent: *parent,
                    time_ns: *time_ns,
                    name,
                    props,
                };
                self.apply_new_volume(&new, size)
            }
            Record::SnapCreate {
                label_gen,
                time_ns,
                group,
                kind,
                consistency,
                freeze_ms,
                expiry_ns,
                members,
                props,
            } => {
                let common = SnapCommon {
                    label_gen: *label_gen,
                    time_ns: *time_ns,
                    group: *group,
                    kind: *kind,
                    consistency: *consistency,
                    freeze_ms: *freeze_ms,
                    expiry_ns: *expiry_ns,
                    props,
                };
                self.apply_snapshots(&common, members, frame)
            }
            Record::Rollback { label_gen, time_ns, members } => {
                self.apply_rollbacks(*label_gen, *time_ns, members, frame)
            }
            Record::VolResize { volume, size_bytes } => self.apply_resize(*volume, *size_bytes),
            Record::NodeDelete { nodes } => self.apply_delete(nodes),
            Record::Rename { node, name } => self.apply_rename(*node, name),
            Record::SetProps { node: NodeId(0), props } => {
                self.apply_edit(POOL_NODE, Edit::Set(props.clone()))
            }
            Record::SetProps { node, props } => self.apply_edit(*node, Edit::Set(props.clone())),
            Record::Hold { node, set, tag } => {
                self.apply_edit(*node, Edit::Hold { set: *set, tag: tag.clone() })
            }
        }
    }

    /// Size of a volume that begins as this snapshot.
    fn clone_size(&self, source: NodeId) -> Result<u64, TreeError> {
        match self.node(source) {
            Some(node) if node.is_snapshot() => Ok(node.entry.size_bytes),
            _ => corrupt(format!("clone of node {source}, which is no snapshot")),
        }
    }

    /// Generations and node ids only rise; the ids of a record ascend.
    fn check_new(
        &self,
        label_gen: Gen,
        nodes: impl IntoIterator<Item = NodeId>,
    ) -> Result<(), TreeError> {
        if label_gen <= self.counters.last_gen {
            return corrupt(format!("generation {label_gen} is used already"));
        }
        let mut last = self.counters.last_node;
        for id in nodes {
            if id <= last || id >= POOL_NODE {
                return corrupt(format!("node id {id} is used already"));
            }
            last = id;
        }
        Ok(())
    }

    /// Puts a node into the tree below its parent.
    fn insert_node(&mut self, node: Node) {
        let (id, parent) = (node.entry.id, node.entry.parent);
        self.counters.last_node = self.counters.last_node.max(id);
        self.counters.last_gen = self.counters.last_gen.max(node.entry.label_gen);
        self.unrooted.insert(id);
        self.unslotted.insert(id);
        self.nodes.insert(id.0, Arc::new(node));
        if let Some(parent) = self.node_mut(parent) {
            parent.children.insert(id);
        }
        self.relearn_unique(parent);
    }

    fn apply_new_volume(&mut self, new: &VolumeRecord<'_>, size: u64) -> Result<(), TreeError> {
        self.check_new(new.label_gen, [new.node])?;
        let id = new.volume;
        if id <= self.counters.last_volume || id.0 > u64::from(u32::MAX) {
            return corrupt(format!("volume id {id} is used already"));
        }
        if !valid_name(new.name) || !valid_size(size) {
            return corrupt(format!("volume {id}: name or size"));
        }
        let props = check_props(new.props)?;
        self.add_volume(id, new.name, new.node)?;
        self.note_space(id, new.props);
        self.counters.last_volume = id;
        let family = match self.node(new.parent) {
            Some(parent) => parent.entry.family,
            None => FamilyId(new.node.0),
        };
        let entry = NodeEntry {
            id: new.node,
            volume: id,
            family,
            parent: new.parent,
            label_gen: new.label_gen,
            size_bytes: size,
            created_ns: new.time_ns,
            origin: new.parent,
            name: new.name.into(),
            ..NodeEntry::default()
        };
        self.insert_node(Node::new(entry));
        self.put_props(new.node, props);
        Ok(())
    }

    fn apply_snapshots(
        &mut self,
        common: &SnapCommon<'_>,
        members: &[SnapMember],
        frame: FrameSeq,
    ) -> Result<(), TreeError> {
        self.check_new(common.label_gen, members.iter().map(|m| m.new_head))?;
        if !matches!(common.kind, NodeKind::User | NodeKind::Auto) {
            return corrupt("snapshot of another kind than user or auto");
        }
        let props = check_props(common.props)?;
        let mut seen = BTreeSet::new();
        for member in members {
            let free = self.snapshot_by_name(member.volume, &member.name).is_none();
            let known = self.head(member.volume).is_some() && seen.insert(member.volume);
            if !known || !free || !valid_name(&member.name) {
                return corrupt(format!("snapshot {} of volume {}", member.name, member.volume));
            }
        }
        for member in members {
            let Some(old) = self.replace_head(member.volume, member.new_head, |old| NodeEntry {
                parent: old.id,
                label_gen: common.label_gen,
                ..head_after(old)
            }) else {
                continue;
            };
            if let Some(node) = self.node_mut(old) {
                node.entry.kind = common.kind;
                node.entry.consistency = common.consistency;
                node.entry.freeze_ms = common.freeze_ms;
                node.entry.group = common.group;
                node.entry.expiry_ns = common.expiry_ns;
                name_snapshot(&mut node.entry, &member.name, common.time_ns, frame);
            }
            self.put_props(old, props.clone());
            self.enter_snapshot(old)?;
        }
        self.counters.last_group = self.counters.last_group.max(common.group);
        Ok(())
    }

    fn apply_rollbacks(
        &mut self,
        label_gen: Gen,
        time_ns: u64,
        members: &[RollbackMember],
        frame: FrameSeq,
    ) -> Result<(), TreeError> {
        self.check_new(label_gen, members.iter().map(|m| m.new_head))?;
        let mut seen = BTreeSet::new();
        for member in members {
            let fits = seen.insert(member.volume) && self.rollback_fits(member);
            if !fits {
                return corrupt(format!("rollback of volume {}", member.volume));
            }
        }
        for member in members {
            let Some(target) = self.node(member.target) else { continue };
            let (target, size) = (target.entry.id, target.entry.size_bytes);
            let Some(old) = self.replace_head(member.volume, member.new_head, |old| NodeEntry {
                parent: target,
                label_gen,
                size_bytes: size,
                origin: target,
                rollback_gen: member.rollback_gen,
                ..head_after(old)
            }) else {
                continue;
            };
            match &member.replaced {
                Replaced::Discarded => self.set_deleting(old),
                Replaced::Kept { name, expiry_ns } => {
                    if let Some(node) = self.node_mut(old) {
                        node.entry.kind = NodeKind::Undo;
                        node.entry.expiry_ns = *expiry_ns;
                        name_snapshot(&mut node.entry, name, time_ns, frame);
                    }
                    self.enter_snapshot(old)?;
                }
            }
        }
        Ok(())
    }

    fn rollback_fits(&self, member: &RollbackMember) -> bool {
        let head = self.head(member.volume).and_then(|head| self.node(head));
        let target = self.node(member.target);
        let (Some(head), Some(target)) = (head, target) else { return false };
        let name_fits = match &member.replaced {
            Replaced::Discarded => true,
            Replaced::Kept { name, .. } => {
                valid_name(name) && self.snapshot_by_name(member.volume, name).is_none()
            }
        };
        name_fits
            && target.is_snapshot()
            && target.entry.volume == member.volume
            && member.rollback_gen > head.entry.rollback_gen
    }

    /// A volume's writable end moves on to a new node, and its properties and holds with it.
    /// Returns the old head, which is to become a snapshot or go.
    fn replace_head(
        &mut self,
        volume: VolumeId,
        new: NodeId,
        entry: impl FnOnce(&NodeEntry) -> NodeEntry,
    ) -> Option<NodeId> {
        let old = self.head(volume)?;
        let entry = entry(&self.node(old)?.entry);
        let mut node = Node::new(NodeEntry { id: new, ..entry });
        let from = self.node_mut(old)?;
        node.props = from.props.replace(Kept::default());
        node.edits = std::mem::take(&mut from.edits);
        if from.entry.props.len > 0 {
            // The blob carries the old node's id: the next fold writes it under the new one.
            node.props_owner = from.props_owner;
            node.entry.props = std::mem::take(&mut from.entry.props);
        }
        from.props_owner = old;
        node.entry.policy = std::mem::take(&mut from.entry.policy);
        node.entry.holds = std::mem::take(&mut from.entry.holds);
        let was_dirty = self.dirty_props.remove(&old);
        if was_dirty || node.entry.props.len > 0 {
            self.dirty_props.insert(new);
        }
        self.insert_node(node);
        if let Some(volume) = self.volumes.get_mut(volume.0) {
            Arc::make_mut(volume).head = new;
        }
        Some(old)
    }

    /// Enters a node, which has become a snapshot, under its name.
    fn enter_snapshot(&mut self, id: NodeId) -> Result<(), TreeError> {
        match self.nodes.get(id.0).cloned() {
            Some(node) => self.add_snapshot(&node.entry),
            None => Ok(()),
        }
    }
}

fn check_props(changes: &[PropChange]) -> Result<Props, TreeError> {
    let props = Props::from_changes(changes);
    match props.check_size() {
        Ok(()) => Ok(props),
        Err(_) => corrupt("properties over their limit"),
    }
}

/// What the head after `old` takes over from it.
fn head_after(old: &NodeEntry) -> NodeEntry {
    NodeEntry {
        volume: old.volume,
        family: old.family,
        size_bytes: old.size_bytes,
        created_ns: old.created_ns,
        rollback_gen: old.rollback_gen,
        origin: old.origin,
        name: old.name.clone(),
        ..NodeEntry::default()
    }
}

/// What every head gets that becomes a snapshot.
fn name_snapshot(entry: &mut NodeEntry, name: &str, time_ns: u64, frame: FrameSeq) {
    entry.name = name.into();
    entry.created_ns = time_ns;
    entry.stands_on = frame.0;
}
