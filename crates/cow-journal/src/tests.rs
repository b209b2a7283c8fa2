//! Writer against scanner over a ring in memory.

mod excluded;
mod round_trip;
mod space;

use crate::*;
use cow_format::checkpoint::JournalPos;
use cow_format::frame::Frame;
use cow_format::record::Record;
use cow_format::superblock::Fence;
use cow_format::{BLOCK_SIZE, Epoch, FrameSeq, Lba, NodeId, Phys, VolumeId};

const TAG: u64 = 0x5eed;
const START: u64 = 100;
const ORIGIN: JournalPos = JournalPos { block: 0, seq: FrameSeq(1), chain: TAG };

/// The ring's blocks in memory.
struct Disk {
    ring: Ring,
    bytes: Vec<u8>,
}

impl Disk {
    fn new(blocks: u64) -> Self {
        let ring = Ring { start: Phys(START), blocks };
        Self { ring, bytes: vec![0; blocks as usize * BLOCK_SIZE] }
    }

    fn writer(&self, epoch: u32, next: JournalPos, retained: JournalPos) -> JournalWriter {
        JournalWriter::new(self.ring, TAG, Epoch(epoch), next, retained)
    }

    fn put(&mut self, sealed: &Sealed) {
        let at = (sealed.at.0 - START) as usize * BLOCK_SIZE;
        assert!(sealed.buf.block_count() as u64 <= sealed.blocks);
        self.bytes[at..at + sealed.buf.len()].copy_from_slice(&sealed.buf);
    }

    /// Writes what the writer has sealed.
    fn drain(&mut self, writer: &mut JournalWriter) -> Vec<Sealed> {
        let sealed = writer.take_sealed();
        sealed.iter().for_each(|frame| self.put(frame));
        sealed
    }

    fn scan(&self, from: JournalPos, fences: &[Fence]) -> Scan {
        let mut scanner = Scanner::new(self.ring, TAG, from, fences);
        let (mut frames, mut after) = (Vec::new(), Vec::new());
        for _ in 0..=self.ring.blocks {
            let (at, blocks) = scanner.want();
            assert!(blocks >= 1 && at.0 + blocks <= START + self.ring.blocks);
            let from = (at.0 - START) as usize * BLOCK_SIZE;
            match scanner.accept(&self.bytes[from..from + blocks as usize * BLOCK_SIZE]) {
                Step::Frame(frame, position) => {
                    frames.push(frame);
                    after.push(position);
                }
                Step::Pad => {}
                Step::End(reason) => return Scan { frames, after, reason, scanner },
            }
        }
        panic!("the scan went on for more than a lap");
    }
}

struct Scan {
    frames: Vec<Frame>,
    after: Vec<JournalPos>,
    reason: EndReason,
    scanner: Scanner,
}

impl Scan {
    fn records(&self) -> Vec<Record> {
        self.frames.iter().flat_map(|frame| records_of(frame).unwrap()).collect()
    }
}

/// A record of 16 bytes and 4 for each of `blocks` blocks; `id` tells it from others.
fn map_set(id: u64, blocks: usize) -> Record {
    let crcs = (0..blocks).map(|block| id as u32 ^ block as u32).collect();
    Record::MapSet { volume: VolumeId(1), lba: Lba(id), phys: Phys(id + 1), crcs }
}

/// A record of about `bytes` bytes.
fn long(id: u64, bytes: usize) -> Record {
    Record::SetProps { node: NodeId(id), props: vec![("k".into(), Some("v".repeat(bytes)))] }
}
