//! Any bytes in place of a journal frame: decoded or refused, never a panic; and what is decoded
//! survives being written again. The same for the records in it, and for the scan that meets it.

use cow_format::checkpoint::JournalPos;
use cow_format::checksum::{Salt, salted};
use cow_format::frame::{FLAG_PAD, Frame, HEADER_LEN, MAX_FRAME, MAX_PAYLOAD};
use cow_format::wire::{Reader, Writer};
use cow_format::{BLOCK_SIZE, Epoch, FrameSeq, Phys, record::Record};
use cow_journal::{Ring, Scanner, complete_prefix, records_of};

const AT: Phys = Phys(1024);
/// Offsets in the header; docs/format.md, "Journal frame".
const FLAGS_AT: usize = 6;
const POOL_TAG_AT: usize = 8;
const SEQ_AT: usize = 16;
const NBLOCKS_AT: usize = 44;
const PAYLOAD_LEN_AT: usize = 48;
const PAYLOAD_CRC_AT: usize = 52;
const HEADER_CRC_AT: usize = 56;
const PAD_AT: usize = 60;

/// See the module.
pub fn run(data: &[u8]) {
    let pool_tag = word(data, POOL_TAG_AT);
    let _ = Frame::decode_head(data, pool_tag, AT);
    let _ = Frame::decode(data, pool_tag, AT);
    let _ = Record::decode(&mut Reader::new(data));

    let mut bytes = data[..data.len().min(MAX_FRAME)].to_vec();
    bytes.resize(bytes.len().max(HEADER_LEN).next_multiple_of(BLOCK_SIZE), 0);
    repair(&mut bytes, data.len());
    let _ = Frame::decode_head(&bytes, pool_tag, AT);
    let Ok((frame, chain)) = Frame::decode(&bytes, pool_tag, AT) else { return };

    // The decoder takes no notice of the padding, but the chain covers it.
    let (written, chain_again) = frame.encode(pool_tag);
    let again = Frame::decode(&written, pool_tag, AT);
    assert_eq!(again, Ok((frame.clone(), chain_again)));
    assert!(chain == chain_again || bytes[PAD_AT..HEADER_LEN] != [0; 4]);
    records(&frame);
    scan(&frame, pool_tag, &bytes);
    assert!(complete_prefix(&[frame.clone(), frame]) <= 2);
}

fn records(frame: &Frame) {
    let Ok(records) = records_of(frame) else { return };
    let mut writer = Writer::default();
    records.iter().for_each(|record| record.encode(&mut writer));
    let mut reader = Reader::new(&writer.bytes);
    for record in &records {
        assert_eq!(Record::decode(&mut reader).as_ref(), Ok(record));
    }
    assert!(reader.is_done());
}

/// A scan that expects just this frame, in the middle of a small ring and near its end.
fn scan(frame: &Frame, pool_tag: u64, bytes: &[u8]) {
    let ring = Ring { start: AT, blocks: 64 };
    for block in [0, 40, 63] {
        let from = JournalPos { block, seq: frame.seq, chain: frame.chain };
        let mut scanner = Scanner::new(ring, pool_tag, from, &[]);
        let (_, blocks) = scanner.want();
        let len = bytes.len().min(blocks as usize * BLOCK_SIZE);
        let _ = scanner.accept(&bytes[..len]);
        // Whatever it was: the same again does not go on from itself.
        let _ = scanner.accept(&bytes[..len]);
        assert!(scanner.next().block < ring.blocks);
        assert!(scanner.stable() <= FrameSeq(frame.seq.0.max(1)));
        assert!(scanner.epoch() <= frame.epoch.max(Epoch(0)));
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    if let Some(found) = bytes.get(at..at + 8) {
        word.copy_from_slice(found);
    }
    u64::from_le_bytes(word)
}

/// Makes the lengths fit `len` bytes of input where they do not, and the checksums right: else
/// nothing would ever come past them.
fn repair(bytes: &mut [u8], len: usize) {
    let (pool_tag, seq) = (word(bytes, POOL_TAG_AT), word(bytes, SEQ_AT));
    let most = (bytes.len() - HEADER_LEN).min(MAX_PAYLOAD);
    let mut payload_len = word(bytes, PAYLOAD_LEN_AT) as u32 as usize;
    if payload_len > most {
        payload_len = len.saturating_sub(HEADER_LEN).min(most);
        bytes[PAYLOAD_LEN_AT..PAYLOAD_LEN_AT + 4]
            .copy_from_slice(&(payload_len as u32).to_le_bytes());
    }
    if u16::from_le_bytes([bytes[FLAGS_AT], bytes[FLAGS_AT + 1]]) & FLAG_PAD == 0 {
        let blocks = Frame::blocks_for(payload_len);
        bytes[NBLOCKS_AT..NBLOCKS_AT + 2].copy_from_slice(&blocks.to_le_bytes());
    }
    let payload = &bytes[HEADER_LEN..HEADER_LEN + payload_len];
    let crc = salted(Salt::FramePayload, pool_tag, seq, &[payload]);
    bytes[PAYLOAD_CRC_AT..PAYLOAD_CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    let parts = [&bytes[..HEADER_CRC_AT], &[0; 4], &bytes[HEADER_CRC_AT + 4..HEADER_LEN]];
    let crc = salted(Salt::FrameHeader, pool_tag, seq, &parts);
    bytes[HEADER_CRC_AT..HEADER_CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
}
