//! The pool's file, read block by block without the engine, for the checker and the dumper.

use crate::failure::Failure;
use cow_check::repair::{BlocksMut, WriteError};
use cow_check::{Blocks, OpenError, ReadError};
use cow_format::{BLOCK_SIZE, Buf, Phys};
use rustix::fs::{Advice, OFlags, fadvise};
use std::fs::{File, TryLockError};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// The pool's file, open for reading.
pub struct PoolImage {
    file: File,
    blocks: u64,
    live: bool,
}

impl PoolImage {
    /// Opens it. If nobody has the pool, nobody can change it while this is open.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        crate::session::must_exist(path)?;
        let mut file = File::open(path).map_err(Failure::file(path))?;
        let live = match file.try_lock_shared() {
            Ok(()) => false,
            Err(TryLockError::WouldBlock) => true,
            Err(TryLockError::Error(error)) => return Err(Failure::file(path)(error)),
        };
        let bytes = file.seek(SeekFrom::End(0)).map_err(Failure::file(path))?;
        Ok(Self { file, blocks: bytes / BLOCK_SIZE as u64, live })
    }

    /// Opens it for a repair: nobody else may have it open, and what is read comes from the disk.
    pub fn open_alone(path: &Path) -> Result<Self, Failure> {
        crate::session::must_exist(path)?;
        let fail = Failure::file(path);
        let busy = || {
            let text = "in use; a repair is for a pool that nobody else has open";
            Failure::Refused(format!("{}: {text}", path.display()))
        };
        let is_device = std::fs::metadata(path).is_ok_and(|m| m.file_type().is_block_device());
        // On a device this keeps out what is mounted or mapped, too.
        let claim = if is_device { OFlags::EXCL.bits() as i32 } else { 0 };
        let opened = File::options().read(true).write(true).custom_flags(claim).open(path);
        let mut file = match opened {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => return Err(busy()),
            opened => opened.map_err(fail)?,
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(busy()),
            Err(TryLockError::Error(error)) => return Err(Failure::file(path)(error)),
        }
        // Pages that a failed flush of another process has left behind look clean and are not.
        file.sync_all().map_err(Failure::file(path))?;
        fadvise(&file, 0, None, Advice::DontNeed).map_err(|e| Failure::file(path)(e.into()))?;
        let bytes = file.seek(SeekFrom::End(0)).map_err(Failure::file(path))?;
        Ok(Self { file, blocks: bytes / BLOCK_SIZE as u64, live: false })
    }

    /// Whether another process has the pool open, and may write to it now.
    pub fn is_live(&self) -> bool {
        self.live
    }
}

impl Blocks for PoolImage {
    fn read(&mut self, at: Phys, blocks: usize) -> Result<Buf, ReadError> {
        let mut buf = Buf::zeroed(blocks);
        let read = self.file.read_exact_at(&mut buf, at.byte_offset());
        read.map(|()| buf).map_err(|error| ReadError::new(error.to_string()))
    }

    fn block_count(&self) -> u64 {
        self.blocks
    }
}

impl BlocksMut for PoolImage {
    fn write(&mut self, at: Phys, buf: &Buf) -> Result<(), WriteError> {
        let written = self.file.write_all_at(buf, at.byte_offset());
        written.map_err(|error| WriteError { cause: error.to_string() })
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        self.file.sync_all().map_err(|error| WriteError { cause: error.to_string() })
    }
}

/// For [`Result::map_err`]: what a pool that cannot be looked at ends the command with.
pub fn refused(path: &Path) -> impl Fn(OpenError) -> Failure {
    let path = path.display().to_string();
    move |error| {
        let text = format!("{path}: {error}");
        match error {
            OpenError::Truncated { .. } | OpenError::Damaged { .. } => Failure::Corrupt(text),
            OpenError::NotFound(_) => Failure::NotFound(text),
            OpenError::NotAPool | OpenError::Unsupported(_) | OpenError::Read { .. } => {
                Failure::Failed(text)
            }
        }
    }
}
