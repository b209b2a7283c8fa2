//! Messages to watched files that are under way. They belong to the ring until they are completed,
//! as the memory of requests does ([`super::ring`]): they count there, and are leaked with it.

use crate::message::Message;
use io_uring::{opcode, squeue, types};
use std::os::fd::RawFd;

/// The number of the first one; the others count up, and stay below those of the watches.
const FIRST: u64 = 1 << 62;
const END: u64 = 1 << 63;

/// The messages, by slot.
#[derive(Default)]
pub(super) struct Outgoing {
    slots: Vec<Option<Box<Sending>>>,
    free: Vec<usize>,
}

struct Sending {
    /// Kept alive: the vectors point into it.
    message: Message,
    vectors: [libc::iovec; 2],
    fd: RawFd,
}

// SAFETY: the vectors are what keeps this from being Send by itself. They point into the message,
// which is Send, lies in the same box, and is only read through them.
unsafe impl Send for Sending {}

impl Outgoing {
    /// Takes a message on, and describes its submission: valid until [`Outgoing::completed`] has
    /// its number.
    pub(super) fn add(&mut self, message: Message, fd: RawFd) -> squeue::Entry {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let none = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        let sending = Box::new(Sending { message, vectors: [none; 2], fd });
        let sending = self.slots[slot].insert(sending);
        let Sending { message, vectors, fd } = &mut **sending;
        for (vector, piece) in vectors.iter_mut().zip(message.pieces()) {
            *vector =
                libc::iovec { iov_base: piece.as_ptr().cast_mut().cast(), iov_len: piece.len() };
        }
        let entry = opcode::Writev::new(types::Fd(*fd), vectors.as_ptr(), 2);
        entry.offset(u64::MAX).build().user_data(FIRST + slot as u64)
    }

    /// Whether a completion is of a message; that is dropped.
    pub(super) fn completed(&mut self, user_data: u64, result: i32) -> bool {
        if !(FIRST..END).contains(&user_data) {
            return false;
        }
        let slot = (user_data - FIRST) as usize;
        if self.slots.get_mut(slot).and_then(Option::take).is_some() {
            self.free.push(slot);
        }
        // Whoever asked may have been killed, or the mount be gone.
        if result < 0 && !matches!(-result, libc::ENOENT | libc::ENODEV) {
            tracing::warn!(errno = -result, "an answer is refused");
        }
        true
    }
}
