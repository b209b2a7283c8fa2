//! cow-merkle: content roots. A volume's root is one hash that two volumes share if and only if
//! they have the same size and the same content, whatever their histories and whichever pools
//! they lie in. The sealer, verification and replication call this crate; it calls nothing and
//! does no I/O: who calls it brings the pages.
//!
//! Why a tree of its own, beside the radix map: the map's checksums cover pointers and births,
//! which differ between pools and histories. A hash here covers content and position alone.
//!
//! A page is 128 digests, 4096 bytes. Level 0 is the blocks; page `index` of level `n` has the
//! digests of the 128 pages (or blocks) of level `n - 1` from `128 * index` on, and spans 128^n
//! blocks. The tree is as high as the volume's size needs, at least one level and at most six:
//!
//! ```text
//! level 2          page 0                         128^2 blocks = 64 MiB
//!                 /      \
//! level 1     page 0    page 1   ...              128 blocks = 512 KiB
//!             / ... \   / ... \
//! level 0   block 0 .. 127, 128 .. 255, ...       4 KiB
//! ```
//!
//! Every digest is BLAKE3 (plain hash mode, 32 bytes) of a body and a trailer; integers are
//! little-endian:
//!
//! | digest of                | body, bytes 0..            | trailer: tag (8) | level u64 | place u64    |
//! |--------------------------|----------------------------|------------------|-----------|--------------|
//! | block `i`, not all zero  | its 4096 bytes             | `CMRKNOD1`       | 0         | `i`          |
//! | page `i`, not all zero   | its 4096 bytes             | `CMRKNOD1`       | level     | `i`          |
//! | any zero block           | 4096 zero bytes            | `CMRKNOD1`       | 0         | 2^64 - 1     |
//! | any page of zero digests | 128 x zero digest below    | `CMRKNOD1`       | level     | 2^64 - 1     |
//! | root                     | digest of the top page, 32 | `CMRKROT1`       | top level | size (bytes) |
//!
//! The body has one length for each tag, so the encoding is unambiguous; the level separates
//! blocks from pages and pages from each other. The digest of a zero subtree depends on its level
//! only, so a hole of any size costs nothing, and a block of zeros that was written equals a hole.
//! The end of the last block behind the volume's size counts as zeros.
//!
//! A page of zero digests need not be stored.
#![forbid(unsafe_code)]

mod builder;
mod compare;
mod digest;
mod page;
#[cfg(test)]
mod tests;

pub use builder::{BuildError, Builder, resize};
pub use compare::{CompareError, Side, compare};
pub use digest::{Digest, leaf_hash, zero_hash};
pub use page::{NoPages, Page, Pages, PagesMut, top_level};

/// Bytes of a block.
pub const BLOCK_SIZE: usize = 4096;
/// Digests of a page.
pub const FANOUT: usize = 128;
/// The highest level: 128^6 blocks = 16 PiB.
pub const MAX_LEVEL: u8 = 6;
