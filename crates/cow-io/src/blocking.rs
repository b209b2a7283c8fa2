//! Requests done by the calling thread: what the pool's workers and the synchronous helpers of
//! [`Image`] run.

use crate::image::Image;
use crate::op::{Body, Op, Step};
use crate::request::{IoDone, IoRequest};
use crate::sys;
use std::io;
use std::os::unix::fs::FileExt;

/// Does `request` and returns when it is over.
pub(crate) fn run(image: &Image, request: IoRequest) -> IoDone {
    match Op::new(image, request) {
        Ok(op) => finish(image, op),
        Err(done) => done,
    }
}

/// Does what is left of `op`.
pub(crate) fn finish(image: &Image, mut op: Op) -> IoDone {
    if op.is_complete() {
        return op.finish(Ok(()));
    }
    loop {
        let answer = match issue(image, &mut op) {
            Ok(count) => count as i64,
            Err(error) => -i64::from(sys::errno_of(&error)),
        };
        if let Step::Done(result) = op.digest(answer) {
            return op.finish(result);
        }
    }
}

/// One system call's worth of `op`.
fn issue(image: &Image, op: &mut Op) -> io::Result<usize> {
    let (file, position) = (image.file(), op.position());
    match &mut op.body {
        Body::Read { buf, done } => file.read_at(&mut buf[*done..], position),
        // SAFETY: the vectors point into slices that `op` owns and that nobody can change.
        Body::Write { vector, .. } => unsafe { sys::pwritev(file, vector.chunk(), position) },
        Body::Flush => sys::fdatasync(file).map(|()| 0),
        Body::Fallocate { mode, len } => sys::fallocate(file, *mode, position, *len).map(|()| 0),
        Body::DiscardDevice { len } => sys::discard_device(file, position, *len).map(|()| 0),
        Body::Grow => image.grow(position).map(|()| 0),
        Body::Nothing => Ok(0),
    }
}
