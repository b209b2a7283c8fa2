//! What a pool and all that is open in it share: the way to the reactor, and what is known of
//! the pool without asking it.

use crate::completion::{Inbox, Outcome};
use crate::identity::Identity;
use crate::queue::Queue;
use crate::runtime::Registration;
use cow_engine::Op;
use cow_format::BufPool;
use parking_lot::Mutex;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

pub(crate) struct Core {
    pub(crate) queue: Arc<Queue>,
    /// Where the memory of writes comes from.
    pub(crate) buffers: BufPool,
    pub(crate) facts: Facts,
    pub(crate) registration: Option<Arc<Registration>>,
    /// Those of what is open: a resize or rename reaches them.
    labels: Mutex<Vec<Weak<Label>>>,
}

/// What was settled when the pool was opened.
pub(crate) struct Facts {
    pub(crate) identity: Identity,
    pub(crate) path: PathBuf,
    pub(crate) program: String,
    pub(crate) driver: &'static str,
    /// Counts transfers through fixed buffers, if the driver has any.
    pub(crate) fixed_transfers: Option<Arc<AtomicU64>>,
    pub(crate) direct: bool,
    pub(crate) read_only: bool,
    pub(crate) notes: Vec<String>,
}

impl Core {
    pub(crate) fn new(
        queue: Arc<Queue>,
        buffers: BufPool,
        facts: Facts,
        registration: Option<Arc<Registration>>,
    ) -> Self {
        Self { queue, buffers, facts, registration, labels: Mutex::default() }
    }

    /// Queues `op`; the future is its outcome. It is queued now, not when it is first polled.
    pub(crate) fn execute(&self, op: Op) -> OpFuture {
        let inbox = Inbox::default();
        self.queue.push(op, inbox.completion(0));
        OpFuture { inbox }
    }

    pub(crate) fn add_label(&self, name: &str, size_bytes: u64) -> Arc<Label> {
        let label = Arc::new(Label::new(name, size_bytes));
        let mut labels = self.labels.lock();
        labels.retain(|label| label.strong_count() > 0);
        labels.push(Arc::downgrade(&label));
        label
    }

    pub(crate) fn each_label(&self, visit: impl Fn(&Label)) {
        self.labels.lock().iter().filter_map(Weak::upgrade).for_each(|label| visit(&label));
    }
}

/// Name and size of something that is open, as changes through this pool leave them.
pub(crate) struct Label {
    name: Mutex<String>,
    size_bytes: AtomicU64,
}

impl Label {
    fn new(name: &str, size_bytes: u64) -> Self {
        Self { name: Mutex::new(name.into()), size_bytes: AtomicU64::new(size_bytes) }
    }

    pub(crate) fn name(&self) -> String {
        self.name.lock().clone()
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes.load(Ordering::Relaxed)
    }

    /// `volume` has a new size; its snapshots have not.
    pub(crate) fn resize(&self, volume: &str, size_bytes: u64) {
        if *self.name.lock() == volume {
            self.size_bytes.store(size_bytes, Ordering::Relaxed);
        }
    }

    /// `from` is called `to` now, and if it is a volume, so begin the names of its snapshots.
    pub(crate) fn rename(&self, from: &str, to: &str) {
        let mut name = self.name.lock();
        let rest = name.strip_prefix(from).filter(|rest| rest.is_empty() || rest.starts_with('@'));
        if let Some(renamed) = rest.map(|rest| format!("{to}{rest}")) {
            *name = renamed;
        }
    }
}

/// The outcome of an operation, to be awaited. Completed by the reactor; needs no runtime.
/// Dropping it does not undo the operation.
#[must_use = "nobody learns of a failure"]
pub struct OpFuture {
    inbox: Inbox,
}

impl Future for OpFuture {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        self.inbox.poll_next(context).map(|(_, outcome)| outcome)
    }
}
