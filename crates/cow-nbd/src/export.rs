//! What the server wants of the storage behind it.
//!
//! Requests are handed over and answered by a callback, so that one connection keeps many of them
//! in flight without a thread for each. Offsets and lengths are bytes of any alignment; whoever
//! implements [`Export`] turns them into blocks.

use cowstore::{BLOCK_SIZE, Buf, Source};
use std::sync::Arc;
use thiserror::Error;

/// One request to an [`Export`]. Its range lies inside the export, its length is not zero, and a
/// request that writes never goes to an export that is read-only.
#[derive(Debug)]
pub enum Request {
    /// Answer with [`Response::Data`] or [`Response::Zeroes`].
    Read {
        /// First byte.
        offset: u64,
        /// Number of bytes, at most 32 MiB.
        len: u32,
    },
    /// Store the first `len` bytes of `data` (byte 0 of it goes to `offset`, aligned or not).
    Write {
        /// First byte.
        offset: u64,
        /// The payload, padded with zeroes to whole blocks.
        data: Buf,
        /// Number of bytes, at most 32 MiB.
        len: u32,
        /// On stable storage before the answer.
        fua: bool,
    },
    /// All writes answered before, on any connection, to stable storage.
    Flush,
    /// The content of the range is of no interest any more.
    Trim {
        /// First byte.
        offset: u64,
        /// Number of bytes, of any size.
        len: u32,
        /// On stable storage before the answer.
        fua: bool,
    },
    /// The range reads as zeroes from now on.
    WriteZeroes {
        /// First byte.
        offset: u64,
        /// Number of bytes, of any size.
        len: u32,
        /// The range must be allocated afterwards.
        no_hole: bool,
        /// Answer [`ExportError::NotSupported`] at once, having changed nothing, rather than be
        /// as slow as writing the zeroes.
        fast: bool,
        /// On stable storage before the answer.
        fua: bool,
    },
    /// A hint that the range will be read.
    Cache {
        /// First byte.
        offset: u64,
        /// Number of bytes, of any size.
        len: u32,
    },
    /// Answer with [`Response::Extents`], from `offset` on. They may cover less than the range
    /// but not nothing; what they say beyond it is cut off.
    BlockStatus {
        /// First byte.
        offset: u64,
        /// Number of bytes, of any size.
        len: u32,
    },
}

/// A run of bytes of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Its length in bytes.
    pub len: u64,
    /// No space is allocated for it.
    pub hole: bool,
    /// It reads as zeroes.
    pub zero: bool,
}

/// A run of bytes that all differ from another state, or are all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its length in bytes.
    pub len: u64,
    /// It differs.
    pub dirty: bool,
}

/// The answer to a [`Request`] that succeeded.
#[derive(Debug)]
pub enum Response {
    /// Done; there is nothing to tell.
    Done,
    /// The bytes of a read: `len` bytes of `buf` from byte `skip` on.
    Data {
        /// Whole blocks, which need not start where the request does.
        buf: Buf,
        /// Where in `buf` the first byte of the request is.
        skip: usize,
        /// Number of bytes, as requested.
        len: usize,
    },
    /// The whole range of a read is zeroes.
    Zeroes,
    /// The status of a range.
    Extents(Vec<Extent>),
    /// What of a range differs from a [`Base`].
    Changes(Vec<Change>),
}

/// Why a request, or the opening of an export, failed. The text goes to the client where the
/// protocol has room for it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ExportError {
    /// There is no export of that name.
    #[error("no such export")]
    NotFound,
    /// No space is left (`ENOSPC`).
    #[error("no space left")]
    NoSpace,
    /// The export cannot be written (`EPERM`).
    #[error("read-only")]
    ReadOnly,
    /// The export is not what the client opened any more (`ESHUTDOWN`); its connection ends.
    #[error("the export has been replaced")]
    Stale,
    /// The request makes no sense to the storage (`EINVAL`).
    #[error("invalid request")]
    Invalid,
    /// Not possible, or not possible quickly (`ENOTSUP`).
    #[error("not supported")]
    NotSupported,
    /// Anything else (`EIO`).
    #[error("{0}")]
    Failed(String),
}

/// What a request is answered with.
pub type Completion = Box<dyn FnOnce(Result<Response, ExportError>) + Send>;

/// A block device as one client has opened it.
///
/// It is dropped when the client's connection ends, after every request has been answered; its
/// `Drop` tells the storage that the client is gone.
///
/// The server announces to clients that several connections may be used at once
/// (`NBD_FLAG_CAN_MULTI_CONN`). So a [`Request::Flush`] through one `Export` must cover the writes
/// that were answered through every other `Export` of the same name, and a write that was answered
/// must be visible to reads through all of them.
pub trait Export: Send + Sync {
    /// Its size, which stays the same while it is open.
    fn size_bytes(&self) -> u64;

    /// Whether it refuses writes, as snapshots do; this stays the same while it is open.
    fn read_only(&self) -> bool;

    /// A buffer with room for the `bytes` bytes of a [`Request::Write`], zero behind them. The rest
    /// of it means nothing: the payload is read into it.
    fn buffer(&self, bytes: usize) -> Buf {
        Buf::zeroed(bytes.div_ceil(BLOCK_SIZE))
    }

    /// Starts `request`. `done` may be called on any thread, at once or later, in any order; it
    /// does not block. A `done` that is dropped without a call answers the client with `EIO`.
    fn submit(&self, request: Request, done: Completion);

    /// Has the thread of the storage read and answer requests from `source` by itself, until that
    /// leaves. A source that it has no use for is dropped.
    fn serve(&self, source: Box<dyn Source>) {
        drop(source);
    }

    /// Names of the states that [`Export::base`] opens, at most `most` of them.
    fn bases(&self, most: usize) -> Vec<String> {
        let _ = most;
        Vec::new()
    }

    /// Opens a state that this export can be compared with; it stays until it is dropped. None if
    /// there is no such state.
    fn base(&self, name: &str) -> Option<Arc<dyn Base>> {
        let _ = name;
        None
    }
}

/// A state that an export is compared with.
pub trait Base: Send + Sync {
    /// What it is called among the exports.
    fn name(&self) -> String;

    /// Starts to compare the `len` bytes from `offset` on, which lie inside the export. `done` is as
    /// for [`Export::submit`] and gets [`Response::Changes`], from `offset` on. They may cover less
    /// than the range but not nothing; what they say beyond it is cut off.
    fn changes(&self, offset: u64, len: u32, done: Completion);
}

/// The exports of a server.
pub trait Exports: Send + Sync {
    /// The names, `VOL` or `VOL@SNAP`, that a client is shown.
    fn list(&self) -> Vec<String>;

    /// Opens an export for one client. The empty name is asked for only if
    /// [`Exports::default_export`] has no better one.
    fn open(&self, name: &str) -> Result<Arc<dyn Export>, ExportError>;

    /// What the empty name stands for: the only volume, if there is exactly one.
    fn default_export(&self) -> Option<String> {
        let mut volumes = self.list().into_iter().filter(|name| !name.contains('@'));
        let only = volumes.next()?;
        volumes.next().is_none().then_some(only)
    }
}
