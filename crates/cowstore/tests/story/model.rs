//! What a story's pool must hold: for each volume and snapshot, which write each block is from.

use std::collections::{BTreeMap, BTreeSet};

/// Blocks of a volume that are ever written: those of the image and as many again.
pub const BLOCKS: usize = 1024;
pub const BLOCK: usize = 4096;
/// Blocks that lie side by side; the next so many are 64 MiB further, in another leaf.
pub const RUN: usize = 64;
const STRIDE: u64 = 64 << 20;
/// Size of a volume.
pub const SIZE: u64 = BLOCKS as u64 / RUN as u64 * STRIDE;

/// SplitMix64.
pub struct Rng(pub u64);

impl Rng {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

/// Where a block of a volume lies, in bytes.
pub fn offset(block: usize) -> u64 {
    (block / RUN) as u64 * STRIDE + (block % RUN * BLOCK) as u64
}

/// The bytes that a write has put into a block; zeros for the write 0, a discard.
pub fn bytes(write: u64) -> Vec<u8> {
    (0..BLOCK as u64 / 8).flat_map(|at| (write * 0x1_0001 * (at + 1)).to_le_bytes()).collect()
}

/// Which write each block is from; 0 for none.
pub type Content = Vec<u64>;

/// All volumes and snapshots, by name.
#[derive(Default)]
pub struct Model {
    pub nodes: BTreeMap<String, Content>,
    writes: u64,
}

impl Model {
    /// A write of its own, unlike all others.
    pub fn write(&mut self) -> u64 {
        self.writes += 1;
        self.writes
    }

    /// Blocks of data that all of them need together. A write of a block takes a new one, so two
    /// have the same block exactly if they have it from the same write.
    pub fn data_blocks(&self) -> u64 {
        let writes: BTreeSet<u64> = self.nodes.values().flatten().copied().collect();
        writes.into_iter().filter(|write| *write != 0).count() as u64
    }

    /// Blocks of data that go when these go.
    pub fn freed_by(&self, names: &BTreeSet<String>) -> u64 {
        let kept = self.nodes.iter().filter(|(name, _)| !names.contains(*name));
        let kept: BTreeSet<u64> = kept.flat_map(|(_, content)| content).copied().collect();
        let gone = names.iter().flat_map(|name| &self.nodes[name]).copied();
        gone.filter(|write| *write != 0 && !kept.contains(write)).collect::<BTreeSet<_>>().len()
            as u64
    }

    /// The snapshots of a volume, as `VOL@SNAP`.
    pub fn snapshots_of(&self, volume: &str) -> Vec<String> {
        let prefix = format!("{volume}@");
        self.nodes.keys().filter(|name| name.starts_with(&prefix)).cloned().collect()
    }

    /// What `undo` brings back: the undo snapshot with the highest number.
    pub fn newest_undo(&self, volume: &str) -> Option<String> {
        let prefix = format!("{volume}@undo.");
        let number = |name: &String| name.strip_prefix(&prefix)?.parse::<u64>().ok();
        self.nodes.keys().filter(|name| number(name).is_some()).max_by_key(|n| number(n)).cloned()
    }
}
