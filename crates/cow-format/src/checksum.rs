//! Checksums. CRC-32/ISO-HDLC (the polynomial of IEEE 802.3, as in zlib) everywhere; it is paired
//! with structural identity, so its 32 bits only have to catch damage, not name a block.
//!
//! A *metadata* checksum is salted with the kind of the structure, the pool and the block's own
//! address: a valid block in the wrong place, or of another pool, fails. A *data* checksum covers
//! the 4096 bytes alone, because it lives in the map slot that already names the place.

/// Kinds of checksummed metadata; the number is part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Salt {
    /// A copy of the superblock.
    Superblock = 1,
    /// Header of a checkpoint.
    CheckpointHeader = 2,
    /// Body of a checkpoint.
    CheckpointBody = 3,
    /// Page of the allocation bitmap.
    BitmapPage = 4,
    /// Page of the node table.
    TablePage = 5,
    /// Node of the radix map.
    MapNode = 6,
    /// Header of a journal frame.
    FrameHeader = 7,
    /// Payload of a journal frame.
    FramePayload = 8,
    /// Block of a chain that holds a kill row or properties.
    Blob = 9,
}

/// Salted checksum of `parts`, taken as one run of bytes.
pub fn salted(salt: Salt, pool_tag: u64, address: u64, parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    let mut prefix = [0u8; 20];
    prefix[..4].copy_from_slice(&(salt as u32).to_le_bytes());
    prefix[4..12].copy_from_slice(&pool_tag.to_le_bytes());
    prefix[12..].copy_from_slice(&address.to_le_bytes());
    hasher.update(&prefix);
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

/// Checksum of one data block.
pub fn data(block: &[u8]) -> u32 {
    crc32fast::hash(block)
}
