//! The answer to a request that moves data.
//!
//! Each answer wakes whoever asked, which takes the processor from the thread that answers. So the
//! reactor's answers are collected, and written together with what it submits next.

use crate::{sys, wire};
use cowstore::{Buf, Message};
use fuser::Errno;
use parking_lot::Mutex;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

/// Where answers go.
pub(crate) struct Outbox {
    device: File,
    /// What the reactor is to write; none if answers are written at once.
    waiting: Mutex<Option<Vec<Message>>>,
}

impl Outbox {
    /// Answers are written to `device` at once.
    pub(crate) fn new(device: File) -> Self {
        Self { device, waiting: Mutex::new(None) }
    }

    pub(crate) fn device(&self) -> &File {
        &self.device
    }

    /// Answers are collected from now on.
    pub(crate) fn collect(&self) {
        self.waiting.lock().get_or_insert_default();
    }

    /// Takes what was collected.
    pub(crate) fn take(&self, messages: &mut Vec<Message>) {
        if let Some(waiting) = self.waiting.lock().as_mut() {
            messages.append(waiting);
        }
    }

    /// Nobody collects them any more.
    pub(crate) fn write_through(&self) {
        let waiting = self.waiting.lock().take();
        for message in waiting.into_iter().flatten() {
            self.write(&message);
        }
    }

    fn send(&self, message: Message) {
        let mut waiting = self.waiting.lock();
        match waiting.as_mut() {
            Some(waiting) => waiting.push(message),
            None => {
                drop(waiting);
                self.write(&message);
            }
        }
    }

    /// The kernel takes an answer whole, and has room for it: this does not block.
    fn write(&self, message: &Message) {
        match sys::write_all_at_once(&self.device, &message.pieces()) {
            // Whoever asked has been killed, or the mount is gone.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => {}
            Err(error) => tracing::warn!(%error, "the kernel refuses an answer"),
            Ok(()) => {}
        }
    }
}

/// Answers one request, once: with an error if it is dropped.
pub(crate) struct Answer {
    outbox: Arc<Outbox>,
    unique: u64,
    is_open: bool,
}

impl Answer {
    pub(crate) fn new(outbox: Arc<Outbox>, unique: u64) -> Self {
        Self { outbox, unique, is_open: true }
    }

    /// With a part of `buf`.
    pub(crate) fn data(mut self, buf: Buf, part: Range<usize>) {
        let head = wire::answer(self.unique, 0, part.len());
        match Message::new(&head, Some((buf, part))) {
            Some(message) => self.send(message),
            None => self.fail(libc::EIO),
        }
    }

    /// So many bytes were written.
    pub(crate) fn written(mut self, len: u32) {
        self.small(&wire::written(self.unique, len));
    }

    pub(crate) fn ok(mut self) {
        self.small(&wire::answer(self.unique, 0, 0));
    }

    pub(crate) fn error(mut self, errno: Errno) {
        self.fail(errno.code());
    }

    fn fail(&mut self, errno: i32) {
        self.small(&wire::answer(self.unique, errno, 0));
    }

    fn small(&mut self, head: &[u8]) {
        match Message::new(head, None) {
            Some(message) => self.send(message),
            None => tracing::error!("an answer is too long"),
        }
    }

    fn send(&mut self, message: Message) {
        self.is_open = false;
        self.outbox.send(message);
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if self.is_open {
            self.fail(libc::EIO);
        }
    }
}
