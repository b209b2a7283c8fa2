//! Freezing a file system: all that is in it is written where it belongs, and nothing new begins,
//! until it is thawed. The kernel does not thaw by itself when whoever froze has died.

use crate::sys;
use std::fs::File;
use std::io;

/// Freezes the file system that `dir` lies on: `FIFREEZE`. Waits until what had begun is written;
/// whoever writes meanwhile waits too.
///
/// # Errors
/// `Unsupported` where a file system has no such thing, `ResourceBusy` if it is frozen already,
/// `PermissionDenied` without `CAP_SYS_ADMIN`.
pub fn freeze(dir: &File) -> io::Result<()> {
    sys::freeze(dir)
}

/// Ends that: `FITHAW`.
///
/// # Errors
/// `InvalidInput` if it is not frozen.
pub fn thaw(dir: &File) -> io::Result<()> {
    sys::thaw(dir)
}

/// Writes what is dirty on the file system that `dir` lies on, and waits for no more: a freeze that
/// follows is short.
///
/// # Errors
/// Of the device.
pub fn sync(dir: &File) -> io::Result<()> {
    sys::sync_file_system(dir)
}
