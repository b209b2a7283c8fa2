//! What the test files share: images in a temporary directory, and a driver with the loop that
//! a reactor would run around it.
#![allow(dead_code, reason = "each test file uses a part of it")]

use cow_format::{BLOCK_SIZE, Buf, BufPool, BufSlice};
use cow_io::{
    CreateOptions, Driver, DriverChoice, DriverOptions, Image, IoDone, IoError, IoOp, IoRequest,
    open_driver,
};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
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

/// What drivers are tested as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    /// io_uring, all buffers in ordinary memory.
    Uring,
    /// io_uring, buffers from its arena, registered.
    Fixed,
    /// A pool of threads.
    Threads,
}

/// Small, so that some buffers find no room and are ordinary.
pub const ARENA_BYTES: usize = 4 << 20;

impl Setup {
    pub fn choice(self) -> DriverChoice {
        if self == Self::Threads { DriverChoice::Threads } else { DriverChoice::Uring }
    }

    pub fn options(self) -> DriverOptions {
        self.complete(DriverOptions::default())
    }

    fn complete(self, options: DriverOptions) -> DriverOptions {
        let buffer_bytes = if self == Self::Fixed { ARENA_BYTES } else { 0 };
        DriverOptions { buffer_bytes, fixed_buffers: self == Self::Fixed, ..options }
    }
}

/// Moves the memory of `op` to where the driver would like to have it. Slices of one buffer
/// become buffers of their own, neighbours or not.
fn rehouse(op: IoOp, pool: &BufPool) -> IoOp {
    let copy = |bytes: &[u8]| {
        let mut buf = pool.scratch(bytes.len() / BLOCK_SIZE);
        buf.copy_from_slice(bytes);
        buf
    };
    match op {
        IoOp::Read { offset, buf } => IoOp::Read { offset, buf: copy(&buf) },
        IoOp::Write { offset, bufs } => {
            let bufs = bufs.iter().map(|slice| BufSlice::whole(copy(slice))).collect();
            IoOp::Write { offset, bufs }
        }
        other => other,
    }
}

/// A driver in its reactor.
pub struct Reactor {
    pub driver: Box<dyn Driver>,
    /// Where all buffers are moved to, if they are to be fixed ones.
    pub buffers: Option<BufPool>,
    next_tag: u64,
    /// Fixed transfers that do not count.
    pub fixed_before: u64,
}

impl Reactor {
    pub fn new(image: Image, setup: Setup) -> Self {
        Self::with(image, setup, DriverOptions::default())
    }

    pub fn with(image: Image, setup: Setup, options: DriverOptions) -> Self {
        Self::of(open_driver(image, setup.choice(), &setup.complete(options)).unwrap())
    }

    pub fn of(driver: Box<dyn Driver>) -> Self {
        let buffers = driver.fixed_transfers().map(|_| driver.buffers());
        Self { buffers, driver, next_tag: 1000, fixed_before: 0 }
    }

    pub fn submit(&mut self, op: IoOp) -> u64 {
        let tag = self.next_tag;
        self.next_tag += 1;
        let op = match &self.buffers {
            Some(pool) => rehouse(op, pool),
            None => op,
        };
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

    /// How many transfers used fixed buffers.
    pub fn fixed(&self) -> u64 {
        let count = self.driver.fixed_transfers().map_or(0, |count| count.load(Ordering::Relaxed));
        count - self.fixed_before
    }

    /// Reads, and expects success.
    pub fn read(&mut self, offset: u64, blocks: usize) -> Buf {
        self.run(read(offset, blocks)).unwrap().unwrap()
    }
}

/// Whether a refusal to register buffers is the machine's affair: a kernel before 5.19, or a
/// limit of locked memory, which all of a user's processes share.
pub fn is_excused(refusal: &str) -> bool {
    ["Cannot allocate memory", "Invalid argument", "RLIMIT_MEMLOCK"]
        .iter()
        .any(|text| refusal.contains(text))
}

/// Runs each listed function once per setup.
#[macro_export]
macro_rules! for_all_setups {
    ($($(#[$attr:meta])* $name:ident),* $(,)?) => {
        mod uring {
            $(#[test] $(#[$attr])* fn $name() { super::$name($crate::common::Setup::Uring); })*
        }
        mod fixed {
            $(#[test] $(#[$attr])* fn $name() { super::$name($crate::common::Setup::Fixed); })*
        }
        mod threads {
            $(#[test] $(#[$attr])* fn $name() { super::$name($crate::common::Setup::Threads); })*
        }
    };
}
