//! The bitmaps of a zone in memory.

use crate::bits::Bits;

/// Zones that stay resident without need: 8 MiB of bitmaps.
pub const MAX_RESIDENT: usize = 1024;

/// The bitmaps of a zone. `unfolded` exists while it is not empty: most resident zones have only
/// been read.
pub(crate) struct Resident {
    pub image: Box<Bits>,
    pub used: Box<Bits>,
    unfolded: Option<Box<Bits>>,
    unfolded_count: u32,
    /// Looked at since the last round of evictions.
    pub touched: bool,
}

impl Resident {
    /// A zone without unfolded blocks.
    pub fn new(image: Box<Bits>, used: Box<Bits>) -> Self {
        Self { image, used, unfolded: None, unfolded_count: 0, touched: false }
    }

    /// The blocks, all clear, become the caller's.
    pub fn lend(&mut self, start: u32, len: u32) {
        self.used.set_range(start, len);
        self.unfolded.get_or_insert_with(Bits::empty).set_range(start, len);
        self.unfolded_count += len;
        self.touched = true;
    }

    /// The caller no longer has these blocks; they stay used. Gives how many it had.
    pub fn own(&mut self, start: u32, len: u32) -> u32 {
        let Some(unfolded) = &mut self.unfolded else { return 0 };
        let had = unfolded.count_range(start, len);
        unfolded.clear_range(start, len);
        self.unfolded_count -= had;
        if self.unfolded_count == 0 {
            self.unfolded = None;
        }
        had
    }

    /// Makes blocks of the caller clear again, if it had all of them.
    pub fn forget(&mut self, start: u32, len: u32) -> bool {
        let all = self.own(start, len) == len;
        if all {
            self.used.clear_range(start, len);
        }
        all
    }

    pub fn is_unfolded(&self, bit: u32) -> bool {
        self.unfolded.as_ref().is_some_and(|bits| bits.get(bit))
    }

    pub fn has_unfolded(&self) -> bool {
        self.unfolded_count > 0
    }
}
