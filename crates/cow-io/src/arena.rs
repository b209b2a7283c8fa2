//! The arena: aligned memory in one place, for the buffers that go to the kernel.
//!
//! A ring can only register memory that stays where it is; and taking a run of blocks from here
//! costs a search in a bitmap, where an allocator would ask the kernel for pages, again and again
//! for larger ones. The memory is an anonymous mapping, cut into chunks of 2 MiB: what a chunk
//! is for the processor's tables, and for the ring a registered buffer. A run never crosses a
//! chunk. Pages become resident when they are first used, and chunks are used from the front,
//! so an idle arena costs next to nothing.
//!
//! Nothing here waits or fails: what does not fit is made of ordinary memory, see
//! [`Arena::scratch`].
//!
//! # Why the memory is nobody else's
//!
//! [`Runs`] gives a block to one [`Run`] at a time, under a lock, and takes it back when that is
//! dropped. A run is not cloned. So whoever borrows it has the only way to its blocks. Each run
//! keeps the mapping alive, and so do those of requests that were leaked because the kernel may
//! still be at them: their blocks are never given out again.

mod runs;
#[cfg(test)]
mod tests;

use cow_format::{BLOCK_SIZE, Block, BlockMemory, Buf, BufPool, BufSource};
use memmap2::{Advice, MmapMut, MmapRaw};
use runs::{CHUNK_BLOCKS, Runs};
use std::io;
use std::slice;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is registered at once, and the longest run.
pub(crate) const CHUNK_BYTES: usize = CHUNK_BLOCKS * BLOCK_SIZE;

/// The most that a ring registers: 32 GiB.
const MAX_CHUNKS: usize = 1 << 14;

/// A handle to an arena, cheap to clone.
#[derive(Clone)]
pub(crate) struct Arena {
    shared: Arc<Shared>,
}

struct Shared {
    map: MmapRaw,
    /// Where in the mapping the first chunk begins.
    start: usize,
    chunks: usize,
    runs: Mutex<Runs>,
}

impl Arena {
    /// Maps an arena of about `bytes`; none if that is less than a chunk.
    pub(crate) fn new(bytes: usize) -> io::Result<Option<Self>> {
        let chunks = (bytes / CHUNK_BYTES).min(MAX_CHUNKS);
        if chunks == 0 {
            return Ok(None);
        }
        // One more, to begin at a multiple of its size.
        let map = MmapMut::map_anon((chunks + 1) * CHUNK_BYTES)?;
        // Both are only for the better. A child of this process must not share pages that a
        // device writes to; huge pages make a chunk one piece for the kernel.
        for advice in [Advice::DontFork, Advice::HugePage] {
            if let Err(error) = map.advise(advice) {
                tracing::debug!(%error, ?advice, "advice on the buffer arena is not taken");
            }
        }
        let map = MmapRaw::from(map);
        let start = map.as_ptr().align_offset(CHUNK_BYTES);
        assert!(start < CHUNK_BYTES, "an address can be aligned");
        let runs = Mutex::new(Runs::new(chunks));
        Ok(Some(Self { shared: Arc::new(Shared { map, start, chunks, runs }) }))
    }

    /// As what the crates above know it.
    pub(crate) fn pool(&self) -> BufPool {
        BufPool::new(Arc::new(self.clone()))
    }

    /// How many chunks there are.
    pub(crate) fn chunk_count(&self) -> usize {
        self.shared.chunks
    }

    /// The memory of a chunk.
    pub(crate) fn chunk(&self, index: usize) -> libc::iovec {
        assert!(index < self.shared.chunks, "no such chunk");
        let iov_base = self.shared.block(index * CHUNK_BLOCKS).cast();
        libc::iovec { iov_base, iov_len: CHUNK_BYTES }
    }

    /// How many blocks nobody has.
    #[cfg(test)]
    pub(crate) fn free_blocks(&self) -> usize {
        self.shared.runs().free()
    }

    /// The chunk that has all of these bytes, if one has.
    pub(crate) fn chunk_of(&self, address: *const u8, len: usize) -> Option<usize> {
        let from = address.addr().checked_sub(self.shared.block(0).addr())?;
        let chunk = from / CHUNK_BYTES;
        let inside = chunk < self.shared.chunks && from % CHUNK_BYTES + len <= CHUNK_BYTES;
        inside.then_some(chunk)
    }
}

impl BufSource for Arena {
    fn scratch(&self, blocks: usize) -> Buf {
        let first = if blocks == 0 { None } else { self.shared.runs().take(blocks) };
        match first {
            Some(first) => {
                let shared = self.shared.clone();
                Buf::lent(Box::new(Run { shared, first: first as u32, blocks: blocks as u32 }))
            }
            None => Buf::zeroed(blocks),
        }
    }

    fn zeroed(&self, blocks: usize) -> Buf {
        let mut buf = self.scratch(blocks);
        // Ordinary memory is zeroed already.
        if self.chunk_of(buf.as_ptr(), buf.len()).is_some() {
            buf.fill(0);
        }
        buf
    }
}

impl Shared {
    fn runs(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address of a block; no further than the end.
    fn block(&self, index: usize) -> *mut Block {
        assert!(index <= self.chunks * CHUNK_BLOCKS, "outside of the arena");
        self.map.as_mut_ptr().wrapping_add(self.start + index * BLOCK_SIZE).cast()
    }
}

/// A run of blocks that is taken from the arena.
struct Run {
    shared: Arc<Shared>,
    first: u32,
    blocks: u32,
}

impl BlockMemory for Run {
    fn blocks(&self) -> &[Block] {
        let base = self.shared.block(self.first as usize);
        // SAFETY: the blocks lie in the mapping, which `shared` keeps, at a multiple of their
        // size, and any bytes are a block. They are this run's alone (see the head of this
        // file), and it is borrowed.
        unsafe { slice::from_raw_parts(base, self.blocks as usize) }
    }

    fn blocks_mut(&mut self) -> &mut [Block] {
        let base = self.shared.block(self.first as usize);
        // SAFETY: as in `blocks`, and borrowed by nobody else.
        unsafe { slice::from_raw_parts_mut(base, self.blocks as usize) }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.shared.runs().give_back(self.first as usize, self.blocks as usize);
    }
}
