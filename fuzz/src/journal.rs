//! A whole ring of frames that say anything, each with right checksums and in the chain: the scan ends,
//! inside of the ring, and its records are read.

use super::word;
use cow_format::checkpoint::JournalPos;
use cow_format::checksum::{Salt, salted};
use cow_format::frame::{Frame, HEADER_LEN, MAX_PAYLOAD};
use cow_format::superblock::Fence;
use cow_format::{BLOCK_SIZE, Epoch, FrameSeq, Phys};
use cow_journal::{Ring, Scanner, Step, complete_prefix, records_of};

const TAG: u64 = 0x0123_4567_89ab_cdef;
const RING: Ring = Ring { start: Phys(1024), blocks: 64 };
/// Bytes of the input that each frame is made of: its header, and the front of its payload.
const STEP: usize = 160;

/// See the module.
pub fn run(data: &[u8]) {
    let Some((&first, rest)) = data.split_first() else { return };
    let from = JournalPos { block: u64::from(first) % RING.blocks, seq: FrameSeq(7), chain: TAG };
    let fence = Fence { end: FrameSeq(word(rest, 0) & 15), chain: word(rest, 8), epoch: Epoch(2) };
    let mut ring = vec![0; RING.blocks as usize * BLOCK_SIZE];
    let (mut block, mut seq, mut chain) = (from.block, from.seq.0, from.chain);
    for part in rest.chunks(STEP) {
        let at = block as usize * BLOCK_SIZE;
        let room = (ring.len() - at).min(HEADER_LEN + MAX_PAYLOAD);
        let frame = &mut ring[at..at + room];
        frame[..part.len()].copy_from_slice(part);
        let Some(blocks) = seal(frame, seq, chain) else { break };
        let decoded = Frame::decode(frame, TAG, Phys(RING.start.0 + block));
        let Ok((_, after)) = decoded else { break };
        (chain, seq) = (after, seq.wrapping_add(1));
        block = (block + blocks) % RING.blocks;
    }
    scan(&ring, from, &[fence]);
}

/// Makes a frame right that has this number and comes after this chain; its blocks.
fn seal(frame: &mut [u8], seq: u64, chain: u64) -> Option<u64> {
    frame[..4].copy_from_slice(b"CJFR");
    frame[4..6].copy_from_slice(&1u16.to_le_bytes());
    frame[6] &= 3;
    frame[7] = 0;
    frame[8..16].copy_from_slice(&TAG.to_le_bytes());
    frame[16..24].copy_from_slice(&seq.to_le_bytes());
    frame[24..32].copy_from_slice(&chain.to_le_bytes());
    let room = frame.len().checked_sub(HEADER_LEN)?;
    let len = (word(frame, 48) as u32 as usize).min(room);
    frame[48..52].copy_from_slice(&(len as u32).to_le_bytes());
    if frame[6] & 2 == 0 {
        frame[44..46].copy_from_slice(&Frame::blocks_for(len).to_le_bytes());
    }
    let crc = salted(Salt::FramePayload, TAG, seq, &[&frame[HEADER_LEN..HEADER_LEN + len]]);
    frame[52..56].copy_from_slice(&crc.to_le_bytes());
    let crc = salted(Salt::FrameHeader, TAG, seq, &[&frame[..56], &[0; 4], &frame[60..HEADER_LEN]]);
    frame[56..60].copy_from_slice(&crc.to_le_bytes());
    Some(u64::from(u16::from_le_bytes([frame[44], frame[45]])))
}

fn scan(ring: &[u8], from: JournalPos, fences: &[Fence]) {
    let mut scanner = Scanner::new(RING, TAG, from, fences);
    let mut frames = Vec::new();
    for _ in 0..2 * RING.blocks {
        let (at, blocks) = scanner.want();
        assert!(at.0 >= RING.start.0 && at.0 + blocks <= RING.start.0 + RING.blocks);
        let from = (at.0 - RING.start.0) as usize * BLOCK_SIZE;
        match scanner.accept(&ring[from..from + blocks as usize * BLOCK_SIZE]) {
            Step::Frame(frame, _) => frames.push(frame),
            Step::Pad => {}
            Step::End(_) => {
                assert!(complete_prefix(&frames) <= frames.len());
                frames.iter().for_each(|frame| drop(records_of(frame)));
                return;
            }
        }
    }
    panic!("a scan goes round and round");
}
