//! Arithmetic of positions in the ring.

use cow_format::Phys;
use cow_format::geometry::Geometry;

/// Where the journal lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ring {
    /// Its first block.
    pub start: Phys,
    /// Its length in blocks; not 0.
    pub blocks: u64,
}

impl Ring {
    /// The ring of a pool.
    pub fn of(geometry: &Geometry) -> Self {
        Self { start: Phys(geometry.journal_start), blocks: geometry.journal_blocks }
    }

    /// Where block `block` of the ring lies on the device.
    pub fn phys(&self, block: u64) -> Phys {
        self.start.offset(block % self.blocks)
    }

    /// How far it is from block `from` forward to block `to`. Equal blocks are 0 apart: the ring
    /// is never filled to the last block.
    pub fn distance(&self, from: u64, to: u64) -> u64 {
        let (from, to) = (from % self.blocks, to % self.blocks);
        if to >= from { to - from } else { self.blocks - from + to }
    }

    /// The block `by` after `block`.
    pub fn advance(&self, block: u64, by: u64) -> u64 {
        (block % self.blocks + by) % self.blocks
    }

    /// Blocks from `block` to the end of the ring; at least 1.
    pub fn to_end(&self, block: u64) -> u64 {
        self.blocks - block % self.blocks
    }
}
