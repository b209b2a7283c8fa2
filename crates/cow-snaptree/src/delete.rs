//! Planning of deletes.

use crate::error::TreeError;
use crate::plan::RECORD_BYTES;
use crate::tree::Tree;
use cow_format::NodeId;
use cow_format::record::Record;
use std::collections::BTreeSet;

/// Names that an error lists.
const LISTED: usize = 64;

impl Tree {
    /// Deletes volumes and snapshots, `VOL` or `VOL@SNAP`, a name twice being once. A volume's
    /// undo snapshots go with it; its others must be named too, unless `recursive`. Clones of
    /// its snapshots are other volumes and stay.
    ///
    /// # Errors
    /// `NotFound`; `Busy` naming holds or the snapshots that a volume has; `NotLoaded`.
    pub fn plan_delete(&self, names: &[&str], recursive: bool) -> Result<Vec<Record>, TreeError> {
        self.plan_delete_nodes(&self.delete_set(names, recursive)?)
    }

    /// The nodes that [`Tree::plan_delete`] would delete, by ascending id.
    ///
    /// # Errors
    /// `NotFound`; `Busy` naming the snapshots that a volume has.
    pub fn delete_set(&self, names: &[&str], recursive: bool) -> Result<Vec<NodeId>, TreeError> {
        let mut set = BTreeSet::new();
        for name in names {
            set.insert(self.resolve(name)?);
        }
        let named = set.clone();
        for &id in &named {
            let Some(node) = self.node(id).filter(|node| node.is_head()) else { continue };
            let Some(volume) = self.volume(node.entry.volume) else { continue };
            let left: Vec<NodeId> =
                volume.snapshots.iter().filter(|id| !named.contains(id)).collect();
            if !left.is_empty() && !recursive {
                return Err(TreeError::Busy(self.has_snapshots(&volume.name, &left)));
            }
            set.extend(left);
            set.extend(&volume.undos);
        }
        Ok(set.into_iter().collect())
    }

    fn has_snapshots(&self, volume: &str, left: &[NodeId]) -> String {
        let names: Vec<String> =
            left.iter().take(LISTED).filter_map(|&id| self.full_name(id)).collect();
        let more = match left.len().saturating_sub(LISTED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("{volume} has snapshots: {}{more}", names.join(", "))
    }

    /// Deletes nodes by id, such as expired ones; a head only with all snapshots of its volume.
    ///
    /// # Errors
    /// `NotFound`; `Busy` naming holds, or for a head whose volume keeps snapshots; `NotLoaded`.
    pub fn plan_delete_nodes(&self, ids: &[NodeId]) -> Result<Vec<Record>, TreeError> {
        let set: BTreeSet<NodeId> = ids.iter().copied().collect();
        let (mut snapshots, mut heads) = (Vec::new(), Vec::new());
        for &id in &set {
            let Some(node) = self.node(id).filter(|node| node.is_live()) else {
                return Err(TreeError::NotFound(format!("node {id}")));
            };
            self.check_not_held(node)?;
            if !node.is_head() {
                snapshots.push(id);
                continue;
            }
            heads.push(id);
            let left = self.snapshots_of(node.entry.volume);
            let left: Vec<NodeId> = left.into_iter().filter(|id| !set.contains(id)).collect();
            if !left.is_empty() {
                return Err(TreeError::Busy(self.has_snapshots(&node.entry.name, &left)));
            }
        }
        // Snapshots first: a volume goes only when it has none.
        snapshots.extend(heads);
        Ok(Self::delete_records(&snapshots))
    }

    /// Records that delete these nodes in this order.
    pub(crate) fn delete_records(ids: &[NodeId]) -> Vec<Record> {
        ids.chunks(RECORD_BYTES / 8)
            .map(|nodes| Record::NodeDelete { nodes: nodes.to_vec() })
            .collect()
    }
}
