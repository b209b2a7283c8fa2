//! Blocks between quarantine and free; see `discard.rs`.

use crate::bits::{Bits, Run};
use std::collections::BTreeMap;

/// Blocks of a cell unless said otherwise: 64 KiB.
pub const CELL_BLOCKS: u32 = 16;

/// Runs by zone. They are set in `used`, and in no image.
pub(crate) struct Leaving {
    pub waiting: BTreeMap<u64, Vec<Run>>,
    pub discarding: BTreeMap<u64, Vec<Run>>,
    blocks: u64,
    /// How many blocks have left, ever, less those that were kept for their cell.
    pub left: i64,
    /// Blocks of a cell.
    pub cell: u32,
}

impl Default for Leaving {
    fn default() -> Self {
        let (waiting, discarding) = (BTreeMap::new(), BTreeMap::new());
        Self { waiting, discarding, blocks: 0, left: 0, cell: CELL_BLOCKS }
    }
}

impl Leaving {
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    pub fn put(&mut self, zone: u64, run: Run) {
        self.waiting.entry(zone).or_default().push(run);
        self.blocks += u64::from(run.len);
    }

    pub fn keep(&mut self, blocks: u32) {
        self.blocks += u64::from(blocks);
        self.left -= i64::from(blocks);
    }

    pub fn end(&mut self, blocks: u32) {
        self.blocks -= u64::from(blocks);
        self.left += i64::from(blocks);
    }

    /// Sets the bits of the zone's blocks.
    pub fn overlay(&self, zone: u64, used: &mut Bits) {
        for runs in [self.waiting.get(&zone), self.discarding.get(&zone)] {
            runs.into_iter().flatten().for_each(|run| used.set_run(*run));
        }
    }
}
