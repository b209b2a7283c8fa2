//! A file that has no name, so that nothing of it stays however this process ends, and the driver that a pool has.

use super::load::Pattern;
use crate::failure::Failure;
use cow_format::{BLOCK_SIZE, Buf, BufSlice};
use cow_io::{
    CreateOptions, Driver, DriverOptions, Image, ImageError, IoDone, IoError, IoOp, IoRequest,
};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::TempDir;

/// Of the writes that go over all of it.
const PIECE_BYTES: usize = 1 << 20;

/// The file, open and locked.
pub struct Plain {
    /// What it is called in words.
    path: PathBuf,
    image: Image,
    driver: Box<dyn Driver>,
}

/// A directory for a file that is about to lose its name.
pub fn short_lived(dir: &Path) -> Result<TempDir, Failure> {
    let made = tempfile::Builder::new().prefix(".cowctl-bench-").tempdir_in(dir);
    made.map_err(Failure::file(dir))
}

/// Takes the name of the file at `path` away, and the directory that was made for it.
pub fn unname(path: &Path, own: TempDir) -> Result<(), Failure> {
    fs::remove_file(path).map_err(Failure::file(path))?;
    let dir = own.path().to_owned();
    own.close().map_err(Failure::file(&dir))
}

impl Plain {
    /// A new one in `dir`, all of its space reserved.
    pub fn new(dir: &Path, size_bytes: u64, options: &DriverOptions) -> Result<Self, Failure> {
        let own = short_lived(dir)?;
        let path = own.path().join("raw");
        let create = CreateOptions { preallocate: true, ..CreateOptions::default() };
        let image = Image::create(&path, size_bytes, &create).map_err(image_failure)?;
        unname(&path, own)?;
        Self::on(image, path, options)
    }

    /// The file at `path`, which may lose its name afterwards.
    pub fn open(path: &Path, options: &DriverOptions) -> Result<Self, Failure> {
        let image = Image::open(path, &cow_io::OpenOptions::default()).map_err(image_failure)?;
        Self::on(image, path.into(), options)
    }

    fn on(image: Image, path: PathBuf, options: &DriverOptions) -> Result<Self, Failure> {
        let driver = cow_io::open_driver(image.clone(), cow_io::DriverChoice::Auto, options);
        let driver = driver.map_err(Failure::file(&path))?;
        Ok(Self { path, image, driver })
    }

    /// Whether the page cache is bypassed.
    pub fn is_direct(&self) -> bool {
        self.image.is_direct()
    }

    /// The driver.
    pub fn driver(&mut self) -> &mut dyn Driver {
        &mut *self.driver
    }

    /// The name of the driver.
    pub fn driver_name(&self) -> &'static str {
        self.driver.name()
    }

    /// Writes all of it.
    pub fn fill(&mut self, stop: &AtomicBool) -> Result<(), Failure> {
        let mut pattern = Pattern::new(PIECE_BYTES);
        self.go_over(stop, |_, _, mut buf| {
            pattern.fill(&mut buf);
            Ok(buf)
        })
    }

    /// Writes all of it with what is there: the first write of what was only reserved costs a file system more
    /// than the second.
    pub fn write_back(&mut self, stop: &AtomicBool) -> Result<(), Failure> {
        self.go_over(stop, |file, offset, buf| {
            let read = file.one(IoOp::Read { offset, buf })?;
            read.ok_or_else(|| Failure::Failed(format!("{}: no answer", file.path.display())))
        })
    }

    fn go_over(
        &mut self,
        stop: &AtomicBool,
        mut content: impl FnMut(&mut Self, u64, Buf) -> Result<Buf, Failure>,
    ) -> Result<(), Failure> {
        let size = self.image.size_bytes() / BLOCK_SIZE as u64 * BLOCK_SIZE as u64;
        let mut offset = 0;
        while offset < size && !stop.load(Ordering::Relaxed) {
            let len = (size - offset).min(PIECE_BYTES as u64) as usize;
            let buf = self.driver.buffers().scratch(len / BLOCK_SIZE);
            let buf = content(self, offset, buf)?;
            self.one(IoOp::Write { offset, bufs: vec![BufSlice::whole(buf)] })?;
            offset += len as u64;
        }
        self.flush()
    }

    /// Makes it durable.
    pub fn flush(&mut self) -> Result<(), Failure> {
        self.one(IoOp::Flush).map(drop)
    }

    fn one(&mut self, op: IoOp) -> Result<Option<Buf>, Failure> {
        let mut done: Vec<IoDone> = Vec::new();
        self.driver.submit(IoRequest { tag: 0, op });
        while self.driver.in_flight() > 0 {
            self.driver.wait(&mut done, None);
        }
        let mut buf = None;
        for done in done {
            done.result.map_err(|error| self.failure(&error))?;
            buf = buf.or(done.buf);
        }
        Ok(buf)
    }

    /// What went wrong with it.
    pub fn failure(&self, error: &IoError) -> Failure {
        let error = io::Error::from_raw_os_error(error.errno);
        if error.kind() == io::ErrorKind::StorageFull {
            return Failure::NoSpace(format!("{}: {error}", self.path.display()));
        }
        Failure::file(&self.path)(error)
    }
}

fn image_failure(error: ImageError) -> Failure {
    match &error {
        ImageError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
            Failure::NoSpace(error.to_string())
        }
        _ => Failure::Failed(error.to_string()),
    }
}
