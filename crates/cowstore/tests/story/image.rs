//! The file of a pool as the checker reads it.

use cow_check::{Blocks, ReadError};
use cow_format::{BLOCK_SIZE, Buf, Phys};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Read without the engine.
pub struct Image(pub File);

impl Blocks for Image {
    fn read(&mut self, at: Phys, blocks: usize) -> Result<Buf, ReadError> {
        let mut buf = Buf::zeroed(blocks);
        let read = self.0.read_exact_at(&mut buf, at.byte_offset());
        read.map(|()| buf).map_err(|error| ReadError::new(error.to_string()))
    }

    fn block_count(&self) -> u64 {
        self.0.metadata().unwrap().len() / BLOCK_SIZE as u64
    }
}
