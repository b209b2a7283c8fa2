//! Block-aligned memory. Every byte that goes to or comes from the device lives in a [`Buf`]:
//! a whole number of 4 KiB blocks at a 4 KiB-aligned address, as direct I/O demands. The
//! alignment comes from the element type, so no `unsafe` is needed.
//!
//! Where the memory comes from is the driver's affair. It hands out a [`BufPool`], the crates
//! above ask that for buffers, and what is behind a buffer of it is a [`BlockMemory`]: so the
//! driver may have memory that the kernel knows already, and nobody else needs to know of it.

use crate::BLOCK_SIZE;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// One 4 KiB block of memory at a 4 KiB-aligned address.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(4096))]
pub struct Block(pub [u8; BLOCK_SIZE]);

/// Memory lent to a [`Buf`], and given back when that is dropped.
///
/// It stays where it is, alive and unchanged, while nobody calls a method: the kernel may be at it
/// then. Its length never changes.
pub trait BlockMemory: Send + Sync {
    /// The blocks.
    fn blocks(&self) -> &[Block];

    /// The blocks, writable.
    fn blocks_mut(&mut self) -> &mut [Block];
}

/// An owned run of aligned blocks.
#[derive(Default)]
pub struct Buf {
    memory: Memory,
    /// The memory may be longer: see [`Buf::truncate`].
    blocks: usize,
}

enum Memory {
    Heap(Vec<Block>),
    Lent(Box<dyn BlockMemory>),
}

impl Default for Memory {
    fn default() -> Self {
        Self::Heap(Vec::new())
    }
}

impl Buf {
    /// A run of `blocks` zeroed blocks of ordinary memory.
    pub fn zeroed(blocks: usize) -> Self {
        Self { memory: Memory::Heap(bytemuck::zeroed_vec(blocks)), blocks }
    }

    /// A run just long enough for `bytes`, its tail zeroed, in ordinary memory.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut buf = Self::zeroed(bytes.len().div_ceil(BLOCK_SIZE));
        buf[..bytes.len()].copy_from_slice(bytes);
        buf
    }

    /// All of `memory`, with what is in it.
    pub fn lent(memory: Box<dyn BlockMemory>) -> Self {
        Self { blocks: memory.blocks().len(), memory: Memory::Lent(memory) }
    }

    /// Length in blocks.
    pub fn block_count(&self) -> usize {
        self.blocks
    }

    /// The bytes of block `index`.
    pub fn block(&self, index: usize) -> &[u8; BLOCK_SIZE] {
        &self.as_blocks()[index].0
    }

    /// The bytes of block `index`, writable.
    pub fn block_mut(&mut self, index: usize) -> &mut [u8; BLOCK_SIZE] {
        &mut self.as_blocks_mut()[index].0
    }

    /// Shortens the run to `blocks`. The memory behind it stays with it.
    pub fn truncate(&mut self, blocks: usize) {
        self.blocks = self.blocks.min(blocks);
    }

    fn as_blocks(&self) -> &[Block] {
        match &self.memory {
            Memory::Heap(blocks) => &blocks[..self.blocks],
            Memory::Lent(memory) => &memory.blocks()[..self.blocks],
        }
    }

    fn as_blocks_mut(&mut self) -> &mut [Block] {
        match &mut self.memory {
            Memory::Heap(blocks) => &mut blocks[..self.blocks],
            Memory::Lent(memory) => &mut memory.blocks_mut()[..self.blocks],
        }
    }
}

/// A copy is in ordinary memory.
impl Clone for Buf {
    fn clone(&self) -> Self {
        Self { memory: Memory::Heap(self.as_blocks().to_vec()), blocks: self.blocks }
    }
}

impl Deref for Buf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        bytemuck::cast_slice(self.as_blocks())
    }
}

impl DerefMut for Buf {
    fn deref_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(self.as_blocks_mut())
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buf({} blocks)", self.blocks)
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

    /// Blocks `first .. first + blocks` of it.
    ///
    /// # Panics
    /// When the range is not inside the slice: that is a fault of the caller.
    pub fn part(&self, first: usize, blocks: usize) -> Self {
        assert!(first + blocks <= self.block_count(), "part outside of its slice");
        Self::new(Arc::clone(&self.buf), self.first as usize + first, blocks)
    }

    /// Block `index` of it.
    ///
    /// # Panics
    /// When it has no such block.
    pub fn block(&self, index: usize) -> &[u8; BLOCK_SIZE] {
        assert!(index < self.block_count(), "block outside of its slice");
        self.buf.block(self.first as usize + index)
    }
}

impl Deref for BufSlice {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        let first = self.first as usize * BLOCK_SIZE;
        &self.buf[first..first + self.blocks as usize * BLOCK_SIZE]
    }
}

/// Where buffers come from. It answers at once, and never with less than was asked for: what it
/// has not got it makes of ordinary memory.
pub trait BufSource: Send + Sync {
    /// A run of `blocks` blocks whose content is left over from anything: for those who fill all
    /// of it, or hand on none of it.
    fn scratch(&self, blocks: usize) -> Buf;

    /// A run of `blocks` zeroed blocks.
    fn zeroed(&self, blocks: usize) -> Buf {
        let mut buf = self.scratch(blocks);
        buf.fill(0);
        buf
    }
}

/// A handle to a source of buffers, cheap to clone. The default is ordinary memory.
#[derive(Clone, Default)]
pub struct BufPool {
    source: Option<Arc<dyn BufSource>>,
}

impl BufPool {
    /// A handle to `source`.
    pub fn new(source: Arc<dyn BufSource>) -> Self {
        Self { source: Some(source) }
    }

    /// See [`BufSource::scratch`].
    pub fn scratch(&self, blocks: usize) -> Buf {
        match &self.source {
            Some(source) => source.scratch(blocks),
            None => Buf::zeroed(blocks),
        }
    }

    /// See [`BufSource::zeroed`].
    pub fn zeroed(&self, blocks: usize) -> Buf {
        match &self.source {
            Some(source) => source.zeroed(blocks),
            None => Buf::zeroed(blocks),
        }
    }

    /// A run just long enough for `bytes` bytes. Those mean nothing until they are written; what
    /// is behind them in the last block is zero.
    pub fn for_bytes(&self, bytes: usize) -> Buf {
        let mut buf = self.scratch(bytes.div_ceil(BLOCK_SIZE));
        buf[bytes..].fill(0);
        buf
    }

    /// A run just long enough for `bytes`, its tail zeroed.
    pub fn from_bytes(&self, bytes: &[u8]) -> Buf {
        let mut buf = self.for_bytes(bytes.len());
        buf[..bytes.len()].copy_from_slice(bytes);
        buf
    }
}

impl fmt::Debug for BufPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.source.is_some() { "BufPool" } else { "BufPool(ordinary memory)" })
    }
}
