//! The synchronous helpers of [`Image`], for tools and for recovery. They may be used beside a
//! driver, but nothing orders the two against each other.

use crate::blocking;
use crate::error::{IoError, OpKind};
use crate::image::Image;
use crate::request::{IoOp, IoRequest};
use crate::sys;
use cow_format::{BLOCK_SIZE, Buf, BufSlice};
use std::io;
use std::mem;
use std::sync::Arc;

/// How much [`Image::zero_range`] writes at once.
const ZERO_CHUNK: usize = 1 << 20;

impl Image {
    /// Fills `buf` from byte `offset` on. After an error its contents mean nothing.
    pub fn read_at(&self, offset: u64, buf: &mut Buf) -> Result<(), IoError> {
        let op = IoOp::Read { offset, buf: mem::take(buf) };
        let done = blocking::run(self, IoRequest { tag: 0, op });
        *buf = done.buf.unwrap_or_default();
        done.result
    }

    /// Writes `data` at byte `offset`.
    pub fn write_at(&self, offset: u64, data: &BufSlice) -> Result<(), IoError> {
        let op = IoOp::Write { offset, bufs: vec![data.clone()] };
        blocking::run(self, IoRequest { tag: 0, op }).result
    }

    /// Makes durable what was written (`fdatasync`). A failure is final: see the crate's promise.
    pub fn sync(&self) -> Result<(), IoError> {
        blocking::run(self, IoRequest { tag: 0, op: IoOp::Flush }).result
    }

    /// Writes zeros, real ones, over `len` bytes from `offset` on: blocks that were merely
    /// allocated would cost a metadata update in the file system below at their first write.
    pub fn zero_range(&self, offset: u64, len: u64) -> Result<(), IoError> {
        let op = IoOp::Discard { offset, len };
        op.check(self.is_read_only()).map_err(|e| IoError { op: OpKind::Write, ..e })?;
        let zeros = Arc::new(Buf::zeroed(ZERO_CHUNK / BLOCK_SIZE));
        let mut done = 0;
        while done < len {
            let blocks = ((len - done) as usize).min(ZERO_CHUNK) / BLOCK_SIZE;
            self.write_at(offset + done, &BufSlice::new(zeros.clone(), 0, blocks))?;
            done += (blocks * BLOCK_SIZE) as u64;
        }
        Ok(())
    }

    /// Makes everything durable, then asks the kernel to forget the cached pages, so that what
    /// is read next is what the device has. Recovery needs it with buffered I/O: after a failed
    /// flush the cache may hold clean pages that were never written.
    pub fn drop_page_cache(&self) -> io::Result<()> {
        sys::fdatasync(self.file())?;
        sys::forget_pages(self.file())
    }
}
