//! The node table: which slot a node has, which pages must be written, and their bytes.

use crate::error::NoSlots;
use crate::tree::Tree;
use cow_format::entry::ENTRY_LEN;
use cow_format::table::{first_slot, is_overflow, overflow_of, page_of};
use cow_format::{Buf, NodeId};

/// Most nodes of a pool, and most slots of its table.
pub const MAX_NODES: u32 = 1 << 20;
/// Slots that only a rollback may take.
pub const ROLLBACK_SLOTS: u32 = 64;

impl Tree {
    /// How many slots the table has now: creation is refused when they do not suffice, and all
    /// but rollbacks 64 before that. Until this is called nothing is refused for want of slots.
    pub fn set_total_slots(&mut self, total_slots: u32) {
        self.total_slots = total_slots;
    }

    /// Slots that no node has or waits for.
    pub fn free_slots(&self) -> u32 {
        self.total_slots.min(MAX_NODES).saturating_sub(self.nodes.len() as u32)
    }

    /// Gives the lowest free slots to the nodes without one, by ascending id, of a table of
    /// `total_slots`.
    ///
    /// # Errors
    /// When they do not suffice; those that got a slot keep it.
    pub fn assign_slots(&mut self, total_slots: u32) -> Result<(), NoSlots> {
        self.total_slots = total_slots;
        while let Some(&id) = self.unslotted.first() {
            while self.slots.contains_key(u64::from(self.low_slot)) {
                self.low_slot += 1;
            }
            if self.low_slot >= total_slots {
                return Err(NoSlots);
            }
            let slot = self.low_slot;
            self.unslotted.remove(&id);
            let Some(node) = self.node_cache_mut(id) else { continue };
            debug_assert!(node.slot.is_none(), "a slot for a node that has one");
            node.slot = Some(slot);
            self.slots.insert(u64::from(slot), id);
            self.dirty_pages.insert(page_of(slot));
        }
        Ok(())
    }

    /// Takes the slot back of a node that is no more.
    pub(crate) fn free_slot(&mut self, slot: u32) {
        self.slots.remove(u64::from(slot));
        self.low_slot = self.low_slot.min(slot);
        self.dirty_pages.insert(page_of(slot));
    }

    /// Pages that may differ from what was written last, those of vanished nodes included, each page
    /// of entries with its page of overflow entries.
    pub fn dirty_pages(&self) -> Vec<u32> {
        self.dirty_pages.iter().flat_map(|&page| [page, overflow_of(page)]).collect()
    }

    /// All pages were written.
    pub fn clear_dirty(&mut self) {
        self.dirty_pages.clear();
    }

    /// The 4 KiB of a page: sixteen entries, or overflow entries; and how many are in use.
    pub fn encode_page(&self, page: u32) -> (Buf, u8) {
        let (mut buf, mut used) = (Buf::zeroed(1), 0);
        let slots = first_slot(page)..;
        for (slot, place) in slots.zip(buf.chunks_exact_mut(ENTRY_LEN)) {
            let node = self.slots.get(u64::from(slot)).and_then(|&id: &NodeId| self.node(id));
            let Some(node) = node else { continue };
            let own = node.props_owner == node.entry.id || node.entry.props.len == 0;
            debug_assert!(own, "a page is encoded before the properties were written");
            let bytes = match is_overflow(page) {
                true => node.entry.encode_overflow(),
                false => Some(node.entry.encode()),
            };
            if let Some(bytes) = bytes {
                place.copy_from_slice(&bytes);
                used += 1;
            }
        }
        (buf, used)
    }
}
