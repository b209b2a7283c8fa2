//! A file system below that runs full: the disk is a sparse file on it.

use std::collections::BTreeSet;

const ENOSPC: i32 = 28;

/// What of the file has space, and how much more there is.
pub(super) struct Below {
    allocated: BTreeSet<u64>,
    pub(super) free: u64,
}

impl Below {
    pub(super) fn with_room(free: u64) -> Self {
        Self { allocated: BTreeSet::new(), free }
    }

    /// The blocks have their space.
    pub(super) fn mark(&mut self, at: u64, blocks: u64) {
        self.allocated.extend(at..at + blocks);
    }

    /// A write or an allocation of these blocks: the error, if there is no space for all. What there is goes to the
    /// front of it all the same, as file systems give it.
    pub(super) fn take(&mut self, at: u64, blocks: u64) -> Option<i32> {
        let front = self.front(at, blocks);
        for block in at..at + front {
            self.free -= u64::from(self.allocated.insert(block));
        }
        (front < blocks).then_some(ENOSPC)
    }

    /// How many of these blocks, from the first on, there is space for.
    pub(super) fn front(&self, at: u64, blocks: u64) -> u64 {
        let mut missing = (at..at + blocks).filter(|block| !self.allocated.contains(block));
        missing.nth(self.free as usize).map_or(blocks, |block| block - at)
    }

    pub(super) fn give(&mut self, at: u64, blocks: u64) {
        for block in at..at + blocks {
            self.free += u64::from(self.allocated.remove(&block));
        }
    }
}
