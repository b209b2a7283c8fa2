//! Packs record groups into frames and places these in the ring.
//!
//! A pad has a sequence number of its own. So that the number of the open frame is known from its
//! first record on, a frame is placed when it is opened: the pad before it is emitted then, and a
//! frame that would grow past the end of the ring is sealed and another one opened.

use crate::Ring;
use cow_format::checkpoint::JournalPos;
use cow_format::frame::{FLAG_MORE, FLAG_PAD, Frame, MAX_FRAME_BLOCKS, MAX_PAYLOAD};
use cow_format::record::Record;
use cow_format::wire::Writer;
use cow_format::{Buf, BufPool, Epoch, FrameSeq, Phys};
use std::collections::VecDeque;

/// Records that a frame holds at most.
pub const MAX_RECORDS: usize = 256;
/// Bytes of records that a group holds at most.
pub const MAX_GROUP: usize = 8 << 20;
/// Blocks that only privileged appends may use: two frames of the largest size.
const RESERVED_BLOCKS: u64 = 2 * MAX_FRAME_BLOCKS;

/// Which part of the ring an append may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserve {
    /// All but the room for the last two frames.
    Normal,
    /// All of it: node deletions and markers, which let a full pool go on.
    Privileged,
}

/// Why a group was not appended. Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// No room until the retained position moves on.
    #[error("the journal ring is full")]
    RingFull,
    /// More than 8 MiB, more than this ring can ever hold, or one record over a frame's payload.
    #[error("a record group of {bytes} bytes is too large for the journal")]
    TooLarge {
        /// Encoded length of the group, or of the record.
        bytes: usize,
    },
}

/// A frame that is to be written.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// Its sequence number.
    pub seq: FrameSeq,
    /// Where it goes.
    pub at: Phys,
    /// Its bytes: of a pad only the first block.
    pub buf: Buf,
    /// Blocks of the ring that it takes.
    pub blocks: u64,
}

/// The end of the journal that grows.
pub struct JournalWriter {
    ring: Ring,
    pool_tag: u64,
    epoch: Epoch,
    next: JournalPos,
    retained: JournalPos,
    durable: FrameSeq,
    payload: Vec<u8>,
    open_records: usize,
    sealed: Vec<Sealed>,
    /// First and last frame of groups over several frames that are not durable yet.
    chains: VecDeque<(FrameSeq, FrameSeq)>,
    /// The group being appended, and for each frame that it would fill alone (records, end of
    /// its bytes). Kept for their memory.
    group: Writer,
    parts: Vec<(usize, usize)>,
    /// Where the memory of frames comes from.
    buffers: BufPool,
}

impl JournalWriter {
    /// A writer that goes on at `next`; everything from `retained` on is kept. The open frame is
    /// empty, and nothing before `next` counts as durable until told so.
    pub fn new(
        ring: Ring,
        pool_tag: u64,
        epoch: Epoch,
        mut next: JournalPos,
        retained: JournalPos,
    ) -> Self {
        next.block %= ring.blocks;
        Self {
            ring,
            pool_tag,
            epoch,
            next,
            retained,
            durable: FrameSeq(0),
            payload: Vec::with_capacity(MAX_PAYLOAD),
            open_records: 0,
            sealed: Vec::new(),
            chains: VecDeque::new(),
            group: Writer::default(),
            parts: Vec::new(),
            buffers: BufPool::default(),
        }
    }

    /// Takes the memory of frames from `buffers` from now on.
    pub fn set_buffers(&mut self, buffers: BufPool) {
        self.buffers = buffers;
    }

    /// Appends a group. Gives the sequence number of the frame that holds, or will hold when it
    /// is sealed, the group's last record. (Of an empty group: of the last record before it.)
    ///
    /// # Errors
    /// See [`AppendError`]; nothing was appended then.
    pub fn append(&mut self, group: &[Record], reserve: Reserve) -> Result<FrameSeq, AppendError> {
        if group.is_empty() {
            return Ok(self.last_appended());
        }
        self.encode(group)?;
        if self.joins_open(group.len()) {
            let blocks = Frame::blocks_for(self.payload.len() + self.group.bytes.len());
            if self.used_blocks() + u64::from(blocks) > self.limit(reserve) {
                return Err(AppendError::RingFull);
            }
            self.payload.extend_from_slice(&self.group.bytes);
            self.open_records += group.len();
        } else {
            self.check_room(reserve)?;
            self.append_apart();
        }
        if self.open_records == MAX_RECORDS {
            self.seal();
        }
        debug_assert!(self.used_blocks() + self.open_blocks() < self.ring.blocks);
        Ok(self.last_appended())
    }

    /// Seals the open frame if it holds records. There is always room: it was taken by `append`.
    pub fn seal(&mut self) {
        if self.open_records > 0 {
            self.seal_open(0);
        }
    }

    /// Seals the open frame, or one that holds a marker alone if it is empty: so that a frame
    /// carries the durable position to the device.
    ///
    /// # Errors
    /// [`AppendError::RingFull`] when there is not even room for a marker.
    pub fn seal_marker(&mut self) -> Result<FrameSeq, AppendError> {
        if self.open_records == 0 {
            self.append(&[Record::Marker], Reserve::Privileged)?;
        }
        self.seal();
        Ok(self.last_sealed())
    }

    /// All frames up to `seq`, and the data they name, are durable: frames sealed from now on
    /// say so. A position inside of a group over several frames is taken back to before the
    /// group, as recovery cuts there. Never goes back.
    pub fn set_durable(&mut self, seq: FrameSeq) {
        debug_assert!(seq <= self.last_sealed(), "durable before it was sealed");
        let mut seq = seq.min(self.last_sealed());
        while let Some(&(first, last)) = self.chains.front() {
            if seq < last {
                if seq >= first {
                    seq = FrameSeq(first.0.saturating_sub(1));
                }
                break;
            }
            self.chains.pop_front();
        }
        self.durable = self.durable.max(seq);
    }

    /// The frames that were sealed since the last call, in the order of their sequence numbers.
    /// They may be written in any order.
    pub fn take_sealed(&mut self) -> Vec<Sealed> {
        std::mem::take(&mut self.sealed)
    }

    /// Records in the open frame.
    pub fn open_records(&self) -> usize {
        self.open_records
    }

    /// Position of the next frame to be sealed. As the tail of a checkpoint it means "everything
    /// appended so far is before it" only while the open frame is empty.
    pub fn next(&self) -> JournalPos {
        self.next
    }

    /// The last frame that was sealed, pads included.
    pub fn last_sealed(&self) -> FrameSeq {
        FrameSeq(self.next.seq.0.saturating_sub(1))
    }

    /// What [`JournalWriter::set_durable`] has reached.
    pub fn durable(&self) -> FrameSeq {
        self.durable
    }

    /// Frames before `pos` are no longer needed.
    pub fn set_retained(&mut self, pos: JournalPos) {
        debug_assert!(pos.seq >= self.retained.seq && pos.seq <= self.next.seq);
        debug_assert!(self.used_since(pos) <= self.used_blocks());
        self.retained = pos;
    }

    /// Blocks from the retained position to [`JournalWriter::next`].
    pub fn used_blocks(&self) -> u64 {
        self.used_since(self.retained)
    }

    /// Blocks from `pos`, which lies in the retained part, to [`JournalWriter::next`].
    pub fn used_since(&self, pos: JournalPos) -> u64 {
        self.ring.distance(pos.block, self.next.block)
    }

    /// Blocks of the ring.
    pub fn capacity(&self) -> u64 {
        self.ring.blocks
    }

    fn last_appended(&self) -> FrameSeq {
        if self.open_records > 0 { self.next.seq } else { self.last_sealed() }
    }

    /// How many blocks may be in use after an append.
    fn limit(&self, reserve: Reserve) -> u64 {
        let usable = self.ring.blocks.saturating_sub(1);
        match reserve {
            Reserve::Normal => usable.saturating_sub(RESERVED_BLOCKS),
            Reserve::Privileged => usable,
        }
    }

    fn open_blocks(&self) -> u64 {
        if self.open_records == 0 { 0 } else { u64::from(Frame::blocks_for(self.payload.len())) }
    }

    /// Encodes the group and splits it into frames' worth.
    fn encode(&mut self, group: &[Record]) -> Result<(), AppendError> {
        self.group.bytes.clear();
        self.parts.clear();
        let (mut records, mut start, mut end) = (0, 0, 0);
        for record in group {
            record.encode(&mut self.group);
            let len = self.group.bytes.len();
            if len - end > MAX_PAYLOAD || len > MAX_GROUP {
                return Err(AppendError::TooLarge { bytes: len });
            }
            if records == MAX_RECORDS || len - start > MAX_PAYLOAD {
                self.parts.push((records, end));
                (records, start) = (0, end);
            }
            records += 1;
            end = len;
        }
        self.parts.push((records, end));
        Ok(())
    }

    /// Whether the group goes into the open (perhaps empty) frame.
    fn joins_open(&self, records: usize) -> bool {
        let bytes = self.payload.len() + self.group.bytes.len();
        bytes <= MAX_PAYLOAD
            && self.open_records + records <= MAX_RECORDS
            && u64::from(Frame::blocks_for(bytes)) <= self.ring.to_end(self.next.block)
    }

    /// Whether the open frame, and after it the group in frames of its own, have room.
    fn check_room(&self, reserve: Reserve) -> Result<(), AppendError> {
        let limit = self.limit(reserve);
        let mut used = self.used_blocks() + self.open_blocks();
        let mut block = self.ring.advance(self.next.block, self.open_blocks());
        let (mut start, mut total) = (0, 0);
        for &(_, end) in &self.parts {
            let blocks = u64::from(Frame::blocks_for(end - start));
            let to_end = self.ring.to_end(block);
            if blocks > to_end {
                used += to_end;
                block = 0;
            }
            used += blocks;
            total += blocks;
            block = self.ring.advance(block, blocks);
            start = end;
        }
        // With the longest pad: what does not fit an empty ring never will.
        if total + MAX_FRAME_BLOCKS - 1 > limit {
            return Err(AppendError::TooLarge { bytes: self.group.bytes.len() });
        }
        if used > limit { Err(AppendError::RingFull) } else { Ok(()) }
    }

    /// Seals the open frame and puts the group into new ones; a single one stays open.
    fn append_apart(&mut self) {
        self.seal();
        let parts = std::mem::take(&mut self.parts);
        let mut start = 0;
        let mut first = None;
        for (index, &(records, end)) in parts.iter().enumerate() {
            let to_end = self.ring.to_end(self.next.block);
            if u64::from(Frame::blocks_for(end - start)) > to_end {
                self.emit(FLAG_PAD, to_end as u16);
            }
            self.payload.extend_from_slice(&self.group.bytes[start..end]);
            self.open_records = records;
            first = first.or(Some(self.next.seq));
            if parts.len() > 1 {
                self.seal_open(if index + 1 < parts.len() { FLAG_MORE } else { 0 });
            }
            start = end;
        }
        if let Some(first) = first.filter(|_| parts.len() > 1) {
            self.chains.push_back((first, self.last_sealed()));
        }
        self.parts = parts;
    }

    fn seal_open(&mut self, flags: u16) {
        let blocks = Frame::blocks_for(self.payload.len());
        self.emit(flags, blocks);
    }

    /// Makes a frame of the open records (of none for a pad) and moves on.
    fn emit(&mut self, flags: u16, blocks: u16) {
        let frame = Frame {
            flags,
            seq: self.next.seq,
            chain: self.next.chain,
            durable: self.durable,
            epoch: self.epoch,
            record_count: self.open_records as u16,
            blocks,
            payload: std::mem::take(&mut self.payload),
        };
        let (buf, chain) = frame.encode_in(&self.buffers, self.pool_tag);
        let (seq, at, blocks) = (frame.seq, self.ring.phys(self.next.block), u64::from(blocks));
        assert!(blocks <= self.ring.to_end(self.next.block), "a frame would wrap");
        self.sealed.push(Sealed { seq, at, buf, blocks });
        let block = self.ring.advance(self.next.block, blocks);
        self.next = JournalPos { block, seq: FrameSeq(seq.0 + 1), chain };
        self.payload = frame.payload;
        self.payload.clear();
        self.open_records = 0;
    }
}
