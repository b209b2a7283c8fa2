//! How the answer to an operation reaches whoever asked.
//!
//! A [`Completion`] is called exactly once: with the answer, or, if it is dropped anywhere on the
//! way (a panic, the end of the pool), with an error. So nobody waits for ever. What waits is an
//! [`Inbox`]: a blocking caller on its condition variable, a future through its waker. One inbox
//! takes the answers of many operations, which is how large requests keep their pieces in flight.

use crate::error::{Error, closed};
use crate::sync::{Condvar, Mutex, thread_local};
use cow_engine::Reply;
use cow_format::mutant;
use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// What an operation came to.
pub(crate) type Outcome = Result<Reply, Error>;

thread_local! {
    static ON_REACTOR: Cell<bool> = const { Cell::new(false) };
}

/// Marks this thread as a reactor: it must not wait for itself.
pub(crate) fn mark_reactor_thread() {
    ON_REACTOR.with(|on_reactor| on_reactor.set(true));
}

/// Whether this thread is a reactor.
pub(crate) fn on_reactor_thread() -> bool {
    ON_REACTOR.with(Cell::get)
}

/// Called with the outcome of an operation, exactly once.
pub(crate) struct Completion {
    call: Option<Box<dyn FnOnce(Outcome) + Send>>,
}

impl Completion {
    pub(crate) fn new(call: impl FnOnce(Outcome) + Send + 'static) -> Self {
        Self { call: Some(Box::new(call)) }
    }

    /// Nobody wants to know.
    pub(crate) fn ignored() -> Self {
        Self { call: None }
    }

    /// Delivers `outcome`. A panic of the receiver stays here: it must not take the pool along.
    pub(crate) fn complete(mut self, outcome: Outcome) {
        self.deliver(outcome);
    }

    fn deliver(&mut self, outcome: Outcome) {
        let Some(call) = self.call.take() else { return };
        if catch_unwind(AssertUnwindSafe(|| call(outcome))).is_err() {
            tracing::error!("the completion callback of an operation panicked");
        }
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        if self.call.is_some() {
            self.deliver(Err(closed()));
        }
    }
}

/// Where outcomes arrive, each with the index that its operation was given.
#[derive(Clone, Default)]
pub(crate) struct Inbox {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    mail: Mutex<Mail>,
    arrived: Condvar,
}

#[derive(Default)]
struct Mail {
    outcomes: VecDeque<(usize, Outcome)>,
    waker: Option<Waker>,
}

impl Inbox {
    /// A completion that puts its outcome here as number `index`.
    pub(crate) fn completion(&self, index: usize) -> Completion {
        let inner = self.inner.clone();
        Completion::new(move |outcome| {
            let mut mail = inner.mail.lock();
            mail.outcomes.push_back((index, outcome));
            if mutant::is("answertwice") {
                mail.outcomes.push_back((index, Err(closed())));
            }
            let waker = mail.waker.take();
            drop(mail);
            inner.arrived.notify_one();
            if let Some(waker) = waker {
                waker.wake();
            }
        })
    }

    /// Waits for the next outcome.
    ///
    /// # Errors
    /// On a reactor thread, which would wait for itself.
    pub(crate) fn wait(&self) -> Result<(usize, Outcome), Error> {
        refuse_on_reactor()?;
        let mut mail = self.inner.mail.lock();
        loop {
            if let Some(next) = mail.outcomes.pop_front() {
                return Ok(next);
            }
            self.inner.arrived.wait(&mut mail);
        }
    }

    /// Waits for the next outcome, but not longer than `timeout`.
    pub(crate) fn wait_for(&self, timeout: Duration) -> Result<Option<(usize, Outcome)>, Error> {
        refuse_on_reactor()?;
        let deadline = Instant::now() + timeout;
        let mut mail = self.inner.mail.lock();
        while mail.outcomes.is_empty() {
            if self.inner.arrived.wait_until(&mut mail, deadline).timed_out() {
                break;
            }
        }
        Ok(mail.outcomes.pop_front())
    }

    /// The next outcome, if it is there.
    pub(crate) fn try_next(&self) -> Option<(usize, Outcome)> {
        self.inner.mail.lock().outcomes.pop_front()
    }

    /// The next outcome; wakes the task when there is one.
    pub(crate) fn poll_next(&self, context: &mut Context<'_>) -> Poll<(usize, Outcome)> {
        let mut mail = self.inner.mail.lock();
        if let Some(next) = mail.outcomes.pop_front() {
            return Poll::Ready(next);
        }
        if !mail.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            mail.waker = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

pub(crate) fn refuse_on_reactor() -> Result<(), Error> {
    if on_reactor_thread() {
        let text = "a blocking call inside a completion callback would wait for itself";
        return Err(Error::Invalid(text.into()));
    }
    Ok(())
}
