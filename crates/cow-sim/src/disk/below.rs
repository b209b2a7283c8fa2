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

    /// A write or an allocation of these blocks: the error, if there is no space for all.
    pub(super) fn take(&mut self, at: u64, blocks: u64) -> Option<i32> {
        let missing: Vec<u64> =
            (at..at + blocks).filter(|block| !self.allocated.contains(block)).collect();
        if missing.len() as u64 > self.free {
            return Some(ENOSPC);
        }
        self.free -= missing.len() as u64;
        self.allocated.extend(missing);
        None
    }

    pub(super) fn give(&mut self, at: u64, blocks: u64) {
        for block in at..at + blocks {
            self.free += u64::from(self.allocated.remove(&block));
        }
    }
}
