//! A repair in the making: what has been decided so far, and the image as it is then.

use super::RepairError;
use super::action::{Action, Lost};
use super::base::Base;
use super::overlay::Overlay;
use super::space::{Space, quiet};
use crate::context::{Cx, Options};
use crate::reach::Reach;
use crate::report::Report;
use crate::table;
use crate::tally::Sums;
use crate::unread::Unread;
use crate::walking;
use cow_format::checkpoint::{Checkpoint, FLAG_LEAKS};
use cow_format::entry::NodeEntry;
use cow_format::mapnode::{MapNode, NodePlace, Slot};
use cow_format::{NodeId, Phys};
use cow_snaptree::Tree;
use std::collections::BTreeMap;

/// See the module.
pub(super) struct Work<'b> {
    pub(super) overlay: Overlay<'b>,
    pub(super) base: Base,
    /// The checkpoint that will be written, but for its pages.
    pub(super) cp: Checkpoint,
    /// The node table, by slot.
    pub(super) entries: BTreeMap<u32, NodeEntry>,
    pub(super) space: Space,
    pub(super) actions: Vec<Action>,
    /// By the node of the snapshot tree that has lost it.
    pub(super) lost: Vec<(NodeId, Lost)>,
    /// Map nodes that are taken to be damaged.
    pub(super) believed: Vec<NodePlace>,
}

/// What a walk over the image finds.
pub(super) struct Survey {
    pub(super) tree: Tree,
    pub(super) reach: Reach,
    pub(super) sums: Sums,
    pub(super) unread: Unread,
    pub(super) report: Report,
    /// All that is referred to was met.
    pub(super) whole: bool,
}

impl<'b> Work<'b> {
    pub(super) fn new(overlay: Overlay<'b>, base: Base) -> Self {
        let cp = Checkpoint {
            seq: base.cp.seq + 1,
            epoch: base.epoch,
            flags: base.cp.flags & !FLAG_LEAKS,
            damage: Vec::new(),
            damage_overflow: 0,
            ..base.cp.clone()
        };
        let mut work = Self {
            overlay,
            entries: base.entries.clone(),
            cp,
            base,
            space: Space::default(),
            actions: Vec::new(),
            lost: Vec::new(),
            believed: Vec::new(),
        };
        work.actions.extend(work.base.reason.clone());
        work
    }

    pub(super) fn tag(&self) -> u64 {
        self.base.sb.pool_tag()
    }

    /// Walks all maps as they are now.
    pub(super) fn survey(&mut self, options: &Options<'_>) -> Result<Survey, RepairError> {
        let options = Options { data: false, ..*options };
        let mut cx = Cx::new(&mut self.overlay, &options);
        cx.tag = self.base.sb.pool_tag();
        cx.unread = Some(Unread::default());
        let mut reach = Reach::new(self.base.sb.geometry.clone(), self.cp.pool_blocks);
        table::mark_chunks(&mut cx, &self.cp, &mut reach);
        let entries = self.entries.iter().map(|(slot, entry)| (*slot, entry.clone()));
        let Some(tree) = table::tree_of(&mut cx, &self.cp, entries) else {
            return Err(super::base::refused(&cx, crate::report::Structure::SnapshotTree));
        };
        let sums = walking::walk_all(&mut cx, &tree, &mut reach, &self.cp, true);
        let unread = cx.unread.take().unwrap_or_default();
        let whole = !cx.incomplete;
        Ok(Survey { tree, reach, sums, unread, report: cx.report, whole })
    }

    /// A block for new metadata.
    pub(super) fn take(&mut self, survey: &Survey) -> Result<Phys, RepairError> {
        let options = quiet();
        let tag = self.tag();
        let mut cx = Cx::new(&mut self.overlay, &options);
        cx.tag = tag;
        let found = self.space.take(&mut cx, &self.base, &survey.reach, survey.whole);
        found.ok_or(RepairError::NoSpace)
    }

    /// Stores a map node at a new place; the slot that points to it, with the same birth as ever.
    pub(super) fn store(
        &mut self,
        survey: &Survey,
        mut node: MapNode,
    ) -> Result<Slot, RepairError> {
        if node.is_empty() {
            return Ok(Slot::hole(node.birth));
        }
        node.cp_seq = self.cp.seq;
        let phys = self.take(survey)?;
        let (buf, crc) = node.encode(self.tag(), phys);
        self.overlay.put(phys, &buf);
        Ok(Slot { phys, birth: node.birth, crc })
    }

    /// A map node, if it can be read.
    pub(super) fn load(&mut self, place: &NodePlace) -> Option<MapNode> {
        let options = quiet();
        let mut cx = Cx::new(&mut self.overlay, &options);
        let buf = cx.read(place.phys, 1).ok()?;
        MapNode::decode(&buf, place).ok()
    }
}
