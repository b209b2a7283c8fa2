//! Reads and writes of any length, cut at every megabyte of the volume (so each piece touches
//! one leaf of the map), with a window of pieces in flight together.
//!
//! [`IoFuture`] is both forms of a call: awaited, or driven by the calling thread. The caller's
//! memory is touched only while it is polled: pieces in flight have buffers of their own, so
//! dropping the future half-way is safe. What was submitted is then still carried out.

use crate::completion::{Inbox, Outcome};
use crate::error::{Error, unexpected};
use crate::handle::Handle;
use cow_engine::{Op, Reply};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Largest piece in bytes.
pub(crate) const PIECE_BYTES: u64 = 1 << 20;
/// How many are in flight together.
const WINDOW: usize = 16;

/// What is to be done.
pub(crate) enum Job<'a> {
    Read(&'a mut [u8]),
    Write(&'a [u8]),
    /// One operation, not cut.
    Whole(Option<Op>),
}

/// A request in progress, to be awaited. It begins when it is first polled. Needs no runtime.
#[must_use = "does nothing unless awaited"]
pub struct IoFuture<'a> {
    handle: &'a Arc<Handle>,
    job: Job<'a>,
    offset: u64,
    len: u64,
    next: usize,
    in_flight: usize,
    error: Option<Error>,
    inbox: Inbox,
}

impl<'a> IoFuture<'a> {
    pub(crate) fn new(handle: &'a Arc<Handle>, job: Job<'a>, offset: u64, len: u64) -> Self {
        let size = handle.label.size_bytes();
        let inside = offset.checked_add(len).is_some_and(|end| end <= size);
        let error = (!inside).then(|| {
            Error::Invalid(format!("offset {offset}: {len} bytes from there are not inside"))
        });
        let inbox = Inbox::default();
        Self { handle, job, offset, len, next: 0, in_flight: 0, error, inbox }
    }

    /// Submits pieces while there is room in the window.
    fn fill(&mut self) {
        while self.error.is_none() && self.in_flight < WINDOW {
            let Some(op) = self.next_op() else { return };
            self.handle.core.queue.push(op, self.inbox.completion(self.next));
            self.next += 1;
            self.in_flight += 1;
        }
    }

    fn next_op(&mut self) -> Option<Op> {
        let export = self.handle.id;
        let range = piece(self.offset, self.len, self.next);
        match &mut self.job {
            Job::Whole(op) => op.take(),
            Job::Read(_) => range.map(|(offset, len)| Op::Read { export, offset, len }),
            Job::Write(data) => range.map(|(offset, len)| {
                let from = (offset - self.offset) as usize;
                let data = self.handle.core.buffers.from_bytes(&data[from..from + len as usize]);
                Op::Write { export, offset, len, data, fua: false }
            }),
        }
    }

    /// Takes the outcome of piece `index`.
    fn absorb(&mut self, (index, outcome): (usize, Outcome)) {
        self.in_flight -= 1;
        let result = outcome.and_then(|reply| self.take(index, reply));
        if let Err(error) = result {
            self.error.get_or_insert(error);
        }
    }

    fn take(&mut self, index: usize, reply: Reply) -> Result<(), Error> {
        match (&mut self.job, reply) {
            (Job::Read(target), Reply::Data { buf, skip }) => {
                let bytes = piece(self.offset, self.len, index).and_then(|(offset, len)| {
                    let from = (offset - self.offset) as usize;
                    let source = buf.get(skip..skip.checked_add(len as usize)?)?;
                    Some((target.get_mut(from..from + len as usize)?, source))
                });
                let Some((target, source)) = bytes else {
                    return Err(unexpected(&Reply::Data { buf, skip }));
                };
                target.copy_from_slice(source);
                Ok(())
            }
            (Job::Write(_) | Job::Whole(_), Reply::Done) => Ok(()),
            (_, other) => Err(unexpected(&other)),
        }
    }

    fn result(&mut self) -> Result<(), Error> {
        self.error.take().map_or(Ok(()), Err)
    }

    /// Does it now, on this thread.
    pub(crate) fn wait(mut self) -> Result<(), Error> {
        crate::completion::refuse_on_reactor()?;
        loop {
            self.fill();
            if self.in_flight == 0 {
                return self.result();
            }
            let next = self.inbox.wait()?;
            self.absorb(next);
        }
    }
}

impl Future for IoFuture<'_> {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            self.fill();
            if self.in_flight == 0 {
                return Poll::Ready(self.result());
            }
            match self.inbox.poll_next(context) {
                Poll::Ready(next) => self.absorb(next),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// Offset and length of piece `index` of a range, if it has so many.
pub(crate) fn piece(offset: u64, len: u64, index: usize) -> Option<(u64, u64)> {
    let end = offset.checked_add(len)?;
    let leaf = (offset / PIECE_BYTES).checked_add(index as u64)?;
    let from = leaf.checked_mul(PIECE_BYTES)?.max(offset);
    let to = leaf.checked_add(1)?.saturating_mul(PIECE_BYTES).min(end);
    (from < to).then(|| (from, to - from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pieces_of_nothing_and_of_one_leaf() {
        assert_eq!(piece(5, 0, 0), None);
        assert_eq!(piece(5, 10, 0), Some((5, 10)));
        assert_eq!(piece(5, 10, 1), None);
        assert_eq!(piece(PIECE_BYTES - 1, 2, 0), Some((PIECE_BYTES - 1, 1)));
        assert_eq!(piece(PIECE_BYTES - 1, 2, 1), Some((PIECE_BYTES, 1)));
        assert_eq!(piece(u64::MAX, 1, 0), None, "beyond all ends");
    }

    proptest! {
        /// The pieces follow one another without a gap, none crosses a leaf, none is empty.
        #[test]
        fn pieces_cover_the_range(offset in 0u64..1 << 40, len in 0u64..40 << 20) {
            let (mut at, mut index) = (offset, 0);
            while let Some((from, piece_len)) = piece(offset, len, index) {
                prop_assert_eq!(from, at);
                prop_assert!(piece_len > 0);
                prop_assert_eq!(from / PIECE_BYTES, (from + piece_len - 1) / PIECE_BYTES);
                at += piece_len;
                index += 1;
            }
            prop_assert_eq!(at, offset + len);
        }
    }
}
