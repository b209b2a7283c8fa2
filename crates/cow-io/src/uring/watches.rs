//! Files that the ring watches for whoever reads requests from them.
//!
//! Each has one poll at a time, which is over with the first news: then the reader reads until
//! there is no more, and only before the next sleep the poll is pushed again. So a busy reader costs
//! no poll, and one that was told nothing since need not try.

use crate::driver::WatchId;
use io_uring::{IoUring, opcode, types};
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// The number of the first one's poll; the others count up. No slot of the slab has any of these.
const FIRST: u64 = 1 << 63;
/// The end of a poll: nobody wants to know.
const REMOVED: u64 = u64::MAX - 1;

/// The files, by their number.
#[derive(Default)]
pub(super) struct Watches {
    files: Vec<Place>,
    /// Numbers of places that are free.
    free: Vec<usize>,
}

enum Place {
    Free,
    Taken(Watch),
    /// Its file is gone, and its last poll may still come back.
    Leaving,
}

struct Watch {
    file: OwnedFd,
    is_armed: bool,
}

impl Place {
    fn watch(&self) -> Option<&Watch> {
        if let Self::Taken(watch) = self { Some(watch) } else { None }
    }
}

impl Watches {
    pub(super) fn add(&mut self, file: OwnedFd) -> WatchId {
        let place = Place::Taken(Watch { file, is_armed: false });
        let Some(number) = self.free.pop() else {
            self.files.push(place);
            return WatchId(self.files.len() - 1);
        };
        self.files[number] = place;
        WatchId(number)
    }

    /// Closes the file, and takes its poll back, which would keep it open.
    pub(super) fn remove(&mut self, ring: &mut IoUring, id: WatchId) -> io::Result<()> {
        let Some(place) = self.files.get_mut(id.0) else { return Ok(()) };
        match mem::replace(place, Place::Free) {
            Place::Free => Ok(()),
            Place::Leaving => {
                *place = Place::Leaving;
                Ok(())
            }
            Place::Taken(watch) if watch.is_armed => {
                *place = Place::Leaving;
                let entry = opcode::PollRemove::new(FIRST + id.0 as u64);
                push(ring, &entry.build().user_data(REMOVED))
            }
            Place::Taken(_) => {
                self.free.push(id.0);
                Ok(())
            }
        }
    }

    /// Whether the kernel will tell of it.
    pub(super) fn awaits(&self, id: WatchId) -> bool {
        self.files.get(id.0).and_then(Place::watch).is_some_and(|watch| watch.is_armed)
    }

    /// Its descriptor.
    pub(super) fn fd(&self, id: WatchId) -> Option<RawFd> {
        Some(self.files.get(id.0)?.watch()?.file.as_raw_fd())
    }

    /// Has the kernel tell of each from now on.
    pub(super) fn arm(&mut self, ring: &mut IoUring) -> io::Result<()> {
        for (number, place) in self.files.iter_mut().enumerate() {
            let Place::Taken(watch) = place else { continue };
            if watch.is_armed {
                continue;
            }
            let fd = types::Fd(watch.file.as_raw_fd());
            let entry = opcode::PollAdd::new(fd, libc::POLLIN as u32).build();
            push(ring, &entry.user_data(FIRST + number as u64))?;
            watch.is_armed = true;
        }
        Ok(())
    }

    /// Digests a completion if it is of a poll: whether there is news.
    pub(super) fn completed(&mut self, user_data: u64) -> Option<bool> {
        if user_data < FIRST {
            return None;
        }
        // Whatever came of it: who reads will see.
        let Ok(number) = usize::try_from(user_data - FIRST) else { return Some(false) };
        match self.files.get_mut(number) {
            Some(Place::Taken(watch)) => Some(mem::take(&mut watch.is_armed)),
            Some(place @ Place::Leaving) => {
                *place = Place::Free;
                self.free.push(number);
                Some(false)
            }
            _ => Some(false),
        }
    }
}

/// Pushes an entry that uses no memory, and makes room for it if need be.
fn push(ring: &mut IoUring, entry: &io_uring::squeue::Entry) -> io::Result<()> {
    loop {
        // SAFETY: neither a poll nor its removal uses memory of ours; the ring keeps the file by
        // itself.
        if unsafe { ring.submission().push(entry) }.is_ok() {
            return Ok(());
        }
        ring.submit()?;
    }
}
