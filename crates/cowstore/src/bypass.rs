//! Reading what the device has, not what the page cache remembers.
//!
//! With direct I/O every read does that. With buffered I/O the kernel is asked to forget the
//! pages of the range first, through a descriptor of its own (the lock belongs to the other
//! one). Dirty pages stay: those are what was written, not yet what the device has.

use crate::sys;
use std::fs::File;
use std::path::Path;

/// Makes later reads of a range come from the device.
pub(crate) struct CacheBypass {
    file: Option<File>,
}

impl CacheBypass {
    /// For the image at `path`; `direct` when nothing needs to be done. Where the image cannot
    /// be opened a second time, rereads may come from the cache.
    pub(crate) fn new(path: &Path, direct: bool) -> Self {
        let file = if direct { None } else { File::open(path).ok() };
        Self { file }
    }

    /// Asks the kernel to forget `len` bytes from `offset`.
    pub(crate) fn forget(&self, offset: u64, len: u64) {
        if let Some(file) = &self.file {
            sys::forget_pages(file, offset, len);
        }
    }
}
