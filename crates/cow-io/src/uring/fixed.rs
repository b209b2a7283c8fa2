//! The arena as the ring's table of registered ("fixed") buffers, a chunk for each.
//!
//! The kernel pins and looks up the pages of a registered buffer once, not for each operation.
//! It charges them to `RLIMIT_MEMLOCK`, and makes all of them resident. So a chunk is registered
//! when it is first used: an idle pool costs one, and where only a part is permitted that part
//! serves, since the arena gives out its front first. What lies in no registered chunk goes with
//! the plain opcodes.

use crate::arena::{Arena, CHUNK_BYTES};
use io_uring::{IoUring, Submitter};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The registered part of an arena.
pub(super) struct Fixed {
    /// Kept by the ring as long as the kernel knows its memory.
    arena: Arena,
    registered: Vec<bool>,
    /// No more than what is registered now.
    is_complete: bool,
    transfers: Arc<AtomicU64>,
}

impl Fixed {
    /// Makes the table, and registers the first chunk to see whether it is permitted.
    pub(super) fn register(ring: &IoUring, arena: Arena) -> io::Result<Self> {
        let chunks = arena.chunk_count();
        let submitter = ring.submitter();
        // 5.19; there is another way on older kernels, but it pins all of the arena at once.
        submitter.register_buffers_sparse(chunks as u32)?;
        let registered = vec![false; chunks];
        let transfers = Arc::default();
        let mut fixed = Self { arena, registered, is_complete: false, transfers };
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
            if self.is_complete {
                return None;
            }
            if let Err(error) = self.add(submitter, chunk) {
                self.is_complete = true;
                let count = self.registered.iter().filter(|is| **is).count();
                let bytes = count * CHUNK_BYTES;
                tracing::warn!(%error, bytes, "no more fixed buffers than these");
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
        Ok(())
    }
}
