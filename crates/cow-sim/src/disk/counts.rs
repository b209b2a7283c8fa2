//! What the disk counts.

/// How many operations of a class there were, and their blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Operations.
    pub ops: u64,
    /// Blocks they moved.
    pub blocks: u64,
}

impl Tally {
    pub(super) fn add(&mut self, blocks: u64) {
        self.ops += 1;
        self.blocks += blocks;
    }
}

/// Device operations issued so far, by class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reads.
    pub read: Tally,
    /// Writes.
    pub write: Tally,
    /// Flushes.
    pub flush: Tally,
    /// Discards.
    pub discard: Tally,
    /// Allocations in the file below.
    pub allocate: Tally,
    /// Growths of the file below.
    pub grow: Tally,
}

impl Counts {
    /// Operations of every class.
    #[must_use]
    pub fn ops(&self) -> u64 {
        [self.read, self.write, self.flush, self.discard, self.allocate, self.grow]
            .iter()
            .map(|tally| tally.ops)
            .sum()
    }

    /// What was added since `before`: writes, blocks written, flushes.
    #[must_use]
    pub fn since(&self, before: &Self) -> (u64, u64, u64) {
        (
            self.write.ops - before.write.ops,
            self.write.blocks - before.write.blocks,
            self.flush.ops - before.flush.ops,
        )
    }
}
