//! The arena as the ring's table of registered ("fixed") buffers, a chunk for each.
//!
//! The kernel pins and looks up the pages of a registered buffer once, not for each operation.
//! It charges them to `RLIMIT_MEMLOCK`, and makes all of them resident. So a chunk is registered
//! when it is first used: an idle pool costs one, and where only a part is permitted that part
//! serves, since the arena gives out its front first. What lies in no registered chunk goes with
//! the plain opcodes.
//!
//! The limit is one for all processes of a user, and rings themselves count against it: whoever
//! used it up would leave the next pool without a ring. So a quarter of it is the most.

use crate::arena::{Arena, CHUNK_BYTES};
use crate::sys;
use io_uring::{IoUring, Submitter};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The registered part of an arena.
pub(super) struct Fixed {
    /// Kept by the ring as long as the kernel knows its memory.
    arena: Arena,
    registered: Vec<bool>,
    /// How many chunks may still be registered.
    left: usize,
    transfers: Arc<AtomicU64>,
}

impl Fixed {
    /// Makes the table, and registers the first chunk to see whether it is permitted.
    pub(super) fn register(ring: &IoUring, arena: Arena) -> io::Result<Self> {
        let chunks = arena.chunk_count();
        let left = permitted(chunks, sys::locked_memory_limit());
        if left == 0 {
            let text = "the limit of locked memory (RLIMIT_MEMLOCK) is below 8 MiB";
            return Err(io::Error::new(io::ErrorKind::OutOfMemory, text));
        }
        if left < chunks {
            let bytes = left * CHUNK_BYTES;
            tracing::info!(bytes, "RLIMIT_MEMLOCK permits only so much of fixed buffers");
        }
        let submitter = ring.submitter();
        // 5.19; there is another way on older kernels, but it pins all of the arena at once.
        submitter.register_buffers_sparse(chunks as u32)?;
        let registered = vec![false; chunks];
        let transfers = Arc::default();
        let mut fixed = Self { arena, registered, left, transfers };
        fixed.add(&submitter, 0)?;
        Ok(fixed)
    }

    /// Counts the submissions that used a registered buffer.
    pub(super) fn transfers(&self) -> Arc<AtomicU64> {
        self.transfers.clone()
    }

    /// The registered buffer that has all of these bytes, for a submission of them.
    pub(super) fn index(
        &mut self,
        submitter: &Submitter<'_>,
        address: *const u8,
        len: usize,
    ) -> Option<u16> {
        let chunk = self.arena.chunk_of(address, len)?;
        if !self.registered[chunk] {
            if self.left == 0 {
                return None;
            }
            if let Err(error) = self.add(submitter, chunk) {
                self.left = 0;
                let count = self.registered.iter().filter(|is| **is).count();
                let bytes = count * CHUNK_BYTES;
                tracing::info!(%error, bytes, "no more fixed buffers than these");
                return None;
            }
        }
        self.transfers.fetch_add(1, Ordering::Relaxed);
        u16::try_from(chunk).ok()
    }

    fn add(&mut self, submitter: &Submitter<'_>, chunk: usize) -> io::Result<()> {
        let memory = [self.arena.chunk(chunk)];
        // SAFETY: the memory is mapped as long as `arena` is there, which the ring drops after
        // the kernel's part of it; and where operations are leaked, their buffers keep it.
        unsafe { submitter.register_buffers_update(chunk as u32, &memory, None)? };
        self.registered[chunk] = true;
        self.left -= 1;
        Ok(())
    }
}

/// How many of `chunks` may be registered under this limit of locked memory.
fn permitted(chunks: usize, limit_bytes: Option<u64>) -> usize {
    let share = |bytes: u64| usize::try_from(bytes / 4).unwrap_or(usize::MAX) / CHUNK_BYTES;
    chunks.min(limit_bytes.map_or(usize::MAX, share))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_the_limit_is_the_most() {
        let mib = |mib: u64| Some(mib << 20);
        let cases = [(None, 16), (mib(64), 8), (mib(8), 1), (mib(7), 0), (Some(0), 0)];
        for (limit, chunks) in cases {
            assert_eq!(permitted(16, limit), chunks, "{limit:?}");
        }
        assert_eq!(permitted(16, mib(1 << 40)), 16);
    }
}
