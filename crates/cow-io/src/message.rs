//! A message to a watched file: what a request that came from there is answered with.

use cow_format::Buf;
use std::io::IoSlice;
use std::ops::Range;

const HEAD_MAX_BYTES: usize = 32;

/// A message: a few bytes, and perhaps a part of a buffer behind them.
#[derive(Debug)]
pub struct Message {
    head: [u8; HEAD_MAX_BYTES],
    head_bytes: usize,
    body: Option<(Buf, Range<usize>)>,
}

impl Message {
    /// `head` may be 32 bytes. None if it is longer, or the body does not lie in its buffer.
    pub fn new(head: &[u8], body: Option<(Buf, Range<usize>)>) -> Option<Self> {
        let fits = body.as_ref().is_none_or(|(buf, part)| buf.get(part.clone()).is_some());
        let mut message = Self { head: [0; HEAD_MAX_BYTES], head_bytes: head.len(), body };
        message.head.get_mut(..head.len())?.copy_from_slice(head);
        fits.then_some(message)
    }

    /// Its two pieces; the second may be empty.
    pub fn pieces(&self) -> [IoSlice<'_>; 2] {
        let body = self.body.as_ref().and_then(|(buf, part)| buf.get(part.clone()));
        [IoSlice::new(&self.head[..self.head_bytes]), IoSlice::new(body.unwrap_or_default())]
    }
}
