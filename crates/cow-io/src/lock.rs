//! One writer, or readers: the lock on an opened image.
//!
//! `flock` belongs to the open file, so a second open in the same process conflicts too, and the
//! kernel drops it with the last descriptor, however the process ends. On block devices a writer
//! also opens with `O_EXCL`, which keeps out a mounted file system, device mapper and RAID.
//! Readers do not: the kernel grants that claim to one opener, and there may be many readers.
//!
//! Two things look like a conflict on a device and pass by themselves, so a device is asked for
//! a while before it is called busy: udev takes its lock shared for a moment, each time a writer
//! has closed it; and a child process between its fork and its exec keeps what its parent has
//! closed since, the kernel's claim included. (The lock is not kept that way: see
//! [`LockedFile`].)

use crate::error::ImageError;
use crate::sys;
use std::fs::File;
use std::ops::Deref;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

/// How often, and how far apart, the lock of a device is asked for: one second in all.
const DEVICE_ATTEMPTS: u32 = 50;
const DEVICE_PAUSE: Duration = Duration::from_millis(20);

/// An open file that is unlocked when it is dropped. Closing would do that, too, but only once
/// nobody else holds the open file: a forked child, or the kernel while it takes a ring apart.
#[derive(Debug)]
pub(crate) struct LockedFile(File);

impl LockedFile {
    /// Opens a file and takes its lock: exclusive for a writer, shared for a reader.
    pub(crate) fn open(
        path: &Path,
        read_only: bool,
        is_block_device: bool,
        flags: i32,
    ) -> Result<Self, ImageError> {
        let fail = |action, source| ImageError::Io { path: path.into(), action, source };
        let claim = if is_block_device && !read_only { libc::O_EXCL } else { 0 };
        let mut options = File::options();
        options.read(true).write(!read_only).custom_flags(flags | claim);
        let open = || match options.open(path) {
            Ok(file) => Ok(Some(file)),
            Err(e) if is_block_device && e.raw_os_error() == Some(libc::EBUSY) => Ok(None),
            Err(e) => Err(fail("open", e)),
        };
        let attempts = if is_block_device { DEVICE_ATTEMPTS } else { 1 };
        let busy = || ImageError::Busy { path: path.into() };
        let file = insist(attempts, open)?.ok_or_else(busy)?;
        let lock = || {
            let taken = sys::try_flock(&file, !read_only).map_err(|e| fail("lock", e))?;
            Ok(taken.then_some(()))
        };
        insist(attempts, lock)?.ok_or_else(busy)?;
        Ok(Self(file))
    }
}

/// Asks until there is an answer, `attempts` times.
fn insist<T>(
    attempts: u32,
    mut ask: impl FnMut() -> Result<Option<T>, ImageError>,
) -> Result<Option<T>, ImageError> {
    for _ in 1..attempts {
        if let Some(answer) = ask()? {
            return Ok(Some(answer));
        }
        thread::sleep(DEVICE_PAUSE);
    }
    ask()
}

impl Deref for LockedFile {
    type Target = File;
    fn deref(&self) -> &File {
        &self.0
    }
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        // Nothing depends on it: an error leaves it to the close.
        let _ = sys::unlock(&self.0);
    }
}
