//! Any bytes in place of a block of a kill row or of properties, and as their payload.

use super::{seal, word};
use cow_format::blob::{BlobKind, decode_block};
use cow_format::checksum::Salt;
use cow_format::{NodeId, Phys};
use cow_snaptree::{Props, Row};

const TAG: u64 = 0x0123_4567_89ab_cdef;
/// Offsets; docs/format.md, "Blob".
const OWNER_AT: usize = 8;
const PHYS_AT: usize = 16;
const CRC_AT: usize = 40;

/// See the module.
pub fn run(data: &[u8]) {
    let mut block = super::block(data);
    let (owner, phys) = (NodeId(word(&block, OWNER_AT)), Phys(word(&block, PHYS_AT)));
    let crc = seal(&mut block, CRC_AT, Salt::Blob, TAG, phys.0);
    for kind in [BlobKind::Row, BlobKind::Props] {
        let _ = decode_block(data, kind, owner, TAG, (phys, crc));
        let Ok(decoded) = decode_block(&block, kind, owner, TAG, (phys, crc)) else { continue };
        if let Ok(row) = Row::decode(&decoded.payload) {
            assert_eq!(Row::decode(&row.encode()).map(|row| row.encode()), Ok(row.encode()));
        }
        if let Ok(props) = Props::decode(&decoded.payload) {
            assert_eq!(Props::decode(&props.encode()), Ok(props));
        }
    }
}
