//! Serving a block device to one's own host without deadlocking in memory reclaim.
//!
//! To get memory the kernel may write dirty pages of a file system that lies on a device of ours.
//! If the memory is for the process that serves the device, each would wait for the other. So
//! that process says what it is (its allocations then start no such writes), and keeps its own pages
//! in memory.

use crate::sys;
use std::io;

/// Says that the calling thread, and those that it starts from now on, serve a block device. To be
/// called before any other thread is started. Needs `CAP_SYS_RESOURCE`.
///
/// # Errors
/// `PermissionDenied` for ordinary users.
pub fn mark_io_flusher() -> io::Result<()> {
    sys::mark_io_flusher()
}

/// Whether the calling thread says so.
pub fn is_io_flusher() -> bool {
    sys::is_io_flusher()
}

/// Keeps all memory of the process from being paged out: what it uses now, and what it will use
/// from its first use on.
///
/// # Errors
/// `PermissionDenied` or `OutOfMemory` for ordinary users, who may lock little; nothing is locked
/// then.
pub fn lock_memory() -> io::Result<()> {
    sys::lock_memory()
}
