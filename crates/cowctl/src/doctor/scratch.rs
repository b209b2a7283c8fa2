//! A file of our own on the disk in question, to try things out on.

use crate::failure::Failure;
use cow_format::{Buf, BufSlice};
use cow_io::{
    CreateOptions, Driver, DriverChoice, DriverOptions, Image, IoDone, IoError, IoOp, IoRequest,
};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const SIZE_BYTES: u64 = 4 << 20;
const HOLE_BYTES: u64 = 1 << 20;
/// How many flushes are timed.
const FLUSHES: u64 = 32;
/// No longer than this, unless a single one takes longer.
const FLUSHES_TIME: Duration = Duration::from_secs(5);

/// The file, open; gone when dropped.
pub struct Scratch {
    path: PathBuf,
    image: Image,
    driver: Box<dyn Driver>,
    /// Dropped last.
    _dir: TempDir,
}

/// Whether an operation of the file system works.
pub enum Works {
    Yes,
    No(String),
}

impl Works {
    fn of(result: Result<(), IoError>) -> Self {
        match result {
            Ok(()) => Self::Yes,
            Err(error) => Self::No(io::Error::from_raw_os_error(error.errno).to_string()),
        }
    }
}

/// How long a flush takes, of those that were timed.
pub struct FlushTimes {
    pub median: Duration,
    pub longest: Duration,
}

impl Scratch {
    /// Makes it in `dir`, in a directory of its own.
    pub fn new(dir: &Path) -> Result<Self, Failure> {
        let own = tempfile::Builder::new().prefix(".cowctl-doctor-").tempdir_in(dir);
        let own = own.map_err(Failure::file(dir))?;
        let path = own.path().join("scratch");
        let image = Image::create(&path, SIZE_BYTES, &CreateOptions::default());
        let image = image.map_err(|error| Failure::Failed(error.to_string()))?;
        let driver =
            cow_io::open_driver(image.clone(), DriverChoice::Auto, &DriverOptions::default());
        let driver = driver.map_err(Failure::file(&path))?;
        Ok(Self { path, image, driver, _dir: own })
    }

    /// The file as it is used.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// The driver that a pool would have.
    pub fn driver(&self) -> &dyn Driver {
        &*self.driver
    }

    fn run(&mut self, op: IoOp) -> Result<(), IoError> {
        let mut done: Vec<IoDone> = Vec::new();
        self.driver.submit(IoRequest { tag: 0, op });
        while self.driver.in_flight() > 0 {
            self.driver.wait(&mut done, None);
        }
        done.into_iter().try_for_each(|done| done.result)
    }

    fn write(&mut self, offset: u64, blocks: usize, fill: u8) -> Result<(), Failure> {
        let mut buf = Buf::zeroed(blocks);
        buf.fill(fill);
        let written = self.run(IoOp::Write { offset, bufs: vec![BufSlice::whole(buf)] });
        written.map_err(|error| self.failure(&error))
    }

    fn failure(&self, error: &IoError) -> Failure {
        let source = io::Error::from_raw_os_error(error.errno);
        Failure::file(&self.path)(source)
    }

    /// Bytes that it takes of the disk.
    fn taken(&self) -> Result<u64, Failure> {
        let found = std::fs::metadata(&self.path).map_err(Failure::file(&self.path))?;
        Ok(found.blocks() * 512)
    }

    /// Whether space can be had before it is written.
    pub fn allocates(&mut self) -> Works {
        Works::of(self.run(IoOp::Allocate { offset: 0, len: SIZE_BYTES }))
    }

    /// Whether space can be given back. To be asked when all of the file has space.
    pub fn punches(&mut self) -> Result<Works, Failure> {
        self.write(0, (HOLE_BYTES / 4096) as usize, 0x5a)?;
        self.flush()?;
        let before = self.taken()?;
        match Works::of(self.run(IoOp::Discard { offset: 0, len: HOLE_BYTES })) {
            Works::No(reason) => Ok(Works::No(reason)),
            Works::Yes if self.taken()? + HOLE_BYTES / 2 > before => {
                Ok(Works::No("it is accepted, and the file takes as much as before".into()))
            }
            Works::Yes => Ok(Works::Yes),
        }
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.run(IoOp::Flush).map_err(|error| self.failure(&error))
    }

    /// Times flushes, each of one block that was written.
    pub fn time_flushes(&mut self) -> Result<FlushTimes, Failure> {
        // Space that was only promised costs the first write more.
        self.write(HOLE_BYTES, FLUSHES as usize, 1)?;
        self.flush()?;
        let start = Instant::now();
        let mut times = Vec::new();
        for turn in 0..FLUSHES {
            self.write(HOLE_BYTES + turn * 4096, 1, 2)?;
            let begin = Instant::now();
            self.flush()?;
            times.push(begin.elapsed());
            if start.elapsed() > FLUSHES_TIME {
                break;
            }
        }
        times.sort_unstable();
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        Ok(FlushTimes { median, longest: times.last().copied().unwrap_or_default() })
    }
}
