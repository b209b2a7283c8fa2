//! A volume or snapshot that is open: [`Export`], and the two faces of it, [`Volume`] and
//! [`Snapshot`].

use crate::completion::Completion;
use crate::core::Core;
use crate::error::{Error, unexpected};
use crate::handle::Handle;
use crate::pieces::{IoFuture, Job};
use crate::types::DiffPage;
use cow_engine::{DiffQuery, DiffSide, Extent, Op, Reply};
use cow_format::{Buf, NodeId};
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// One request to an open volume or snapshot, as a server hands it over.
#[derive(Debug)]
pub enum Request {
    /// Answered with [`Response::Data`].
    Read {
        /// First byte.
        offset: u64,
        /// Bytes, at most 64 MiB.
        len: u64,
    },
    /// Stores the first `len` bytes of `data`, of which no copy is made.
    Write {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
        /// The bytes, from its front on.
        data: Buf,
        /// Durable before the answer.
        fua: bool,
    },
    /// Everything acknowledged before, in the whole pool, becomes durable.
    Flush,
    /// The range reads as zeros and its space comes back.
    Discard {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
        /// Durable before the answer.
        fua: bool,
    },
    /// The range reads as zeros.
    WriteZeroes {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
        /// Durable before the answer.
        fua: bool,
    },
    /// Answered with [`Response::Extents`].
    Extents {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// What differs from another state of the same family. Answered with [`Response::Changes`].
    Changes {
        /// The other state; see [`Export::as_side`].
        since: DiffSide,
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
        /// At most so many extents.
        limit: usize,
    },
}

/// The answer to a [`Request`].
#[derive(Debug)]
pub enum Response {
    /// Done.
    Done,
    /// The bytes of a read are those of `buf` from byte `skip` on.
    Data {
        /// Whole blocks.
        buf: Buf,
        /// Where in `buf` the answer begins.
        skip: usize,
    },
    /// What is mapped, from the front of the range on; perhaps not all of it.
    Extents(Vec<Extent>),
    /// What differs, from the front of the range on; perhaps not all of it.
    Changes(DiffPage),
}

/// An open volume or snapshot: reading, and everything else by [`Export::submit`]. Its clones
/// are the same export; the last one closes it. All methods may be called from any thread; those
/// that block may not be called inside a completion callback.
#[derive(Clone)]
pub struct Export {
    pub(crate) handle: Arc<Handle>,
}

impl Export {
    pub(crate) fn new(core: Arc<Core>, name: &str, reply: Reply) -> Result<Self, Error> {
        Handle::new(core, name, reply).map(|handle| Self { handle: Arc::new(handle) })
    }

    /// `VOL` or `VOL@SNAP`.
    pub fn name(&self) -> String {
        self.handle.label.name()
    }

    /// Its size in bytes, as of its opening or the last resize.
    pub fn size_bytes(&self) -> u64 {
        self.handle.label.size_bytes()
    }

    /// Whether it refuses writes.
    pub fn is_read_only(&self) -> bool {
        self.handle.read_only
    }

    /// The node of the snapshot tree that it was opened at.
    pub fn node(&self) -> NodeId {
        self.handle.node
    }

    /// How often the volume had been rolled back when it was opened.
    pub fn rollback_generation(&self) -> u64 {
        self.handle.rollback_gen
    }

    /// A buffer with room for `bytes` bytes, for the data of a [`Request::Write`]: any other does as
    /// well, but of this the way to the device is shorter. What is in it is left over from anything,
    /// up to the zeros behind `bytes`.
    pub fn buffer(&self, bytes: usize) -> Buf {
        self.handle.core.buffers.for_bytes(bytes)
    }

    /// Starts `request` and returns at once. `done` is called once, on the pool's reactor thread
    /// (or here, if the pool has ended): it must be quick and must not block.
    pub fn submit(
        &self,
        request: Request,
        done: impl FnOnce(Result<Response, Error>) + Send + 'static,
    ) {
        let op = self.op(request);
        // The callback keeps the export open until the answer.
        let export = self.clone();
        let completion = Completion::new(move |outcome| {
            done(outcome.and_then(|reply| match reply {
                Reply::Done => Ok(Response::Done),
                Reply::Data { buf, skip } => Ok(Response::Data { buf, skip }),
                Reply::Extents(extents) => Ok(Response::Extents(extents)),
                Reply::Diff { extents, next } => Ok(Response::Changes(DiffPage { extents, next })),
                other => Err(unexpected(&other)),
            }));
            drop(export);
        });
        self.handle.core.queue.push(op, completion);
    }

    fn op(&self, request: Request) -> Op {
        let export = self.handle.id;
        match request {
            Request::Read { offset, len } => Op::Read { export, offset, len },
            Request::Write { offset, len, data, fua } => {
                Op::Write { export, offset, len, data, fua }
            }
            Request::Flush => Op::Flush { export },
            Request::Discard { offset, len, fua } => Op::Discard { export, offset, len, fua },
            Request::WriteZeroes { offset, len, fua } => {
                Op::WriteZeroes { export, offset, len, fua }
            }
            Request::Extents { offset, len } => Op::Extents { export, offset, len },
            Request::Changes { since: from, offset, len, limit } => {
                let to = DiffSide::Export(export);
                Op::Diff(DiffQuery { from, to, offset, len, limit, exact: false })
            }
        }
    }

    /// Fills `buf` from byte `offset` on.
    ///
    /// # Errors
    /// `Invalid` when the range is not inside, `Corrupt` when what is there is not what was
    /// written. After an error the contents of `buf` mean nothing.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), Error> {
        self.read_at_async(buf, offset).wait()
    }

    /// As [`Export::read_at`], to be awaited.
    pub fn read_at_async<'a>(&'a self, buf: &'a mut [u8], offset: u64) -> IoFuture<'a> {
        let len = buf.len() as u64;
        IoFuture::new(&self.handle, Job::Read(buf), offset, len)
    }

    /// What is mapped in the range, all of it; neighbours of one kind are one extent.
    pub fn extents(&self, offset: u64, len: u64) -> Result<Vec<Extent>, Error> {
        let mut found = Extents::new(offset, len);
        while let Some((offset, len)) = found.rest() {
            let op = self.op(Request::Extents { offset, len });
            found.add(self.handle.core.queue.call(op)?)?;
        }
        Ok(found.extents)
    }

    /// As [`Export::extents`], to be awaited.
    pub async fn extents_async(&self, offset: u64, len: u64) -> Result<Vec<Extent>, Error> {
        let mut found = Extents::new(offset, len);
        while let Some((offset, len)) = found.rest() {
            let op = self.op(Request::Extents { offset, len });
            found.add(self.handle.core.execute(op).await?)?;
        }
        Ok(found.extents)
    }

    fn whole(&self, op: Op, offset: u64, len: u64) -> IoFuture<'_> {
        IoFuture::new(&self.handle, Job::Whole(Some(op)), offset, len)
    }
}

impl fmt::Debug for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Export({}, {} bytes)", self.name(), self.size_bytes())
    }
}

/// Extents collected so far.
struct Extents {
    extents: Vec<Extent>,
    offset: u64,
    len: u64,
}

impl Extents {
    fn new(offset: u64, len: u64) -> Self {
        Self { extents: Vec::new(), offset, len }
    }

    fn rest(&self) -> Option<(u64, u64)> {
        (self.len > 0).then_some((self.offset, self.len))
    }

    fn add(&mut self, reply: Reply) -> Result<(), Error> {
        let Reply::Extents(extents) = reply else { return Err(unexpected(&reply)) };
        let before = self.len;
        for extent in extents {
            let len = extent.len.min(self.len);
            (self.offset, self.len) = (self.offset + len, self.len - len);
            match self.extents.last_mut() {
                Some(last) if last.mapped == extent.mapped => last.len += len,
                _ if len > 0 => self.extents.push(Extent { len, ..extent }),
                _ => {}
            }
        }
        if self.len == before {
            return Err(unexpected(&Reply::Extents(Vec::new())));
        }
        Ok(())
    }
}

/// An open snapshot.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(crate) export: Export,
}

impl Deref for Snapshot {
    type Target = Export;

    fn deref(&self) -> &Export {
        &self.export
    }
}

/// A volume, open for writing.
#[derive(Clone, Debug)]
pub struct Volume {
    pub(crate) export: Export,
}

impl Deref for Volume {
    type Target = Export;

    fn deref(&self) -> &Export {
        &self.export
    }
}

impl Volume {
    /// Writes `data` at byte `offset`. Durable after the next [`Volume::flush`].
    ///
    /// # Errors
    /// `NoSpace` when the pool or the file system below is full, `Stale` after the volume was
    /// rolled back. A large write that fails may have been done in part.
    pub fn write_at(&self, data: &[u8], offset: u64) -> Result<(), Error> {
        self.write_at_async(data, offset).wait()
    }

    /// As [`Volume::write_at`], to be awaited.
    pub fn write_at_async<'a>(&'a self, data: &'a [u8], offset: u64) -> IoFuture<'a> {
        IoFuture::new(&self.handle, Job::Write(data), offset, data.len() as u64)
    }

    /// Makes everything durable that was acknowledged before, in the whole pool.
    ///
    /// # Errors
    /// A flush that fails once poisons the pool: nothing later reports success.
    pub fn flush(&self) -> Result<(), Error> {
        self.flush_async().wait()
    }

    /// As [`Volume::flush`], to be awaited.
    pub fn flush_async(&self) -> IoFuture<'_> {
        self.whole(self.op(Request::Flush), 0, 0)
    }

    /// Makes the range read as zeros and gives its space back.
    pub fn discard(&self, offset: u64, len: u64) -> Result<(), Error> {
        self.discard_async(offset, len).wait()
    }

    /// As [`Volume::discard`], to be awaited.
    pub fn discard_async(&self, offset: u64, len: u64) -> IoFuture<'_> {
        self.whole(self.op(Request::Discard { offset, len, fua: false }), offset, len)
    }

    /// Makes the range read as zeros.
    pub fn write_zeroes(&self, offset: u64, len: u64) -> Result<(), Error> {
        self.write_zeroes_async(offset, len).wait()
    }

    /// As [`Volume::write_zeroes`], to be awaited.
    pub fn write_zeroes_async(&self, offset: u64, len: u64) -> IoFuture<'_> {
        self.whole(self.op(Request::WriteZeroes { offset, len, fua: false }), offset, len)
    }
}
