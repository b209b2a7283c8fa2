//! Flags that nobody knows are told from damage, and named.

use super::superblock;
use crate::checkpoint::Checkpoint;
use crate::checksum::{Salt, salted};
use crate::entry::NodeEntry;
use crate::frame::Frame;
use crate::superblock::{COPY_BLOCKS, Superblock};
use crate::*;

fn put(page: &mut [u8], at: usize, crc: u32) {
    page[at..at + 4].copy_from_slice(&crc.to_le_bytes());
}

/// `bytes` with a bit flipped; which, and whether it means something.
fn each_bit(bytes: &Buf, at: usize, known: u64, bits: u32, mut try_it: impl FnMut(Buf, u64, bool)) {
    for bit in 0..bits {
        let mut flipped = bytes.clone();
        flipped[at + bit as usize / 8] ^= 1 << (bit % 8);
        try_it(flipped, 1 << bit, known >> bit & 1 == 1);
    }
}

#[test]
fn of_a_superblock() {
    for (copy, &block) in COPY_BLOCKS.iter().enumerate() {
        let sb = superblock();
        each_bit(&sb.encode(copy), 164, 1, 32, |mut page, bits, is_known| {
            let parts: [&[u8]; 3] = [&page[..12], &[0; 4], &page[16..]];
            let crc = salted(Salt::Superblock, sb.pool_tag(), block, &parts);
            put(&mut page, 12, crc);
            let read = Superblock::decode(&page, copy);
            if is_known {
                assert!(read.unwrap().geometry.preallocated);
                return;
            }
            let (what, number, at) = ("superblock copy", copy as u64, Phys(block));
            let error = FormatError::Flags { what, number, at, bits };
            assert!(error.is_unknown());
            assert_eq!(read, Err(error));
        });
    }
}

#[test]
fn of_a_checkpoint() {
    let cp = Checkpoint {
        seq: 41,
        pool_blocks: 1,
        zones: vec![Default::default()],
        ..Default::default()
    };
    each_bit(&cp.encode(7), 96, 3, 64, |mut bytes, bits, is_known| {
        let parts: [&[u8]; 3] = [&bytes[..12], &[0; 4], &bytes[16..BLOCK_SIZE]];
        let crc = salted(Salt::CheckpointHeader, 7, 41, &parts);
        put(&mut bytes, 12, crc);
        let footer = bytes.len() - BLOCK_SIZE;
        let crc = salted(Salt::CheckpointBody, 7, 41, &[&bytes[..footer]]);
        put(&mut bytes, footer + 16, crc);
        let read = Checkpoint::decode(&bytes, 7, Phys(9));
        let len = Checkpoint::decode_len(&bytes, 7, Phys(9));
        if is_known {
            assert_eq!((u64::from(read.unwrap().flags), len), (bits, Ok(3)));
            return;
        }
        let error = FormatError::Flags { what: "checkpoint", number: 41, at: Phys(9), bits };
        assert_eq!(error.to_string(), format!("checkpoint 41 at block 9: unknown flags {bits:#x}"));
        assert_eq!((read, len), (Err(error.clone()), Err(error)));
    });
}

#[test]
fn of_an_entry() {
    let entry = NodeEntry { id: NodeId(77), name: "x".repeat(50).into(), ..NodeEntry::default() };
    let overflow = entry.encode_overflow().unwrap();
    for bit in 0..8 {
        let mut bytes = entry.encode();
        bytes[47] |= 1 << bit;
        let read = NodeEntry::decode(&bytes, &overflow, Phys(9));
        if bit < 4 {
            assert_eq!(read.unwrap().unwrap().id, NodeId(77), "bit {bit}");
            continue;
        }
        let (number, bits) = (77, 1 << bit);
        let error = FormatError::Flags { what: "entry of node", number, at: Phys(9), bits };
        assert_eq!(read, Err(error));
    }
    // Nothing in an empty slot is looked at.
    let mut empty = [0; entry::ENTRY_LEN];
    empty[47] = 0xf0;
    assert_eq!(NodeEntry::decode(&empty, &[], Phys(9)), Ok(None));
}

/// A frame is read whatever its flags are; who follows the journal asks.
#[test]
fn of_a_frame() {
    for bit in 0..16 {
        let frame = Frame {
            flags: 1 << bit,
            seq: FrameSeq(8),
            chain: 5,
            durable: FrameSeq(6),
            epoch: Epoch(1),
            record_count: 0,
            blocks: 1,
            payload: vec![],
        };
        let (read, _) = Frame::decode(&frame.encode(42).0, 42, Phys(9)).unwrap();
        assert_eq!(read, frame);
        let (what, number, at, bits) = ("journal frame", 8, Phys(9), 1 << bit);
        let error = FormatError::Flags { what, number, at, bits };
        let expected = if bit < 2 { Ok(()) } else { Err(error) };
        assert_eq!(read.refuse_unknown_flags(at), expected, "bit {bit}");
    }
}
