//! Where blocks come from.

use cow_format::{Buf, Phys};

/// An image that can be read. Implemented by the caller, over a file or a simulated disk.
pub trait Blocks {
    /// Reads `blocks` blocks from `at` on. Never called for blocks past the end.
    ///
    /// # Errors
    /// When the device cannot be read there.
    fn read(&mut self, at: Phys, blocks: usize) -> Result<Buf, ReadError>;

    /// Length in blocks; a rest of less than a block does not count.
    fn block_count(&self) -> u64;
}

/// A read that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct ReadError {
    /// What the system said.
    pub cause: String,
}

impl ReadError {
    /// A failure for this cause.
    pub fn new(cause: impl Into<String>) -> Self {
        Self { cause: cause.into() }
    }
}
