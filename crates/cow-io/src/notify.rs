//! Waking a driver's thread from another one.
//!
//! `pending` makes it cheap: only the first call after a wake-up does more than one atomic
//! exchange. The order that loses nothing:
//!
//! ```text
//!   caller                              driver
//!   1. queue the work                   3. take the signal (read the event, or the flag)
//!   2. pending := true; if it was       4. pending := false
//!      false, signal                    5. return from wait(); its thread looks at its queue
//! ```
//!
//! Both exchanges are read-modify-writes of one location, so they have an order. If 2 comes
//! before 4, then 4 acquires what 1 released and 5 sees the work. If after, 2 finds `false` and
//! signals, and the next wait() returns. Calls never get lost; a superfluous wake-up may occur.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;

use crate::primitives::{AtomicBool, Condvar, Mutex, MutexGuard, Ordering, PoisonError};
use crate::request::IoDone;
use crate::sys;
use cow_format::mutant;
use std::fs::File;

/// Wakes the thread that is, or next will be, in [`crate::Driver::wait`].
#[derive(Clone)]
pub struct Notifier {
    inner: Arc<Inner>,
}

struct Inner {
    pending: AtomicBool,
    signal: Signal,
}

enum Signal {
    Event(File),
    Mailbox(Arc<Mailbox>),
}

impl Notifier {
    /// One that signals through an event counter, for a ring to poll.
    pub(crate) fn with_event() -> io::Result<Self> {
        Ok(Self::new(Signal::Event(sys::event_counter()?)))
    }

    /// One that signals through a mailbox.
    pub(crate) fn with_mailbox(mailbox: Arc<Mailbox>) -> Self {
        Self::new(Signal::Mailbox(mailbox))
    }

    fn new(signal: Signal) -> Self {
        Self { inner: Arc::new(Inner { pending: AtomicBool::new(false), signal }) }
    }

    /// Makes `wait` return. Many calls before it does so count as one.
    pub fn notify(&self) {
        if self.inner.pending.swap(true, Ordering::AcqRel) {
            return;
        }
        match &self.inner.signal {
            // Nothing can come of an error: the counter cannot be full, being read before
            // `pending` falls, and std repeats interrupted writes.
            Signal::Event(file) => {
                let mut file: &File = file;
                let _ = file.write_all(&1u64.to_ne_bytes());
            }
            Signal::Mailbox(mailbox) => {
                mailbox.lock().notified = true;
                mailbox.arrived.notify_all();
            }
        }
    }

    /// The event counter's file, if there is one.
    pub(crate) fn event(&self) -> Option<&File> {
        match &self.inner.signal {
            Signal::Event(file) => Some(file),
            Signal::Mailbox(_) => None,
        }
    }

    /// Takes the signal of the event counter, and lets the next call signal again.
    pub(crate) fn take_event(&self) {
        if let Some(mut file) = self.event() {
            // Nonblocking; an empty counter is no error.
            let _ = file.read(&mut [0u8; 8]);
        }
        self.clear();
    }

    /// Lets the next call signal again; the signal itself has been taken.
    pub(crate) fn clear(&self) {
        if mutant::is("noclear") {
            return;
        }
        self.inner.pending.swap(false, Ordering::AcqRel);
    }
}

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Notifier(pending: {})", self.inner.pending.load(Ordering::Relaxed))
    }
}

/// Completions from other threads, and the flag of a notification.
#[derive(Default)]
pub(crate) struct Mailbox {
    state: Mutex<Mail>,
    /// Something has come.
    pub(crate) arrived: Condvar,
}

/// What a [`Mailbox`] holds.
#[derive(Default)]
pub(crate) struct Mail {
    pub(crate) done: Vec<IoDone>,
    pub(crate) notified: bool,
}

impl Mailbox {
    /// Locks it. A panic elsewhere cannot leave it half changed.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Mail> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a completion in.
    pub(crate) fn deliver(&self, done: IoDone) {
        self.lock().done.push(done);
        self.arrived.notify_one();
    }
}
