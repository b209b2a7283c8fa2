//! A node of the radix map: 256 slots, each with the address, birth and checksum of the block it
//! points to. docs/format.md, "Map node".
//!
//! ```text
//! 0     header 64 B: magic, version, level, pool_tag, family, birth, index, self_phys, cp_seq, crc
//! 64    phys_lo u32[256]
//! 1088  phys_hi u16[256]
//! 1600  birth   u32[256]
//! 2624  crc     u32[256]
//! 3648  zero    448 B
//! ```
//!
//! Checksums live outside of the block they protect: a slot's crc is that of the child (for a
//! map node, the one in its header; for data, that of the 4096 bytes). So lost, stale and
//! misdirected writes are detected.
//!
//! Level 0 is a leaf, whose slots are data blocks; a node of level `n` spans 256^(n+1) blocks.

use crate::checksum::{Salt, salted};
use crate::{BLOCK_SIZE, Buf, BufPool, FamilyId, FormatError, Gen, Phys, mutant};
use bytemuck::{Pod, Zeroable};

pub use crate::units::FANOUT_BITS;

/// Slots of a node.
pub const FANOUT: usize = 256;
/// The highest level: 256^5 blocks = 4 PiB.
pub const MAX_LEVEL: u8 = 4;
/// First four bytes of a node ("CMAP").
pub const MAGIC: u32 = u32::from_le_bytes(*b"CMAP");
const VERSION: u16 = 1;
const LOST: u32 = u32::MAX;

/// How many blocks a node of `level` spans.
pub fn span_blocks(level: u8) -> u64 {
    1 << (FANOUT_BITS * (u32::from(level) + 1))
}

/// The lowest root level that spans `blocks` blocks.
pub fn level_for(blocks: u64) -> u8 {
    (0..=MAX_LEVEL).find(|&level| span_blocks(level) >= blocks).unwrap_or(MAX_LEVEL)
}

/// What a slot says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The block pointed to; none for a hole or a lost block.
    pub phys: Phys,
    /// On whose behalf the slot was written. Holes carry one too.
    pub birth: Gen,
    /// Checksum of the block; for `phys` none: 0 is a hole, all ones a lost block.
    pub crc: u32,
}

impl Slot {
    /// A hole punched at `birth`.
    pub fn hole(birth: Gen) -> Self {
        Self { phys: Phys::NONE, birth, crc: 0 }
    }

    /// A block whose content is gone: reads fail, a write or discard heals it.
    pub fn lost(birth: Gen) -> Self {
        Self { phys: Phys::NONE, birth, crc: LOST }
    }

    /// Whether the slot points to a block.
    pub fn is_mapped(&self) -> bool {
        !self.phys.is_none()
    }

    /// Whether the slot reads as an error.
    pub fn is_lost(&self) -> bool {
        self.phys.is_none() && self.crc == LOST
    }

    /// Whether the slot reads as zeros.
    pub fn is_hole(&self) -> bool {
        self.phys.is_none() && self.crc == 0
    }
}

/// The place that a node must say it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodePlace {
    /// Tag of the pool.
    pub pool_tag: u64,
    /// Family of the snapshot tree.
    pub family: FamilyId,
    /// Level, 0 for a leaf.
    pub level: u8,
    /// Which node of its level: first block / span.
    pub index: u64,
    /// Where it is stored.
    pub phys: Phys,
    /// Birth: that of the parent's slot.
    pub birth: Gen,
    /// Checksum in the parent's slot.
    pub crc: u32,
}

/// A node in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapNode {
    /// Family of the snapshot tree.
    pub family: FamilyId,
    /// Level, 0 for a leaf.
    pub level: u8,
    /// Which node of its level.
    pub index: u64,
    /// Generation of the snapshot-tree node on whose behalf it was written.
    pub birth: Gen,
    /// Checkpoint that wrote it.
    pub cp_seq: u64,
    slots: Box<[Slot; FANOUT]>,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Header {
    magic: u32,
    version: u16,
    level: u8,
    pad0: u8,
    pool_tag: u64,
    family: u64,
    index: u64,
    self_phys: u64,
    cp_seq: u64,
    birth: u32,
    crc: u32,
    pad1: u64,
}

const HEADER_LEN: usize = std::mem::size_of::<Header>();
const CRC_AT: usize = 52;
const LO_AT: usize = HEADER_LEN;
const HI_AT: usize = LO_AT + 4 * FANOUT;
const BIRTH_AT: usize = HI_AT + 2 * FANOUT;
const SUM_AT: usize = BIRTH_AT + 4 * FANOUT;
const _: () = assert!(HEADER_LEN == 64 && SUM_AT + 4 * FANOUT == BLOCK_SIZE - 448);
const _: () = assert!(std::mem::offset_of!(Header, crc) == CRC_AT);

impl MapNode {
    /// A node all of whose slots are holes of birth `hole_birth` (that of the empty slot above).
    pub fn empty(family: FamilyId, level: u8, index: u64, hole_birth: Gen) -> Self {
        let slots = Box::new([Slot::hole(hole_birth); FANOUT]);
        Self { family, level, index, birth: hole_birth, cp_seq: 0, slots }
    }

    /// The slots.
    pub fn slots(&self) -> &[Slot; FANOUT] {
        &self.slots
    }

    /// The slots, writable.
    pub fn slots_mut(&mut self) -> &mut [Slot; FANOUT] {
        &mut self.slots
    }

    /// Whether nothing is mapped and nothing lost: such a node is pruned to a hole.
    pub fn is_empty(&self) -> bool {
        self.slots.iter().all(Slot::is_hole)
    }

    /// The block to store at `phys`, and its checksum for the parent's slot.
    pub fn encode(&self, pool_tag: u64, phys: Phys) -> (Buf, u32) {
        self.encode_in(&BufPool::default(), pool_tag, phys)
    }

    /// As [`MapNode::encode`], in memory of `buffers`.
    pub fn encode_in(&self, buffers: &BufPool, pool_tag: u64, phys: Phys) -> (Buf, u32) {
        let mut buf = buffers.zeroed(1);
        let header = Header {
            magic: MAGIC,
            version: VERSION,
            level: self.level,
            pad0: 0,
            pool_tag,
            family: self.family.0,
            index: self.index,
            self_phys: phys.0,
            cp_seq: self.cp_seq,
            birth: self.birth.0,
            crc: 0,
            pad1: 0,
        };
        buf[..HEADER_LEN].copy_from_slice(bytemuck::bytes_of(&header));
        for (i, slot) in self.slots.iter().enumerate() {
            debug_assert!(slot.birth <= self.birth, "slot younger than its node");
            debug_assert!(slot.phys.0 < Phys::LIMIT);
            let put = |buf: &mut Buf, at: usize, bytes: &[u8]| {
                buf[at..at + bytes.len()].copy_from_slice(bytes);
            };
            put(&mut buf, LO_AT + 4 * i, &(slot.phys.0 as u32).to_le_bytes());
            put(&mut buf, HI_AT + 2 * i, &((slot.phys.0 >> 32) as u16).to_le_bytes());
            put(&mut buf, BIRTH_AT + 4 * i, &slot.birth.0.to_le_bytes());
            put(&mut buf, SUM_AT + 4 * i, &slot.crc.to_le_bytes());
        }
        let crc = node_crc(&buf, pool_tag, phys);
        buf[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        (buf, crc)
    }

    /// Checks and reads a node that must stand at `place`.
    ///
    /// # Errors
    /// Anything that does not match: the block was damaged, lost, stale or misdirected.
    pub fn decode(bytes: &[u8], place: &NodePlace) -> Result<Self, FormatError> {
        let (what, at) = ("map node", place.phys);
        if bytes.len() < BLOCK_SIZE {
            return Err(FormatError::Field { what, at, field: "length" });
        }
        let header: Header = bytemuck::pod_read_unaligned(&bytes[..HEADER_LEN]);
        if header.magic != MAGIC {
            return Err(FormatError::Magic { what, at });
        }
        let is_whole = node_crc(bytes, place.pool_tag, at) == header.crc && header.crc == place.crc;
        if !is_whole && !mutant::is("nodeblind") {
            return Err(FormatError::Checksum { what, at });
        }
        let identity = |field| Err(FormatError::Identity { what, at, field });
        if header.version != VERSION {
            return identity("version");
        }
        if header.level != place.level {
            return identity("level");
        }
        if header.index != place.index {
            return identity("index");
        }
        if header.family != place.family.0 {
            return identity("family");
        }
        if header.birth != place.birth.0 {
            return identity("birth");
        }
        if header.self_phys != at.0 || header.pool_tag != place.pool_tag {
            return identity("self_phys");
        }
        let mut node = Self::empty(place.family, place.level, place.index, place.birth);
        node.cp_seq = header.cp_seq;
        read_slots(bytes, &mut node.slots);
        for slot in node.slots.iter() {
            if slot.birth > node.birth {
                return Err(FormatError::Field { what, at, field: "slot birth" });
            }
            if slot.phys.is_none() && slot.crc != 0 && slot.crc != LOST {
                return Err(FormatError::Field { what, at, field: "slot state" });
            }
        }
        Ok(node)
    }
}

fn read_slots(bytes: &[u8], slots: &mut [Slot; FANOUT]) {
    let u32_at =
        |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    for (i, slot) in slots.iter_mut().enumerate() {
        let high = u16::from_le_bytes([bytes[HI_AT + 2 * i], bytes[HI_AT + 2 * i + 1]]);
        *slot = Slot {
            phys: Phys(u64::from(u32_at(LO_AT + 4 * i)) | u64::from(high) << 32),
            birth: Gen(u32_at(BIRTH_AT + 4 * i)),
            crc: u32_at(SUM_AT + 4 * i),
        };
    }
}

fn node_crc(block: &[u8], pool_tag: u64, phys: Phys) -> u32 {
    let parts: [&[u8]; 3] = [&block[..CRC_AT], &[0; 4], &block[CRC_AT + 4..BLOCK_SIZE]];
    salted(Salt::MapNode, pool_tag, phys.0, &parts)
}
