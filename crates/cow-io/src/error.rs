//! What can go wrong: [`IoError`] for one request, [`ImageError`] for opening and creating.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Which operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OpKind {
    /// A read.
    Read,
    /// A write.
    Write,
    /// A flush (`fdatasync`).
    Flush,
    /// A discard (hole punch or `BLKDISCARD`).
    Discard,
    /// An allocation of space below.
    Allocate,
    /// A growth of the image.
    Grow,
}

impl OpKind {
    /// The word for it in messages.
    pub fn name(self) -> &'static str {
        match self {
            OpKind::Read => "read",
            OpKind::Write => "write",
            OpKind::Flush => "flush",
            OpKind::Discard => "discard",
            OpKind::Allocate => "allocate",
            OpKind::Grow => "grow",
        }
    }
}

impl fmt::Display for OpKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A request that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{op} at byte {offset}: {}", describe(*.op, *.errno))]
pub struct IoError {
    /// What was asked.
    pub op: OpKind,
    /// Where the request began, in bytes (0 for a flush; the wanted length for a growth).
    pub offset: u64,
    /// The error number.
    pub errno: i32,
}

/// The error number of a read beyond the end. No file system or device answers a read with it.
pub(crate) const END_OF_IMAGE: i32 = libc::ENXIO;

fn describe(op: OpKind, errno: i32) -> String {
    if op == OpKind::Read && errno == END_OF_IMAGE {
        return "beyond the end of the image".to_owned();
    }
    io::Error::from_raw_os_error(errno).to_string()
}

impl IoError {
    /// Whether there was no room below: a full file system, a quota, a thin device.
    pub fn is_no_space(&self) -> bool {
        matches!(self.errno, libc::ENOSPC | libc::EDQUOT)
    }

    /// Whether the request went beyond the end of the image.
    pub fn is_end_of_image(&self) -> bool {
        self.op == OpKind::Read && self.errno == END_OF_IMAGE
    }

    /// Whether the file system or device does not know the operation (discard, allocate).
    pub fn is_unsupported(&self) -> bool {
        matches!(self.errno, libc::EOPNOTSUPP | libc::ENOSYS | libc::ENOTTY)
    }
}

impl From<IoError> for io::Error {
    fn from(error: IoError) -> Self {
        io::Error::new(io::Error::from_raw_os_error(error.errno).kind(), error)
    }
}

/// Why an image could not be opened or created.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Somebody else has it open in a way that excludes us.
    #[error("{}: in use by another process", .path.display())]
    Busy {
        /// The image.
        path: PathBuf,
    },
    /// Creating it would have destroyed what is there.
    #[error("{}: not empty: {found}", .path.display())]
    NotEmpty {
        /// The image.
        path: PathBuf,
        /// What was found there.
        found: String,
    },
    /// Neither a regular file nor a block device.
    #[error("{}: {what} cannot hold an image", .path.display())]
    NotAnImage {
        /// The path.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// The device is smaller than the size asked for.
    #[error("{}: holds {size_bytes} bytes, {wanted_bytes} are needed", .path.display())]
    TooSmall {
        /// The device.
        path: PathBuf,
        /// Its size.
        size_bytes: u64,
        /// The size asked for.
        wanted_bytes: u64,
    },
    /// Direct I/O was demanded and does not work here.
    #[error("{}: direct I/O is not possible: {reason}", .path.display())]
    NoDirectIo {
        /// The image.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A system call failed.
    #[error("{}: {action}: {source}", .path.display())]
    Io {
        /// The image.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// The error.
        source: io::Error,
    },
}
