//! Which blocks something refers to: one bit a block, in pages of a zone that are made when the
//! first of their blocks is met.

use cow_format::geometry::{Geometry, ZONE_BLOCKS};
use cow_format::{Buf, Phys};
use std::collections::HashMap;

const WORDS: usize = ZONE_BLOCKS as usize / 64;

/// The bits of a zone, as in a bitmap page.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ZoneBits(Box<[u64; WORDS]>);

impl ZoneBits {
    /// What the layout reserves in `zone`, and what lies past the end of the pool.
    pub(crate) fn reserved(geometry: &Geometry, zone: u64, pool_blocks: u64) -> Self {
        let mut bits = Self(Box::new([0; WORDS]));
        for (start, len) in geometry.reserved_runs(zone, pool_blocks) {
            (start..start + len).for_each(|bit| bits.set(bit));
        }
        bits
    }

    /// The bits of a page.
    pub(crate) fn from_page(page: &[u8]) -> Self {
        let mut bits = Self(Box::new([0; WORDS]));
        for (word, bytes) in bits.0.iter_mut().zip(page.chunks_exact(8)) {
            *word = bytes.iter().rev().fold(0, |acc, &byte| acc << 8 | u64::from(byte));
        }
        bits
    }

    pub(crate) fn get(&self, bit: u32) -> bool {
        self.0[bit as usize / 64] >> (bit % 64) & 1 == 1
    }

    pub(crate) fn set(&mut self, bit: u32) {
        self.0[bit as usize / 64] |= 1 << (bit % 64);
    }

    pub(crate) fn clear(&mut self, bit: u32) {
        self.0[bit as usize / 64] &= !(1 << (bit % 64));
    }

    /// Bits that are not set.
    pub(crate) fn free(&self) -> u32 {
        self.0.iter().map(|word| word.count_zeros()).sum()
    }

    /// The longest run of bits that are not set.
    pub(crate) fn longest_free(&self) -> u32 {
        let (mut longest, mut run) = (0, 0);
        for &word in self.0.iter() {
            match word {
                0 => run += 64,
                _ => (0..64).for_each(|bit| {
                    longest = longest.max(run);
                    run = if word >> bit & 1 == 1 { 0 } else { run + 1 };
                }),
            }
        }
        longest.max(run)
    }

    /// Whether every bit of `other` is set here.
    pub(crate) fn contains(&self, other: &Self) -> bool {
        self.0.iter().zip(other.0.iter()).all(|(mine, theirs)| theirs & !mine == 0)
    }

    /// Sets the bits that are set in `other`.
    pub(crate) fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0.iter()).for_each(|(mine, theirs)| *mine |= theirs);
    }

    /// The bits as a page.
    pub(crate) fn to_page(&self) -> Buf {
        let mut page = Buf::zeroed(1);
        for (bytes, word) in page.chunks_exact_mut(8).zip(self.0.iter()) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        page
    }

    /// Runs `(first, length)` of bits that are set here and not in `other`.
    pub(crate) fn runs_without(&self, other: &Self) -> Vec<(u32, u32)> {
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for (index, (mine, theirs)) in self.0.iter().zip(other.0.iter()).enumerate() {
            let mut word = mine & !theirs;
            while word != 0 {
                let bit = index as u32 * 64 + word.trailing_zeros();
                word &= word - 1;
                match runs.last_mut() {
                    Some((start, len)) if *start + *len == bit => *len += 1,
                    _ => runs.push((bit, 1)),
                }
            }
        }
        runs
    }
}

/// What became of a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The block was not referred to before.
    New,
    /// It was.
    Again,
    /// It cannot hold data: reserved by the layout, or past the end.
    NoData,
}

/// The blocks that something refers to.
pub(crate) struct Reach {
    geometry: Geometry,
    pool_blocks: u64,
    zones: HashMap<u64, ZoneBits>,
}

impl Reach {
    pub(crate) fn new(geometry: Geometry, pool_blocks: u64) -> Self {
        Self { geometry, pool_blocks, zones: HashMap::new() }
    }

    /// Something refers to `phys`.
    pub(crate) fn mark(&mut self, phys: Phys) -> Mark {
        if phys.is_none() || phys.0 >= self.pool_blocks {
            return Mark::NoData;
        }
        let (zone, bit) = (phys.0 / ZONE_BLOCKS, (phys.0 % ZONE_BLOCKS) as u32);
        let (geometry, pool_blocks) = (&self.geometry, self.pool_blocks);
        let bits = self
            .zones
            .entry(zone)
            .or_insert_with(|| ZoneBits::reserved(geometry, zone, pool_blocks));
        if !bits.get(bit) {
            bits.set(bit);
            return Mark::New;
        }
        if geometry.is_data(phys, pool_blocks) { Mark::Again } else { Mark::NoData }
    }

    /// The blocks of a zone; none when nothing refers to it.
    pub(crate) fn zone(&self, zone: u64) -> Option<&ZoneBits> {
        self.zones.get(&zone)
    }

    /// The pool is larger from here on.
    pub(crate) fn grow(&mut self, pool_blocks: u64) {
        if pool_blocks <= self.pool_blocks {
            return;
        }
        let (zone, old) = (self.pool_blocks / ZONE_BLOCKS, self.pool_blocks % ZONE_BLOCKS);
        self.pool_blocks = pool_blocks;
        if let Some(bits) = self.zones.get_mut(&zone) {
            let reserved = ZoneBits::reserved(&self.geometry, zone, pool_blocks);
            let past_old_end = old as u32..ZONE_BLOCKS as u32;
            past_old_end.filter(|&bit| !reserved.get(bit)).for_each(|bit| bits.clear(bit));
        }
    }
}
