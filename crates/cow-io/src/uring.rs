//! The io_uring driver: one ring, one thread, one submission per request at a time.
//!
//! ```text
//!  submit ─► backlog ─► submission queue ─► kernel ─► completion queue ─► done
//!               ▲        (kick, wait)                        │
//!               └── the rest of a short transfer, a retry ───┘
//! ```
//!
//! * Writes that nobody waits for are kept until enough of them can be written as one ([`held`]).
//! * At most `capacity` submissions are under way, and the completion queue is twice as long:
//!   `push` does not look whether it will overflow, so we must.
//! * A request sits in the slab from `submit` to its completion, and its memory with it: see
//!   [`ring`] for the argument. Requests that must block go to a pool of one thread.
//! * Files that others want to read from are polled by the ring, each once, and anew before a sleep
//!   ([`watches`]).
//! * The notifier's event counter is polled by the ring itself, so one `io_uring_enter` waits
//!   for completions, notifications and the time.
//! * If `io_uring_enter` fails in a way that nobody knows, or is called by a second thread,
//!   the ring is *lost*: everything under way fails with that error, its memory is leaked (the
//!   kernel may still use it), and so do all later requests.

mod entry;
mod fixed;
mod held;
mod outgoing;
mod ring;
mod setup;
#[cfg(test)]
mod tests;
mod watches;

use crate::arena::Arena;
use crate::driver::{Driver, WatchId};
use crate::image::Image;
use crate::message::Message;
use crate::notify::{Mailbox, Notifier};
use crate::op::Op;
use crate::pool::Pool;
use crate::request::{IoDone, IoRequest};
use crate::sys;
use cow_format::BufPool;
use ring::Ring;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

/// The io_uring driver.
pub(crate) struct UringDriver {
    /// First, so that it is dropped, and with it drained, before the image is closed.
    ring: Result<Ring, i32>,
    helper: Option<Pool>,
    mailbox: Arc<Mailbox>,
    /// Requests that were over before they began.
    ready: Vec<IoDone>,
    notifier: Notifier,
    image: Image,
    in_flight: usize,
    /// The ring was lost since the last wait, which does not sleep then: others must hear of it.
    was_lost: bool,
    buffers: BufPool,
    fixed: Result<Arc<AtomicU64>, Option<String>>,
}

impl UringDriver {
    /// Sets a ring up, or says what the kernel has against it.
    pub(crate) fn open(image: Image, entries: u32) -> io::Result<Self> {
        let notifier = Notifier::with_event()?;
        let ring = Ring::open(&image, notifier.clone(), entries)?;
        Ok(Self {
            ring: Ok(ring),
            helper: None,
            mailbox: Arc::default(),
            ready: Vec::new(),
            notifier,
            image,
            in_flight: 0,
            was_lost: false,
            buffers: BufPool::default(),
            fixed: Err(None),
        })
    }

    /// Gives buffers of `arena` out, and has the ring register them if `fixed`.
    pub(crate) fn use_arena(&mut self, arena: &Arena, fixed: bool) {
        self.buffers = arena.pool();
        let Ok(ring) = &mut self.ring else { return };
        if !fixed {
            return;
        }
        self.fixed = ring.register(arena.clone()).map_err(|error| {
            tracing::warn!(%error, "buffers cannot be registered, using them unregistered");
            Some(format!("registering buffers: {error}"))
        });
    }

    fn take_on(&mut self, request: IoRequest, lazily: bool) {
        self.in_flight += 1;
        let op = match Op::new(&self.image, request) {
            Ok(op) => op,
            Err(done) => return self.ready.push(done),
        };
        match &mut self.ring {
            _ if op.is_complete() => self.ready.push(op.finish(Ok(()))),
            Ok(_) if op.must_block() => self.delegate(op),
            Ok(ring) if lazily => ring.queue_lazily(op),
            Ok(ring) => ring.queue(op),
            Err(errno) => {
                let result = Err(op.error(*errno));
                self.ready.push(op.finish(result));
            }
        }
    }

    /// Gives a request to the thread for blocking calls, which is started at its first.
    fn delegate(&mut self, op: Op) {
        if self.helper.is_none() {
            let (mailbox, notifier) = (self.mailbox.clone(), self.notifier.clone());
            let deliver = Box::new(move |done| {
                mailbox.deliver(done);
                notifier.notify();
            });
            match Pool::start(self.image.clone(), 1, deliver) {
                Ok(pool) => self.helper = Some(pool),
                Err(error) => self.ready.push(op.lost(sys::errno_of(&error))),
            }
        }
        if let Some(pool) = &self.helper {
            pool.push(std::iter::once(op));
        }
    }

    /// Takes what is over. Returns whether a notification came.
    fn collect(&mut self, done: &mut Vec<IoDone>) -> bool {
        done.append(&mut self.ready);
        let notified = match &mut self.ring {
            Ok(ring) => ring.reap(done),
            Err(_) => false,
        };
        if self.helper.is_some() {
            done.append(&mut self.mailbox.lock().done);
        }
        notified
    }

    /// Waits for a notification when there is no ring to do it. Returns whether it came.
    fn wait_without_ring(&self, left: Option<Duration>) -> bool {
        let came = self.notifier.event().is_some_and(|event| sys::wait_readable(event, left));
        if came {
            self.notifier.take_event();
        }
        came
    }

    /// Gives the ring up after an error that leaves it in an unknown state.
    fn lose(&mut self, error: &io::Error) {
        let errno = sys::errno_of(error);
        if let Ok(ring) = std::mem::replace(&mut self.ring, Err(errno)) {
            tracing::error!(%error, "io_uring failed: all requests of this driver fail from now");
            ring.abandon(errno, &mut self.ready);
            self.was_lost = true;
        }
    }
}

impl Driver for UringDriver {
    fn submit(&mut self, request: IoRequest) {
        self.take_on(request, false);
    }

    fn submit_lazily(&mut self, request: IoRequest) {
        self.take_on(request, true);
    }

    fn kick(&mut self) {
        let result = match &mut self.ring {
            Ok(ring) => ring.submit(),
            Err(_) => return,
        };
        if let Err(error) = result {
            self.lose(&error);
        }
    }

    fn wait(&mut self, done: &mut Vec<IoDone>, timeout: Option<Duration>) {
        let before = done.len();
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut expired = false;
        loop {
            let notified = self.collect(done);
            expired |= std::mem::take(&mut self.was_lost);
            if done.len() > before || notified || expired {
                // What has become free in the ring is used at once, not at the next wait.
                self.kick();
                break;
            }
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            expired = left.is_some_and(|left| left.is_zero());
            match self.ring.as_mut().map(|ring| ring.enter(left)) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => self.lose(&error),
                Err(_) => expired |= self.wait_without_ring(left),
            }
        }
        let taken = done.len() - before;
        assert!(taken <= self.in_flight, "more completions than requests");
        self.in_flight -= taken;
    }

    fn watch(&mut self, file: OwnedFd) -> Result<WatchId, OwnedFd> {
        match &mut self.ring {
            Ok(ring) => Ok(ring.watch(file)),
            Err(_) => Err(file),
        }
    }

    fn watches(&self) -> bool {
        self.ring.is_ok()
    }

    fn unwatch(&mut self, id: WatchId) {
        if let Ok(ring) = &mut self.ring {
            ring.unwatch(id);
        }
    }

    fn send(&mut self, id: WatchId, message: Message) {
        let result = match &mut self.ring {
            Ok(ring) => ring.send(id, message),
            Err(_) => return,
        };
        if let Err(error) = result {
            self.lose(&error);
        }
    }

    fn may_be_readable(&self, id: WatchId) -> bool {
        self.ring.as_ref().map_or(true, |ring| !ring.awaits(id))
    }

    fn notifier(&self) -> Notifier {
        self.notifier.clone()
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn name(&self) -> &'static str {
        "io_uring"
    }

    fn buffers(&self) -> BufPool {
        self.buffers.clone()
    }

    fn fixed_transfers(&self) -> Option<Arc<AtomicU64>> {
        self.fixed.as_ref().ok().cloned()
    }

    fn fixed_refusal(&self) -> Option<&str> {
        self.fixed.as_ref().err().and_then(Option::as_deref)
    }
}
