//! What a layer says about one leaf (256 blocks): a small sorted vector.

use cow_format::Phys;

/// One block: where it lies now; `phys` none means that it reads as zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where.
    pub phys: Phys,
    /// Checksum of the data.
    pub crc: u32,
    /// Slot in the leaf.
    pub slot: u8,
}

/// The changes of one leaf, over what older layers and the map say, or over nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeafLayer {
    /// Everything that is not in `entries` reads as zeros.
    pub cleared: bool,
    entries: Vec<Entry>,
}

impl LeafLayer {
    /// No changes yet, over what is below or (`cleared`) over zeros.
    pub(crate) fn over(cleared: bool) -> Self {
        Self { cleared, entries: Vec::new() }
    }

    /// Changes in slot order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The change of `slot`.
    pub fn get(&self, slot: u8) -> Option<&Entry> {
        self.entries.binary_search_by_key(&slot, |e| e.slot).ok().map(|i| &self.entries[i])
    }

    /// The change of `slot`, to be patched by a move.
    pub(crate) fn get_mut(&mut self, slot: u8) -> Option<&mut Entry> {
        self.entries.binary_search_by_key(&slot, |e| e.slot).ok().map(|i| &mut self.entries[i])
    }

    /// Puts `new` (slots ascending and without gaps) in as one splice. Blocks that are replaced
    /// are handed to `dead`.
    pub(crate) fn splice(&mut self, new: &[Entry], mut dead: impl FnMut(Phys)) {
        let (Some(first), Some(last)) = (new.first(), new.last()) else { return };
        let from = self.entries.partition_point(|e| e.slot < first.slot);
        let to = self.entries.partition_point(|e| e.slot <= last.slot);
        for old in &self.entries[from..to] {
            if !old.phys.is_none() {
                dead(old.phys);
            }
        }
        self.entries.splice(from..to, new.iter().copied());
    }
}
