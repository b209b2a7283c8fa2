//! What the test files share: images in a temporary directory, and a driver with the loop that
//! a reactor would run around it.
#![allow(dead_code, reason = "each test file uses a part of it")]

use cow_format::{BLOCK_SIZE, Buf, BufSlice};
use cow_io::{
    CreateOptions, Driver, DriverChoice, DriverOptions, Image, IoDone, IoError, IoOp, IoRequest,
    open_driver,
};
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub const BLOCK: u64 = BLOCK_SIZE as u64;

/// A test that hangs is one that fails late.
const PATIENCE: Duration = Duration::from_secs(60);

/// A fresh image of `blocks` in a directory of its own.
pub fn new_image(blocks: u64) -> (TempDir, PathBuf, Image) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    let image = Image::create(&path, blocks * BLOCK, &CreateOptions::default()).unwrap();
    (dir, path, image)
}

/// `blocks` blocks, each different from the others and from those of another `seed`.
pub fn pattern(seed: u64, blocks: usize) -> Buf {
    let mut buf = Buf::zeroed(blocks);
    for block in 0..blocks {
        let mut word = (seed << 32 | block as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        for bytes in buf.block_mut(block).chunks_exact_mut(8) {
            bytes.copy_from_slice(&word.to_le_bytes());
            word = word.rotate_left(7).wrapping_add(seed | 1);
        }
    }
    buf
}

/// A write of `buf` at `offset`.
pub fn write(offset: u64, buf: &Buf) -> IoOp {
    IoOp::Write { offset, bufs: vec![BufSlice::whole(buf.clone())] }
}

/// A read of `blocks` blocks at `offset`, into a buffer that is not zero to begin with.
pub fn read(offset: u64, blocks: usize) -> IoOp {
    let mut buf = Buf::zeroed(blocks);
    buf.fill(0xa5);
    IoOp::Read { offset, buf }
}

/// A driver in its reactor.
pub struct Reactor {
    pub driver: Box<dyn Driver>,
    next_tag: u64,
}

impl Reactor {
    pub fn new(image: Image, choice: DriverChoice) -> Self {
        Self::with(image, choice, &DriverOptions::default())
    }

    pub fn with(image: Image, choice: DriverChoice, options: &DriverOptions) -> Self {
        Self { driver: open_driver(image, choice, options).unwrap(), next_tag: 1000 }
    }

    pub fn submit(&mut self, op: IoOp) -> u64 {
        let tag = self.next_tag;
        self.next_tag += 1;
        self.driver.submit(IoRequest { tag, op });
        tag
    }

    /// Waits for all that is in flight.
    pub fn finish(&mut self) -> HashMap<u64, IoDone> {
        let start = Instant::now();
        let mut all = HashMap::new();
        while self.driver.in_flight() > 0 {
            assert!(start.elapsed() < PATIENCE, "{} never came", self.driver.in_flight());
            let mut done = Vec::new();
            self.driver.wait(&mut done, Some(Duration::from_secs(5)));
            for done in done {
                assert!(all.insert(done.tag, done).is_none(), "one completion per request");
            }
        }
        all
    }

    /// Does one request.
    pub fn run(&mut self, op: IoOp) -> Result<Option<Buf>, IoError> {
        let tag = self.submit(op);
        let mut done = self.finish();
        let done = done.remove(&tag).unwrap();
        done.result.map(|()| done.buf)
    }

    /// Reads, and expects success.
    pub fn read(&mut self, offset: u64, blocks: usize) -> Buf {
        self.run(read(offset, blocks)).unwrap().unwrap()
    }
}

/// Runs each listed function once per driver.
#[macro_export]
macro_rules! for_both_drivers {
    ($($(#[$attr:meta])* $name:ident),* $(,)?) => {
        mod uring {
            $(#[test] $(#[$attr])* fn $name() { super::$name(cow_io::DriverChoice::Uring); })*
        }
        mod threads {
            $(#[test] $(#[$attr])* fn $name() { super::$name(cow_io::DriverChoice::Threads); })*
        }
    };
}
