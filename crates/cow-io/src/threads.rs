//! The driver that needs nothing of the kernel but blocking calls: a pool of threads, their
//! completions in a mailbox. `submit` collects, `kick` hands over, `wait` empties the mailbox.

use crate::arena::Arena;
use crate::driver::Driver;
use crate::image::Image;
use crate::notify::{Mailbox, Notifier};
use crate::op::Op;
use crate::pool::Pool;
use crate::primitives::PoisonError;
use crate::request::{IoDone, IoRequest};
use cow_format::BufPool;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The thread-pool driver.
pub(crate) struct ThreadDriver {
    image: Image,
    pool: Pool,
    mailbox: Arc<Mailbox>,
    notifier: Notifier,
    collected: Vec<Op>,
    in_flight: usize,
    fallback_reason: Option<String>,
    buffers: BufPool,
}

impl ThreadDriver {
    /// Starts `threads` workers on `image`.
    pub(crate) fn open(
        image: Image,
        threads: usize,
        fallback_reason: Option<String>,
    ) -> io::Result<Self> {
        let mailbox = Arc::new(Mailbox::default());
        let outbox = mailbox.clone();
        let deliver = Box::new(move |done| outbox.deliver(done));
        let pool = Pool::start(image.clone(), threads.max(1), deliver)?;
        let notifier = Notifier::with_mailbox(mailbox.clone());
        Ok(Self {
            image,
            pool,
            mailbox,
            notifier,
            collected: Vec::new(),
            in_flight: 0,
            fallback_reason,
            buffers: BufPool::default(),
        })
    }

    /// Gives buffers of `arena` out.
    pub(crate) fn use_arena(&mut self, arena: &Arena) {
        self.buffers = arena.pool();
    }
}

impl Driver for ThreadDriver {
    fn submit(&mut self, request: IoRequest) {
        self.in_flight += 1;
        match Op::new(&self.image, request) {
            Ok(op) => self.collected.push(op),
            Err(done) => self.mailbox.deliver(done),
        }
    }

    fn kick(&mut self) {
        if !self.collected.is_empty() {
            self.pool.push(self.collected.drain(..));
        }
    }

    fn wait(&mut self, done: &mut Vec<IoDone>, timeout: Option<Duration>) {
        self.kick();
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut mail = self.mailbox.lock();
        while mail.done.is_empty() && !mail.notified {
            let arrived = &self.mailbox.arrived;
            let Some(deadline) = deadline else {
                mail = arrived.wait(mail).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            mail = arrived.wait_timeout(mail, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        if mail.notified {
            mail.notified = false;
            self.notifier.clear();
        }
        assert!(mail.done.len() <= self.in_flight, "more completions than requests");
        self.in_flight -= mail.done.len();
        done.append(&mut mail.done);
    }

    fn notifier(&self) -> Notifier {
        self.notifier.clone()
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn name(&self) -> &'static str {
        "threads"
    }

    fn fallback_reason(&self) -> Option<&str> {
        self.fallback_reason.as_deref()
    }

    fn buffers(&self) -> BufPool {
        self.buffers.clone()
    }
}
