//! A journal frame: the unit of the redo journal. docs/format.md, "Journal frame".
//!
//! ```text
//! 0  magic u32, version u16, flags u16, pool_tag u64, seq u64, chain u64, durable_seq u64,
//!    epoch u32, nblocks u16, nrec u16, payload_len u32, payload_crc u32, header_crc u32, pad u32
//! 64 payload: records; zeros up to nblocks x 4096
//! ```
//!
//! A frame is at most 64 KiB, 4 KiB-aligned, and never wraps around the end of the ring. `chain`
//! covers the header and payload checksums of the frame before, and through its chain all before
//! that: a frame of another history does not fit. Address in the checksum: the sequence number,
//! as a frame's place in the ring follows from the frames before it.

use crate::checksum::{Salt, salted};
use crate::{BLOCK_SIZE, Buf, BufPool, Epoch, FormatError, FrameSeq, Phys, mutant};
use bytemuck::{Pod, Zeroable};

/// First four bytes ("CJFR").
pub const MAGIC: u32 = u32::from_le_bytes(*b"CJFR");
const VERSION: u16 = 1;
/// Bytes of the header.
pub const HEADER_LEN: usize = 64;
/// Longest frame, header included.
pub const MAX_FRAME: usize = 65_536;
/// Longest payload of one frame.
pub const MAX_PAYLOAD: usize = MAX_FRAME - HEADER_LEN;
/// Longest frame in blocks.
pub const MAX_FRAME_BLOCKS: u64 = (MAX_FRAME / BLOCK_SIZE) as u64;
/// The record group goes on in the next frame.
pub const FLAG_MORE: u16 = 1;
/// Only fills the ring up to its end or a hole: no records.
pub const FLAG_PAD: u16 = 2;

const KNOWN_FLAGS: u16 = FLAG_MORE | FLAG_PAD;

/// A frame in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// [`FLAG_MORE`], [`FLAG_PAD`].
    pub flags: u16,
    /// Sequence number.
    pub seq: FrameSeq,
    /// Chain value *before* this frame.
    pub chain: u64,
    /// Every frame up to this one, and its data, was durable when this frame was sealed.
    pub durable: FrameSeq,
    /// Epoch of the writer.
    pub epoch: Epoch,
    /// Number of records.
    pub record_count: u16,
    /// Length in blocks (for a pad: of what it skips, though only its first block is written).
    pub blocks: u16,
    /// The encoded records.
    pub payload: Vec<u8>,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Header {
    magic: u32,
    version: u16,
    flags: u16,
    pool_tag: u64,
    seq: u64,
    chain: u64,
    durable: u64,
    epoch: u32,
    nblocks: u16,
    nrec: u16,
    payload_len: u32,
    payload_crc: u32,
    header_crc: u32,
    pad: u32,
}

const _: () = assert!(std::mem::size_of::<Header>() == HEADER_LEN);
const CRC_AT: usize = std::mem::offset_of!(Header, header_crc);

/// What a frame's header says about the payload that follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// Sequence number.
    pub seq: FrameSeq,
    /// Length of the frame in blocks.
    pub blocks: u16,
    /// Whether it only pads.
    pub is_pad: bool,
    /// What its history was up to it.
    pub chain: u64,
    /// Of the pool when it was written.
    pub epoch: Epoch,
    /// Layout of all that follows the fields above.
    version: u16,
}

impl FrameHead {
    /// Refuses what another version has written. [`Frame::decode_head`] does not: a frame of another lap or
    /// history may be of any.
    ///
    /// # Errors
    /// [`FormatError::FrameVersion`].
    pub fn refuse_unknown_version(&self, at: Phys) -> Result<(), FormatError> {
        match self.version {
            VERSION => Ok(()),
            found => {
                let (number, known) = (self.seq.0, VERSION);
                Err(FormatError::FrameVersion { number, at, found, known })
            }
        }
    }
}

impl Frame {
    /// Blocks that a frame with `payload` bytes takes.
    pub fn blocks_for(payload: usize) -> u16 {
        (HEADER_LEN + payload).div_ceil(BLOCK_SIZE) as u16
    }

    /// The bytes to write, and the chain value after this frame. Of a pad only the first block
    /// is written.
    pub fn encode(&self, pool_tag: u64) -> (Buf, u64) {
        self.encode_in(&BufPool::default(), pool_tag)
    }

    /// As [`Frame::encode`], in memory of `buffers`.
    pub fn encode_in(&self, buffers: &BufPool, pool_tag: u64) -> (Buf, u64) {
        assert!(self.payload.len() <= MAX_PAYLOAD, "frame over 64 KiB");
        assert!(self.flags & FLAG_PAD != 0 || self.blocks == Self::blocks_for(self.payload.len()));
        let mut buf = buffers.zeroed(usize::from(Self::blocks_for(self.payload.len())));
        let payload_crc =
            salted(Salt::FramePayload, pool_tag, self.seq.0, &[self.payload.as_slice()]);
        let mut header = Header {
            magic: MAGIC,
            version: VERSION,
            flags: self.flags,
            pool_tag,
            seq: self.seq.0,
            chain: self.chain,
            durable: self.durable.0,
            epoch: self.epoch.0,
            nblocks: self.blocks,
            nrec: self.record_count,
            payload_len: self.payload.len() as u32,
            payload_crc,
            header_crc: 0,
            pad: 0,
        };
        header.header_crc = header_crc(bytemuck::bytes_of(&header), pool_tag, self.seq);
        buf[..HEADER_LEN].copy_from_slice(bytemuck::bytes_of(&header));
        buf[HEADER_LEN..HEADER_LEN + self.payload.len()].copy_from_slice(&self.payload);
        (buf, next_chain(self.chain, header.header_crc, payload_crc))
    }

    /// Reads the header at the front of `bytes` (at least one block), to learn how long the
    /// frame is.
    ///
    /// # Errors
    /// When no valid frame header of this pool stands there.
    pub fn decode_head(bytes: &[u8], pool_tag: u64, at: Phys) -> Result<FrameHead, FormatError> {
        checked_header(bytes, pool_tag, at).map(|header| head_of(&header))
    }

    /// Checks and reads a whole frame; also gives the chain value after it.
    ///
    /// # Errors
    /// When header or payload are not what was written.
    pub fn decode(bytes: &[u8], pool_tag: u64, at: Phys) -> Result<(Self, u64), FormatError> {
        let what = "journal frame";
        let header = checked_header(bytes, pool_tag, at)?;
        head_of(&header).refuse_unknown_version(at)?;
        let len = header.payload_len as usize;
        let payload = bytes.get(HEADER_LEN..HEADER_LEN + len).ok_or(FormatError::Field {
            what,
            at,
            field: "payload_len",
        })?;
        let seq = FrameSeq(header.seq);
        let payload_crc = salted(Salt::FramePayload, pool_tag, seq.0, &[payload]);
        if payload_crc != header.payload_crc && !mutant::is("frameblind") {
            return Err(FormatError::Checksum { what, at });
        }
        let frame = Self {
            flags: header.flags,
            seq,
            chain: header.chain,
            durable: FrameSeq(header.durable),
            epoch: Epoch(header.epoch),
            record_count: header.nrec,
            blocks: header.nblocks,
            payload: payload.to_vec(),
        };
        let chain = next_chain(header.chain, header.header_crc, header.payload_crc);
        Ok((frame, chain))
    }

    /// Refuses flags that nobody knows. [`Frame::decode`] does not: a frame of another lap or history
    /// may have any, and one behind damage still proves what it calls durable. Whoever follows the
    /// journal asks this of each frame that goes on.
    ///
    /// # Errors
    /// [`FormatError::Flags`].
    pub fn refuse_unknown_flags(&self, at: Phys) -> Result<(), FormatError> {
        let (flags, known) = (self.flags.into(), KNOWN_FLAGS.into());
        FormatError::refuse_flags("journal frame", self.seq.0, at, flags, known)
    }
}

fn head_of(header: &Header) -> FrameHead {
    FrameHead {
        seq: FrameSeq(header.seq),
        blocks: header.nblocks,
        is_pad: header.flags & FLAG_PAD != 0,
        chain: header.chain,
        epoch: Epoch(header.epoch),
        version: header.version,
    }
}

fn checked_header(bytes: &[u8], pool_tag: u64, at: Phys) -> Result<Header, FormatError> {
    let what = "journal frame";
    let head = bytes.get(..HEADER_LEN).ok_or(FormatError::Field { what, at, field: "length" })?;
    let header: Header = bytemuck::pod_read_unaligned(head);
    if header.magic != MAGIC {
        return Err(FormatError::Magic { what, at });
    }
    if header_crc(head, pool_tag, FrameSeq(header.seq)) != header.header_crc {
        return Err(FormatError::Checksum { what, at });
    }
    if header.pool_tag != pool_tag {
        return Err(FormatError::Identity { what, at, field: "pool_tag" });
    }
    if header.version != VERSION {
        // What its other fields may be is not known here.
        return Ok(header);
    }
    let field = |field| Err(FormatError::Field { what, at, field });
    if header.payload_len as usize > MAX_PAYLOAD {
        return field("payload_len");
    }
    let blocks = Frame::blocks_for(header.payload_len as usize);
    let is_pad = header.flags & FLAG_PAD != 0;
    if header.nblocks == 0 || (!is_pad && header.nblocks != blocks) {
        return field("nblocks");
    }
    Ok(header)
}

fn header_crc(header: &[u8], pool_tag: u64, seq: FrameSeq) -> u32 {
    let parts: [&[u8]; 3] = [&header[..CRC_AT], &[0; 4], &header[CRC_AT + 4..HEADER_LEN]];
    salted(Salt::FrameHeader, pool_tag, seq.0, &parts)
}

/// Mixes a frame's checksums into the chain (the finaliser of SplitMix64: Steele, Lea and Flood,
/// "Fast splittable pseudorandom number generators", OOPSLA 2014).
fn next_chain(chain: u64, header_crc: u32, payload_crc: u32) -> u64 {
    let mut z = chain.rotate_left(23) ^ (u64::from(header_crc) << 32 | u64::from(payload_crc));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
