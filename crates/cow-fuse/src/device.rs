//! The kernel's requests, read from the device: those that move data go to the pool from here, all
//! others to [`crate::bridge`].
//!
//! The pool's reactor reads them itself ([`cowstore::Source`]), as many as there are, before it
//! begins what they ask. So a request costs no thread switch of its own, and writes that come
//! together go to the disk together. Where the reactor cannot, or has ended, the thread of the mount
//! does the same.

use crate::answer::{Answer, Outbox};
use crate::handles::Handles;
use crate::wire::{self, Request};
use crate::{sys, transfer};
use cowstore::{BLOCK_SIZE, Buf, Message, Source, Taken};
use fuser::Errno;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::Sender;

/// Largest transfer.
pub(crate) const TRANSFER_MAX_BYTES: usize = 1 << 20;
/// Requests that are read in one go: then they are begun, so that the disk is at work while the next
/// are read.
pub(crate) const BATCH: usize = 8;
/// From here on the data of a write stays where it was read to; less is copied.
const KEEP_BYTES: usize = TRANSFER_MAX_BYTES / 2;

/// The device of a mount.
pub(crate) struct Device {
    outbox: Arc<Outbox>,
    handles: Arc<Handles>,
    /// Where requests go that do not move data.
    others: Sender<Vec<u8>>,
    /// Where it goes when the reactor has no use for it.
    home: Sender<Box<Device>>,
    head: [u8; wire::HEAD_BYTES],
    /// The data of a write is read to here, so that it lies at the beginning of a block.
    body: Buf,
    new_body: Box<dyn Fn() -> Buf + Send>,
    pub(crate) has_ended: bool,
}

impl Device {
    /// Requests of `file`, a device of FUSE that does not block. `new_body` makes a buffer of
    /// [`TRANSFER_MAX_BYTES`].
    pub(crate) fn new(
        file: File,
        handles: Arc<Handles>,
        others: Sender<Vec<u8>>,
        home: Sender<Box<Device>>,
        new_body: Box<dyn Fn() -> Buf + Send>,
    ) -> Self {
        let (outbox, body) = (Arc::new(Outbox::new(file)), new_body());
        let head = [0; wire::HEAD_BYTES];
        Self { outbox, handles, others, home, head, body, new_body, has_ended: false }
    }

    /// Waits until there is a request.
    pub(crate) fn wait(&self) -> io::Result<()> {
        sys::wait_readable(self.outbox.device())
    }

    fn dispatch(&mut self, len: usize) {
        let head = &self.head[..len.min(wire::HEAD_BYTES)];
        let Some((unique, request)) = wire::parse(head) else {
            return tracing::error!(len, "a request of the kernel is too short");
        };
        let answer = || Answer::new(self.outbox.clone(), unique);
        match request {
            Request::Read { handle, offset, len } => match self.handles.file(handle) {
                Some(file) => transfer::read(&file, offset, len, answer()),
                None => answer().error(Errno::EBADF),
            },
            Request::Write { handle, offset, len: said, flags } => {
                let data = len.saturating_sub(wire::HEAD_BYTES);
                let file = self.handles.file(handle);
                match file {
                    Some(_) if data != said as usize => answer().error(Errno::EIO),
                    Some(file) => {
                        let durable = flags & (libc::O_DSYNC | libc::O_SYNC) != 0;
                        let answer = answer();
                        let buf = self.take_data(&file, data);
                        transfer::write(&file, offset, (buf, data), durable, answer);
                    }
                    None => answer().error(Errno::EBADF),
                }
            }
            Request::Flush { handle } => match self.handles.file(handle) {
                Some(file) => transfer::flush(&file, answer()),
                None => answer().error(Errno::EBADF),
            },
            Request::Other => {
                let rest = len.saturating_sub(head.len());
                let message = [head, &self.body[..rest]].concat();
                if self.others.send(message).is_err() {
                    answer().error(Errno::EIO);
                }
            }
        }
    }

    /// The data of the write that was just read.
    fn take_data(&mut self, file: &crate::handles::File, len: usize) -> Buf {
        if len < KEEP_BYTES {
            let mut buf = file.export.buffer(len);
            buf[..len].copy_from_slice(&self.body[..len]);
            return buf;
        }
        let mut buf = std::mem::replace(&mut self.body, (self.new_body)());
        buf.truncate(len.div_ceil(BLOCK_SIZE));
        buf
    }
}

impl Source for Device {
    fn file(&self) -> io::Result<OwnedFd> {
        Ok(self.outbox.device().try_clone()?.into())
    }

    fn take(&mut self) -> Taken {
        for _ in 0..BATCH {
            match sys::read_split(self.outbox.device(), &mut self.head, &mut self.body) {
                Ok(len) => self.dispatch(len),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => return Taken::All,
                    // A request that was taken back, or a signal.
                    Some(libc::ENOENT | libc::EINTR) => {}
                    code => {
                        if code != Some(libc::ENODEV) {
                            tracing::error!(%error, "no more requests of the kernel");
                        }
                        self.has_ended = true;
                        return Taken::End;
                    }
                },
            }
        }
        Taken::Some
    }

    fn answers(&mut self, messages: &mut Vec<Message>) {
        self.outbox.collect();
        self.outbox.take(messages);
    }

    fn leave(self: Box<Self>) {
        self.outbox.write_through();
        let home = self.home.clone();
        // Nobody is there only if the mount could not be made.
        let _ = home.send(self);
    }
}

#[cfg(test)]
mod tests;
