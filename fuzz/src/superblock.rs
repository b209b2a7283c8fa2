//! Any bytes in place of a superblock: decoded or refused, never a panic; and what is decoded
//! survives being written again.

use cow_format::checksum::{Salt, salted};
use cow_format::geometry::Geometry;
use cow_format::superblock::{COPY_BLOCKS, Superblock, pool_tag};
use cow_format::{BLOCK_SIZE, Buf};

/// Where the checksum, the identity and the copy number lie.
const CRC_AT: usize = 12;
const UUID_AT: usize = 16;
const COPY_AT: usize = 32;

/// See the module.
pub fn run(data: &[u8]) {
    for copy in 0..COPY_BLOCKS.len() {
        let _ = Superblock::decode(data, copy);
    }
    // The rest of the block is zeros, and copy number and checksum are made right: else nothing
    // would ever come past them.
    let mut block = Buf::zeroed(1);
    let len = data.len().min(BLOCK_SIZE);
    block[..len].copy_from_slice(&data[..len]);
    let copy = usize::from(block[COPY_AT]) % COPY_BLOCKS.len();
    block[COPY_AT..COPY_AT + 4].copy_from_slice(&(copy as u32).to_le_bytes());
    repair(&mut block, copy);
    let Ok(superblock) = Superblock::decode(&block, copy) else { return };

    let again = Superblock::decode(&superblock.encode(copy), copy);
    assert_eq!(again.as_ref(), Ok(&superblock));
    // What an opening does with the layout first.
    let geometry = &superblock.geometry;
    let zones = Geometry::zone_count(geometry.mkfs_blocks);
    for zone in [0, zones / 2, zones.saturating_sub(1)] {
        let _ = geometry.reserved_runs(zone, geometry.mkfs_blocks);
        let _ = (geometry.bitmap_home(zone, 0), geometry.bitmap_home(zone, 1));
    }
}

fn repair(block: &mut Buf, copy: usize) {
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&block[UUID_AT..UUID_AT + 16]);
    let parts = [&block[..CRC_AT], &[0; 4], &block[CRC_AT + 4..]];
    let crc = salted(Salt::Superblock, pool_tag(&uuid), COPY_BLOCKS[copy], &parts);
    block[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
}
