//! Where the node table has what: a chunk has as many pages of overflow entries as of entries, and the
//! overflow entry of a node has the place in its page that the entry has in its own. So each node has
//! room for one, whatever it is renamed to. docs/format.md, "Pages".

use crate::entry::{ENTRY_LEN, NodeEntry, PAGE_ENTRIES};
use crate::geometry::CHUNK_PAGES;
use crate::{BLOCK_SIZE, FormatError, Phys};

/// Pages of a chunk that hold entries; as many follow with their overflow entries.
pub const ENTRY_PAGES: u32 = CHUNK_PAGES as u32 / 2;
/// Entries of a chunk: the nodes that it has room for.
pub const CHUNK_ENTRIES: u32 = ENTRY_PAGES * PAGE_ENTRIES as u32;

/// The page of the entry of `slot`.
pub fn page_of(slot: u32) -> u32 {
    let (chunk, slot) = (slot / CHUNK_ENTRIES, slot % CHUNK_ENTRIES);
    chunk * CHUNK_PAGES as u32 + slot / PAGE_ENTRIES as u32
}

/// The first slot of which `page` has the entry or, see [`is_overflow`], the overflow entry.
pub fn first_slot(page: u32) -> u32 {
    let (chunk, page) = (page / CHUNK_PAGES as u32, page % ENTRY_PAGES);
    chunk * CHUNK_ENTRIES + page * PAGE_ENTRIES as u32
}

/// Whether a page is one of overflow entries.
pub fn is_overflow(page: u32) -> bool {
    page % CHUNK_PAGES as u32 >= ENTRY_PAGES
}

/// The page of the overflow entries of a page of entries.
pub fn overflow_of(page: u32) -> u32 {
    page + ENTRY_PAGES
}

/// The entries of a page, with their slots, and those that cannot be read. `overflow` is its page of
/// overflow entries, if that is in use.
pub fn entries<'a>(
    page: u32,
    bytes: &'a [u8],
    overflow: Option<&'a [u8]>,
    at: Phys,
) -> impl Iterator<Item = (u32, Result<NodeEntry, FormatError>)> + 'a {
    let overflow = overflow.unwrap_or(&[0; BLOCK_SIZE]);
    let pairs = bytes.chunks_exact(ENTRY_LEN).zip(overflow.chunks_exact(ENTRY_LEN));
    (first_slot(page)..).zip(pairs).filter_map(move |(slot, (bytes, overflow))| {
        NodeEntry::decode(bytes, overflow, at).transpose().map(|entry| (slot, entry))
    })
}
