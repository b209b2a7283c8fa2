//! One request under way: what it owns, how far it has come, and what a result from the kernel
//! means for it. Both drivers run requests through this, so they cannot differ in it.
//!
//! Progress is counted in whole blocks. A transfer that ends inside a block is taken up again at
//! the beginning of that block, because a direct one may not start anywhere else; if it then
//! gets no further, the image ends there.

use crate::error::{END_OF_IMAGE, IoError, OpKind};
use crate::image::Image;
use crate::request::{IoDone, IoOp, IoRequest};
use crate::vector::{MAX_VECTORS, WriteVector};
use cow_format::{BLOCK_SIZE, Buf};

/// How often a request is tried again before its error is believed.
const MAX_RETRIES: u32 = 64;

/// A request and its progress.
#[derive(Debug)]
pub(crate) struct Op {
    tag: u64,
    kind: OpKind,
    offset: u64,
    retries: u32,
    pub(crate) body: Body,
    /// The requests that were joined to this one, in their order: all are one write.
    joined: Vec<Joined>,
    /// It has failed together with others, and is tried by itself now.
    is_alone: bool,
}

/// A write that became part of the one before it.
#[derive(Debug)]
struct Joined {
    tag: u64,
    offset: u64,
    /// How many slices are its own.
    slices: usize,
}

/// The most that is joined, in bytes: what a request of the layers above may be long.
const JOIN_MAX_BYTES: u64 = 1 << 20;

/// What the request needs to have done.
#[derive(Debug)]
pub(crate) enum Body {
    /// Fill `buf` from byte `done` on.
    Read {
        /// The destination.
        buf: Buf,
        /// How much of it is filled.
        done: usize,
    },
    /// Write what is left of the vector.
    Write {
        /// The data.
        vector: WriteVector,
        /// How much of it is written.
        done: u64,
    },
    /// `fdatasync`.
    Flush,
    /// `fallocate` with this mode.
    Fallocate {
        /// The flags.
        mode: i32,
        /// How many bytes.
        len: u64,
    },
    /// `BLKDISCARD`, which blocks.
    DiscardDevice {
        /// How many bytes.
        len: u64,
    },
    /// Grow the image, which blocks.
    Grow,
    /// Nothing is to be done.
    Nothing,
}

/// What follows from a result.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The request is over.
    Done(Result<(), IoError>),
    /// There is more to do: issue it again.
    Again,
}

impl Op {
    /// Takes a request on, or completes it at once if it is not permissible.
    pub(crate) fn new(image: &Image, request: IoRequest) -> Result<Self, IoDone> {
        let IoRequest { tag, op } = request;
        if let Err(error) = op.check(image.is_read_only()) {
            let buf = if let IoOp::Read { buf, .. } = op { Some(buf) } else { None };
            return Err(IoDone { tag, result: Err(error), buf });
        }
        let kind = op.kind();
        let (offset, body) = Self::plan(image, op);
        Ok(Self::begin(tag, kind, offset, body))
    }

    fn begin(tag: u64, kind: OpKind, offset: u64, body: Body) -> Self {
        Self { tag, kind, offset, retries: 0, body, joined: Vec::new(), is_alone: false }
    }

    fn plan(image: &Image, op: IoOp) -> (u64, Body) {
        const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        match op {
            IoOp::Read { offset, buf } => (offset, Body::Read { buf, done: 0 }),
            IoOp::Write { offset, bufs } => {
                (offset, Body::Write { vector: WriteVector::new(bufs), done: 0 })
            }
            IoOp::Flush => (0, Body::Flush),
            IoOp::Discard { offset, len: 0 } | IoOp::Allocate { offset, len: 0 } => {
                (offset, Body::Nothing)
            }
            IoOp::Discard { offset, len } if image.is_block_device() => {
                (offset, Body::DiscardDevice { len })
            }
            IoOp::Discard { offset, len } => (offset, Body::Fallocate { mode: PUNCH, len }),
            IoOp::Allocate { offset, .. } if image.is_block_device() => (offset, Body::Nothing),
            IoOp::Allocate { offset, len } => {
                (offset, Body::Fallocate { mode: libc::FALLOC_FL_KEEP_SIZE, len })
            }
            IoOp::Grow { len } => (len, Body::Grow),
        }
    }

    /// Whether nothing is left to do: an empty transfer, or nothing to begin with.
    pub(crate) fn is_complete(&self) -> bool {
        match &self.body {
            Body::Read { buf, done } => *done == buf.len(),
            Body::Write { vector, .. } => vector.left() == 0,
            Body::Nothing => true,
            _ => false,
        }
    }

    pub(crate) fn is_read(&self) -> bool {
        self.kind == OpKind::Read
    }

    /// Bytes of a write that are not written yet.
    pub(crate) fn left(&self) -> u64 {
        if let Body::Write { vector, .. } = &self.body { vector.left() } else { 0 }
    }

    /// Whether only a blocking call can do it.
    pub(crate) fn must_block(&self) -> bool {
        matches!(self.body, Body::DiscardDevice { .. } | Body::Grow)
    }

    /// Whether the kernel has refused it for the moment at least once.
    pub(crate) fn was_refused(&self) -> bool {
        self.retries > 0
    }

    /// Where the next transfer begins.
    pub(crate) fn position(&self) -> u64 {
        match &self.body {
            Body::Read { done, .. } => self.offset + *done as u64,
            Body::Write { done, .. } => self.offset + *done,
            _ => self.offset,
        }
    }

    /// Digests the kernel's answer: a count (or zero), or an error number negated.
    pub(crate) fn digest(&mut self, answer: i64) -> Step {
        if answer < 0 {
            return self.refused(i32::try_from(-answer).unwrap_or(libc::EIO));
        }
        let whole = answer as u64 / BLOCK_SIZE as u64 * BLOCK_SIZE as u64;
        let stuck = whole == 0 && !self.is_complete();
        match &mut self.body {
            Body::Read { .. } if stuck => return self.fail(END_OF_IMAGE),
            Body::Write { .. } if stuck && answer == 0 => return self.fail(libc::EIO),
            Body::Write { .. } if stuck => return self.refused(libc::EAGAIN),
            Body::Read { buf, done } => {
                *done += whole as usize;
                assert!(*done <= buf.len(), "more was read than asked for");
            }
            Body::Write { vector, done } => {
                *done += whole;
                vector.advance(whole);
            }
            _ => return Step::Done(Ok(())),
        }
        if self.is_complete() { Step::Done(Ok(())) } else { Step::Again }
    }

    fn refused(&mut self, errno: i32) -> Step {
        let passing = matches!(errno, libc::EINTR | libc::EAGAIN | libc::EBUSY);
        if !passing || self.kind == OpKind::Flush || self.retries == MAX_RETRIES {
            return self.fail(errno);
        }
        self.retries += 1;
        Step::Again
    }

    fn fail(&self, errno: i32) -> Step {
        Step::Done(Err(self.error(errno)))
    }

    /// An error of this request.
    pub(crate) fn error(&self, errno: i32) -> IoError {
        IoError { op: self.kind, offset: self.offset, errno }
    }

    /// The completion that names this request and gives nothing back.
    pub(crate) fn lost(&self, errno: i32) -> IoDone {
        IoDone { tag: self.tag, result: Err(self.error(errno)), buf: None }
    }

    /// As [`Op::lost`], of all requests in it.
    pub(crate) fn all_lost(&self, errno: i32) -> impl Iterator<Item = IoDone> + '_ {
        let result = Err(self.error(errno));
        let joined = self.joined.iter().map(|Joined { tag, .. }| *tag);
        std::iter::once(self.tag).chain(joined).map(move |tag| IoDone { tag, result, buf: None })
    }

    /// Ends the request and gives the buffer of a read back.
    pub(crate) fn finish(self, result: Result<(), IoError>) -> IoDone {
        debug_assert!(self.joined.is_empty(), "more than one request ends here");
        let buf = if let Body::Read { buf, .. } = self.body { Some(buf) } else { None };
        IoDone { tag: self.tag, result, buf }
    }

    /// Ends all requests in it.
    pub(crate) fn finish_all(mut self, result: Result<(), IoError>, done: &mut Vec<IoDone>) {
        let joined = std::mem::take(&mut self.joined);
        done.push(self.finish(result));
        done.extend(joined.iter().map(|joined| IoDone { tag: joined.tag, result, buf: None }));
    }

    /// Takes `next` in if both are writes, not begun, of which one follows the other; else gives it
    /// back. What a write costs below hardly depends on its length.
    pub(crate) fn join(&mut self, next: Self) -> Result<(), Self> {
        let (Body::Write { vector, done: 0 }, Body::Write { vector: more, done: 0 }) =
            (&mut self.body, &next.body)
        else {
            return Err(next);
        };
        let fresh = self.retries == 0 && !self.is_alone && next.joined.is_empty();
        let bytes = vector.left().saturating_add(more.left());
        let room = vector.chunk().len() + more.chunk().len() <= MAX_VECTORS;
        let follows = self.offset.checked_add(vector.left()) == Some(next.offset);
        if !fresh || next.is_alone || !follows || !room || bytes > JOIN_MAX_BYTES {
            return Err(next);
        }
        if let Body::Write { vector: more, .. } = next.body {
            let slices = more.into_slices();
            self.joined.push(Joined { tag: next.tag, offset: next.offset, slices: slices.len() });
            vector.append(slices);
        }
        Ok(())
    }

    /// Whether it is several requests.
    pub(crate) fn is_joined(&self) -> bool {
        !self.joined.is_empty()
    }

    /// The requests in it, each by itself, from their beginning: what one of them failed with must
    /// not be told of the others.
    pub(crate) fn split(self) -> Vec<Self> {
        let Self { tag, kind, offset, body, joined, .. } = self;
        let Body::Write { vector, .. } = body else { return Vec::new() };
        let mut slices = vector.into_slices();
        let mut parts = Vec::with_capacity(joined.len() + 1);
        let mut part = |tag, offset, slices| {
            let body = Body::Write { vector: WriteVector::new(slices), done: 0 };
            parts.push(Self { is_alone: true, ..Self::begin(tag, kind, offset, body) });
        };
        for Joined { tag, offset, slices: count } in joined.into_iter().rev() {
            let own = slices.split_off(slices.len().saturating_sub(count));
            part(tag, offset, own);
        }
        part(tag, offset, slices);
        parts.reverse();
        parts
    }
}

#[cfg(test)]
mod tests;
