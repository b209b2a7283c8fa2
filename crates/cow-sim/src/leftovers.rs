//! Memory for device operations that is full of something else, as a driver's is that was used
//! before. Whoever counts on zeros, or on a read that failed to have left none, is found out.

use cow_format::{Block, BlockMemory, Buf, BufPool, BufSource};
use std::sync::{Arc, Mutex, PoisonError};

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

/// Blocks of the longest run that is kept for the next who asks.
const KEPT_BLOCKS: usize = 512;

type Shelf = Arc<Mutex<Vec<Vec<Block>>>>;

/// Hands out what was given back, as it is: what comes after a run in another state of the disk
/// finds that state's bytes. It costs nothing, which counts when a recovery takes microseconds.
struct Recycled(Shelf);

struct Lent {
    blocks: Vec<Block>,
    home: Shelf,
}

impl BlockMemory for Lent {
    fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    fn blocks_mut(&mut self) -> &mut [Block] {
        &mut self.blocks
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut shelf = self.home.lock().unwrap_or_else(PoisonError::into_inner);
        shelf.push(std::mem::take(&mut self.blocks));
    }
}

impl BufSource for Recycled {
    fn scratch(&self, blocks: usize) -> Buf {
        if blocks == 0 || blocks > KEPT_BLOCKS {
            return Leftovers.scratch(blocks);
        }
        let capacity = blocks.next_power_of_two();
        let mut shelf = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = shelf.iter().rposition(|run| run.len() == capacity);
        let run = found.map(|index| shelf.swap_remove(index));
        drop(shelf);
        let run = run.unwrap_or_else(|| vec![Block([0xa5; cow_format::BLOCK_SIZE]); capacity]);
        let mut buf = Buf::lent(Box::new(Lent { blocks: run, home: self.0.clone() }));
        buf.truncate(blocks);
        buf
    }
}

/// Buffers that hold what was last in them. One pool belongs to one exploration: then the same
/// seed finds the same leftovers.
#[must_use]
pub fn recycled() -> BufPool {
    BufPool::new(Arc::new(Recycled(Shelf::default())))
}
