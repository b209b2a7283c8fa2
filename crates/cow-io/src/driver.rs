//! The interface of the drivers.

use crate::message::Message;
use crate::notify::Notifier;
use crate::request::{IoDone, IoRequest};
use cow_format::BufPool;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// A file that a driver watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchId(pub(crate) usize);

/// Does requests on one image. Used by exactly one thread: it may be opened elsewhere, but
/// belongs to the thread of the first `kick` or `wait`.
///
/// Dropping it waits for what the kernel or a worker has begun, and drops the rest unbegun.
pub trait Driver: Send {
    /// Takes a request on. It may only be queued until `kick` or `wait`. Never blocks for long.
    /// Every request comes back through `wait`, those refused at once included.
    fn submit(&mut self, request: IoRequest);

    /// Takes a write on that nobody waits for: a driver that joins writes which follow one another
    /// may keep it for a moment, `kick` notwithstanding. It goes with the next request that is no
    /// read, with the next `wait` that may sleep, and when there is enough of it.
    fn submit_lazily(&mut self, request: IoRequest) {
        self.submit(request);
    }

    /// Pushes what is queued to the kernel or the workers.
    fn kick(&mut self);

    /// Does what `kick` does, then waits until there are completions, a notification, or
    /// `timeout` is over (`None`: for ever; zero: looks and returns). Appends the completions to
    /// `done`. It may return without any, and never spins.
    fn wait(&mut self, done: &mut Vec<IoDone>, timeout: Option<Duration>);

    /// A handle to wake `wait` from another thread.
    fn notifier(&self) -> Notifier;

    /// From now on `wait` returns when `file` has become readable, too; only where it really waits,
    /// so whoever watches reads before each `wait`. Gives `file` back if this driver cannot.
    fn watch(&mut self, file: OwnedFd) -> Result<WatchId, OwnedFd> {
        Err(file)
    }

    /// Whether it still tells of files. One that has failed does not, and whoever reads from them has to
    /// be told otherwise.
    fn watches(&self) -> bool {
        true
    }

    /// Ends that, and closes the file.
    fn unwatch(&mut self, _id: WatchId) {}

    /// Writes a message to a watched file, with the next `kick` and all others that are due: whoever
    /// reads them is woken once. Nothing is reported but in the log. To be called only for what
    /// `watch` has taken.
    fn send(&mut self, _id: WatchId, _message: Message) {}

    /// Whether it is worth while to read: not while a wait for this file is still under way.
    fn may_be_readable(&self, _id: WatchId) -> bool {
        true
    }

    /// How many requests were submitted whose completions have not been taken.
    fn in_flight(&self) -> usize;

    /// `"io_uring"` or `"threads"`.
    fn name(&self) -> &'static str;

    /// Why [`crate::DriverChoice::Auto`] did not take io_uring, if it did not.
    fn fallback_reason(&self) -> Option<&str> {
        None
    }

    /// Where buffers for requests are best taken from, by any thread, as long as one likes.
    /// Others do as well.
    fn buffers(&self) -> BufPool {
        BufPool::default()
    }

    /// Counts the reads and writes that went through buffers registered with the kernel. `None`:
    /// there are no such buffers.
    fn fixed_transfers(&self) -> Option<Arc<AtomicU64>> {
        None
    }

    /// Why no buffers are registered, if it was tried.
    fn fixed_refusal(&self) -> Option<&str> {
        None
    }
}
