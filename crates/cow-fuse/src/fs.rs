//! The kernel's requests but for reads, writes and flushes ([`crate::device`]), taken apart. Those
//! about names go to the thread of [`crate::names`]; none is waited for here.

use crate::handles::Handles;
use crate::names::{Asker, NAME_MAX_BYTES, ROOT};
use crate::transfer;
use cowstore::Pool;
use fuser::{
    Errno, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenAccMode, OpenFlags, ReplyAttr, ReplyCreate, ReplyDirectory, ReplyEmpty, ReplyEntry,
    ReplyLseek, ReplyOpen, ReplyStatfs, Request, TimeOrNow,
};
use std::ffi::OsStr;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Nothing is kept by the kernel: what is in a pool changes under it.
const TTL: Duration = Duration::ZERO;
const FIRST: Generation = Generation(0);

/// A pool as a file system.
pub(crate) struct PoolFs {
    names: Asker,
    handles: Arc<Handles>,
}

impl PoolFs {
    pub(crate) fn new(pool: Arc<Pool>, handles: Arc<Handles>) -> io::Result<Self> {
        Ok(Self { names: Asker::start(pool, handles.clone())?, handles })
    }
}

impl Filesystem for PoolFs {
    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = match name.to_str() {
            Some(name) if parent.0 == ROOT => name.to_owned(),
            _ => return reply.error(Errno::ENOENT),
        };
        if name.len() > NAME_MAX_BYTES as usize {
            return reply.error(Errno::ENAMETOOLONG);
        }
        self.names.ask(move |names| match names.lookup(&name) {
            Ok(attr) => reply.entry(&TTL, &attr, FIRST),
            Err(errno) => reply.error(errno),
        });
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.names.ask(move |names| names.forget(ino.0, nlookup));
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        self.attr(ino, fh, reply);
    }

    /// A volume is as large as it is, as a disk is: opening with `O_TRUNC` changes nothing. The time
    /// of a change is not kept, so setting it is in vain, and no error.
    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        if mode.is_some() || uid.is_some() || gid.is_some() {
            return reply.error(Errno::EPERM);
        }
        self.names.ask(move |names| match names.attr(ino.0) {
            Ok(attr) if size.is_none_or(|size| size == 0 || size == attr.size) => {
                reply.attr(&TTL, &attr);
            }
            Ok(_) => reply.error(Errno::EPERM),
            Err(errno) => reply.error(errno),
        });
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let write = flags.acc_mode() != OpenAccMode::O_RDONLY;
        self.names.ask(move |names| match names.open(ino.0, write) {
            Ok(handle) => reply.opened(
                FileHandle(handle),
                FopenFlags::FOPEN_DIRECT_IO
                    | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES
                    | FopenFlags::FOPEN_NOFLUSH,
            ),
            Err(errno) => reply.error(errno),
        });
    }

    /// Of a `close`: it promises nothing.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.handles.remove(fh.0);
        reply.ok();
    }

    fn fallocate(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        match self.handles.file(fh.0) {
            Some(file) => transfer::allocate(&file, offset, length, mode, reply),
            None => reply.error(Errno::EBADF),
        }
    }

    fn lseek(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        match self.handles.file(fh.0) {
            Some(file) => transfer::seek(&file, offset, whence, reply),
            None => reply.error(Errno::EBADF),
        }
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if ino.0 != ROOT {
            return reply.error(Errno::ENOTDIR);
        }
        self.names.ask(move |names| match names.open_directory() {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
            Err(errno) => reply.error(errno),
        });
    }

    fn readdir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let Some(entries) = self.handles.directory(fh.0) else {
            return reply.error(Errno::EBADF);
        };
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (index, entry) in entries.iter().enumerate().skip(from) {
            let kind = if entry.ino == ROOT { FileType::Directory } else { FileType::RegularFile };
            if reply.add(INodeNo(entry.ino), index as u64 + 1, kind, &entry.name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.handles.remove(fh.0);
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        self.names.ask(move |names| match names.space() {
            Ok(space) => {
                let (blocks, free, files) = (space.blocks, space.free, space.files);
                reply.statfs(blocks, free, free, files, 0, 4096, NAME_MAX_BYTES, 4096);
            }
            Err(errno) => reply.error(errno),
        });
    }

    fn create(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        reply.error(Errno::EPERM);
    }

    fn unlink(&self, _req: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EPERM);
    }
}

impl PoolFs {
    fn attr(&self, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        // An open file has its size even when its name is gone.
        let open = fh.and_then(|fh| self.handles.file(fh.0)).filter(|file| file.ino == ino.0);
        self.names.ask(move |names| match names.attr(ino.0) {
            Ok(mut attr) => {
                if let Some(file) = open {
                    attr.size = file.export.size_bytes();
                }
                reply.attr(&TTL, &attr);
            }
            Err(errno) => reply.error(errno),
        });
    }
}
