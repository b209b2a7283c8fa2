//! Opening with direct I/O where it works, and saying why where it does not.
//!
//! That `O_DIRECT` is accepted at open says little: the file system may want another alignment
//! than 4096, and tells only when it is read. So one real block is read. The state is settled
//! before the image is used, and the reason for a fall-back is kept for whoever asks.

use crate::error::ImageError;
use crate::lock::LockedFile;
use crate::sys;
use cow_format::Buf;
use std::fs::{self, File, FileType};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};

/// Whether to bypass the page cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DirectMode {
    /// Where it works; the page cache where it does not.
    #[default]
    Auto,
    /// Or not at all.
    On,
    /// Never.
    Off,
}

/// An image opened and locked, on its way to becoming an [`crate::Image`].
pub(crate) struct Opened {
    pub(crate) file: LockedFile,
    pub(crate) path: PathBuf,
    pub(crate) is_block_device: bool,
    pub(crate) read_only: bool,
    pub(crate) direct: bool,
    pub(crate) notes: Vec<String>,
    mode: DirectMode,
}

impl Opened {
    /// Opens what `path` names, and locks it.
    pub(crate) fn new(path: &Path, read_only: bool, mode: DirectMode) -> Result<Self, ImageError> {
        let fail = |action, source| ImageError::Io { path: path.into(), action, source };
        // Looked at before it is opened: opening a pipe would wait for its other end.
        let kind = fs::metadata(path).map_err(|e| fail("open", e))?.file_type();
        let is_block_device = check_kind(path, kind)?;
        let open = |flags| LockedFile::open(path, read_only, is_block_device, flags);
        let (file, refusal) = match mode {
            DirectMode::Off => (open(0)?, None),
            DirectMode::Auto | DirectMode::On => match open(libc::O_DIRECT) {
                Err(ImageError::Io { source, .. }) if is_refusal(&source) => {
                    (open(0)?, Some("the file system does not take O_DIRECT".to_owned()))
                }
                result => (result?, None),
            },
        };
        let kind = file.metadata().map_err(|e| fail("stat", e))?.file_type();
        if check_kind(path, kind)? != is_block_device {
            // Replaced between the look and the open.
            return Err(fail("open", io::Error::from_raw_os_error(libc::ESTALE)));
        }
        let direct = mode != DirectMode::Off && refusal.is_none();
        let path = path.into();
        let mut opened =
            Self { file, path, is_block_device, read_only, direct, notes: Vec::new(), mode };
        if let Some(reason) = refusal {
            opened.fall_back(reason)?;
        }
        opened.settle()?;
        Ok(opened)
    }

    /// Reads a block, and gives direct I/O up if that is refused. To be called again after the
    /// length has changed: nothing can be learnt from an empty file.
    pub(crate) fn settle(&mut self) -> Result<(), ImageError> {
        if !self.direct {
            return Ok(());
        }
        match self.file.read_at(&mut Buf::zeroed(1), 0) {
            Err(error) if is_refusal(&error) => {}
            // Any other error is the medium's, and no reason against direct I/O.
            _ => return Ok(()),
        }
        sys::clear_direct(&self.file).map_err(|e| self.error("turn direct I/O off", e))?;
        self.fall_back("a direct read of 4096 aligned bytes was refused".to_owned())
    }

    fn fall_back(&mut self, reason: String) -> Result<(), ImageError> {
        if self.mode == DirectMode::On {
            return Err(ImageError::NoDirectIo { path: self.path.clone(), reason });
        }
        self.direct = false;
        self.notes.push(format!("buffered I/O: {reason}"));
        Ok(())
    }

    /// The present size in bytes.
    pub(crate) fn size(&self) -> Result<u64, ImageError> {
        size_of(&self.file, self.is_block_device).map_err(|e| self.error("get the size", e))
    }

    /// Wraps the error of a system call.
    pub(crate) fn error(&self, action: &'static str, source: io::Error) -> ImageError {
        ImageError::Io { path: self.path.clone(), action, source }
    }
}

/// The size of an open file or block device in bytes.
pub(crate) fn size_of(file: &File, is_block_device: bool) -> io::Result<u64> {
    if is_block_device { sys::device_size(file) } else { Ok(file.metadata()?.len()) }
}

fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP))
}

/// Whether it is a block device; an error when it is no regular file either.
fn check_kind(path: &Path, kind: FileType) -> Result<bool, ImageError> {
    let what = match kind {
        _ if kind.is_file() => return Ok(false),
        _ if kind.is_block_device() => return Ok(true),
        _ if kind.is_dir() => "a directory",
        _ if kind.is_fifo() => "a pipe",
        _ if kind.is_socket() => "a socket",
        _ => "a character device",
    };
    Err(ImageError::NotAnImage { path: path.into(), what })
}
