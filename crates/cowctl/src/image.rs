//! The pool's file, read block by block without the engine, for the checker and the dumper.

use crate::failure::Failure;
use cow_check::{Blocks, OpenError, ReadError};
use cow_format::{BLOCK_SIZE, Buf, Phys};
use std::fs::{File, TryLockError};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileExt;
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
