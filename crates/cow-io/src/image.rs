//! An image that is open: a file or a block device, locked, with direct I/O settled.
//!
//! An [`Image`] is a handle and cheap to clone; the lock is held until the last clone is gone,
//! that of a driver included.

use crate::direct::{DirectMode, Opened, size_of};
use crate::error::ImageError;
use crate::lock::LockedFile;
use crate::sys;
use cow_format::BLOCK_SIZE;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How to open an image.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Changes nothing, and shares the image with other readers.
    pub read_only: bool,
    /// Whether to bypass the page cache.
    pub direct: DirectMode,
}

/// An open image.
#[derive(Clone, Debug)]
pub struct Image {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: LockedFile,
    path: PathBuf,
    is_block_device: bool,
    read_only: bool,
    direct: bool,
    notes: Vec<String>,
    logical_block_bytes: u32,
    size_bytes: AtomicU64,
}

impl Image {
    /// Opens and locks the file or block device at `path`.
    ///
    /// # Errors
    /// [`ImageError::Busy`] when somebody else's use excludes ours.
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self, ImageError> {
        Self::from_opened(Opened::new(path.as_ref(), options.read_only, options.direct)?)
    }

    pub(crate) fn from_opened(opened: Opened) -> Result<Self, ImageError> {
        let size = opened.size()?;
        let logical_block_bytes = if opened.is_block_device {
            let size = sys::logical_block_size(&opened.file);
            size.map_err(|e| opened.error("get the block size", e))?
        } else {
            BLOCK_SIZE as u32
        };
        let Opened { file, path, is_block_device, read_only, direct, notes, .. } = opened;
        Ok(Self {
            inner: Arc::new(Inner {
                file,
                path,
                is_block_device,
                read_only,
                direct,
                notes,
                logical_block_bytes,
                size_bytes: AtomicU64::new(size),
            }),
        })
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Whether it is a block device, not a file.
    pub fn is_block_device(&self) -> bool {
        self.inner.is_block_device
    }

    /// Whether it was opened for reading only.
    pub fn is_read_only(&self) -> bool {
        self.inner.read_only
    }

    /// Whether the page cache is bypassed.
    pub fn is_direct(&self) -> bool {
        self.inner.direct
    }

    /// What a person should know of how the image is used: why I/O is buffered, if it is.
    pub fn io_notes(&self) -> &[String] {
        &self.inner.notes
    }

    /// The size in bytes when last looked at: at open, by [`Image::refresh_size`] or by a
    /// [`crate::IoOp::Grow`]. It need not be a multiple of 4096; what lies beyond the last whole
    /// block cannot be read.
    pub fn size_bytes(&self) -> u64 {
        self.inner.size_bytes.load(Ordering::Relaxed)
    }

    /// The logical block size of a device; 4096 for a file.
    pub fn logical_block_bytes(&self) -> u32 {
        self.inner.logical_block_bytes
    }

    /// Looks at the size again.
    pub fn refresh_size(&self) -> io::Result<u64> {
        let size = size_of(&self.inner.file, self.inner.is_block_device)?;
        self.inner.size_bytes.store(size, Ordering::Relaxed);
        Ok(size)
    }

    pub(crate) fn file(&self) -> &File {
        &self.inner.file
    }

    /// Makes the image at least `len` bytes long, durably; never shortens it.
    pub(crate) fn grow(&self, len: u64) -> io::Result<()> {
        let present = self.refresh_size()?;
        if self.inner.is_block_device {
            let enough = present >= len;
            return if enough { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ENOSPC)) };
        }
        if present < len {
            self.inner.file.set_len(len)?;
        }
        // Even if it was long enough: an earlier growth may have failed before it was durable.
        sys::fsync(&self.inner.file)?;
        self.refresh_size().map(|_| ())
    }
}
