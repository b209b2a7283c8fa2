//! Any bytes in place of a map node. What is decoded is what its place says, and survives being written
//! again.

use super::{seal, word};
use cow_format::checksum::Salt;
use cow_format::mapnode::{MapNode, NodePlace};
use cow_format::{FamilyId, Gen, Phys};

const TAG: u64 = 0x0123_4567_89ab_cdef;
/// Offsets in the header; docs/format.md, "Map node".
const LEVEL_AT: usize = 6;
const TAG_AT: usize = 8;
const PHYS_AT: usize = 32;
const BIRTH_AT: usize = 48;
const CRC_AT: usize = 52;

/// See the module.
pub fn run(data: &[u8]) {
    let mut block = super::block(data);
    let phys = Phys(word(&block, PHYS_AT));
    block[TAG_AT..TAG_AT + 8].copy_from_slice(&TAG.to_le_bytes());
    let crc = seal(&mut block, CRC_AT, Salt::MapNode, TAG, phys.0);
    let place = NodePlace {
        pool_tag: TAG,
        family: FamilyId(word(&block, 16)),
        level: block[LEVEL_AT],
        index: word(&block, 24),
        phys,
        birth: Gen(word(&block, BIRTH_AT) as u32),
        crc,
    };
    let _ = MapNode::decode(data, &place);
    let Ok(node) = MapNode::decode(&block, &place) else { return };
    assert!(node.slots().iter().all(|slot| slot.birth <= node.birth));
    let (written, crc) = node.encode(TAG, phys);
    assert_eq!(MapNode::decode(&written, &NodePlace { crc, ..place }), Ok(node));
}
