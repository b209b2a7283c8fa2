//! What is hashed, and how: the table in the crate's header.

use crate::{BLOCK_SIZE, FANOUT, MAX_LEVEL};
use std::fmt;
use std::sync::LazyLock;

const NODE_TAG: [u8; 8] = *b"CMRKNOD1";
const ROOT_TAG: [u8; 8] = *b"CMRKROT1";
/// The place of what may lie anywhere: of zeros.
const ANYWHERE: u64 = u64::MAX;

/// A BLAKE3 hash of a block, of a page, or of a volume (then it is called a root).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// Digest of block `block_index` of a volume.
pub fn leaf_hash(block_index: u64, block: &[u8; BLOCK_SIZE]) -> Digest {
    debug_assert!(block_index < ANYWHERE);
    // Stops at the first chunk with a bit set: free for real data.
    let zero = block.chunks_exact(64).all(|chunk| chunk.iter().fold(0, |acc, b| acc | b) == 0);
    if zero { zero_hash(0) } else { hash(block, NODE_TAG, 0, block_index) }
}

/// Digest of any zero block (level 0) and of any page below which all is zero.
///
/// # Panics
/// When `level` is above [`MAX_LEVEL`]: that is a fault of the caller.
pub fn zero_hash(level: u8) -> Digest {
    static ZEROS: LazyLock<[Digest; MAX_LEVEL as usize + 1]> = LazyLock::new(|| {
        let mut below = hash(&[0; BLOCK_SIZE], NODE_TAG, 0, ANYWHERE);
        std::array::from_fn(|level| {
            if level > 0 {
                below = hash([below.0; FANOUT].as_flattened(), NODE_TAG, level as u8, ANYWHERE);
            }
            below
        })
    });
    ZEROS[usize::from(level)]
}

/// Digest of page `index` of `level`.
pub(crate) fn page_hash(level: u8, index: u64, children: &[[u8; 32]; FANOUT]) -> Digest {
    let zero = zero_hash(level - 1);
    if children.iter().all(|child| *child == zero.0) {
        return zero_hash(level);
    }
    hash(children.as_flattened(), NODE_TAG, level, index)
}

/// The root of a volume of `size_bytes` whose top page has the digest `top`.
pub(crate) fn root_hash(size_bytes: u64, top_level: u8, top: Digest) -> Digest {
    hash(&top.0, ROOT_TAG, top_level, size_bytes)
}

/// The trailer comes last so that the body's 1024-byte chunks stay whole and are hashed side by
/// side.
fn hash(body: &[u8], tag: [u8; 8], level: u8, place: u64) -> Digest {
    let mut trailer = [0; 24];
    trailer[..8].copy_from_slice(&tag);
    trailer[8..16].copy_from_slice(&u64::from(level).to_le_bytes());
    trailer[16..].copy_from_slice(&place.to_le_bytes());
    let mut hasher = blake3::Hasher::new();
    hasher.update(body).update(&trailer);
    Digest(*hasher.finalize().as_bytes())
}
