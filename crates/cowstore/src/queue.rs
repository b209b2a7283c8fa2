//! The way into a reactor: operations queue here until its thread takes them.
//!
//! `sleeping` is changed under the same lock as the queue, so no operation can be added between
//! the reactor's last look and its sleep without waking it; and while it is awake, submitting
//! costs no system call.

use crate::completion::{Completion, Inbox, Outcome};
use crate::error::{Error, closed};
use crate::source::Source;
use crate::sync::Mutex;
use cow_engine::Op;
use cow_format::mutant;
use cow_io::Notifier;

/// An operation on its way.
pub(crate) struct Submission {
    pub(crate) op: Op,
    pub(crate) completion: Completion,
}

/// The queue of one reactor.
pub(crate) struct Queue {
    state: Mutex<State>,
    notifier: Notifier,
}

#[derive(Default)]
struct State {
    waiting: Vec<Submission>,
    /// New ones, for the reactor to take over.
    sources: Vec<Box<dyn Source>>,
    sleeping: bool,
    stop: bool,
    /// `Close` is queued: nothing may follow it.
    closing: bool,
    dead: Option<Error>,
}

impl Queue {
    pub(crate) fn new(notifier: Notifier) -> Self {
        Self { state: Mutex::default(), notifier }
    }

    /// Queues `op`. `completion` is called on the reactor's thread, or here and now if the
    /// reactor has ended.
    pub(crate) fn push(&self, op: Op, completion: Completion) {
        let mut state = self.state.lock();
        let refusal = if state.closing { Some(closed()) } else { state.dead.clone() };
        if let Some(error) = refusal {
            drop(state);
            return completion.complete(Err(error));
        }
        state.closing = matches!(op, Op::Close);
        state.waiting.push(Submission { op, completion });
        let wake = std::mem::replace(&mut state.sleeping, false);
        drop(state);
        if wake && !mutant::is("nowake") {
            self.notifier.notify();
        }
    }

    /// Gives the reactor a source of requests. If that has ended, the source leaves.
    pub(crate) fn add_source(&self, source: Box<dyn Source>) {
        let mut state = self.state.lock();
        if state.dead.is_some() {
            drop(state);
            return source.leave();
        }
        state.sources.push(source);
        state.sleeping = false;
        drop(state);
        self.notifier.notify();
    }

    /// Queues `op` and waits for its outcome.
    pub(crate) fn call(&self, op: Op) -> Outcome {
        crate::completion::refuse_on_reactor()?;
        let inbox = Inbox::default();
        self.push(op, inbox.completion(0));
        inbox.wait()?.1
    }

    /// Tells the reactor to end, whatever is in progress.
    pub(crate) fn stop(&self) {
        self.state.lock().stop = true;
        self.notifier.notify();
    }

    /// Moves what is waiting to `taken`, and new sources to `sources`. Returns false when the reactor
    /// shall end.
    pub(crate) fn take(
        &self,
        taken: &mut Vec<Submission>,
        sources: &mut Vec<Box<dyn Source>>,
    ) -> bool {
        let mut state = self.state.lock();
        state.sleeping = false;
        std::mem::swap(&mut state.waiting, taken);
        sources.append(&mut state.sources);
        !state.stop
    }

    /// Whether the reactor may sleep: nothing is waiting. Whoever comes next wakes it.
    pub(crate) fn prepare_sleep(&self) -> bool {
        let mut state = self.state.lock();
        let nothing = state.waiting.is_empty() && state.sources.is_empty();
        state.sleeping = (nothing || mutant::is("sleepblind")) && !state.stop;
        state.sleeping
    }

    /// Ends the queue: all that wait, and all that come, fail with `error`.
    pub(crate) fn kill(&self, error: &Error) {
        let mut state = self.state.lock();
        state.dead.get_or_insert_with(|| error.clone());
        state.closing = false;
        let waiting =
            if mutant::is("forgetful") { Vec::new() } else { std::mem::take(&mut state.waiting) };
        let sources = std::mem::take(&mut state.sources);
        drop(state);
        for source in sources {
            source.leave();
        }
        for submission in waiting {
            submission.completion.complete(Err(error.clone()));
        }
    }
}
