//! Replies of the transmission phase. Headers are built in place, without an allocation; payloads
//! are separate slices, so that a vectored write sends data from where they lie.

use super::{NbdError, SIMPLE_REPLY_MAGIC, STRING_MAX_BYTES, STRUCTURED_REPLY_MAGIC};

/// Most descriptors in one block status chunk: half a mebibyte of them.
pub const DESCRIPTORS_MAX: usize = 1 << 16;

const DONE: u16 = 1;
const TYPE_NONE: u16 = 0;
const TYPE_OFFSET_DATA: u16 = 1;
const TYPE_OFFSET_HOLE: u16 = 2;
const TYPE_BLOCK_STATUS: u16 = 5;
const TYPE_ERROR: u16 = 0x8001;
const HEAD_MAX_BYTES: usize = 32;
/// `base:allocation`: no space is allocated.
pub const STATE_HOLE: u32 = 1;
/// `base:allocation`: reads as zeroes.
pub const STATE_ZERO: u32 = 2;
/// `qemu:dirty-bitmap:`: differs from the snapshot.
pub const STATE_DIRTY: u32 = 1;

/// The fixed part of a reply.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    bytes: [u8; HEAD_MAX_BYTES],
    len: usize,
}

impl Head {
    fn new() -> Self {
        Self { bytes: [0; HEAD_MAX_BYTES], len: 0 }
    }

    fn put(mut self, bytes: &[u8]) -> Self {
        debug_assert!(self.len + bytes.len() <= HEAD_MAX_BYTES, "reply head too long");
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
        self
    }

    fn chunk(cookie: u64, kind: u16, done: bool, payload_bytes: u32) -> Self {
        Self::new()
            .put(&STRUCTURED_REPLY_MAGIC.to_be_bytes())
            .put(&(if done { DONE } else { 0 }).to_be_bytes())
            .put(&kind.to_be_bytes())
            .put(&cookie.to_be_bytes())
            .put(&payload_bytes.to_be_bytes())
    }

    /// The bytes to send.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// A simple reply: success, or an error.
pub fn simple_head(cookie: u64, error: Option<NbdError>) -> Head {
    Head::new()
        .put(&SIMPLE_REPLY_MAGIC.to_be_bytes())
        .put(&error.map_or(0, NbdError::code).to_be_bytes())
        .put(&cookie.to_be_bytes())
}

/// The end of a structured reply that has nothing more to say.
pub fn structured_none_head(cookie: u64) -> Head {
    Head::chunk(cookie, TYPE_NONE, true, 0)
}

/// The whole content of a read: `len` bytes follow.
pub fn offset_data_head(cookie: u64, offset: u64, len: u32) -> Head {
    Head::chunk(cookie, TYPE_OFFSET_DATA, true, len + 8).put(&offset.to_be_bytes())
}

/// The whole content of a read that is zero: nothing follows.
pub fn offset_hole_head(cookie: u64, offset: u64, len: u32) -> Head {
    Head::chunk(cookie, TYPE_OFFSET_HOLE, true, 12)
        .put(&offset.to_be_bytes())
        .put(&len.to_be_bytes())
}

/// A block status chunk: `payload_bytes` of descriptors follow.
pub fn block_status_head(cookie: u64, context_id: u32, done: bool, payload_bytes: usize) -> Head {
    Head::chunk(cookie, TYPE_BLOCK_STATUS, done, payload_bytes as u32 + 4)
        .put(&context_id.to_be_bytes())
}

/// An error chunk; [`error_payload`] of the message follows.
pub fn error_head(cookie: u64, error: NbdError, message: &str) -> Head {
    let len = error_payload(message).len();
    Head::chunk(cookie, TYPE_ERROR, true, len as u32 + 6)
        .put(&error.code().to_be_bytes())
        .put(&(len as u16).to_be_bytes())
}

/// The part of a message that the protocol allows to be sent.
pub fn error_payload(message: &str) -> &str {
    let mut end = message.len().min(STRING_MAX_BYTES);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    &message[..end]
}

/// The descriptors of one context for a request of `len` bytes: `(length, status)` in order,
/// neighbours that are alike joined, cut to the request and to one extent if so asked. Empty if the
/// extents say nothing.
pub fn status_payload(
    extents: impl Iterator<Item = (u64, u32)>,
    len: u32,
    req_one: bool,
) -> Vec<u8> {
    let most = if req_one { 1 } else { DESCRIPTORS_MAX };
    let mut left = u64::from(len);
    let mut joined: Vec<(u32, u32)> = Vec::new();
    for (extent_len, status) in extents {
        // `left` came from 32 bits and only shrinks, so the cast loses nothing.
        let part = extent_len.min(left) as u32;
        if part == 0 {
            continue;
        }
        let full = joined.len() == most;
        match joined.last_mut() {
            Some(last) if last.1 == status => last.0 += part,
            _ if full => break,
            _ => joined.push((part, status)),
        }
        left -= u64::from(part);
    }
    let mut out = Vec::with_capacity(joined.len() * 8);
    for (part, status) in joined {
        out.extend_from_slice(&part.to_be_bytes());
        out.extend_from_slice(&status.to_be_bytes());
    }
    out
}
