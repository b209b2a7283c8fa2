//! Kill rows and properties: small chains of blocks, written anew when they changed.

use super::Fold;
use crate::error::Error;
use crate::task::Cx;
use cow_format::blob::{BlobKind, BlobRef, decode_block, encode_chain};
use cow_format::{BufSlice, NodeId, Phys};
use cow_snaptree::OldBlob;

/// Level of a damage entry that is about a kill row or properties, not about a map node.
pub(super) const NO_LEVEL: u8 = u8::MAX;

/// Reads a chain: its payload, and the blocks that it takes.
///
/// # Errors
/// When a block cannot be read, or is not the one that its reference names.
pub(crate) async fn read_chain(
    cx: &Cx,
    kind: BlobKind,
    node: NodeId,
    blob: BlobRef,
) -> Result<(Vec<u8>, Vec<Phys>), Error> {
    let (mut payload, mut blocks) = (Vec::new(), Vec::new());
    let mut at = (blob.phys, blob.crc);
    while !at.0.is_none() {
        if blocks.len() as u64 >= blob.blocks() {
            return Err(Error::Corrupt(format!("a chain of node {node} does not end")));
        }
        let block = read_block(cx, kind, node, at).await?;
        blocks.push(at.0);
        payload.extend_from_slice(&block.payload);
        at = block.next;
    }
    if payload.len() != blob.len as usize {
        return Err(Error::Corrupt(format!("a chain of node {node} has a wrong length")));
    }
    Ok((payload, blocks))
}

async fn read_block(
    cx: &Cx,
    kind: BlobKind,
    node: NodeId,
    at: (Phys, u32),
) -> Result<cow_format::blob::BlobBlock, Error> {
    let pool_tag = cx.core().pool()?.pool_tag;
    let mut error = None;
    for attempt in 0..3 {
        match cx.read(at.0, 1, attempt > 0).await {
            Ok(buf) => match decode_block(&buf, kind, node, pool_tag, at) {
                Ok(block) => return Ok(block),
                Err(cause) => error = Some(Error::Corrupt(cause.to_string())),
            },
            Err(failure) => {
                let offset = at.0.byte_offset();
                if attempt == 2 {
                    cx.core().fold.note_unread(at.0);
                }
                error = Some(Error::Io { errno: failure.errno, op: "read of a blob", offset });
            }
        }
    }
    Err(error.unwrap_or(Error::Corrupt(format!("a blob of node {node}"))))
}

impl Fold {
    /// Brings the kill row of a node into the fold's tree. What cannot be read, or makes no sense,
    /// counts as empty, and as damage: one bad block must not keep every fold from ending. Sizes
    /// that need the row are then no longer exact.
    pub(super) async fn load_row(&mut self, id: NodeId) {
        if self.tree.is_row_loaded(id) {
            return;
        }
        let read = read_chain(&self.cx, BlobKind::Row, id, self.tree.row_blob(id)).await;
        if !read.is_ok_and(|(payload, _)| self.tree.load_row(id, &payload).is_ok()) {
            self.note_damage(id, NO_LEVEL, 0);
            self.tree.lose_row(id);
        }
    }

    /// The same for properties: they are lost, but for what the fold writes now.
    async fn load_props(&mut self, id: NodeId) {
        if self.tree.is_props_loaded(id) {
            return;
        }
        let (owner, blob) = self.tree.props_blob(id);
        let read = read_chain(&self.cx, BlobKind::Props, owner, blob).await;
        if !read.is_ok_and(|(payload, _)| self.tree.load_props(id, &payload).is_ok()) {
            self.note_damage(id, NO_LEVEL, 0);
            self.tree.lose_props(id);
        }
    }

    /// Writes every row and all properties that changed.
    pub(super) async fn write_blobs(&mut self) -> Result<(), Error> {
        for id in self.tree.dirty_rows() {
            self.load_row(id).await;
            let payload = self.tree.row_payload(id);
            let blob = self.write_chain(BlobKind::Row, id, &payload).await?;
            if let Some(old) = self.tree.set_row_blob(id, blob) {
                self.free_chain(&old).await?;
            }
        }
        for id in self.tree.dirty_props() {
            self.load_props(id).await;
            let payload = self.tree.props_payload(id);
            let blob = self.write_chain(BlobKind::Props, id, &payload).await?;
            if let Some(old) = self.tree.set_props_blob(id, blob) {
                self.free_chain(&old).await?;
            }
        }
        Ok(())
    }

    async fn write_chain(
        &mut self,
        kind: BlobKind,
        node: NodeId,
        payload: &[u8],
    ) -> Result<BlobRef, Error> {
        let count = payload.len().div_ceil(cow_format::blob::PAYLOAD);
        let mut blocks = Vec::with_capacity(count);
        for _ in 0..count {
            blocks.push(self.take_block().await?);
        }
        let (parts, blob) = encode_chain(kind, node, self.pool_tag, payload, &blocks);
        for (phys, buf) in parts {
            self.add(phys);
            self.count(true, 1);
            self.write(phys, BufSlice::whole(buf)).await?;
        }
        Ok(blob)
    }

    /// Nothing points to this chain any more.
    pub(super) async fn free_chain(&mut self, old: &OldBlob) -> Result<(), Error> {
        let blocks = if old.blob.blocks() <= 1 {
            vec![old.blob.phys]
        } else {
            match read_chain(&self.cx, old.kind, old.node, old.blob).await {
                Ok((_, blocks)) => blocks,
                Err(_) => {
                    self.leaks = true;
                    return Ok(());
                }
            }
        };
        for phys in blocks {
            self.count(true, -1);
            self.free(phys);
        }
        Ok(())
    }
}
