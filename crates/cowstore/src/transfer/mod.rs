//! Raw disk images in and out.
//!
//! An import creates its volume marked with the property [`IMPORTING`] and takes the mark away
//! when everything is durable. So a volume that has it is unfinished: a failed import deletes it,
//! and after a crash the next opening for writing does.

mod export;
mod import;
mod magic;
mod source;

pub use crate::types::IMPORTING;
pub use export::{ExportFile, ExportOptions, export};
pub use import::{ImportOptions, import};
pub use magic::{Format, HEAD_BYTES, TAIL_BYTES};

use crate::error::Error;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// How far something has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// What is being done: `import`, `export`, `reclaim`.
    pub phase: String,
    /// Bytes done.
    pub done_bytes: u64,
    /// Bytes in all, where that is known.
    pub total_bytes: Option<u64>,
    /// All is done but for making it count: whoever asked can still have it given up.
    pub is_last: bool,
}

/// What a transfer moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Transferred {
    /// Length of the image.
    pub bytes: u64,
    /// Bytes of it that were not holes or zeros.
    pub data_bytes: u64,
}

/// Watches over a transfer.
pub struct Watch<'a> {
    /// Told how far it is, about ten times a second and at the end.
    pub progress: &'a mut dyn FnMut(Progress),
    /// Asked whether to give up.
    pub cancelled: &'a dyn Fn() -> bool,
}

/// Tells a [`Watch`] about one transfer.
pub(crate) struct Reporter<'w, 'a> {
    watch: &'w mut Watch<'a>,
    phase: &'static str,
    total_bytes: Option<u64>,
    last: Option<Instant>,
}

impl<'w, 'a> Reporter<'w, 'a> {
    pub(crate) fn new(
        watch: &'w mut Watch<'a>,
        phase: &'static str,
        total_bytes: Option<u64>,
    ) -> Self {
        Self { watch, phase, total_bytes, last: None }
    }

    /// Reports now and then; fails when the transfer shall end.
    pub(crate) fn at(&mut self, done_bytes: u64) -> Result<(), Error> {
        if self.last.is_none_or(|last| last.elapsed() >= Duration::from_millis(100)) {
            self.tell(done_bytes, false);
        }
        self.check()
    }

    /// Reports the end; fails when nobody wants it any more.
    pub(crate) fn end(&mut self, done_bytes: u64) -> Result<(), Error> {
        self.tell(done_bytes, true);
        self.check()
    }

    fn tell(&mut self, done_bytes: u64, is_last: bool) {
        self.last = Some(Instant::now());
        let (phase, total_bytes) = (self.phase.to_owned(), self.total_bytes);
        (self.watch.progress)(Progress { phase, done_bytes, total_bytes, is_last });
    }

    fn check(&self) -> Result<(), Error> {
        if (self.watch.cancelled)() {
            return Err(Error::Io { errno: libc::ECANCELED, op: self.phase, offset: 0 });
        }
        Ok(())
    }
}
