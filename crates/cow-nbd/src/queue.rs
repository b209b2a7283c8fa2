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

use crate::export::{ExportError, Response};
use crate::sync::{AtomicBool, Condvar, Mutex, Ordering};
use crate::wire::NbdError;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes and replies after which the writer stops gathering and writes.
const BATCH_BYTES: usize = 4 << 20;
const BATCH_REPLIES: usize = 256;

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
    /// No request will come any more.
    finished: bool,
    /// Batches that the writer has taken, and whether it is at work on the last of them.
    batches: u64,
    writing: bool,
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
            let fits = state.bytes == 0 || state.bytes + cost_bytes <= self.bytes_max;
            if fits && state.requests < self.requests_max {
                state.requests += 1;
                state.bytes += cost_bytes;
                return true;
            }
            self.room.wait(&mut state);
        }
        false
    }

    /// The writer is done with a batch of `requests` requests of `bytes` together.
    pub(crate) fn written(&self, requests: usize, bytes: usize) {
        let mut state = self.state.lock();
        state.writing = false;
        self.release(&mut state, requests, bytes);
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
        self.work.notify_one();
    }

    /// Waits for replies and moves some of them to `batch`; false when there will be none.
    pub(crate) fn take(&self, batch: &mut Vec<Reply>) -> bool {
        let mut state = self.state.lock();
        while state.replies.is_empty() {
            if state.finished && state.requests == 0 {
                return false;
            }
            self.work.wait(&mut state);
        }
        let mut bytes = 0;
        while bytes < BATCH_BYTES && batch.len() < BATCH_REPLIES {
            let Some(reply) = state.replies.pop_front() else { break };
            bytes += reply.cost_bytes;
            batch.push(reply);
        }
        state.batches += 1;
        state.writing = true;
        true
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
