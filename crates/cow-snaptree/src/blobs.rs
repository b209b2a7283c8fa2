//! Kill rows and properties as blobs: loading them, and what a fold must write anew.

use crate::error::{TreeError, corrupt};
use crate::props::Props;
use crate::row::Row;
use crate::tree::Tree;
use crate::walk::OldBlob;
use cow_format::NodeId;
use cow_format::blob::{BlobKind, BlobRef, PAYLOAD};
use cow_format::entry::MAX_PROPS;
use std::collections::BTreeSet;

/// Most blocks that the properties of a node take.
pub const PROPS_BLOCKS: u64 = MAX_PROPS.div_ceil(PAYLOAD) as u64;

/// The tag that stands for holds whose own cannot be read.
const LOST_HOLD: &str = "damaged";

impl Tree {
    /// Whether the cells of a node's kill row are all here (true for no node at all).
    pub fn is_row_loaded(&self, id: NodeId) -> bool {
        self.node(id).is_none_or(|node| node.row.is_loaded())
    }

    /// Where the kill row of a node is stored; `len` 0 for an empty one.
    pub fn row_blob(&self, id: NodeId) -> BlobRef {
        self.node(id).map_or_else(BlobRef::default, |node| node.entry.row)
    }

    /// Takes in the payload of a kill row. What was counted meanwhile is added to it. Nothing
    /// happens if it is loaded.
    ///
    /// # Errors
    /// `Corrupt` for a malformed payload; `NotFound` for an unknown node.
    pub fn load_row(&mut self, id: NodeId, payload: &[u8]) -> Result<(), TreeError> {
        let Some(node) = self.node(id) else {
            return Err(TreeError::NotFound(format!("node {id}")));
        };
        if node.row.is_loaded() {
            return Ok(());
        }
        let mut row = Row::decode(payload)?;
        row.merge(&node.row);
        let parent = node.entry.parent;
        if let Some(node) = self.node_cache_mut(id) {
            node.row = row;
        }
        self.learn_unique(parent);
        Ok(())
    }

    /// The kill row of a node cannot be read: what was counted meanwhile is all that is left of it,
    /// and sizes that need it are not exact any more.
    pub fn lose_row(&mut self, id: NodeId) {
        self.note_inexact(id);
        // No payload is the one of an empty row; only an unknown node has none.
        let _ = self.load_row(id, &[]);
    }

    /// Damage has kept a fold from counting what happened to the map of a node.
    pub fn note_inexact(&mut self, id: NodeId) {
        if self.node(id).is_some_and(|node| !node.entry.inexact)
            && let Some(node) = self.node_mut(id)
        {
            node.entry.inexact = true;
        }
    }

    /// The payload of a kill row, which must be loaded; no bytes for an empty one.
    pub fn row_payload(&self, id: NodeId) -> Vec<u8> {
        self.node(id).map_or_else(Vec::new, |node| node.row.encode())
    }

    /// Nodes whose kill rows this fold must write anew, those to be loaded first included.
    pub fn dirty_rows(&self) -> BTreeSet<NodeId> {
        self.dirty_rows.clone()
    }

    /// The kill row of a node was written at `blob` (default for an empty one). Returns the blob
    /// that it replaces, if there is one: its blocks are to be freed.
    pub fn set_row_blob(&mut self, id: NodeId, blob: BlobRef) -> Option<OldBlob> {
        self.dirty_rows.remove(&id);
        let node = self.node_mut(id)?;
        debug_assert!(node.row.is_loaded(), "an incomplete row was written");
        let old = std::mem::replace(&mut node.entry.row, blob);
        OldBlob::of(BlobKind::Row, id, old)
    }

    /// Forgets the cells of a row that is stored as it is, to save memory.
    pub fn unload_row(&mut self, id: NodeId) {
        if !self.dirty_rows.contains(&id)
            && let Some(node) = self.node_cache_mut(id)
            && node.entry.row.len > 0
        {
            node.row = Row::unloaded();
        }
    }

    /// Whether the properties and hold tags of a node are here (true for no node at all).
    pub fn is_props_loaded(&self, id: NodeId) -> bool {
        self.node(id).is_none_or(|node| node.props.is_some())
    }

    /// Whether a node has properties or holds, or may have.
    pub fn has_props(&self, id: NodeId) -> bool {
        self.node(id).is_some_and(|node| node.entry.props.len > 0) || self.dirty_props.contains(&id)
    }

    /// Where the properties of a node are stored, and whose name that blob carries (another
    /// node's between a snapshot or rollback and the next fold).
    pub fn props_blob(&self, id: NodeId) -> (NodeId, BlobRef) {
        self.node(id).map_or((id, BlobRef::default()), |node| (node.props_owner, node.entry.props))
    }

    /// Takes in the payload of properties. Changes made meanwhile are applied to them. Nothing
    /// happens if they are loaded.
    ///
    /// # Errors
    /// `Corrupt` for a malformed payload; `NotFound` for an unknown node.
    pub fn load_props(&mut self, id: NodeId, payload: &[u8]) -> Result<(), TreeError> {
        let Some(node) = self.node(id) else {
            return Err(TreeError::NotFound(format!("node {id}")));
        };
        if node.props.is_some() {
            return Ok(());
        }
        let mut props = Props::decode(payload)?;
        node.edits.iter().for_each(|edit| props.edit(edit));
        if props.check_size().is_err() {
            return corrupt(format!("node {id}: properties over their limit"));
        }
        let holds = props.holds.len() as u32;
        if let Some(node) = self.node_cache_mut(id) {
            node.edits.clear();
            node.entry.holds = holds;
            node.props = Some(props.into());
        }
        self.note_group(id);
        self.learn_space(id);
        Ok(())
    }

    /// The properties of a node cannot be read, and must be written: they are gone but for the
    /// changes made meanwhile. What was held stays held, by a tag that can be released.
    pub fn lose_props(&mut self, id: NodeId) {
        let Some(node) = self.node(id).filter(|node| node.props.is_none()) else { return };
        let mut props = Props::default();
        node.edits.iter().for_each(|edit| props.edit(edit));
        // The count includes those that were set meanwhile, and they are here.
        if node.entry.holds as usize > props.holds.len() {
            props.holds.insert(LOST_HOLD.into());
        }
        let holds = props.holds.len() as u32;
        if let Some(node) = self.node_mut(id) {
            node.edits.clear();
            node.entry.holds = holds;
            node.props = Some(props.into());
        }
    }

    /// The payload of a node's properties, which must be loaded; no bytes for none.
    pub fn props_payload(&self, id: NodeId) -> Vec<u8> {
        let props = self.node(id).and_then(|node| node.props.as_deref());
        debug_assert!(props.is_some(), "properties that are not loaded are written");
        props.map_or_else(Vec::new, Props::encode)
    }

    /// Blocks that the next fold needs for properties, as of now. (Rows get dirty inside of folds
    /// only; who makes them so has counted them.)
    pub fn pending_blocks(&self) -> u64 {
        PROPS_BLOCKS * self.dirty_props.len() as u64
    }

    /// Nodes whose properties this fold must write anew, those to be loaded first included.
    pub fn dirty_props(&self) -> BTreeSet<NodeId> {
        self.dirty_props.clone()
    }

    /// The properties of a node were written at `blob` (default for none). Returns the blob that
    /// it replaces, if there is one: its blocks are to be freed.
    pub fn set_props_blob(&mut self, id: NodeId, blob: BlobRef) -> Option<OldBlob> {
        self.dirty_props.remove(&id);
        let node = self.node_mut(id)?;
        debug_assert!(node.props.is_some(), "properties that are not loaded were written");
        let old = std::mem::replace(&mut node.entry.props, blob);
        let owner = std::mem::replace(&mut node.props_owner, id);
        OldBlob::of(BlobKind::Props, owner, old)
    }

    /// Forgets properties that are stored as they are, to save memory.
    pub fn unload_props(&mut self, id: NodeId) {
        if !self.dirty_props.contains(&id)
            && let Some(node) = self.node_cache_mut(id)
            && node.entry.props.len > 0
        {
            node.props = None;
        }
    }
}
