//! Files that requests come from, read by the reactor itself: what would else take two threads and
//! a wake-up for each request takes none.

use cow_io::{Driver, Message, WatchId};
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A file that requests come from. Given to [`crate::Pool::serve`] it is read by the pool's reactor.
pub trait Source: Send {
    /// A handle to the file, to be watched for being readable.
    ///
    /// # Errors
    /// Without one the source has to leave.
    fn file(&self) -> io::Result<OwnedFd>;

    /// Reads some requests, as many as there are but not for long, and submits them to their
    /// exports ([`crate::Export::submit`]). Must not block: everybody who uses the pool waits
    /// meanwhile.
    fn take(&mut self) -> Taken;

    /// Moves the messages for the file that have come up since to `messages`; they are written
    /// together.
    fn answers(&mut self, messages: &mut Vec<Message>);

    /// The reactor does not read from it any more: it has come to its end, or the pool has, or this
    /// system cannot do it. May be called on the reactor's thread, and must not block.
    fn leave(self: Box<Self>);
}

/// What [`Source::take`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// All there was.
    All,
    /// There may be more.
    Some,
    /// Nothing will come any more.
    End,
}

/// The sources of a reactor.
#[derive(Default)]
pub(crate) struct Sources {
    watched: Vec<(WatchId, Box<dyn Source>)>,
    messages: Vec<Message>,
}

impl Sources {
    pub(crate) fn add(&mut self, source: Box<dyn Source>, driver: &mut dyn Driver) {
        let file = source.file().inspect_err(|error| tracing::warn!(%error, "no handle to watch"));
        match file.ok().and_then(|file| driver.watch(file).ok()) {
            Some(id) => self.watched.push((id, source)),
            None => source.leave(),
        }
    }

    /// Takes requests from all that may have some. Whether there may be more.
    pub(crate) fn take(&mut self, driver: &mut dyn Driver) -> bool {
        if !self.watched.is_empty() && !driver.watches() {
            // Nobody would hear of what they have.
            self.leave();
        }
        let mut more = false;
        let mut at = 0;
        while let Some((id, source)) = self.watched.get_mut(at) {
            if !driver.may_be_readable(*id) {
                at += 1;
                continue;
            }
            let taken = catch_unwind(AssertUnwindSafe(|| source.take())).unwrap_or_else(|_| {
                tracing::error!("a source of requests panicked");
                Taken::End
            });
            match taken {
                Taken::All => at += 1,
                Taken::Some => {
                    more = true;
                    at += 1;
                }
                Taken::End => {
                    let (id, source) = self.watched.swap_remove(at);
                    driver.unwatch(id);
                    source.leave();
                }
            }
        }
        more
    }

    /// Hands the driver what they have to say.
    pub(crate) fn answer(&mut self, driver: &mut dyn Driver) {
        for (id, source) in &mut self.watched {
            source.answers(&mut self.messages);
            for message in self.messages.drain(..) {
                driver.send(*id, message);
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.watched.is_empty()
    }

    /// All leave.
    pub(crate) fn leave(&mut self) {
        for (_, source) in self.watched.drain(..) {
            source.leave();
        }
    }
}
