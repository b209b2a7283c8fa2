//! Requests that move data: handed to the pool, and answered from its reactor.
//!
//! Nothing here blocks. A file is as large as its volume and stays so: what lies beyond its end
//! reads as nothing and cannot be written, as on a block device.

use crate::answer::Answer;
use crate::errno;
use crate::handles::File;
use cowstore::{Buf, Error, Extent, Request, Response};
use fuser::{Errno, ReplyEmpty, ReplyLseek};
use std::sync::Arc;

/// Answers with the bytes from `offset` on, fewer at the end of the file.
pub(crate) fn read(file: &Arc<File>, offset: u64, len: u32, reply: Answer) {
    let left = file.export.size_bytes().saturating_sub(offset);
    let len = u64::from(len).min(left);
    if len == 0 {
        return reply.data(Buf::zeroed(0), 0..0);
    }
    file.export.submit(Request::Read { offset, len }, move |outcome| match outcome {
        Ok(Response::Data { buf, skip }) => reply.data(buf, skip..skip + len as usize),
        Ok(_) => reply.error(Errno::EIO),
        Err(error) => reply.error(told(&error)),
    });
}

/// Stores the first bytes of `data`, so many, or what of them lies before the end. `durable` waits
/// until they are on stable storage.
pub(crate) fn write(
    file: &Arc<File>,
    offset: u64,
    (data, len): (Buf, usize),
    durable: bool,
    reply: Answer,
) {
    let left = file.export.size_bytes().saturating_sub(offset);
    if len == 0 {
        return reply.written(0);
    }
    let len = (len as u64).min(left);
    if len == 0 {
        return reply.error(Errno::EFBIG);
    }
    let request = Request::Write { offset, len, data, fua: durable };
    file.export.submit(request, move |outcome| match outcome {
        Ok(_) => reply.written(len as u32),
        Err(error) => reply.error(told(&error)),
    });
}

/// Makes everything durable that was answered before, in the whole pool.
pub(crate) fn flush(file: &Arc<File>, reply: Answer) {
    if file.export.is_read_only() {
        return reply.ok();
    }
    file.export.submit(Request::Flush, move |outcome| match outcome {
        Ok(_) => reply.ok(),
        Err(error) => reply.error(told(&error)),
    });
}

/// Punches a hole, or makes a range read as zeros. Space cannot be reserved: a pool is thin.
pub(crate) fn allocate(file: &Arc<File>, offset: u64, len: u64, mode: i32, reply: ReplyEmpty) {
    let size = file.export.size_bytes();
    let keeps_size = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
    let what = mode & !libc::FALLOC_FL_KEEP_SIZE;
    if what != libc::FALLOC_FL_PUNCH_HOLE && what != libc::FALLOC_FL_ZERO_RANGE {
        return reply.error(Errno::EOPNOTSUPP);
    }
    let end = offset.saturating_add(len);
    if end > size && !keeps_size {
        return reply.error(Errno::EFBIG);
    }
    let len = end.min(size).saturating_sub(offset);
    if len == 0 {
        return reply.ok();
    }
    let request = if what == libc::FALLOC_FL_PUNCH_HOLE {
        Request::Discard { offset, len, fua: false }
    } else {
        Request::WriteZeroes { offset, len, fua: false }
    };
    file.export.submit(request, move |outcome| empty(outcome, reply));
}

/// Answers with the first byte of data (or of a hole) at or after `offset`.
pub(crate) fn seek(file: &Arc<File>, offset: i64, whence: i32, reply: ReplyLseek) {
    let data = match whence {
        libc::SEEK_DATA => true,
        libc::SEEK_HOLE => false,
        _ => return reply.error(Errno::EINVAL),
    };
    match u64::try_from(offset) {
        Ok(offset) if offset < file.export.size_bytes() => {
            seek_on(file.clone(), Seek { data, reply }, offset);
        }
        _ => reply.error(Errno::ENXIO),
    }
}

struct Seek {
    /// Data is looked for, not a hole.
    data: bool,
    reply: ReplyLseek,
}

/// Goes on at `offset`, as often as it takes: one answer of the pool may cover a part only.
fn seek_on(file: Arc<File>, seek: Seek, offset: u64) {
    let size = file.export.size_bytes();
    let len = size.saturating_sub(offset);
    if len == 0 {
        // The end counts as a hole.
        return if seek.data {
            seek.reply.error(Errno::ENXIO)
        } else {
            answer_offset(seek.reply, size)
        };
    }
    let export = file.export.clone();
    export.submit(Request::Extents { offset, len }, move |outcome| match outcome {
        Ok(Response::Extents(extents)) => match find(&extents, seek.data, offset, size) {
            Found::At(at) => answer_offset(seek.reply, at),
            Found::GoOn(at) if at > offset => seek_on(file, seek, at),
            Found::GoOn(_) => seek.reply.error(Errno::EIO),
        },
        Ok(_) => seek.reply.error(Errno::EIO),
        Err(error) => seek.reply.error(told(&error)),
    });
}

#[derive(Debug, PartialEq, Eq)]
enum Found {
    At(u64),
    GoOn(u64),
}

/// Looks for data, or a hole, in extents that begin at `offset`.
fn find(extents: &[Extent], data: bool, offset: u64, size: u64) -> Found {
    let mut at = offset;
    for extent in extents {
        if at < size && extent.mapped == data {
            return Found::At(at);
        }
        at = at.saturating_add(extent.len);
    }
    Found::GoOn(at.min(size))
}

fn answer_offset(reply: ReplyLseek, at: u64) {
    match i64::try_from(at) {
        Ok(at) => reply.offset(at),
        Err(_) => reply.error(Errno::EOVERFLOW),
    }
}

fn empty(outcome: Result<Response, Error>, reply: ReplyEmpty) {
    match outcome {
        Ok(_) => reply.ok(),
        Err(error) => reply.error(told(&error)),
    }
}

/// The number for the kernel; what it cannot say goes to the log.
fn told(error: &Error) -> Errno {
    if matches!(error, Error::Corrupt(_) | Error::Poisoned(_) | Error::Io { .. }) {
        tracing::error!(%error, "a request of the mount failed");
    }
    errno::of(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_and_holes_are_found_across_answers() {
        let extent = |len, mapped| Extent { len, mapped };
        let extents = [extent(100, false), extent(50, true), extent(50, false)];
        assert_eq!(find(&extents, true, 0, 1000), Found::At(100));
        assert_eq!(find(&extents, false, 0, 1000), Found::At(0));
        assert_eq!(find(&extents[1..], false, 100, 1000), Found::At(150));
        assert_eq!(find(&extents[..1], true, 0, 1000), Found::GoOn(100));
        assert_eq!(find(&[], true, 7, 1000), Found::GoOn(7));
        assert_eq!(find(&[extent(5000, false)], true, 0, 1000), Found::GoOn(1000));
    }
}
