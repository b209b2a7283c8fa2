//! Which blocks of the arena are taken: a bit for each, first fit.
//!
//! Buffers live for one request, so whatever is fragmented does not stay so.

/// Blocks of a chunk: 2 MiB.
pub(super) const CHUNK_BLOCKS: usize = 512;

const WORD_BITS: usize = u64::BITS as usize;
const WORDS: usize = CHUNK_BLOCKS / WORD_BITS;

/// The blocks of an arena.
pub(super) struct Runs {
    chunks: Vec<Chunk>,
}

#[derive(Clone)]
struct Chunk {
    free: usize,
    taken: [u64; WORDS],
}

impl Runs {
    /// `chunks` chunks, all free.
    pub(super) fn new(chunks: usize) -> Self {
        Self { chunks: vec![Chunk { free: CHUNK_BLOCKS, taken: [0; WORDS] }; chunks] }
    }

    /// Takes a run of `blocks`, all in one chunk, the first that there is.
    pub(super) fn take(&mut self, blocks: usize) -> Option<usize> {
        assert!(blocks > 0, "a run has blocks");
        for (index, chunk) in self.chunks.iter_mut().enumerate() {
            if chunk.free < blocks {
                continue;
            }
            if let Some(first) = chunk.find(blocks) {
                chunk.flip(first, blocks);
                chunk.free -= blocks;
                return Some(index * CHUNK_BLOCKS + first);
            }
        }
        None
    }

    /// Takes back what `take` gave.
    pub(super) fn give_back(&mut self, first: usize, blocks: usize) {
        let (index, first) = (first / CHUNK_BLOCKS, first % CHUNK_BLOCKS);
        let chunk = &mut self.chunks[index];
        debug_assert!(chunk.next(first, false) >= first + blocks, "given back twice");
        chunk.flip(first, blocks);
        chunk.free += blocks;
    }

    /// How many blocks are free.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.free).sum()
    }
}

impl Chunk {
    /// The first run of free blocks that is long enough.
    fn find(&self, blocks: usize) -> Option<usize> {
        let mut at = self.next(0, false);
        while at + blocks <= CHUNK_BLOCKS {
            let end = self.next(at, true);
            if end - at >= blocks {
                return Some(at);
            }
            at = self.next(end, false);
        }
        None
    }

    /// The first block from `at` on that is taken, or is not; the end if there is none.
    fn next(&self, at: usize, taken: bool) -> usize {
        let mut from = at % WORD_BITS;
        for word in at / WORD_BITS..WORDS {
            let bits = if taken { self.taken[word] } else { !self.taken[word] };
            let bits = bits & (u64::MAX << from);
            if bits != 0 {
                return word * WORD_BITS + bits.trailing_zeros() as usize;
            }
            from = 0;
        }
        CHUNK_BLOCKS
    }

    /// Turns the bits of a run over.
    fn flip(&mut self, first: usize, blocks: usize) {
        let (mut at, end) = (first, first + blocks);
        while at < end {
            let (word, bit) = (at / WORD_BITS, at % WORD_BITS);
            let count = (WORD_BITS - bit).min(end - at);
            self.taken[word] ^= (u64::MAX >> (WORD_BITS - count)) << bit;
            at += count;
        }
    }
}
