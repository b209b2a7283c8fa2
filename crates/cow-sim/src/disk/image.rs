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

type Pages = HashMap<u64, Arc<Page>, BuildHasherDefault<BlockHasher>>;

/// See the module.
#[derive(Clone, Default)]
pub(super) struct Image {
    shared: Arc<Pages>,
    own: Pages,
}

impl Image {
    /// What the block holds, if it was ever written.
    pub(super) fn get(&self, block: u64) -> Option<&Arc<Page>> {
        self.own.get(&block).or_else(|| self.shared.get(&block))
    }

    /// Replaces what the block holds.
    pub(super) fn insert(&mut self, block: u64, page: Arc<Page>) {
        self.own.insert(block, page);
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
