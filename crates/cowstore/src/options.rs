//! How pools are created and opened.

use cow_engine::{AckMode, Config};
use cow_io::{DirectMode, DriverChoice, DriverOptions};
use std::env;
use std::path::PathBuf;

/// How a pool is opened.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Write nothing at all; shares the pool with other readers.
    pub read_only: bool,
    /// Which I/O driver.
    pub driver: DriverChoice,
    /// The sizes of the driver.
    pub driver_options: DriverOptions,
    /// Whether to bypass the page cache.
    pub direct: DirectMode,
    /// When writes are acknowledged.
    pub ack: AckMode,
    /// Memory.
    pub memory: Memory,
    /// What this process calls itself in the registry of holders; `None` for the name of its
    /// executable.
    pub program: Option<String>,
}

impl OpenOptions {
    pub(crate) fn program(&self) -> String {
        let executable = || {
            let path = env::args_os().next().map(PathBuf::from)?;
            Some(path.file_name()?.to_string_lossy().into_owned())
        };
        self.program.clone().or_else(executable).unwrap_or_else(|| "cowstore".into())
    }
}

/// How much memory a pool uses, beside what is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Bytes of changes since the last fold that trigger the next one. Twice as much may be in
    /// use while it runs.
    pub layer_bytes: usize,
    /// Bytes of the cache of map nodes.
    pub cache_bytes: usize,
}

impl Default for Memory {
    fn default() -> Self {
        let Config { layer_bytes, cache_bytes, .. } = Config::default();
        Self { layer_bytes, cache_bytes }
    }
}

/// How a pool is created.
#[derive(Clone, Debug, Default)]
pub struct CreateOptions {
    /// Its size, rounded down to whole blocks of 4 KiB. `None` for all of a block device.
    pub size_bytes: Option<u64>,
    /// Has the file system below reserve all the space now.
    pub preallocate: bool,
    /// Goes over what is there.
    pub force: bool,
    /// Size of the journal; `None` for a 32nd of the pool within 32 MiB and 4 GiB.
    pub journal_bytes: Option<u64>,
    /// Largest size that it may grow to; `None` for the larger of 1 TiB and 64 times its size.
    pub limit_bytes: Option<u64>,
    /// How it is opened afterwards.
    pub open: OpenOptions,
}

impl CreateOptions {
    /// A pool of `bytes` bytes, all else by default.
    pub fn with_size(bytes: u64) -> Self {
        Self { size_bytes: Some(bytes), ..Self::default() }
    }
}
