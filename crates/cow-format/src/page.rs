//! Pages with two fixed homes: the allocation bitmap and the node table. A page has no header;
//! its checksum stands in the checkpoint's descriptor. docs/format.md, "Pages".

use crate::checksum::{Salt, salted};
use crate::{BLOCK_SIZE, Phys};

/// Checksum of a bitmap page stored at `phys`.
pub fn bitmap_crc(page: &[u8], pool_tag: u64, phys: Phys) -> u32 {
    salted(Salt::BitmapPage, pool_tag, phys.0, &[&page[..BLOCK_SIZE]])
}

/// Checksum of a node-table page stored at `phys`.
pub fn table_crc(page: &[u8], pool_tag: u64, phys: Phys) -> u32 {
    salted(Salt::TablePage, pool_tag, phys.0, &[&page[..BLOCK_SIZE]])
}
