//! Small copy-on-write data of a snapshot-tree node: its kill row, its properties. A chain of
//! blocks, each of which names the next with its checksum, so that it is written last block
//! first. docs/format.md, "Blob".
//!
//! ```text
//! 0   magic u32, kind u32, node u64, self_phys u64, next_phys u64, next_crc u32, len u32, crc u32
//! 64  len bytes of payload
//! ```

use crate::checksum::{Salt, salted};
use crate::wire::{Malformed, Reader, Writer};
use crate::{BLOCK_SIZE, Buf, FormatError, NodeId, Phys, mutant};

const MAGIC: u32 = u32::from_le_bytes(*b"CBLB");
const HEADER_LEN: usize = 64;
const CRC_AT: usize = 40;
/// Payload bytes of one block.
pub const PAYLOAD: usize = BLOCK_SIZE - HEADER_LEN;

/// Bytes of a cell of a kill row.
pub const CELL_LEN: usize = 12;

/// What a blob holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum BlobKind {
    /// Cells of a kill row.
    Row = 1,
    /// User properties and hold tags.
    Props = 2,
}

/// Where a blob begins; `phys` none for an empty one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlobRef {
    /// Its first block.
    pub phys: Phys,
    /// Checksum of that block.
    pub crc: u32,
    /// Bytes in the whole chain.
    pub len: u32,
}

impl BlobRef {
    /// How many blocks the chain takes.
    pub fn blocks(&self) -> u64 {
        u64::from(self.len).div_ceil(PAYLOAD as u64)
    }
}

/// One decoded block of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobBlock {
    /// The next block and its checksum; none at the end.
    pub next: (Phys, u32),
    /// The payload of this block.
    pub payload: Vec<u8>,
}

/// The blocks of a blob that is to be stored at `blocks`, in order, and its reference.
///
/// # Panics
/// When the number of blocks does not match the payload: a fault of the caller.
pub fn encode_chain(
    kind: BlobKind,
    node: NodeId,
    pool_tag: u64,
    payload: &[u8],
    blocks: &[Phys],
) -> (Vec<(Phys, Buf)>, BlobRef) {
    assert_eq!(blocks.len(), payload.len().div_ceil(PAYLOAD), "blob length");
    let mut next = (Phys::NONE, 0u32);
    let mut out = Vec::with_capacity(blocks.len());
    for (part, &phys) in payload.chunks(PAYLOAD).zip(blocks).rev() {
        let mut w = Writer::default();
        w.u32(MAGIC);
        w.u32(kind as u32);
        w.u64(node.0);
        w.u64(phys.0);
        w.u64(next.0.0);
        w.u32(next.1);
        w.u32(part.len() as u32);
        let mut buf = Buf::zeroed(1);
        buf[..w.bytes.len()].copy_from_slice(&w.bytes);
        buf[HEADER_LEN..HEADER_LEN + part.len()].copy_from_slice(part);
        let crc = block_crc(&buf, pool_tag, phys);
        buf[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        next = (phys, crc);
        out.push((phys, buf));
    }
    let reference = BlobRef { phys: next.0, crc: next.1, len: payload.len() as u32 };
    (out, reference)
}

/// Checks and reads one block of a chain.
///
/// # Errors
/// When it is not the block that the reference before it named.
pub fn decode_block(
    bytes: &[u8],
    kind: BlobKind,
    node: NodeId,
    pool_tag: u64,
    at: (Phys, u32),
) -> Result<BlobBlock, FormatError> {
    let what = match kind {
        BlobKind::Row => "kill row",
        BlobKind::Props => "properties",
    };
    let (phys, want_crc) = at;
    let field = |field| FormatError::Field { what, at: phys, field };
    let block = bytes.get(..BLOCK_SIZE).ok_or(field("length"))?;
    let mut r = Reader::new(block);
    let mut parse = || -> Result<_, Malformed> {
        let head = (r.u32()?, r.u32()?, r.u64()?, r.u64()?);
        Ok((head, Phys(r.u64()?), r.u32()?, r.u32()?, r.u32()?))
    };
    let ((magic, found_kind, found_node, self_phys), next, next_crc, len, crc) =
        parse().map_err(|Malformed| field("header"))?;
    if magic != MAGIC {
        return Err(FormatError::Magic { what, at: phys });
    }
    let is_whole = crc == want_crc && crc == block_crc(block, pool_tag, phys);
    if !is_whole && !mutant::is("blobblind") {
        return Err(FormatError::Checksum { what, at: phys });
    }
    if found_kind != kind as u32 || found_node != node.0 || self_phys != phys.0 {
        return Err(FormatError::Identity { what, at: phys, field: "owner" });
    }
    let payload = block.get(HEADER_LEN..HEADER_LEN + len as usize).ok_or(field("len"))?.to_vec();
    Ok(BlobBlock { next: (next, next_crc), payload })
}

fn block_crc(block: &[u8], pool_tag: u64, phys: Phys) -> u32 {
    let parts: [&[u8]; 3] = [&block[..CRC_AT], &[0; 4], &block[CRC_AT + 4..BLOCK_SIZE]];
    salted(Salt::Blob, pool_tag, phys.0, &parts)
}
