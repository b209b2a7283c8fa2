//! What a layer says about one leaf (256 blocks): a small sorted vector, and which slots are in it.
//!
//! With random writes into a large volume nothing of a leaf is in the processor's caches. A binary
//! search through its entries misses them again and again, one after the other; a count of the slots
//! before tells the place at once.

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
    /// A bit for each slot that has an entry.
    present: [u64; 4],
    entries: Vec<Entry>,
}

/// The word of `slot`, and its bit in it.
fn split(slot: u8) -> (usize, u32) {
    (usize::from(slot >> 6), u32::from(slot & 63))
}

impl LeafLayer {
    /// No changes yet, over what is below or (`cleared`) over zeros.
    pub(crate) fn over(cleared: bool) -> Self {
        Self { cleared, ..Self::default() }
    }

    /// How many entries are before that of `slot`.
    fn rank(&self, slot: u8) -> usize {
        let (word, bit) = split(slot);
        let before: u32 = self.present[..word].iter().map(|word| word.count_ones()).sum();
        (before + (self.present[word] & ((1 << bit) - 1)).count_ones()) as usize
    }

    fn has(&self, slot: u8) -> bool {
        let (word, bit) = split(slot);
        self.present[word] >> bit & 1 == 1
    }

    /// Changes in slot order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The change of `slot`.
    pub fn get(&self, slot: u8) -> Option<&Entry> {
        let at = self.has(slot).then(|| self.rank(slot))?;
        self.entries.get(at)
    }

    /// The change of `slot`, to be patched by a move.
    pub(crate) fn get_mut(&mut self, slot: u8) -> Option<&mut Entry> {
        let at = self.has(slot).then(|| self.rank(slot))?;
        self.entries.get_mut(at)
    }

    /// Puts one change in; the block that it replaces, if any.
    pub(crate) fn put(&mut self, new: Entry) -> Option<Phys> {
        let at = self.rank(new.slot);
        if self.has(new.slot)
            && let Some(entry) = self.entries.get_mut(at)
        {
            let old = std::mem::replace(entry, new).phys;
            return (!old.is_none()).then_some(old);
        }
        let (word, bit) = split(new.slot);
        self.present[word] |= 1 << bit;
        self.entries.insert(at, new);
        None
    }

    /// Puts `new` (slots ascending and without gaps) in as one splice. Blocks that are replaced
    /// are handed to `dead`.
    pub(crate) fn splice(&mut self, new: &[Entry], mut dead: impl FnMut(Phys)) {
        let (Some(first), Some(last)) = (new.first(), new.last()) else { return };
        let from = self.rank(first.slot);
        let to = self.rank(last.slot) + usize::from(self.has(last.slot));
        for old in &self.entries[from..to] {
            if !old.phys.is_none() {
                dead(old.phys);
            }
        }
        self.entries.splice(from..to, new.iter().copied());
        for slot in first.slot..=last.slot {
            let (word, bit) = split(slot);
            self.present[word] |= 1 << bit;
        }
    }
}
