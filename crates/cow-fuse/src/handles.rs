//! What is open, by the number that the kernel passes with each request.

use cowstore::Export;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// An open file. Dropped when the last request through it is answered; that closes the export.
pub(crate) struct File {
    pub(crate) export: Export,
    pub(crate) ino: u64,
}

/// A name in the directory.
pub(crate) struct Entry {
    pub(crate) ino: u64,
    pub(crate) name: String,
}

enum Open {
    File(Arc<File>),
    Directory(Arc<Vec<Entry>>),
}

/// All that is open.
#[derive(Default)]
pub(crate) struct Handles {
    open: RwLock<HashMap<u64, Open>>,
    last: AtomicU64,
}

impl Handles {
    pub(crate) fn add_file(&self, file: File) -> u64 {
        self.add(Open::File(Arc::new(file)))
    }

    /// The directory as it was when it was opened.
    pub(crate) fn add_directory(&self, entries: Vec<Entry>) -> u64 {
        self.add(Open::Directory(Arc::new(entries)))
    }

    fn add(&self, open: Open) -> u64 {
        let handle = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        self.open.write().insert(handle, open);
        handle
    }

    pub(crate) fn file(&self, handle: u64) -> Option<Arc<File>> {
        match self.open.read().get(&handle)? {
            Open::File(file) => Some(file.clone()),
            Open::Directory(_) => None,
        }
    }

    pub(crate) fn directory(&self, handle: u64) -> Option<Arc<Vec<Entry>>> {
        match self.open.read().get(&handle)? {
            Open::Directory(entries) => Some(entries.clone()),
            Open::File(_) => None,
        }
    }

    pub(crate) fn remove(&self, handle: u64) {
        // Dropped outside of the lock.
        let _closed = self.open.write().remove(&handle);
    }
}
