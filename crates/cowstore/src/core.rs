//! What a pool and all that is open in it share: the way to the reactor, and what is known of
//! the pool without asking it.

use crate::completion::{Completion, Inbox, Outcome, refuse_on_reactor};
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
    followers: Mutex<Vec<Follower>>,
}

/// Told of each change; see [`crate::Pool::on_change`].
type Follower = Arc<dyn Fn(&VolumeChange) + Send + Sync>;

/// A change that who has a volume or snapshot open wants to know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeChange {
    /// A volume has a new size.
    Resized {
        /// The volume.
        volume: String,
        /// Its size.
        size_bytes: u64,
    },
    /// A volume or snapshot has a new name.
    Renamed {
        /// What it was called: `VOL` or `VOL@SNAP`.
        from: String,
        /// What it is called, in the same form.
        to: String,
    },
}

impl VolumeChange {
    /// What `op` changes when it succeeds.
    fn of(op: &Op) -> Option<Self> {
        match op {
            Op::Resize { volume, size_bytes, .. } => {
                Some(Self::Resized { volume: volume.clone(), size_bytes: *size_bytes })
            }
            Op::Rename { name, to } => {
                let to = match name.split_once('@') {
                    Some((volume, _)) => format!("{volume}@{to}"),
                    None => to.clone(),
                };
                Some(Self::Renamed { from: name.clone(), to })
            }
            _ => None,
        }
    }
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
        let (labels, followers) = (Mutex::default(), Mutex::default());
        Self { queue, buffers, facts, registration, labels, followers }
    }

    /// Queues `op`; the future is its outcome. It is queued now, not when it is first polled.
    pub(crate) fn execute(self: &Arc<Self>, op: Op) -> OpFuture {
        let inbox = Inbox::default();
        self.push(op, inbox.completion(0));
        OpFuture { inbox }
    }

    /// Queues `op` and waits for its outcome.
    pub(crate) fn call(self: &Arc<Self>, op: Op) -> Outcome {
        refuse_on_reactor()?;
        let inbox = Inbox::default();
        self.push(op, inbox.completion(0));
        inbox.wait()?.1
    }

    /// Queues `op`. Whoever has something open that it changes knows before `completion` is called.
    fn push(self: &Arc<Self>, op: Op, completion: Completion) {
        let Some(change) = VolumeChange::of(&op) else { return self.queue.push(op, completion) };
        let core = Arc::downgrade(self);
        let told = Completion::new(move |outcome| {
            if let (Ok(_), Some(core)) = (&outcome, core.upgrade()) {
                core.tell(&change);
            }
            completion.complete(outcome);
        });
        self.queue.push(op, told);
    }

    fn tell(&self, change: &VolumeChange) {
        self.each_label(|label| match change {
            VolumeChange::Resized { volume, size_bytes } => label.resize(volume, *size_bytes),
            VolumeChange::Renamed { from, to } => label.rename(from, to),
        });
        // One that asks to follow another one meanwhile does not wait for this.
        let followers = self.followers.lock().clone();
        followers.iter().for_each(|follower| follower(change));
    }

    pub(crate) fn follow(&self, follower: Follower) {
        self.followers.lock().push(follower);
    }

    pub(crate) fn add_label(&self, name: &str, size_bytes: u64) -> Arc<Label> {
        let label = Arc::new(Label::new(name, size_bytes));
        let mut labels = self.labels.lock();
        labels.retain(|label| label.strong_count() > 0);
        labels.push(Arc::downgrade(&label));
        label
    }

    fn each_label(&self, visit: impl Fn(&Label)) {
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
    fn resize(&self, volume: &str, size_bytes: u64) {
        if *self.name.lock() == volume {
            self.size_bytes.store(size_bytes, Ordering::Relaxed);
        }
    }

    /// `from` is called `to` now, and if it is a volume, so begin the names of its snapshots.
    fn rename(&self, from: &str, to: &str) {
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
