//! The parts of [`Tree::apply`] that change nodes in place: size, deletion, name, properties.

use crate::error::{TreeError, corrupt};
use crate::groups::{Membership, membership};
use crate::name::{snapshot_hash, valid_name, volume_hash};
use crate::node::Node;
use crate::plan::valid_size;
use crate::props::{Edit, Props, has_policy, is_policy};
use crate::tree::{POOL_NODE, Tree};
use cow_format::entry::{NodeEntry, NodeKind, NodeState};
use cow_format::{NodeId, VolumeId};
use std::collections::BTreeSet;
use std::sync::Arc;

impl Tree {
    pub(crate) fn apply_resize(&mut self, volume: VolumeId, size: u64) -> Result<(), TreeError> {
        match self.head(volume).and_then(|head| self.node_mut(head)) {
            Some(node) if valid_size(size) => {
                node.entry.size_bytes = size;
                Ok(())
            }
            _ => corrupt(format!("resize of volume {volume}")),
        }
    }

    pub(crate) fn apply_delete(&mut self, ids: &[NodeId]) -> Result<(), TreeError> {
        let set: BTreeSet<NodeId> = ids.iter().copied().collect();
        if set.len() != ids.len() {
            return corrupt("delete names a node twice");
        }
        for &id in &set {
            let Some(node) = self.node(id).filter(|node| node.is_live()) else {
                return corrupt(format!("delete of node {id}, which is not in use"));
            };
            let keeps = self.volume(node.entry.volume).is_some_and(|volume| {
                let mut all = volume.snapshots.iter().chain(volume.undos.iter().copied());
                all.any(|snapshot| !set.contains(&snapshot))
            });
            if node.is_head() && keeps {
                return corrupt(format!("delete of the head {id} of a volume with snapshots"));
            }
        }
        for &id in &set {
            self.set_deleting(id);
        }
        Ok(())
    }

    /// The node is in use no more: its name is free at once.
    pub(crate) fn set_deleting(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get(id.0).cloned() else { return };
        let (volume, name) = (node.entry.volume, &node.entry.name);
        let is_volume_head = self.head(volume) == Some(id);
        if is_volume_head {
            self.volume_names.remove(volume_hash(name), volume.0);
            self.volumes.remove(volume.0);
            self.groups.set(volume, Membership::None);
        } else if node.is_snapshot() {
            self.snapshot_names.remove(snapshot_hash(volume, name), id.0);
            if let Some(volume) = self.volumes.get_mut(volume.0) {
                let volume = Arc::make_mut(volume);
                volume.snapshots.remove(id);
                volume.undos.remove(&id);
            }
        }
        if let Some(node) = self.node_mut(id) {
            node.entry.state = NodeState::Deleting;
        }
        self.dying.insert(id);
        self.untrim_below(id);
    }

    pub(crate) fn apply_rename(&mut self, id: NodeId, name: &str) -> Result<(), TreeError> {
        let Some(node) = self.nodes.get(id.0).filter(|node| node.is_live()).cloned() else {
            return corrupt(format!("rename of node {id}, which is not in use"));
        };
        let (is_head, volume, old) = (node.is_head(), node.entry.volume, &node.entry.name);
        let taken = match is_head {
            true => self.volume_by_name(name).is_some(),
            false => self.snapshot_by_name(volume, name).is_some(),
        };
        if !valid_name(name) || taken {
            return corrupt(format!("rename of node {id} to {name}"));
        }
        if is_head {
            self.volume_names.remove(volume_hash(old), volume.0);
            self.volume_names.insert(volume_hash(name), volume.0);
        } else {
            self.snapshot_names.remove(snapshot_hash(volume, old), id.0);
            self.snapshot_names.insert(snapshot_hash(volume, name), id.0);
        }
        if let Some(volume) = self.volumes.get_mut(volume.0) {
            let volume = Arc::make_mut(volume);
            if is_head {
                volume.name = name.to_owned();
            } else if volume.undos.remove(&id) {
                // Who names an undo snapshot keeps it: it is a snapshot like others from now on.
                volume.snapshots.insert(id);
            }
        }
        if let Some(node) = self.node_mut(id) {
            node.entry.name = name.into();
            if node.entry.kind == NodeKind::Undo {
                node.entry.kind = NodeKind::User;
                node.entry.expiry_ns = 0;
            }
        }
        Ok(())
    }

    pub(crate) fn apply_edit(&mut self, id: NodeId, edit: Edit) -> Result<(), TreeError> {
        if id == POOL_NODE && self.node(id).is_none() && matches!(edit, Edit::Set(_)) {
            let entry = NodeEntry { id, kind: NodeKind::Pool, ..NodeEntry::default() };
            self.nodes.insert(id.0, Arc::new(Node { rooted: true, ..Node::new(entry) }));
            self.unslotted.insert(id);
        }
        let Some(node) = self.node(id) else {
            return corrupt(format!("properties of node {id}, which is not there"));
        };
        let may = node.is_live() || (id == POOL_NODE && matches!(edit, Edit::Set(_)));
        if !may {
            return corrupt(format!("properties of node {id}, which is not in use"));
        }
        let mut props = node.props.as_deref().cloned();
        if let Some(props) = &mut props {
            props.edit(&edit);
            if props.check_size().is_err() {
                return corrupt(format!("node {id}: properties over their limit"));
            }
        }
        let volume = node.is_head().then_some(node.entry.volume);
        if let (Some(volume), Edit::Set(changes)) = (volume, &edit) {
            self.note_space(volume, changes);
        }
        let Some(node) = self.node_mut(id) else { return Ok(()) };
        if let Edit::Set(changes) = &edit {
            let sets = || changes.iter().any(|(key, value)| value.is_some() && is_policy(key));
            node.entry.policy = match &props {
                Some(props) => has_policy(props),
                None => node.entry.policy || sets(),
            };
        }
        match (&props, &edit) {
            (Some(props), _) => node.entry.holds = props.holds.len() as u32,
            (None, Edit::Set(_)) => {}
            // Exact, as no plan sets a tag that is there or releases one that is not.
            (None, Edit::Hold { set: true, .. }) => {
                node.entry.holds = node.entry.holds.saturating_add(1);
            }
            (None, Edit::Hold { set: false, .. }) => {
                node.entry.holds = node.entry.holds.saturating_sub(1);
            }
        }
        if props.is_none() {
            node.edits.push(edit);
        }
        node.props = props.map(Into::into);
        self.dirty_props.insert(id);
        self.note_group(id);
        Ok(())
    }

    /// The properties that a record gives to a node.
    pub(crate) fn put_props(&mut self, id: NodeId, props: Props) {
        if !props.is_empty() {
            self.dirty_props.insert(id);
        }
        if let Some(node) = self.node_cache_mut(id) {
            node.entry.policy = has_policy(&props);
            node.props = Some(props.into());
        }
        self.note_group(id);
    }

    /// The properties of a node have changed, or were read.
    pub(crate) fn note_group(&mut self, id: NodeId) {
        let head = self.node(id).filter(|node| node.is_head());
        if let Some((volume, membership)) = head.map(|head| (head.entry.volume, membership(head))) {
            self.groups.set(volume, membership);
        }
    }
}
