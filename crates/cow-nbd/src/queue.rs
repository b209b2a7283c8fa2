//! What is in flight on one connection: a budget that makes the reader wait, and the replies that
//! wait for the writer.
//!
//! ```text
//!   reader ──acquire──▶ export ──complete──▶ replies ──take──▶ writer ──release──▶ budget
//! ```
//!
//! A request is in flight from `acquire` until its reply has been handed to the kernel. So a
//! client that does not read its replies fills its own budget, stalls its own reader, and nobody
//! else notices. `complete` runs on the storage's thread: it takes the lock for a push, and nobody
//! holds that lock while waiting for a socket.
//!
//! Where the storage's thread reads the socket itself (`direct.rs`), it sends as well, as long as it
//! alone answers and the socket takes what it is given: the queue is *direct* then, and the writer
//! sleeps. What the socket has no room for is the writer's, and all that comes until it has sent
//! that; an answer from another thread makes it the writer's too. Only one of them sends at a time.

use crate::export::{ExportError, Response};
use crate::sync::{AtomicBool, Condvar, Mutex, Ordering, thread};
use crate::wire::NbdError;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes and replies after which whoever sends stops gathering and writes.
const BATCH_BYTES: usize = 4 << 20;
const BATCH_REPLIES: usize = 256;

/// A reply that counts for more is the writer's in any case: copying it would hold others up.
pub(crate) const DIRECT_COST_BYTES: usize = 128 << 10;

/// What the writer must know of a request to answer it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum About {
    Read { offset: u64, len: u32 },
    WriteZeroes { fast: bool },
    Other,
}

/// An error as the client gets it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: NbdError,
    pub(crate) message: Cow<'static, str>,
    /// The connection ends after this reply.
    pub(crate) close: bool,
}

/// A reply that waits for the writer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) cookie: u64,
    pub(crate) about: About,
    pub(crate) cost_bytes: usize,
    pub(crate) result: Result<Answer, Failure>,
}

/// What the socket had no room for, of replies that are taken from the queue already.
#[derive(Debug)]
pub(crate) struct Rest {
    pub(crate) bytes: Vec<u8>,
    pub(crate) requests: usize,
    pub(crate) cost_bytes: usize,
    /// The connection ends after this.
    pub(crate) close: bool,
}

/// What the writer is given.
#[derive(Debug)]
pub(crate) enum Work {
    /// The replies in its batch.
    Replies,
    Rest(Rest),
    /// There will be no more.
    End,
}

/// The descriptors of one meta context.
#[derive(Debug)]
pub(crate) struct Status {
    pub(crate) context_id: u32,
    pub(crate) payload: Vec<u8>,
}

/// What a request that succeeded is answered with.
#[derive(Debug)]
pub(crate) enum Answer {
    Response(Response),
    Status(Vec<Status>),
}

#[derive(Default)]
struct State {
    replies: VecDeque<Reply>,
    requests: usize,
    bytes: usize,
    /// The thread that sends by itself; the writer does where there is none.
    direct: Option<thread::ThreadId>,
    rest: Option<Rest>,
    /// No request will come any more.
    finished: bool,
    /// Batches that were taken, and whether somebody is at work on the last of them.
    batches: u64,
    writing: bool,
}

impl State {
    fn begin_batch(&mut self) {
        self.batches += 1;
        self.writing = true;
    }

    fn take_replies(&mut self, batch: &mut Vec<Reply>) {
        let mut bytes = 0;
        while bytes < BATCH_BYTES && batch.len() < BATCH_REPLIES {
            let Some(reply) = self.replies.pop_front() else { break };
            bytes += reply.cost_bytes;
            batch.push(reply);
        }
        self.begin_batch();
    }
}

/// See the module header. Lock order: the state is the innermost lock of the crate.
pub(crate) struct Queue {
    state: Mutex<State>,
    /// The budget has grown, or the connection is closing.
    room: Condvar,
    /// There is a reply, or none will come any more.
    work: Condvar,
    closing: AtomicBool,
    requests_max: usize,
    bytes_max: usize,
}

impl Queue {
    pub(crate) fn new(requests_max: usize, bytes_max: usize) -> Self {
        Self {
            state: Mutex::default(),
            room: Condvar::new(),
            work: Condvar::new(),
            closing: AtomicBool::new(false),
            requests_max: requests_max.max(1),
            bytes_max,
        }
    }

    /// No further request is taken.
    pub(crate) fn close(&self) {
        let _state = self.state.lock();
        self.closing.store(true, Ordering::SeqCst);
        self.room.notify_all();
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// Waits for room for a request of `cost_bytes`; false if the connection is closing. A request
    /// that is larger than the whole budget passes when it is alone.
    pub(crate) fn acquire(&self, cost_bytes: usize) -> bool {
        let mut state = self.state.lock();
        while !self.is_closing() {
            if self.admit(&mut state, cost_bytes) {
                return true;
            }
            self.room.wait(&mut state);
        }
        false
    }

    /// As [`Queue::acquire`], without waiting.
    pub(crate) fn try_acquire(&self, cost_bytes: usize) -> bool {
        let mut state = self.state.lock();
        !self.is_closing() && self.admit(&mut state, cost_bytes)
    }

    fn admit(&self, state: &mut State, cost_bytes: usize) -> bool {
        let fits = state.bytes == 0 || state.bytes + cost_bytes <= self.bytes_max;
        let admitted = fits && state.requests < self.requests_max;
        if admitted {
            state.requests += 1;
            state.bytes += cost_bytes;
        }
        admitted
    }

    /// Whoever took it is done with a batch of `requests` requests of `bytes` together.
    pub(crate) fn written(&self, requests: usize, bytes: usize) {
        let mut state = self.state.lock();
        state.writing = false;
        self.release(&mut state, requests, bytes);
        if state.direct.is_none() {
            // Another thread has answered while the storage's was sending.
            self.work.notify_one();
        }
    }

    /// A request ends without a reply.
    fn abandon(&self, bytes: usize) {
        self.release(&mut self.state.lock(), 1, bytes);
    }

    fn release(&self, state: &mut State, requests: usize, bytes: usize) {
        debug_assert!(state.requests >= requests && state.bytes >= bytes, "released twice");
        state.requests = state.requests.saturating_sub(requests);
        state.bytes = state.bytes.saturating_sub(bytes);
        self.room.notify_all();
        if state.finished && state.requests == 0 {
            self.work.notify_all();
        }
    }

    pub(crate) fn push(&self, reply: Reply) {
        let mut state = self.state.lock();
        state.replies.push_back(reply);
        if state.direct.is_some_and(|sender| sender == thread::current().id()) {
            return;
        }
        // Whoever sends by itself may be asleep.
        state.direct = None;
        self.work.notify_one();
    }

    /// For the writer: waits for something to send. Replies are moved to `batch`.
    pub(crate) fn take(&self, batch: &mut Vec<Reply>) -> Work {
        let mut state = self.state.lock();
        loop {
            // Whoever sends by itself may still be at it.
            if !state.writing
                && let Some(rest) = state.rest.take()
            {
                state.begin_batch();
                return Work::Rest(rest);
            }
            if !state.writing && state.direct.is_none() && !state.replies.is_empty() {
                state.take_replies(batch);
                return Work::Replies;
            }
            if state.finished && state.requests == 0 {
                return Work::End;
            }
            self.work.wait(&mut state);
        }
    }

    /// For the thread that reads and answers by itself: moves replies that it may send to `batch`.
    /// False if there are none; then it sends what comes next, if the writer has nothing to do.
    pub(crate) fn take_direct(&self, batch: &mut Vec<Reply>) -> bool {
        let mut state = self.state.lock();
        if state.direct.is_none() {
            if state.replies.is_empty() && state.rest.is_none() && !state.writing {
                state.direct = Some(thread::current().id());
            }
            return false;
        }
        if state.replies.iter().any(|reply| reply.cost_bytes > DIRECT_COST_BYTES) {
            state.direct = None;
            self.work.notify_one();
            return false;
        }
        let some = !state.replies.is_empty();
        if some {
            state.take_replies(batch);
        }
        some
    }

    /// The socket has no room for the rest of what [`Queue::take_direct`] gave: the writer waits for it.
    pub(crate) fn leave_rest(&self, rest: Rest) {
        let mut state = self.state.lock();
        state.rest = Some(rest);
        state.writing = false;
        state.direct = None;
        self.work.notify_one();
    }

    /// Nobody but the writer sends from now on.
    pub(crate) fn end_direct(&self) {
        self.state.lock().direct = None;
        self.work.notify_one();
    }

    /// Says that no request will come any more.
    pub(crate) fn finish(&self) {
        self.state.lock().finished = true;
        self.work.notify_all();
    }

    /// Waits until nothing is in flight. False as soon as the writer has been stuck in one batch
    /// for `patience`: the client does not read. The storage may take as long as it needs.
    pub(crate) fn wait_idle(&self, patience: Duration) -> bool {
        let mut state = self.state.lock();
        let mut seen = (state.batches, Instant::now());
        while state.requests > 0 {
            self.room.wait_for(&mut state, patience.min(Duration::from_millis(100)));
            if !state.writing || state.batches != seen.0 {
                seen = (state.batches, Instant::now());
            } else if seen.1.elapsed() >= patience {
                return false;
            }
        }
        true
    }
}

/// A request in flight. However it ends, it is answered exactly once.
pub(crate) struct Ticket {
    queue: Arc<Queue>,
    cookie: u64,
    about: About,
    cost_bytes: usize,
    open: bool,
}

impl Ticket {
    /// For a request that has been let in by [`Queue::acquire`] with the same cost.
    pub(crate) fn new(queue: &Arc<Queue>, cookie: u64, about: About, cost_bytes: usize) -> Self {
        Self { queue: Arc::clone(queue), cookie, about, cost_bytes, open: true }
    }

    /// Answers with what the storage said.
    pub(crate) fn complete(self, result: Result<Response, ExportError>) {
        let about = self.about;
        self.answer(result.map(Answer::Response).map_err(|error| failure(&error, about)));
    }

    /// Answers with what the contexts of the connection said.
    pub(crate) fn complete_status(self, result: Result<Vec<Status>, ExportError>) {
        let about = self.about;
        self.answer(result.map(Answer::Status).map_err(|error| failure(&error, about)));
    }

    /// Answers with an error that the storage has not seen.
    pub(crate) fn refuse(self, error: NbdError, reason: &'static str, close: bool) {
        self.answer(Err(Failure { error, message: reason.into(), close }));
    }

    /// Ends without an answer: the client is gone.
    pub(crate) fn abandon(mut self) {
        self.open = false;
        self.queue.abandon(self.cost_bytes);
    }

    fn answer(mut self, result: Result<Answer, Failure>) {
        self.open = false;
        self.push(result);
    }

    fn push(&self, result: Result<Answer, Failure>) {
        let Self { cookie, about, cost_bytes, .. } = *self;
        self.queue.push(Reply { cookie, about, cost_bytes, result });
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.open {
            let message = "the storage dropped the request".into();
            self.push(Err(Failure { error: NbdError::Io, message, close: false }));
        }
    }
}

/// The protocol allows `ENOTSUP` as an answer to fast zeroing and to nothing else.
fn failure(error: &ExportError, about: About) -> Failure {
    let code = match error {
        ExportError::NoSpace => NbdError::NoSpace,
        ExportError::ReadOnly => NbdError::NotPermitted,
        ExportError::Stale => NbdError::Shutdown,
        ExportError::Invalid => NbdError::Invalid,
        ExportError::NotSupported => match about {
            About::WriteZeroes { fast: true } => NbdError::NotSupported,
            _ => NbdError::Invalid,
        },
        ExportError::NotFound | ExportError::Failed(_) => NbdError::Io,
    };
    Failure {
        error: code,
        message: error.to_string().into(),
        close: matches!(error, ExportError::Stale),
    }
}
