//! Durable content: a big shared part and a small part of one's own, so that a copy for a crash
//! costs what has changed lately.

use crate::rng::mix;
use crate::value::Page;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

/// Hashes a block address with one multiplication.
#[derive(Clone, Default)]
pub(super) struct BlockHasher(u64);

impl Hasher for BlockHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = mix(self.0 ^ u64::from(byte));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = mix(word);
    }
}

/// Pages, each with its hash.
type Pages = HashMap<u64, (Arc<Page>, u64), BuildHasherDefault<BlockHasher>>;

/// A word that stands for what a page holds. In four lanes, which a processor works on at once.
pub(super) fn hash_of(page: &Page) -> u64 {
    let mut lanes = [1u64, 2, 3, 4];
    for words in page.chunks_exact(32) {
        for (lane, word) in lanes.iter_mut().zip(words.chunks_exact(8)) {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(word);
            *lane = (*lane ^ u64::from_le_bytes(bytes)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            *lane ^= *lane >> 32;
        }
    }
    lanes.into_iter().fold(0, |hash, lane| mix(hash ^ lane))
}

/// See the module.
#[derive(Clone, Default)]
pub(super) struct Image {
    shared: Arc<Pages>,
    own: Pages,
    digest: u64,
}

impl Image {
    /// What the block holds, if it was ever written.
    pub(super) fn get(&self, block: u64) -> Option<&Arc<Page>> {
        self.find(block).map(|(page, _)| page)
    }

    fn find(&self, block: u64) -> Option<&(Arc<Page>, u64)> {
        self.own.get(&block).or_else(|| self.shared.get(&block))
    }

    /// A word that stands for all that was ever written.
    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    /// Replaces what the block holds.
    pub(super) fn insert(&mut self, block: u64, page: Arc<Page>) {
        let hash = mix(block ^ hash_of(&page));
        let old = self.find(block).map_or(0, |(_, hash)| *hash);
        self.digest = self.digest.wrapping_add(hash).wrapping_sub(old);
        self.own.insert(block, (page, hash));
    }

    /// Shares what has gathered, once that is worth its cost.
    pub(super) fn tidy(&mut self) {
        if self.own.len() > 64 + self.shared.len() / 4 {
            Arc::make_mut(&mut self.shared).extend(self.own.drain());
        }
    }

    /// The blocks that were ever written, in no order.
    pub(super) fn blocks(&self) -> Vec<u64> {
        let own = self.own.keys().filter(|block| !self.shared.contains_key(block));
        self.shared.keys().chain(own).copied().collect()
    }

    /// Those of them in `at .. at + len`.
    pub(super) fn blocks_in(&self, at: u64, len: u64) -> Vec<u64> {
        if len <= 4096 {
            return (at..at + len).filter(|&block| self.get(block).is_some()).collect();
        }
        self.blocks().into_iter().filter(|block| (at..at + len).contains(block)).collect()
    }
}
