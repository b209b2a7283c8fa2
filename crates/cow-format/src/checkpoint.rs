//! A checkpoint (CP): the root of everything, written to area `seq mod 4`. docs/format.md,
//! "Checkpoint".
//!
//! ```text
//! block 0        header (4 KiB, own crc): positions, counters, lengths of the sections
//! block 1 ..     body: chunks u64[], withheld u64[], damage 24 B[], detached 48 B[], zones 16 B[],
//!                pages 16 B[]
//! last block     footer: magic, seq, crc of header and body
//! ```
//!
//! Bitmap and table pages have two fixed homes each; the descriptors in the body say which home
//! is the active one and what its checksum is. So a commit allocates nothing.

use crate::checksum::{Salt, salted};
use crate::geometry::{CHUNK_BLOCKS, CHUNK_PAGES, Geometry};
use crate::mapnode::{FANOUT_BITS, MAX_LEVEL, Slot};
use crate::wire::{Malformed, Reader, Writer};
use crate::{BLOCK_SIZE, Buf, Epoch, FormatError, FrameSeq, Gen, NodeId, Phys, mutant};

/// First eight bytes of a header.
pub const MAGIC: [u8; 8] = *b"COWCHKP1";
const FOOTER_MAGIC: [u8; 8] = *b"COWCPEND";
/// Withheld blocks that fit (design section 4).
pub const MAX_WITHHELD: usize = 1024;
/// Damage entries that fit; a counter goes on beyond.
pub const MAX_DAMAGE: usize = 256;
/// Detached subtrees that fit.
pub const MAX_DETACHED: usize = 512;
/// Blocks may be allocated that nothing points to: a broken map node stood above them.
pub const FLAG_LEAKS: u32 = 1;
/// Reuse of quarantined blocks was waived: the checkpoint before this one is no fallback.
pub const FLAG_NO_FALLBACK: u32 = 2;
const KNOWN_FLAGS: u32 = FLAG_LEAKS | FLAG_NO_FALLBACK;

const HEADER_FIELDS: usize = 256;
const HEADER_CRC_AT: usize = 12;

/// A position in the journal ring: the next frame to be read or written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalPos {
    /// Block of the ring, from its start.
    pub block: u64,
    /// Sequence number of the frame there.
    pub seq: FrameSeq,
    /// Chain value before that frame.
    pub chain: u64,
}

/// State of one zone (bitmap page).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ZoneDesc {
    /// Checksum of the page in its active home.
    pub crc: u32,
    /// Free blocks.
    pub free: u16,
    /// Longest free run (a lower bound is allowed).
    pub longest: u16,
    /// Which home is active.
    pub home: u8,
    /// Never written: everything is free but what the layout reserves.
    pub fresh: bool,
}

/// State of one page of the node table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageDesc {
    /// Checksum of the page in its active home.
    pub crc: u32,
    /// Which home is active.
    pub home: u8,
    /// Never written: sixteen empty entries, or overflow entries.
    pub fresh: bool,
    /// Entries, or overflow entries, in use.
    pub used: u8,
}

/// A map node that could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Snapshot-tree node whose tree it is in.
    pub node: NodeId,
    /// Level in the radix map.
    pub level: u8,
    /// Index in that level.
    pub index: u64,
}

/// A subtree of a map that was discarded as a whole and is given back bit by bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detached {
    /// Snapshot-tree node that discarded it.
    pub node: NodeId,
    /// Level of its top map node.
    pub level: u8,
    /// Index in that level.
    pub index: u64,
    /// What pointed to the top map node.
    pub slot: Slot,
    /// First block of the volume that has not been passed yet; all before is given back.
    pub cursor: u64,
}

/// A checkpoint in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Sequence number; area `seq mod 4`.
    pub seq: u64,
    /// Epoch of the writer.
    pub epoch: Epoch,
    /// Last generation that was given out.
    pub last_gen: u32,
    /// Last node id that was given out.
    pub last_node: u64,
    /// Last volume id that was given out.
    pub last_volume: u64,
    /// Last snapshot group id that was given out.
    pub last_group: u64,
    /// The journal goes on here: everything before is in this checkpoint.
    pub tail: JournalPos,
    /// Size of the pool in blocks.
    pub pool_blocks: u64,
    /// [`FLAG_LEAKS`], [`FLAG_NO_FALLBACK`].
    pub flags: u32,
    /// Blocks of data that are allocated.
    pub data_blocks: u64,
    /// Map nodes, blobs and table chunks that are allocated.
    pub meta_blocks: u64,
    /// Wall-clock time, nanoseconds since 1970.
    pub time_ns: u64,
    /// Damage that did not fit the list.
    pub damage_overflow: u64,
    /// First block of each table chunk.
    pub chunks: Vec<Phys>,
    /// Blocks that must never be allocated again.
    pub withheld: Vec<Phys>,
    /// Broken map nodes.
    pub damage: Vec<Damage>,
    /// Discarded subtrees that are not all given back.
    pub detached: Vec<Detached>,
    /// One a zone.
    pub zones: Vec<ZoneDesc>,
    /// One a table page: [`CHUNK_PAGES`] a chunk.
    pub pages: Vec<PageDesc>,
}

impl Checkpoint {
    /// The area that checkpoint `seq` lives in.
    pub fn area(seq: u64) -> usize {
        (seq % 4) as usize
    }

    /// The blocks to write. The last block is the footer.
    pub fn encode(&self, pool_tag: u64) -> Buf {
        let body = self.encode_body();
        let body_blocks = body.len().div_ceil(BLOCK_SIZE);
        let mut buf = Buf::zeroed(body_blocks + 2);
        let header = self.encode_header(body.len());
        buf[..header.len()].copy_from_slice(&header);
        let crc = header_crc(&buf[..BLOCK_SIZE], pool_tag, self.seq);
        buf[HEADER_CRC_AT..HEADER_CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        buf[BLOCK_SIZE..BLOCK_SIZE + body.len()].copy_from_slice(&body);
        let footer_at = (body_blocks + 1) * BLOCK_SIZE;
        let crc = salted(Salt::CheckpointBody, pool_tag, self.seq, &[&buf[..footer_at]]);
        buf[footer_at..footer_at + 8].copy_from_slice(&FOOTER_MAGIC);
        buf[footer_at + 8..footer_at + 16].copy_from_slice(&self.seq.to_le_bytes());
        buf[footer_at + 16..footer_at + 20].copy_from_slice(&crc.to_le_bytes());
        buf
    }

    fn encode_header(&self, body_len: usize) -> Vec<u8> {
        let mut w = Writer::default();
        w.bytes.extend_from_slice(&MAGIC);
        w.u32(crate::superblock::VERSION);
        w.u32(0);
        for value in [
            self.seq,
            u64::from(self.epoch.0),
            u64::from(self.last_gen),
            self.last_node,
            self.last_volume,
            self.last_group,
            self.tail.block,
            self.tail.seq.0,
            self.tail.chain,
            self.pool_blocks,
            u64::from(self.flags),
            self.data_blocks,
            self.meta_blocks,
            self.time_ns,
            self.damage_overflow,
            self.chunks.len() as u64,
            self.withheld.len() as u64,
            self.damage.len() as u64,
            self.zones.len() as u64,
            self.pages.len() as u64,
            body_len as u64,
            self.detached.len() as u64,
        ] {
            w.u64(value);
        }
        debug_assert!(w.bytes.len() <= HEADER_FIELDS);
        w.bytes
    }

    fn encode_body(&self) -> Vec<u8> {
        let mut w = Writer::default();
        self.chunks.iter().chain(&self.withheld).for_each(|p| w.u64(p.0));
        for d in &self.damage {
            w.u64(d.node.0);
            w.u64(d.index);
            w.u64(u64::from(d.level));
        }
        for d in &self.detached {
            w.u64(d.node.0);
            w.u64(d.index);
            w.u64(u64::from(d.level));
            w.u64(d.slot.phys.0);
            w.u32(d.slot.birth.0);
            w.u32(d.slot.crc);
            w.u64(d.cursor);
        }
        for z in &self.zones {
            w.u32(z.crc);
            w.u16(z.free);
            w.u16(z.longest);
            w.u8(z.home);
            w.u8(u8::from(z.fresh));
            w.u48(0);
        }
        for p in &self.pages {
            w.u32(p.crc);
            w.u8(p.home);
            w.u8(u8::from(p.fresh));
            w.u8(p.used);
            w.u8(0);
            w.u64(0);
        }
        w.bytes
    }

    /// How many blocks the checkpoint takes whose header stands at the front of `bytes`.
    ///
    /// # Errors
    /// When no valid header stands there.
    pub fn decode_len(bytes: &[u8], pool_tag: u64, at: Phys) -> Result<u64, FormatError> {
        let (_, sections) = decode_header(bytes, pool_tag, at)?;
        Ok(sections.body_len.div_ceil(BLOCK_SIZE as u64) + 2)
    }

    /// Checks and reads a whole checkpoint.
    ///
    /// # Errors
    /// When any part of it is not what was written.
    pub fn decode(bytes: &[u8], pool_tag: u64, at: Phys) -> Result<Self, FormatError> {
        let what = "checkpoint";
        let (mut cp, sections) = decode_header(bytes, pool_tag, at)?;
        let field = |field| FormatError::Field { what, at, field };
        let body_blocks = sections.body_len.div_ceil(BLOCK_SIZE as u64) as usize;
        let footer_at = (body_blocks + 1) * BLOCK_SIZE;
        if bytes.len() < footer_at + BLOCK_SIZE {
            return Err(field("length"));
        }
        let footer = &bytes[footer_at..footer_at + 20];
        if footer[..8] != FOOTER_MAGIC || footer[8..16] != cp.seq.to_le_bytes() {
            return Err(FormatError::Magic { what: "checkpoint footer", at });
        }
        let crc = salted(Salt::CheckpointBody, pool_tag, cp.seq, &[&bytes[..footer_at]]);
        if footer[16..] != crc.to_le_bytes() && !mutant::is("cpblind") {
            return Err(FormatError::Checksum { what, at });
        }
        let body = &bytes[BLOCK_SIZE..BLOCK_SIZE + sections.body_len as usize];
        let bits = decode_body(&mut cp, &sections, body).map_err(|Malformed| field("body"))?;
        FormatError::refuse_flags("page descriptor of checkpoint", cp.seq, at, bits, 0)?;
        Ok(cp)
    }

    /// Checks positions that came from a device against the layout of the pool, so that whoever
    /// computes with them need not.
    ///
    /// # Errors
    /// The name of the field that cannot be.
    pub fn validate(&self, geometry: &Geometry) -> Result<(), &'static str> {
        if !(geometry.mkfs_blocks..=geometry.limit_blocks).contains(&self.pool_blocks) {
            return Err("size of the pool");
        }
        if self.tail.block >= geometry.journal_blocks {
            return Err("journal tail");
        }
        let lies_past = |phys: &Phys, blocks: u64| {
            phys.is_none() || phys.0.checked_add(blocks).is_none_or(|end| end > self.pool_blocks)
        };
        if self.chunks.len() > geometry.max_chunks as usize
            || self.chunks.iter().any(|chunk| lies_past(chunk, CHUNK_BLOCKS))
        {
            return Err("table chunks");
        }
        if self.withheld.iter().any(|block| lies_past(block, 1)) {
            return Err("withheld blocks");
        }
        if self.detached.iter().any(|line| line.slot.is_mapped() && lies_past(&line.slot.phys, 1)) {
            return Err("detached subtrees");
        }
        Ok(())
    }
}

struct Sections {
    chunks: u64,
    withheld: u64,
    damage: u64,
    zones: u64,
    pages: u64,
    body_len: u64,
    detached: u64,
}

impl Sections {
    fn expected_len(&self) -> u64 {
        8 * (self.chunks + self.withheld)
            + 24 * self.damage
            + 48 * self.detached
            + 16 * (self.zones + self.pages)
    }
}

fn decode_header(
    bytes: &[u8],
    pool_tag: u64,
    at: Phys,
) -> Result<(Checkpoint, Sections), FormatError> {
    let what = "checkpoint";
    let field = |field| FormatError::Field { what, at, field };
    let block = bytes.get(..BLOCK_SIZE).ok_or(field("length"))?;
    if block[..8] != MAGIC {
        return Err(FormatError::Magic { what, at });
    }
    let mut r = Reader::new(&block[8..]);
    let mut flags = 0;
    let mut parse = || -> Result<(u32, u32, Checkpoint, Sections), Malformed> {
        let (version, crc) = (r.u32()?, r.u32()?);
        let mut cp = Checkpoint {
            seq: r.u64()?,
            epoch: Epoch(r.u64()? as u32),
            last_gen: r.u64()? as u32,
            last_node: r.u64()?,
            last_volume: r.u64()?,
            last_group: r.u64()?,
            tail: JournalPos { block: r.u64()?, seq: FrameSeq(r.u64()?), chain: r.u64()? },
            pool_blocks: r.u64()?,
            ..Checkpoint::default()
        };
        flags = r.u64()?;
        cp.flags = flags as u32;
        for v in
            [&mut cp.data_blocks, &mut cp.meta_blocks, &mut cp.time_ns, &mut cp.damage_overflow]
        {
            *v = r.u64()?;
        }
        let sections = Sections {
            chunks: r.u64()?,
            withheld: r.u64()?,
            damage: r.u64()?,
            zones: r.u64()?,
            pages: r.u64()?,
            body_len: r.u64()?,
            detached: r.u64()?,
        };
        Ok((version, crc, cp, sections))
    };
    let (version, crc, cp, sections) = parse().map_err(|Malformed| field("header"))?;
    if crc != header_crc(block, pool_tag, cp.seq) {
        return Err(FormatError::Checksum { what, at });
    }
    if version != crate::superblock::VERSION {
        let known = crate::superblock::VERSION;
        return Err(FormatError::Version { found: version, known });
    }
    FormatError::refuse_flags(what, cp.seq, at, flags, KNOWN_FLAGS.into())?;
    let s = &sections;
    let counts = [s.chunks, s.withheld, s.damage, s.detached, s.zones, s.pages];
    if counts.iter().any(|&n| n > 1 << 32)
        || s.body_len != s.expected_len()
        || s.pages != s.chunks * CHUNK_PAGES
        || s.zones != cp.pool_blocks.div_ceil(crate::geometry::ZONE_BLOCKS)
    {
        return Err(field("sections"));
    }
    Ok((cp, sections))
}

/// Fills in what the body has; the bits in descriptors of pages that nobody knows.
fn decode_body(cp: &mut Checkpoint, s: &Sections, body: &[u8]) -> Result<u64, Malformed> {
    let mut unknown = 0;
    let mut home = |byte: u8| {
        unknown |= u64::from(byte & !1);
        byte & 1
    };
    let r = &mut Reader::new(body);
    for _ in 0..s.chunks {
        cp.chunks.push(Phys(r.u64()?));
    }
    for _ in 0..s.withheld {
        cp.withheld.push(Phys(r.u64()?));
    }
    for _ in 0..s.damage {
        let (node, index, level) = (NodeId(r.u64()?), r.u64()?, r.u64()? as u8);
        cp.damage.push(Damage { node, level, index });
    }
    for _ in 0..s.detached {
        let (node, index, level) = (NodeId(r.u64()?), r.u64()?, r.u64()?);
        let level = u8::try_from(level).ok().filter(|&l| l <= MAX_LEVEL).ok_or(Malformed)?;
        if index >> (FANOUT_BITS * u32::from(MAX_LEVEL - level)) != 0 {
            return Err(Malformed);
        }
        let slot = Slot { phys: Phys(r.u64()?), birth: Gen(r.u32()?), crc: r.u32()? };
        cp.detached.push(Detached { node, level, index, slot, cursor: r.u64()? });
    }
    for _ in 0..s.zones {
        cp.zones.push(ZoneDesc {
            crc: r.u32()?,
            free: r.u16()?,
            longest: r.u16()?,
            home: home(r.u8()?),
            fresh: r.u8()? != 0,
        });
        r.u48()?;
    }
    for _ in 0..s.pages {
        cp.pages.push(PageDesc {
            crc: r.u32()?,
            home: home(r.u8()?),
            fresh: r.u8()? != 0,
            used: r.u8()?,
        });
        r.u8()?;
        r.u64()?;
    }
    Ok(unknown)
}

fn header_crc(block: &[u8], pool_tag: u64, seq: u64) -> u32 {
    let parts: [&[u8]; 3] =
        [&block[..HEADER_CRC_AT], &[0; 4], &block[HEADER_CRC_AT + 4..BLOCK_SIZE]];
    salted(Salt::CheckpointHeader, pool_tag, seq, &parts)
}
