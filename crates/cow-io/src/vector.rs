//! A vectored write in progress: the slices, the vectors that describe them to the kernel, and
//! how far the kernel has come.
//!
//! Slices that happen to be neighbours in memory become one vector, since what a run of blocks
//! costs below is counted in vectors. At most [`MAX_VECTORS`] go into one call; the rest follows
//! in the next, so a longer write needs no other treatment than a short one does.
//!
//! Invariant: `vectors[next..]` describes exactly the bytes not yet written, all of them inside
//! `slices`, which are alive and unchanged (a [`BufSlice`] is immutable) as long as `self` is.

use cow_format::BufSlice;

/// The kernel's own limit (`UIO_MAXIOV`).
pub(crate) const MAX_VECTORS: usize = 1024;

/// The slices of one write and what is left of them.
#[derive(Debug)]
pub(crate) struct WriteVector {
    vectors: Vec<libc::iovec>,
    next: usize,
    left: u64,
    /// Kept alive: the vectors point into them.
    slices: Vec<BufSlice>,
}

// SAFETY: the vectors are what keeps this from being Send by itself. They point into the slices,
// which are Send, travel with them, and are only read through them.
unsafe impl Send for WriteVector {}

impl WriteVector {
    /// Describes `slices`, from the beginning.
    pub(crate) fn new(slices: Vec<BufSlice>) -> Self {
        let vectors = Vec::with_capacity(slices.len());
        let mut this = Self { vectors, next: 0, left: 0, slices: Vec::new() };
        this.append(slices);
        this
    }

    /// Adds `slices` behind what there is. Nothing may have been written yet.
    pub(crate) fn append(&mut self, mut slices: Vec<BufSlice>) {
        debug_assert_eq!(self.next, 0, "a write that has begun cannot grow");
        for slice in slices.iter().filter(|slice| !slice.is_empty()) {
            self.left += slice.len() as u64;
            let base = slice.as_ptr();
            if let Some(last) = self.vectors.last_mut()
                && last.iov_base as usize + last.iov_len == base as usize
            {
                last.iov_len += slice.len();
                continue;
            }
            self.vectors.push(libc::iovec { iov_base: base as *mut _, iov_len: slice.len() });
        }
        self.slices.append(&mut slices);
    }

    /// The slices, all of them, written or not.
    pub(crate) fn into_slices(self) -> Vec<BufSlice> {
        self.slices
    }

    /// How many bytes are still to be written.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    /// The vectors of the next call: never more than [`MAX_VECTORS`].
    pub(crate) fn chunk(&self) -> &[libc::iovec] {
        let end = self.vectors.len().min(self.next + MAX_VECTORS);
        &self.vectors[self.next..end]
    }

    /// Notes that the first `count` of the bytes left were written.
    pub(crate) fn advance(&mut self, count: u64) {
        assert!(count <= self.left, "more was written than there is");
        self.left -= count;
        let mut rest = count as usize;
        while rest > 0 {
            let vector = &mut self.vectors[self.next];
            if rest < vector.iov_len {
                vector.iov_base = vector.iov_base.wrapping_byte_add(rest);
                vector.iov_len -= rest;
                break;
            }
            rest -= vector.iov_len;
            self.next += 1;
        }
        debug_assert_eq!(self.left == 0, self.next == self.vectors.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cow_format::{BLOCK_SIZE, Buf};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn gathered(vector: &WriteVector) -> usize {
        vector.chunk().iter().map(|v| v.iov_len).sum()
    }

    #[test]
    fn neighbours_become_one_vector() {
        let buf = Arc::new(Buf::zeroed(8));
        let slices = [(0, 2), (2, 1), (4, 2), (6, 2), (0, 1)];
        let slices = slices.iter().map(|&(f, n)| BufSlice::new(buf.clone(), f, n)).collect();
        let vector = WriteVector::new(slices);
        let lens: Vec<_> = vector.chunk().iter().map(|v| v.iov_len / BLOCK_SIZE).collect();
        assert_eq!(lens, [3, 4, 1]);
        assert_eq!(vector.left(), 8 * BLOCK_SIZE as u64);
    }

    #[test]
    fn a_chunk_never_exceeds_the_limit() {
        let buf = Arc::new(Buf::zeroed(2));
        // Descending, so that no two are neighbours.
        let slices = (0..2500).map(|i| BufSlice::new(buf.clone(), 1 - i % 2, 1)).collect();
        let mut vector = WriteVector::new(slices);
        let mut seen = 0;
        while vector.left() > 0 {
            assert!(vector.chunk().len() <= MAX_VECTORS);
            let bytes = gathered(&vector);
            seen += bytes;
            vector.advance(bytes as u64);
        }
        assert_eq!(seen, 2500 * BLOCK_SIZE);
    }

    proptest! {
        /// Whatever the steps in which the kernel takes it, every byte is offered in its turn.
        #[test]
        fn any_progress_offers_every_byte_once(
            runs in prop::collection::vec((0usize..16, 1usize..4), 1..40),
            steps in prop::collection::vec(1u64..40_000, 1..200),
        ) {
            let mut buf = Buf::zeroed(20);
            for block in 0..20 {
                buf.block_mut(block).fill(block as u8 + 1);
            }
            let buf = Arc::new(buf);
            let slices: Vec<_> =
                runs.iter().map(|&(f, n)| BufSlice::new(buf.clone(), f, n)).collect();
            let want: Vec<u8> = slices.iter().flat_map(|s| s.iter().copied()).collect();
            let mut vector = WriteVector::new(slices);
            let mut got = Vec::new();
            for step in steps.iter().cycle() {
                if vector.left() == 0 {
                    break;
                }
                let step = (*step).min(vector.left());
                let mut need = step as usize;
                for v in vector.chunk() {
                    let take = need.min(v.iov_len);
                    // SAFETY: the vector lies in `buf`, which is alive.
                    let bytes = unsafe { std::slice::from_raw_parts(v.iov_base.cast::<u8>(), take) };
                    got.extend_from_slice(bytes);
                    need -= take;
                }
                vector.advance(step);
            }
            prop_assert_eq!(got, want);
        }
    }
}
