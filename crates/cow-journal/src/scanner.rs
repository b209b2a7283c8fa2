//! Follows the frames of the ring from a checkpoint's tail.

use crate::Ring;
use cow_format::checkpoint::JournalPos;
use cow_format::frame::{FLAG_PAD, Frame, MAX_FRAME_BLOCKS};
use cow_format::superblock::Fence;
use cow_format::{BLOCK_SIZE, Epoch, FormatError, FrameSeq, Phys, mutant};

/// Why the scan ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndReason {
    /// No intact frame stands there; or, where the error [is unknown](FormatError::is_unknown), the one
    /// that goes on, with flags that only a later program knows. That is no end of the journal, and
    /// nothing may be written in its place.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A frame of another lap or history: not the next sequence number.
    #[error("frame {found} where {expected} was expected")]
    Seq {
        /// What stands there.
        found: FrameSeq,
        /// What would go on.
        expected: FrameSeq,
    },
    /// The right number, but after other frames than these.
    #[error("frame {seq} does not follow the frames before it")]
    Chain {
        /// Its number.
        seq: FrameSeq,
    },
    /// A frame that an earlier recovery has cut.
    #[error("frame {seq} of epoch {epoch} was cut")]
    Epoch {
        /// Its number.
        seq: FrameSeq,
        /// Its epoch.
        epoch: Epoch,
    },
    /// The whole ring was scanned.
    #[error("the whole journal ring was scanned")]
    Lap,
}

/// What stood at the scanner's position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A frame, and the position after it.
    Frame(Frame, JournalPos),
    /// A pad; go on.
    Pad,
    /// The journal ends here.
    End(EndReason),
}

/// The reading end of the journal.
#[derive(Clone)]
pub struct Scanner {
    ring: Ring,
    pool_tag: u64,
    next: JournalPos,
    scanned: u64,
    floor: Epoch,
    stable: FrameSeq,
    fences: Vec<Fence>,
}

impl Scanner {
    /// A scanner that begins at `from`, the tail of a checkpoint, and respects `fences`.
    pub fn new(ring: Ring, pool_tag: u64, from: JournalPos, fences: &[Fence]) -> Self {
        let mut scanner = Self {
            ring,
            pool_tag,
            next: JournalPos { block: from.block % ring.blocks, ..from },
            scanned: 0,
            floor: Epoch(0),
            // The checkpoint was written after all frames before its tail were flushed.
            stable: FrameSeq(from.seq.0.saturating_sub(1)),
            fences: fences.to_vec(),
        };
        scanner.pass_fences();
        scanner
    }

    /// What to read next: up to 16 blocks, not past the end of the ring.
    pub fn want(&self) -> (Phys, u64) {
        let blocks = self.ring.to_end(self.next.block).min(MAX_FRAME_BLOCKS);
        (self.ring.phys(self.next.block), blocks)
    }

    /// Takes what was read from [`Scanner::want`] on. More may be given than was wanted (not past
    /// the end of the ring): who reads ahead goes on with the rest at the next position. After
    /// [`Step::End`] the scanner stays where it is, and a better read of the same place (after
    /// a misread) may be given.
    pub fn accept(&mut self, bytes: &[u8]) -> Step {
        match self.check(bytes) {
            Err(reason) => Step::End(reason),
            Ok((frame, chain)) => {
                let blocks = u64::from(frame.blocks);
                self.scanned += blocks;
                self.floor = self.floor.max(frame.epoch);
                self.stable = self.stable.max(frame.durable);
                self.next = JournalPos {
                    block: self.ring.advance(self.next.block, blocks),
                    seq: FrameSeq(frame.seq.0 + 1),
                    chain,
                };
                self.pass_fences();
                if frame.flags & FLAG_PAD != 0 { Step::Pad } else { Step::Frame(frame, self.next) }
            }
        }
    }

    /// The position reached: after all frames and pads that were accepted.
    pub fn next(&self) -> JournalPos {
        self.next
    }

    /// The last frame known to have been durable, with its data: the highest `durable` seen, what
    /// is before the checkpoint's tail, or the end of a matching fence. A scan that ends before it
    /// (`next().seq` at or below `stable()`) has met damage, not the end of the journal.
    pub fn stable(&self) -> FrameSeq {
        self.stable
    }

    /// The highest epoch seen in frames and matching fences.
    pub fn epoch(&self) -> Epoch {
        self.floor
    }

    fn check(&self, bytes: &[u8]) -> Result<(Frame, u64), EndReason> {
        let at = self.ring.phys(self.next.block);
        // The head first: the length that it gives must not lead past the bytes or the ring.
        let head = Frame::decode_head(bytes, self.pool_tag, at)?;
        let (seq, expected) = (head.seq, self.next.seq);
        if seq != expected {
            return Err(EndReason::Seq { found: seq, expected });
        }
        if let Err(cause) = head.refuse_unknown_version(at) {
            // Of another history it is the end, as any frame of such a one. If it goes on with this one, it is
            // none, whatever the reader makes of it.
            return Err(match () {
                () if head.chain != self.next.chain => EndReason::Chain { seq },
                () if head.epoch < self.floor => EndReason::Epoch { seq, epoch: head.epoch },
                () if mutant::is("frameversion") => EndReason::Chain { seq },
                () => cause.into(),
            });
        }
        let blocks = u64::from(head.blocks);
        let field = |field| FormatError::Field { what: "journal frame", at, field };
        if blocks > self.ring.to_end(self.next.block) {
            return Err(field("nblocks").into());
        }
        if !head.is_pad && bytes.len() < usize::from(head.blocks) * BLOCK_SIZE {
            return Err(field("length").into());
        }
        let (frame, chain) = Frame::decode(bytes, self.pool_tag, at)?;
        if frame.chain != self.next.chain && !mutant::is("nochain") {
            return Err(EndReason::Chain { seq });
        }
        if frame.epoch < self.floor {
            return Err(EndReason::Epoch { seq, epoch: frame.epoch });
        }
        // No frame can have been durable before it was sealed, and the number after it must be.
        if frame.durable >= seq || seq.0 == u64::MAX {
            return Err(field("durable").into());
        }
        // The writer leaves a block unused: more than this is never one history.
        if self.scanned + blocks >= self.ring.blocks {
            return Err(EndReason::Lap);
        }
        // It goes on with this frame, but in a way that is not known: no end, whatever the reader
        // makes of it.
        frame.refuse_unknown_flags(at)?;
        Ok((frame, chain))
    }

    /// A fence that ends right before the next frame, with the same chain, proves that the
    /// frames so far are durable (recovery flushed it) and voids later ones of older epochs.
    fn pass_fences(&mut self) {
        for fence in &self.fences {
            if fence.end.0.checked_add(1) == Some(self.next.seq.0) && fence.chain == self.next.chain
            {
                self.floor = self.floor.max(fence.epoch);
                if !mutant::is("nofencedur") {
                    self.stable = self.stable.max(fence.end);
                }
            }
        }
    }
}
