//! Memory for device operations that is full of something else, as a driver's is that was used
//! before. Whoever counts on zeros, or on a read that failed to have left none, is found out.

use cow_format::{Buf, BufPool, BufSource};
use std::sync::Arc;

struct Leftovers;

impl BufSource for Leftovers {
    fn scratch(&self, blocks: usize) -> Buf {
        let mut buf = Buf::zeroed(blocks);
        buf.fill(0xa5);
        buf
    }
}

/// Buffers that are never clean unless that is asked for.
#[must_use]
pub fn pool() -> BufPool {
    BufPool::new(Arc::new(Leftovers))
}
