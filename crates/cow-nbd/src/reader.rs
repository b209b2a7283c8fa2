//! The reading side of a connection: what a client has sent, read ahead. Many headers come with one
//! system call. Of a payload, what was read ahead is copied once more on its way to its buffer; the
//! rest is read straight into it.

use crate::conn::{Conn, Inbound};
use crate::sys;
use std::io::{self, Read};
use std::mem;

/// What the connection's own thread reads ahead: it waits for payloads, so that more than a few
/// headers would only be copied.
const WAITING_BYTES: usize = 4096;
/// What is read ahead without waiting: a portion of requests of 4 KiB with their data.
const AHEAD_BYTES: usize = 40 << 10;

/// Bytes that were read and not used yet.
#[derive(Default)]
pub(crate) struct Ahead {
    buf: Vec<u8>,
    start: usize,
    end: usize,
}

impl Ahead {
    /// The bytes, oldest first.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buf[self.start..self.end]
    }

    /// The first `count` of them are used.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }

    /// Moves as many as there are, and fit, to the beginning of `to`.
    pub(crate) fn copy_to(&mut self, to: &mut [u8]) -> usize {
        let count = self.bytes().len().min(to.len());
        to[..count].copy_from_slice(&self.bytes()[..count]);
        self.consume(count);
        count
    }

    /// Room behind the bytes, of up to `most`.
    fn room(&mut self, most: usize) -> &mut [u8] {
        self.buf.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let end = self.end.saturating_add(most).min(AHEAD_BYTES);
        if self.buf.len() < end {
            self.buf.resize(end, 0);
        }
        &mut self.buf[self.end..end]
    }

    /// Receives what there is, first into `payload`, then behind the bytes, of which there must be none
    /// if there is a payload.
    ///
    /// # Errors
    /// `WouldBlock` if there is nothing.
    pub(crate) fn receive(&mut self, conn: &Conn, payload: &mut [u8]) -> io::Result<Received> {
        let room = self.room(usize::MAX);
        let most = payload.len() + room.len();
        let received = sys::receive_now(conn.stream.as_fd(), payload, room)?;
        let of_payload = received.min(payload.len());
        self.end += received - of_payload;
        Ok(Received { of_payload, is_end: received == 0, is_all: received < most })
    }
}

/// What [`Ahead::receive`] got.
pub(crate) struct Received {
    pub(crate) of_payload: usize,
    /// Nothing will come any more.
    pub(crate) is_end: bool,
    /// There was no more than this.
    pub(crate) is_all: bool,
}

/// Reads for the connection's own thread, which waits.
pub(crate) struct Reader<'a> {
    inbound: Inbound<'a>,
    ahead: Ahead,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(inbound: Inbound<'a>) -> Self {
        Self { inbound, ahead: Ahead::default() }
    }

    pub(crate) fn inbound(&mut self) -> &mut Inbound<'a> {
        &mut self.inbound
    }

    /// Takes what was read ahead.
    pub(crate) fn take_ahead(&mut self) -> Ahead {
        mem::take(&mut self.ahead)
    }

    /// Goes on with what was read ahead elsewhere.
    pub(crate) fn give_ahead(&mut self, ahead: Ahead) {
        self.ahead = ahead;
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.ahead.bytes().is_empty() {
            if to.len() >= WAITING_BYTES {
                return self.inbound.read(to);
            }
            let received = self.inbound.read(self.ahead.room(WAITING_BYTES))?;
            self.ahead.end += received;
        }
        Ok(self.ahead.copy_to(to))
    }
}
