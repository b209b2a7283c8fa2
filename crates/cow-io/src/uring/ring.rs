//! The ring itself, and the requests that are in it.
//!
//! # Why no memory is freed under the kernel
//!
//! Whatever an entry in the submission queue points to belongs to an [`Op`] in `slab`, and
//! `under_way` counts those entries. An op leaves the slab only
//!
//! 1. in [`Ring::reap`], on its completion, after which the kernel holds nothing of it;
//! 2. in [`Ring::abandon`], and in `drop` when the kernel cannot be waited for: by being leaked;
//! 3. in `drop`, after `under_way` has come down to zero.
//!
//! Nothing but `reap` touches an op between its push and its completion.
//!
//! Registered buffers change nothing in this. What an op owns is then a run of blocks of the
//! arena: given back, and only then given out again, when the op is dropped, and never when it is
//! leaked. The mapping stays as long as any run of it is out, or the ring is there, which is
//! dropped before its handle to the arena; and the kernel has a hold of its own on registered
//! pages, until it has taken the ring apart.

use super::fixed::Fixed;
use super::held::Held;
use super::outgoing::Outgoing;
use super::watches::Watches;
use super::{entry, setup};
use crate::arena::Arena;
use crate::driver::WatchId;
use crate::image::Image;
use crate::message::Message;
use crate::notify::Notifier;
use crate::op::{Op, Step};
use crate::request::IoDone;
use io_uring::{IoUring, cqueue, opcode, types};
use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::Duration;

/// Marks completions of the poll; no slot of the slab has this number.
const POLL: u64 = u64::MAX;

/// How long to stand back when the kernel is out of memory for requests.
const PAUSE: Duration = Duration::from_millis(1);

/// A ring and its requests.
pub(super) struct Ring {
    /// Before `fixed`, to be dropped before it.
    ring: IoUring,
    notifier: Notifier,
    slab: Slab,
    /// Slots that wait for room in the ring, those of unfinished requests first.
    backlog: VecDeque<u32>,
    held: Held,
    /// How many ops the ring has.
    under_way: usize,
    capacity: usize,
    is_disabled: bool,
    poll: Poll,
    watches: Watches,
    outgoing: Outgoing,
    fixed: Option<Fixed>,
    image: Image,
}

/// The poll of the notifier's event counter.
struct Poll {
    is_armed: bool,
    /// Stays armed by itself (5.13).
    is_multishot: bool,
}

impl Ring {
    /// Sets a ring of about `entries` up.
    pub(super) fn open(image: &Image, notifier: Notifier, entries: u32) -> io::Result<Self> {
        let setup::NewRing { ring, is_disabled } = setup::open(image, entries)?;
        // One entry is the poll's, so that the queue can never be found full.
        let capacity = ring.params().sq_entries() as usize - 1;
        Ok(Self {
            ring,
            notifier,
            slab: Slab::default(),
            backlog: VecDeque::new(),
            held: Held::default(),
            under_way: 0,
            capacity,
            is_disabled,
            poll: Poll { is_armed: false, is_multishot: true },
            watches: Watches::default(),
            outgoing: Outgoing::default(),
            fixed: None,
            image: image.clone(),
        })
    }

    /// Registers the buffers of `arena`. Without, everything works as well. Returns the counter
    /// of submissions that use them.
    pub(super) fn register(&mut self, arena: Arena) -> io::Result<Arc<AtomicU64>> {
        let fixed = self.fixed.insert(Fixed::register(&self.ring, arena)?);
        Ok(fixed.transfers())
    }

    /// Takes a request on; it stays in the backlog for now. A write that follows the one before it
    /// becomes part of that.
    pub(super) fn queue(&mut self, op: Op) {
        if !op.is_read() {
            self.let_go();
        }
        self.push_back(op);
    }

    /// Takes a write on that may be kept for a while.
    pub(super) fn queue_lazily(&mut self, op: Op) {
        if self.held.keep(op) {
            self.let_go();
        }
    }

    /// What was kept is kept no longer.
    fn let_go(&mut self) {
        for op in self.held.take() {
            self.push_back(op);
        }
    }

    fn push_back(&mut self, mut op: Op) {
        if let Some(last) = self.backlog.back().and_then(|&slot| self.slab.get_mut(slot)) {
            match last.join(op) {
                Ok(()) => return,
                Err(back) => op = back,
            }
        }
        let slot = self.slab.insert(op);
        self.backlog.push_back(slot);
    }

    /// See [`crate::Driver::watch`].
    pub(super) fn watch(&mut self, file: OwnedFd) -> WatchId {
        self.watches.add(file)
    }

    /// See [`crate::Driver::unwatch`].
    pub(super) fn unwatch(&mut self, id: WatchId) {
        if let Err(error) = self.watches.remove(&mut self.ring, id) {
            tracing::warn!(%error, "a file stays open until the ring is closed");
        }
    }

    /// See [`crate::Driver::send`].
    pub(super) fn send(&mut self, id: WatchId, message: Message) -> io::Result<()> {
        let Some(fd) = self.watches.fd(id) else { return Ok(()) };
        while self.ring.submission().is_full() {
            self.submit()?;
        }
        let entry = self.outgoing.add(message, fd);
        // SAFETY: the entry points into memory owned by `outgoing`, which keeps it, untouched, until
        // its completion is reaped; it counts as under way.
        if unsafe { self.ring.submission().push(&entry) }.is_ok() {
            self.under_way += 1;
        }
        Ok(())
    }

    /// Whether a wait for this file is under way.
    pub(super) fn awaits(&self, id: WatchId) -> bool {
        self.watches.awaits(id)
    }

    /// Pushes to the kernel what there is room for.
    pub(super) fn submit(&mut self) -> io::Result<()> {
        self.fill()?;
        if self.ring.submission().is_empty() {
            return Ok(());
        }
        self.judge(self.ring.submit())
    }

    /// Like `submit`, and waits for a completion or a notification, no longer than `left`.
    pub(super) fn enter(&mut self, left: Option<Duration>) -> io::Result<()> {
        if left != Some(Duration::ZERO) {
            self.let_go();
        }
        self.fill()?;
        if left != Some(Duration::ZERO)
            && let Err(error) = self.watches.arm(&mut self.ring)
        {
            // Not a moment to sleep: who watches would miss something.
            return self.judge(Err(error));
        }
        let result = match left {
            None => self.ring.submit_and_wait(1),
            Some(Duration::ZERO) => {
                let queue = self.ring.submission();
                let idle = queue.is_empty() && !queue.taskrun() && !queue.cq_overflow();
                drop(queue);
                if idle { Ok(0) } else { self.ring.submit() }
            }
            Some(left) => {
                let left = types::Timespec::from(left);
                let args = types::SubmitArgs::new().timespec(&left);
                self.ring.submitter().submit_with_args(1, &args)
            }
        };
        self.judge(result)
    }

    /// Tells a passing refusal, after which it is tried again, from a broken ring.
    fn judge(&self, result: io::Result<usize>) -> io::Result<()> {
        match result.as_ref().err().and_then(io::Error::raw_os_error) {
            Some(libc::ETIME | libc::EINTR) => Ok(()),
            Some(libc::EAGAIN | libc::EBUSY) => {
                thread::sleep(PAUSE);
                Ok(())
            }
            _ => result.map(|_| ()),
        }
    }

    /// Moves the backlog into the submission queue, as far as it may.
    fn fill(&mut self) -> io::Result<()> {
        if self.held.is_due() {
            self.let_go();
        }
        if self.is_disabled {
            self.ring.submitter().register_enable_rings()?;
            self.is_disabled = false;
        }
        self.arm();
        while self.under_way < self.capacity {
            let Some(slot) = self.backlog.pop_front() else { break };
            let Some(op) = self.slab.get_mut(slot) else { continue };
            let (fixed, submitter) = (&mut self.fixed, self.ring.submitter());
            let entry = entry::build(op, u64::from(slot), |address, len| {
                fixed.as_mut()?.index(&submitter, address, len)
            });
            // SAFETY: the entry points into memory owned by `op`, which stays in the slab,
            // untouched, until its completion is reaped; see the head of this file.
            if unsafe { self.ring.submission().push(&entry) }.is_err() {
                self.backlog.push_front(slot);
                break;
            }
            self.under_way += 1;
        }
        Ok(())
    }

    /// Has the ring watch the notifier.
    fn arm(&mut self) {
        let Some(event) = self.notifier.event().filter(|_| !self.poll.is_armed) else { return };
        let fd = types::Fd(event.as_raw_fd());
        let entry = opcode::PollAdd::new(fd, libc::POLLIN as u32).multi(self.poll.is_multishot);
        let entry = entry.build().user_data(POLL);
        // SAFETY: a poll uses no memory of ours, and the ring keeps the file by itself.
        self.poll.is_armed = unsafe { self.ring.submission().push(&entry) }.is_ok();
    }

    /// Takes the completions that have come. Returns whether a notification was among them.
    pub(super) fn reap(&mut self, done: &mut Vec<IoDone>) -> bool {
        let mut notified = false;
        for cqe in self.ring.completion() {
            if cqe.user_data() == POLL {
                notified |= self.poll.completed(&cqe, &self.notifier);
                continue;
            }
            if self.outgoing.completed(cqe.user_data(), cqe.result()) {
                self.under_way -= 1;
                continue;
            }
            if let Some(news) = self.watches.completed(cqe.user_data()) {
                notified |= news;
                continue;
            }
            let slot = cqe.user_data() as u32;
            let Some(op) = self.slab.get_mut(slot) else {
                debug_assert!(false, "a completion for nothing");
                continue;
            };
            self.under_way -= 1;
            match op.digest(i64::from(cqe.result())) {
                Step::Again => self.backlog.push_front(slot),
                Step::Done(result) => {
                    let Some(op) = self.slab.remove(slot) else { continue };
                    if result.is_ok() || !op.is_joined() {
                        op.finish_all(result, done);
                        continue;
                    }
                    for op in op.split().into_iter().rev() {
                        let slot = self.slab.insert(op);
                        self.backlog.push_front(slot);
                    }
                }
            }
        }
        notified
    }

    /// Fails all requests with `errno`, and leaks those that the kernel may still be at.
    pub(super) fn abandon(mut self, errno: i32, done: &mut Vec<IoDone>) {
        self.let_go();
        for slot in mem::take(&mut self.backlog) {
            if let Some(op) = self.slab.remove(slot) {
                let result = Err(op.error(errno));
                op.finish_all(result, done);
            }
        }
        done.extend(self.slab.ops().flat_map(|op| op.all_lost(errno)));
        self.leak();
    }

    /// Leaks the requests, and with the image its lock: the kernel may still write to both.
    fn leak(&mut self) {
        mem::forget(mem::take(&mut self.slab));
        mem::forget(mem::take(&mut self.outgoing));
        mem::forget(self.image.clone());
        self.under_way = 0;
    }

    /// Waits for all that the kernel has, and begins nothing new.
    pub(super) fn drain(&mut self) -> io::Result<()> {
        let mut done = Vec::new();
        loop {
            self.reap(&mut done);
            // Requests not begun, the rest of short transfers, and parts of what failed.
            self.backlog.clear();
            self.held.take();
            if self.under_way == 0 {
                return Ok(());
            }
            self.judge(self.ring.submit_and_wait(1))?;
        }
    }
}

#[cfg(test)]
impl Ring {
    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn held(&mut self) -> &mut Held {
        &mut self.held
    }

    /// Whether threads other than the first may use it.
    pub(super) fn is_shareable(&self) -> bool {
        !self.ring.params().is_setup_single_issuer()
    }
}

impl Poll {
    /// Digests a completion of the poll. Returns whether it is a notification.
    fn completed(&mut self, cqe: &cqueue::Entry, notifier: &Notifier) -> bool {
        self.is_armed = cqueue::more(cqe.flags());
        if cqe.result() >= 0 {
            notifier.take_event();
            return true;
        }
        if self.is_multishot && cqe.result() == -libc::EINVAL {
            self.is_multishot = false;
        } else {
            thread::sleep(PAUSE);
        }
        false
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if let Err(error) = self.drain() {
            // Most likely dropped by another thread than the one that used it.
            tracing::error!(%error, "cannot wait for the requests of a ring: leaking their memory");
            self.leak();
        }
        // The kernel takes a closed ring apart later, and until then would keep the file open
        // and with it the claim on a block device. An error means only that it does.
        let _ = self.ring.submitter().unregister_files();
        // The same goes for pinned memory, which counts against a limit.
        if self.fixed.is_some() {
            let _ = self.ring.submitter().unregister_buffers();
        }
    }
}

/// Requests by slot number.
#[derive(Default)]
struct Slab {
    slots: Vec<Option<Op>>,
    free: Vec<u32>,
}

impl Slab {
    fn insert(&mut self, op: Op) -> u32 {
        if let Some(slot) = self.free.pop() {
            self.slots[slot as usize] = Some(op);
            return slot;
        }
        self.slots.push(Some(op));
        (self.slots.len() - 1) as u32
    }

    fn get_mut(&mut self, slot: u32) -> Option<&mut Op> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    fn remove(&mut self, slot: u32) -> Option<Op> {
        let op = self.slots.get_mut(slot as usize)?.take()?;
        self.free.push(slot);
        Some(op)
    }

    fn ops(&self) -> impl Iterator<Item = &Op> {
        self.slots.iter().flatten()
    }
}
