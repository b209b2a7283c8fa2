//! Any bytes in place of a checkpoint: header and body. Decoded or refused, never a panic; what is decoded
//! survives being written again, and is checked against a layout.

use super::{seal, word};
use cow_format::checkpoint::Checkpoint;
use cow_format::checksum::{Salt, salted};
use cow_format::geometry::{Geometry, LayoutOptions, MIN_POOL_BLOCKS};
use cow_format::{BLOCK_SIZE, Phys};

const TAG: u64 = 0x0123_4567_89ab_cdef;
const AT: Phys = Phys(1);
/// Offsets in the header; docs/format.md, "Checkpoint".
const CRC_AT: usize = 12;
const SEQ_AT: usize = 16;
const BODY_LEN_AT: usize = 176;
/// Bytes of the input that are the header; the body follows.
const HEADER: usize = 256;
/// Most blocks of a body here.
const MOST: u64 = 64;

/// See the module.
pub fn run(data: &[u8]) {
    let _ = Checkpoint::decode(data, TAG, AT);
    let (header, body) = data.split_at(data.len().min(HEADER));
    let mut bytes = super::block(header).to_vec();
    let seq = word(&bytes, SEQ_AT);
    seal(&mut bytes, CRC_AT, Salt::CheckpointHeader, TAG, seq);
    let _ = Checkpoint::decode_len(&bytes, TAG, AT);
    let blocks = word(&bytes, BODY_LEN_AT).div_ceil(BLOCK_SIZE as u64).min(MOST) as usize;
    bytes.extend(&body[..body.len().min(blocks * BLOCK_SIZE)]);
    bytes.resize((1 + blocks) * BLOCK_SIZE, 0);
    let crc = salted(Salt::CheckpointBody, TAG, seq, &[&bytes]);
    bytes.extend(b"COWCPEND");
    bytes.extend(seq.to_le_bytes());
    bytes.extend(crc.to_le_bytes());
    bytes.resize((2 + blocks) * BLOCK_SIZE, 0);
    let Ok(checkpoint) = Checkpoint::decode(&bytes, TAG, AT) else { return };
    let again = Checkpoint::decode(&checkpoint.encode(TAG), TAG, AT);
    assert_eq!(again.as_ref(), Ok(&checkpoint));
    let options = LayoutOptions {
        blocks: MIN_POOL_BLOCKS,
        journal_blocks: None,
        limit_blocks: None,
        max_chunks: None,
        preallocated: false,
    };
    if let Ok(layout) = Geometry::plan(&options) {
        let _ = checkpoint.validate(&layout);
    }
}
