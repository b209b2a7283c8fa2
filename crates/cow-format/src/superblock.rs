//! The superblock: who the pool is, how it is laid out, and where its journal was cut.
//! docs/format.md, "Superblock".
//!
//! ```text
//! block 0      set A copy 0        block 1024   set B copy 2
//! block 8192   set A copy 1        block 16384  set B copy 3
//! ```
//!
//! A write touches the older set only: rewriting every copy in one flush epoch could tear all.
//! An even `sequence` lives in set A, an odd one in set B.

use crate::checksum::{Salt, salted};
use crate::geometry::Geometry;
use crate::{BLOCK_SIZE, Buf, Epoch, FormatError, FrameSeq, Phys, mutant};
use bytemuck::{Pod, Zeroable};

pub use crate::geometry::COPY_BLOCKS;

/// First eight bytes of every copy.
pub const MAGIC: [u8; 8] = *b"COWSTOR1";
/// The format version that this code reads and writes.
pub const VERSION: u32 = 2;
/// How many fences fit.
pub const MAX_FENCES: usize = 32;

/// Incompatible features that this code understands: none yet.
pub const KNOWN_INCOMPAT: u64 = 0;
/// Features that may be read but not written by code that does not know them: none yet.
pub const KNOWN_RO_COMPAT: u64 = 0;

/// See [`Geometry::preallocated`].
const FLAG_PREALLOCATED: u32 = 1;

/// Where recovery cut the journal: frames after `end` of an epoch below `epoch` are void.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The last frame that was accepted.
    pub end: FrameSeq,
    /// Chain value after that frame.
    pub chain: u64,
    /// The epoch that began with this cut.
    pub epoch: Epoch,
}

/// The checked content of a superblock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Identity of the pool.
    pub uuid: [u8; 16],
    /// Unknown bits here are harmless.
    pub compat: u64,
    /// Unknown bits here forbid writing.
    pub ro_compat: u64,
    /// Unknown bits here forbid opening.
    pub incompat: u64,
    /// Where everything lies.
    pub geometry: Geometry,
    /// One more at every superblock write; its parity names the set.
    pub sequence: u64,
    /// Raised at every read-write open.
    pub epoch: Epoch,
    /// Cuts that the journal's frames must respect, oldest first.
    pub fences: Vec<Fence>,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct RawFence {
    end: u64,
    chain: u64,
    epoch: u32,
    pad: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Raw {
    magic: [u8; 8],
    version: u32,
    crc: u32,
    uuid: [u8; 16],
    copy: u32,
    block_size: u32,
    compat: u64,
    ro_compat: u64,
    incompat: u64,
    sequence: u64,
    epoch: u32,
    fence_count: u32,
    mkfs_blocks: u64,
    limit_blocks: u64,
    cp_start: [u64; 4],
    cp_blocks: u64,
    homes_start: u64,
    journal_start: u64,
    journal_blocks: u64,
    max_chunks: u32,
    flags: u32,
    fences: [RawFence; MAX_FENCES],
}

const RAW_LEN: usize = std::mem::size_of::<Raw>();
const _: () = assert!(RAW_LEN == 168 + 24 * MAX_FENCES && RAW_LEN <= BLOCK_SIZE);

/// A short name of the pool that salts checksums and marks frames and map nodes.
pub fn pool_tag(uuid: &[u8; 16]) -> u64 {
    let (low, high) = uuid.split_at(8);
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |acc, &b| acc << 8 | u64::from(b));
    word(low) ^ word(high).rotate_left(32)
}

impl Superblock {
    /// The pool's tag.
    pub fn pool_tag(&self) -> u64 {
        pool_tag(&self.uuid)
    }

    /// The copies (indices into [`COPY_BLOCKS`]) that a superblock of `sequence` is written to.
    pub fn copies_of(sequence: u64) -> [usize; 2] {
        if sequence.is_multiple_of(2) { [0, 1] } else { [2, 3] }
    }

    /// The block of copy number `copy`.
    pub fn encode(&self, copy: usize) -> Buf {
        let mut raw = Raw::zeroed();
        raw.magic = MAGIC;
        raw.version = VERSION;
        raw.uuid = self.uuid;
        raw.copy = copy as u32;
        raw.block_size = BLOCK_SIZE as u32;
        raw.compat = self.compat;
        raw.ro_compat = self.ro_compat;
        raw.incompat = self.incompat;
        raw.sequence = self.sequence;
        raw.epoch = self.epoch.0;
        assert!(self.fences.len() <= MAX_FENCES, "fence list overflow");
        raw.fence_count = self.fences.len() as u32;
        for (slot, fence) in raw.fences.iter_mut().zip(&self.fences) {
            *slot = RawFence { end: fence.end.0, chain: fence.chain, epoch: fence.epoch.0, pad: 0 };
        }
        let g = &self.geometry;
        raw.mkfs_blocks = g.mkfs_blocks;
        raw.limit_blocks = g.limit_blocks;
        raw.cp_start = g.cp_start;
        raw.cp_blocks = g.cp_blocks;
        raw.homes_start = g.homes_start;
        raw.journal_start = g.journal_start;
        raw.journal_blocks = g.journal_blocks;
        raw.max_chunks = g.max_chunks;
        raw.flags = if g.preallocated { FLAG_PREALLOCATED } else { 0 };
        let mut buf = Buf::zeroed(1);
        buf[..RAW_LEN].copy_from_slice(bytemuck::bytes_of(&raw));
        let crc = block_crc(&buf, &self.uuid, copy);
        buf[12..16].copy_from_slice(&crc.to_le_bytes());
        buf
    }

    /// Checks and reads copy number `copy`.
    ///
    /// # Errors
    /// Says what is wrong; a version, feature or flag that is unknown is told from damage.
    pub fn decode(bytes: &[u8], copy: usize) -> Result<Self, FormatError> {
        let at = Phys(COPY_BLOCKS[copy]);
        let what = "superblock";
        let Some(head) = bytes.get(..RAW_LEN).filter(|_| bytes.len() >= BLOCK_SIZE) else {
            return Err(FormatError::Field { what, at, field: "length" });
        };
        let raw: Raw = bytemuck::pod_read_unaligned(head);
        if raw.magic != MAGIC {
            return Err(FormatError::Magic { what, at });
        }
        let crc = block_crc(&bytes[..BLOCK_SIZE], &raw.uuid, copy);
        if crc != raw.crc && !mutant::is("sbblind") {
            return Err(FormatError::Checksum { what, at });
        }
        if raw.version != VERSION {
            return Err(FormatError::Version { found: raw.version, known: VERSION });
        }
        if raw.incompat & !KNOWN_INCOMPAT != 0 {
            return Err(FormatError::Features { mask: raw.incompat & !KNOWN_INCOMPAT });
        }
        if raw.copy as usize != copy {
            return Err(FormatError::Identity { what, at, field: "copy" });
        }
        let (number, known) = (copy as u64, FLAG_PREALLOCATED.into());
        FormatError::refuse_flags("superblock copy", number, at, raw.flags.into(), known)?;
        let field = |field| FormatError::Field { what, at, field };
        if raw.block_size as usize != BLOCK_SIZE {
            return Err(field("block_size"));
        }
        if raw.fence_count as usize > MAX_FENCES {
            return Err(field("fence_count"));
        }
        let geometry = Geometry {
            mkfs_blocks: raw.mkfs_blocks,
            limit_blocks: raw.limit_blocks,
            cp_start: raw.cp_start,
            cp_blocks: raw.cp_blocks,
            homes_start: raw.homes_start,
            journal_start: raw.journal_start,
            journal_blocks: raw.journal_blocks,
            max_chunks: raw.max_chunks,
            preallocated: raw.flags & FLAG_PREALLOCATED != 0,
        };
        geometry.validate().map_err(field)?;
        let fences = raw.fences[..raw.fence_count as usize]
            .iter()
            .map(|f| Fence { end: FrameSeq(f.end), chain: f.chain, epoch: Epoch(f.epoch) })
            .collect();
        Ok(Self {
            uuid: raw.uuid,
            compat: raw.compat,
            ro_compat: raw.ro_compat,
            incompat: raw.incompat,
            geometry,
            sequence: raw.sequence,
            epoch: Epoch(raw.epoch),
            fences,
        })
    }
}

fn block_crc(block: &[u8], uuid: &[u8; 16], copy: usize) -> u32 {
    salted(
        Salt::Superblock,
        pool_tag(uuid),
        COPY_BLOCKS[copy],
        &[&block[..12], &[0; 4], &block[16..BLOCK_SIZE]],
    )
}
