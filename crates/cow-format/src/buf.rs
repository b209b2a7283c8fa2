//! Block-aligned memory. Every byte that goes to or comes from the device lives in a [`Buf`]:
//! a whole number of 4 KiB blocks at a 4 KiB-aligned address, as direct I/O demands. The
//! alignment comes from the element type, so no `unsafe` is needed.

use crate::BLOCK_SIZE;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// One 4 KiB block of memory at a 4 KiB-aligned address.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(4096))]
pub struct Block(pub [u8; BLOCK_SIZE]);

/// An owned run of aligned blocks.
#[derive(Clone, Default)]
pub struct Buf {
    blocks: Vec<Block>,
}

impl Buf {
    /// A run of `blocks` zeroed blocks.
    pub fn zeroed(blocks: usize) -> Self {
        Self { blocks: bytemuck::zeroed_vec(blocks) }
    }

    /// A run just long enough for `bytes`, its tail zeroed.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut buf = Self::zeroed(bytes.len().div_ceil(BLOCK_SIZE));
        buf[..bytes.len()].copy_from_slice(bytes);
        buf
    }

    /// Length in blocks.
    pub fn block_count(&self) -> usize {
        self.blocks.len()
    }

    /// The bytes of block `index`.
    pub fn block(&self, index: usize) -> &[u8; BLOCK_SIZE] {
        &self.blocks[index].0
    }

    /// The bytes of block `index`, writable.
    pub fn block_mut(&mut self, index: usize) -> &mut [u8; BLOCK_SIZE] {
        &mut self.blocks[index].0
    }

    /// Shortens the run to `blocks`.
    pub fn truncate(&mut self, blocks: usize) {
        self.blocks.truncate(blocks);
    }
}

impl Deref for Buf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.blocks)
    }
}

impl DerefMut for Buf {
    fn deref_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.blocks)
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buf({} blocks)", self.blocks.len())
    }
}

/// A run of blocks inside a shared buffer: what a device write is made of. The buffer stays
/// alive, and unchanged, until the last slice of it is dropped.
#[derive(Clone, Debug)]
pub struct BufSlice {
    buf: Arc<Buf>,
    first: u32,
    blocks: u32,
}

impl BufSlice {
    /// Blocks `first .. first + blocks` of `buf`.
    ///
    /// # Panics
    /// When the range is not inside the buffer: that is a fault of the caller.
    pub fn new(buf: Arc<Buf>, first: usize, blocks: usize) -> Self {
        assert!(first + blocks <= buf.block_count(), "slice outside of its buffer");
        Self { buf, first: first as u32, blocks: blocks as u32 }
    }

    /// The whole of `buf`.
    pub fn whole(buf: Buf) -> Self {
        let blocks = buf.block_count();
        Self::new(Arc::new(buf), 0, blocks)
    }

    /// Length in blocks.
    pub fn block_count(&self) -> usize {
        self.blocks as usize
    }
}

impl Deref for BufSlice {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        let first = self.first as usize * BLOCK_SIZE;
        &self.buf[first..first + self.blocks as usize * BLOCK_SIZE]
    }
}
