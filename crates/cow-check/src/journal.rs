//! The journal after the newest checkpoint.
//!
//! 1. The frames are followed by the rules of recovery. A frame that is damaged though a later
//!    one calls it durable, or that is a frame but for one byte, is corruption; any other end is
//!    where the writing stopped.
//! 2. Accepted is what recovery accepts: whole groups, up to the first whose data never became
//!    durable and was not moved. Data that was durable must be there.
//! 3. What is accepted is applied to the snapshot tree, and the blocks that it names must be
//!    data blocks that nothing else uses.

use crate::context::{Cx, Phase};
use crate::flip::{Flip, one_byte};
use crate::frames::{Frames, Next};
use crate::reach::{Mark, Reach};
use crate::report::Structure;
use crate::tree::{name_of, place_in};
use cow_format::checkpoint::{Checkpoint, JournalPos};
use cow_format::checksum::{self, Salt, salted};
use cow_format::frame::{FLAG_MORE, Frame, HEADER_LEN};
use cow_format::record::Record;
use cow_format::superblock::Superblock;
use cow_format::{BLOCK_SIZE, FrameSeq, Lba, Phys};
use cow_journal::{EndReason, Ring, Scanner, Step};
use cow_snaptree::Tree;
use std::collections::HashMap;

/// How far behind the end a frame is looked for that proves damage.
const LOOK_AHEAD: u64 = 512;
const PAYLOAD_LEN_AT: usize = 48;
const PAYLOAD_CRC_AT: usize = 52;
const HEADER_CRC_AT: usize = 56;

/// The journal of a pool.
pub(crate) struct Journal<'s> {
    ring: Ring,
    sb: &'s Superblock,
    tail: JournalPos,
    /// The last frame known to have been durable.
    stable: FrameSeq,
    /// Position after the last frame that fits.
    end: JournalPos,
    accepted: JournalPos,
}

/// Whether the frame at the end is there now. A pool that somebody writes meanwhile has frames behind
/// what was read as the end; but the one that they call durable was there before them, so it is
/// there for whoever looks after he has seen them.
fn has_come(cx: &mut Cx<'_>, scanner: &Scanner) -> bool {
    let (at, want) = scanner.want();
    let now = cx.read(at, want as usize);
    now.is_ok_and(|buf| !matches!(scanner.clone().accept(&buf), Step::End(_)))
}

/// A data block that is not what its record says.
struct BadBlock {
    place: String,
    frame: FrameSeq,
    what: String,
}

impl<'s> Journal<'s> {
    /// Follows the frames from the tail of `cp`.
    pub(crate) fn scan(cx: &mut Cx<'_>, sb: &'s Superblock, cp: &Checkpoint) -> Self {
        let ring = Ring::of(&sb.geometry);
        let tail = cp.tail;
        let mut journal = Self { ring, sb, tail, stable: FrameSeq(0), end: tail, accepted: tail };
        let mut frames = journal.frames(cx);
        let mut count = 0u64;
        let end = loop {
            match frames.next(cx) {
                Next::Frame(..) => count += 1,
                other => break other,
            }
            if count.is_multiple_of(256) {
                cx.progress(Phase::Journal, count, 0);
            }
        };
        journal.stable = frames.scanner.stable();
        journal.end = frames.scanner.next();
        journal.judge_end(cx, &frames.scanner, end);
        journal
    }

    /// The part of the journal between two positions, of which nothing is known yet.
    pub(crate) fn between(sb: &'s Superblock, from: JournalPos, to: JournalPos) -> Self {
        let ring = Ring::of(&sb.geometry);
        Self { ring, sb, tail: from, stable: FrameSeq(0), end: to, accepted: to }
    }

    /// Whether the frames lead from its beginning to exactly its end.
    pub(crate) fn is_whole(&self, cx: &mut Cx<'_>) -> bool {
        if self.tail.seq >= self.end.seq {
            return self.tail == self.end;
        }
        let mut frames = self.frames(cx);
        loop {
            match frames.next(cx) {
                Next::Frame(_, after) if after == self.end => return true,
                // Pads before it.
                Next::Frame(frame, _) if frame.seq >= self.end.seq => {
                    return (frame.seq, frame.chain) == (self.end.seq, self.end.chain);
                }
                Next::Frame(..) => {}
                _ => return frames.scanner.next() == self.end,
            }
        }
    }

    /// Every record up to its end, with its frame, and whether a recovery accepts it.
    pub(crate) fn for_each(&self, cx: &mut Cx<'_>, mut tell: impl FnMut(&Frame, Record, bool)) {
        let mut frames = self.frames(cx);
        while let Next::Frame(frame, _) = frames.next(cx) {
            if frame.seq >= self.end.seq {
                return;
            }
            for record in cow_journal::records_of(&frame).unwrap_or_default() {
                tell(&frame, record, frame.seq < self.accepted.seq);
            }
        }
    }

    fn frames(&self, cx: &Cx<'_>) -> Frames {
        let scanner = Scanner::new(self.ring, cx.tag, self.tail, &self.sb.fences);
        Frames::new(self.ring, scanner)
    }

    fn place(&self) -> String {
        format!("frame {}, block {}", self.end.seq, self.ring.phys(self.end.block))
    }

    /// Whether the journal ends there because of damage.
    fn judge_end(&self, cx: &mut Cx<'_>, scanner: &Scanner, end: Next) {
        let (reason, bytes) = match end {
            Next::Frame(..) => return,
            Next::Unreadable(cause) => {
                cx.corrupt(Structure::JournalFrame, self.place(), cause);
                return;
            }
            Next::End(EndReason::Lap, ..) => {
                cx.corrupt(Structure::JournalFrame, self.place(), EndReason::Lap);
                return;
            }
            Next::End(reason, bytes) => (reason, bytes),
        };
        let kind = Structure::JournalFrame;
        if matches!(&reason, EndReason::Format(cause) if cause.is_unknown()) {
            cx.corrupt(kind, self.place(), reason);
        } else if self.end.seq <= self.stable {
            cx.corrupt(kind, self.place(), format!("{reason}, though it was durable"));
        } else if let Some(later) = self.called_durable(cx) {
            if has_come(cx, scanner) {
                return;
            }
            let what = format!("{reason}, though frame {later} calls it durable");
            cx.corrupt(kind, self.place(), what);
        } else if self.is_flipped(cx, scanner, &bytes) {
            cx.corrupt(kind, self.place(), format!("{reason}: one byte of it is wrong"));
        }
    }

    /// A frame behind the end that calls the frame at the end durable.
    fn called_durable(&self, cx: &mut Cx<'_>) -> Option<FrameSeq> {
        let blocks = self.ring.to_end(self.end.block).min(LOOK_AHEAD) as usize;
        let buf = cx.read(self.ring.phys(self.end.block), blocks).ok()?;
        (1..blocks).find_map(|i| {
            let at = self.ring.phys(self.end.block + i as u64);
            let (frame, _) = Frame::decode(&buf[i * BLOCK_SIZE..], cx.tag, at).ok()?;
            let proves = frame.seq > self.end.seq && frame.durable >= self.end.seq;
            proves.then_some(frame.seq)
        })
    }

    /// Whether the frame that goes on stands there, with one wrong byte. Corrected, it must follow
    /// the frames before it and hold records, and the data that these name must be there.
    fn is_flipped(&self, cx: &mut Cx<'_>, scanner: &Scanner, bytes: &[u8]) -> bool {
        let Some(frame) = corrected(cx.tag, self.end.seq, bytes) else { return false };
        let (next, at) = (scanner.next(), self.ring.phys(self.end.block));
        let Ok((frame, _)) = Frame::decode(&frame, cx.tag, at) else { return false };
        if (frame.seq, frame.chain) != (next.seq, next.chain) || frame.epoch < scanner.epoch() {
            return false;
        }
        cow_journal::records_of(&frame).is_ok_and(|records| {
            records.iter().all(|record| match record {
                Record::MapSet { phys, crcs, .. } | Record::Move { new: phys, crcs, .. } => {
                    bad_blocks(cx, *phys, crcs).is_empty()
                }
                _ => true,
            })
        })
    }

    /// Finds what recovery accepts, and compares the data that the frames name.
    pub(crate) fn verify(&mut self, cx: &mut Cx<'_>, tree: Option<&Tree>) {
        let mut frames = self.frames(cx);
        let mut bad: HashMap<Phys, BadBlock> = HashMap::new();
        let mut cut = 0;
        while let Next::Frame(frame, after) = frames.next(cx) {
            if frame.seq >= self.end.seq {
                break;
            }
            self.verify_frame(cx, tree, &frame, &mut bad);
            let cuts = |block: &BadBlock| block.frame > self.stable;
            let whole = frame.flags & FLAG_MORE == 0;
            cut += 1;
            if whole && (frame.seq <= self.stable || !bad.values().any(cuts)) {
                self.accepted = after;
                cx.report.stats.frames += cut;
                cut = 0;
            }
        }
        cx.report.stats.frames_cut = cut;
        let mut bad: Vec<BadBlock> = bad.into_values().collect();
        bad.sort_by(|a, b| (a.frame, &a.place).cmp(&(b.frame, &b.place)));
        for block in bad {
            let place = format!("{} (journal frame {})", block.place, block.frame);
            if block.frame <= self.stable {
                cx.corrupt(Structure::Data, place, block.what);
            } else {
                let what = format!("{}: it never became durable, a recovery cuts here", block.what);
                cx.warn(Structure::Data, place, what);
            }
        }
    }

    fn verify_frame(
        &self,
        cx: &mut Cx<'_>,
        tree: Option<&Tree>,
        frame: &Frame,
        bad: &mut HashMap<Phys, BadBlock>,
    ) {
        let records = match cow_journal::records_of(frame) {
            Ok(records) => records,
            Err(error) => {
                cx.corrupt(Structure::JournalRecord, format!("frame {}", frame.seq), error);
                return;
            }
        };
        let durable = frame.seq <= self.stable;
        for record in &records {
            let (name, lba, phys, crcs) = match record {
                Record::MapSet { volume, lba, phys, crcs } => {
                    let head = tree.and_then(|tree| Some(name_of(tree, tree.head(*volume)?)));
                    (head.unwrap_or_else(|| format!("volume {volume}")), *lba, *phys, crcs)
                }
                Record::Move { node, lba, old, new, crcs } => {
                    // A Move excuses earlier records of that block only.
                    (0..crcs.len() as u64).for_each(|i| drop(bad.remove(&old.offset(i))));
                    let name = tree.map(|tree| name_of(tree, *node));
                    (name.unwrap_or_else(|| format!("node {node}")), *lba, *new, crcs)
                }
                _ => continue,
            };
            if durable && !cx.options.data {
                continue;
            }
            for (i, what) in bad_blocks(cx, phys, crcs) {
                let at = phys.offset(i);
                let place = place_in(&name, Lba(lba.0 + i), at);
                bad.insert(at, BadBlock { place, frame: frame.seq, what });
            }
        }
    }

    /// Applies what is accepted.
    pub(crate) fn apply(&self, cx: &mut Cx<'_>, cp: &Checkpoint, tree: &Tree, reach: &mut Reach) {
        let (mut tree, mut pool_blocks) = (tree.clone(), cp.pool_blocks);
        let mut frames = self.frames(cx);
        while let Next::Frame(frame, _) = frames.next(cx) {
            if frame.seq >= self.accepted.seq {
                return;
            }
            for record in cow_journal::records_of(&frame).unwrap_or_default() {
                let place = format!("frame {}", frame.seq);
                if let Record::PoolGrow { blocks } = &record {
                    let most = self.sb.geometry.limit_blocks.min(cx.block_count());
                    if *blocks > most {
                        let what = format!("grows the pool to {blocks} blocks of {most}");
                        cx.corrupt(Structure::JournalRecord, place, what);
                        return;
                    }
                    pool_blocks = pool_blocks.max(*blocks);
                    reach.grow(pool_blocks);
                } else if let Err(error) = tree.apply(&record, frame.seq) {
                    cx.corrupt(Structure::JournalRecord, place, error);
                    // What follows builds on it.
                    return;
                }
                apply_map(cx, &tree, reach, &record, &place_of(&frame));
            }
        }
    }
}

/// The frame `seq` at the front of `bytes`, one wrong byte of it corrected.
fn corrected(tag: u64, seq: FrameSeq, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = bytes.to_vec();
    let word = |bytes: &[u8], at: usize| {
        bytes[at..at + 4].iter().rev().fold(0u32, |acc, &byte| acc << 8 | u32::from(byte))
    };
    let header_crc = |bytes: &[u8]| {
        let parts = [&bytes[..HEADER_CRC_AT], &[0; 4], &bytes[HEADER_CRC_AT + 4..HEADER_LEN]];
        salted(Salt::FrameHeader, tag, seq.0, &parts)
    };
    let (stored, computed) = (word(bytes.get(..HEADER_LEN)?, HEADER_CRC_AT), header_crc(&bytes));
    if stored != computed {
        one_byte(stored, computed, HEADER_LEN)?.correct(&mut bytes[..HEADER_LEN]);
        let crc = header_crc(&bytes);
        bytes[HEADER_CRC_AT..HEADER_CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        return Some(bytes);
    }
    let len = word(&bytes, PAYLOAD_LEN_AT) as usize;
    let payload = bytes.get_mut(HEADER_LEN..HEADER_LEN.saturating_add(len))?;
    let computed = salted(Salt::FramePayload, tag, seq.0, &[payload]);
    let stored = word(&bytes, PAYLOAD_CRC_AT);
    match one_byte(stored, computed, len)? {
        // The header's checksum says that this field is right.
        Flip::Stored => None,
        flip => {
            flip.correct(&mut bytes[HEADER_LEN..HEADER_LEN + len]);
            Some(bytes)
        }
    }
}

fn place_of(frame: &Frame) -> String {
    format!("frame {}", frame.seq)
}

/// What a record of data names must be there, and free.
fn apply_map(cx: &mut Cx<'_>, tree: &Tree, reach: &mut Reach, record: &Record, frame: &str) {
    let kind = Structure::JournalRecord;
    let (node, lba, blocks, phys) = match record {
        Record::MapSet { volume, lba, phys, crcs } => {
            (tree.head(*volume), *lba, crcs.len() as u64, *phys)
        }
        Record::MapClear { volume, lba, blocks } => {
            if tree.head(*volume).is_none() {
                cx.corrupt(kind, frame, format!("clears volume {volume}, which is not there"));
            } else if lba.0.checked_add(*blocks).is_none() {
                cx.corrupt(kind, frame, "clears past all volumes");
            }
            return;
        }
        Record::Move { node, lba, new, crcs, .. } => {
            // The node may be gone by now: then the Move changes nothing.
            let id = tree.node(*node).map_or(*node, |node| node.entry.id);
            (Some(id), *lba, crcs.len() as u64, *new)
        }
        _ => return,
    };
    let Some(id) = node else {
        cx.corrupt(kind, frame, "writes to a volume that is not there");
        return;
    };
    let size = tree.node(id).map_or(u64::MAX, |node| node.entry.size_bytes);
    let place = |i: u64| {
        format!("{} ({frame})", place_in(&name_of(tree, id), Lba(lba.0 + i), phys.offset(i)))
    };
    if lba.0 + blocks > size.div_ceil(BLOCK_SIZE as u64) {
        cx.corrupt(kind, place(0), "writes past the volume's end");
    }
    let moved = matches!(record, Record::Move { .. });
    for i in 0..blocks {
        match reach.mark(phys.offset(i)) {
            Mark::New => {}
            // A checkpoint has a Move of its own data already that came while it was made.
            Mark::Again if moved => {}
            Mark::Again => cx.corrupt(Structure::SharedBlock, place(i), "the block is in use"),
            Mark::NoData => cx.corrupt(kind, place(i), "names no block that may hold data"),
        }
    }
}

/// Blocks from `phys` on that do not have these checksums: which, and what is wrong.
fn bad_blocks(cx: &mut Cx<'_>, phys: Phys, crcs: &[u32]) -> Vec<(u64, String)> {
    let whole = cx.read(phys, crcs.len());
    let mut bad = Vec::new();
    for (i, &crc) in (0..).zip(crcs) {
        let sum = match &whole {
            Ok(buf) => Ok(checksum::data(buf.block(i as usize))),
            Err(_) => cx.read(phys.offset(i), 1).map(|buf| checksum::data(buf.block(0))),
        };
        match sum {
            Ok(sum) if sum == crc => cx.report.stats.data_verified += 1,
            Ok(_) => bad.push((i, "checksum mismatch".to_owned())),
            Err(cause) => bad.push((i, cause)),
        }
    }
    bad
}
