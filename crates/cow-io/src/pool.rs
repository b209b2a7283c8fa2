//! Threads that do requests with ordinary blocking calls. The thread-pool driver is made of
//! one; the io_uring driver keeps one with a single thread for the calls that must block.
//!
//! Lock order: the queue's lock is never held while a request runs or is delivered.

use crate::blocking;
use crate::image::Image;
use crate::op::Op;
use crate::primitives::{Builder, Condvar, JoinHandle, Mutex, MutexGuard, PoisonError};
use crate::request::IoDone;
use crate::sys;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

/// Where completions go; called by the workers.
pub(crate) type Deliver = dyn Fn(IoDone) + Send + Sync;

/// A pool of workers on one image.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    image: Image,
    queue: Mutex<Queue>,
    work: Condvar,
    deliver: Box<Deliver>,
}

#[derive(Default)]
struct Queue {
    ops: VecDeque<Op>,
    stop: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<Op> {
        let mut queue = self.lock();
        loop {
            if queue.stop {
                return None;
            }
            if let Some(op) = queue.ops.pop_front() {
                return Some(op);
            }
            queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Pool {
    /// Starts `threads` workers.
    pub(crate) fn start(image: Image, threads: usize, deliver: Box<Deliver>) -> io::Result<Self> {
        assert!(threads > 0, "a pool without workers would never answer");
        let shared =
            Arc::new(Shared { image, queue: Mutex::default(), work: Condvar::new(), deliver });
        let mut pool = Self { shared, workers: Vec::with_capacity(threads) };
        for index in 0..threads {
            let shared = pool.shared.clone();
            let builder = Builder::new().name(format!("cow-io-{index}"));
            pool.workers.push(builder.spawn(move || {
                sys::block_signals();
                while let Some(op) = shared.next() {
                    (shared.deliver)(blocking::finish(&shared.image, op));
                }
            })?);
        }
        Ok(pool)
    }

    /// Hands requests over.
    pub(crate) fn push(&self, ops: impl Iterator<Item = Op>) {
        let mut queue = self.shared.lock();
        let before = queue.ops.len();
        queue.ops.extend(ops);
        let added = queue.ops.len() - before;
        drop(queue);
        for _ in 0..added.min(self.workers.len()) {
            self.shared.work.notify_one();
        }
    }
}

impl Drop for Pool {
    /// Drops the requests not begun, and waits for the others.
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.work.notify_all();
        for worker in self.workers.drain(..) {
            // A worker that panicked has said so already.
            let _ = worker.join();
        }
    }
}
