//! What is asked of a driver, and what comes back.

use crate::error::{IoError, OpKind};
use cow_format::{BLOCK_SIZE, Buf, BufSlice};

/// One request. The tag is the caller's and comes back with the completion.
#[derive(Debug)]
pub struct IoRequest {
    /// Chosen by the caller, returned in [`IoDone::tag`].
    pub tag: u64,
    /// What to do.
    pub op: IoOp,
}

/// What to do. Offsets and lengths are in bytes and multiples of 4096 (except of [`IoOp::Grow`]).
#[derive(Debug)]
pub enum IoOp {
    /// Fills all of `buf`, or fails.
    Read {
        /// Where to begin.
        offset: u64,
        /// Filled, and handed back with the completion.
        buf: Buf,
    },
    /// Writes all slices, in order, as one contiguous range.
    Write {
        /// Where to begin.
        offset: u64,
        /// The data.
        bufs: Vec<BufSlice>,
    },
    /// `fdatasync`: makes the writes durable whose completions were taken before.
    Flush,
    /// Gives space back below: a hole in a file (which then reads as zeros), `BLKDISCARD` on a
    /// device (what it then reads as is the device's affair).
    Discard {
        /// Where to begin.
        offset: u64,
        /// How many bytes.
        len: u64,
    },
    /// Makes sure that writes of the range will find space in the file system below. The length
    /// of the file stays. Nothing is done on a device.
    Allocate {
        /// Where to begin.
        offset: u64,
        /// How many bytes.
        len: u64,
    },
    /// Makes the image at least `len` bytes long, durably. A device cannot grow: there the size
    /// is read anew, and `ENOSPC` returned when it is too small.
    Grow {
        /// The new length. A shorter one than the present changes nothing.
        len: u64,
    },
}

/// A completion.
#[derive(Debug)]
pub struct IoDone {
    /// The tag of the request.
    pub tag: u64,
    /// How it went.
    pub result: Result<(), IoError>,
    /// The buffer of a read; its contents mean something only after success. It is missing when
    /// the ring itself was lost, because the kernel may still be writing to it.
    pub buf: Option<Buf>,
}

impl IoOp {
    /// Which kind of operation this is.
    pub fn kind(&self) -> OpKind {
        match self {
            IoOp::Read { .. } => OpKind::Read,
            IoOp::Write { .. } => OpKind::Write,
            IoOp::Flush => OpKind::Flush,
            IoOp::Discard { .. } => OpKind::Discard,
            IoOp::Allocate { .. } => OpKind::Allocate,
            IoOp::Grow { .. } => OpKind::Grow,
        }
    }

    /// The offset and length that the operation covers.
    fn range(&self) -> (u64, u64) {
        match self {
            IoOp::Read { offset, buf } => (*offset, buf.len() as u64),
            IoOp::Write { offset, bufs } => (*offset, bufs.iter().map(|b| b.len() as u64).sum()),
            IoOp::Flush => (0, 0),
            IoOp::Discard { offset, len } | IoOp::Allocate { offset, len } => (*offset, *len),
            IoOp::Grow { len } => (*len, 0),
        }
    }

    /// Refuses what must never reach the kernel: an unaligned or overflowing range (buffered
    /// files would take it, and the fault would show on direct ones only), and a change of a
    /// read-only image (`ftruncate` would answer `EINVAL`).
    pub(crate) fn check(&self, read_only: bool) -> Result<(), IoError> {
        let (offset, len) = self.range();
        let fail = |errno| Err(IoError { op: self.kind(), offset, errno });
        if read_only && !matches!(self, IoOp::Read { .. } | IoOp::Flush) {
            return fail(libc::EBADF);
        }
        let block = BLOCK_SIZE as u64;
        let aligned = offset.is_multiple_of(block) && len.is_multiple_of(block);
        if !aligned && !matches!(self, IoOp::Grow { .. }) {
            return fail(libc::EINVAL);
        }
        match offset.checked_add(len) {
            Some(end) if i64::try_from(end).is_ok() => Ok(()),
            _ => fail(libc::EFBIG),
        }
    }
}
