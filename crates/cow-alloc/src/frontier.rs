//! The streams, and the place of each. `seek.rs` says how they move.

/// Least lengths of the runs that are taken, in turn.
pub(crate) const LEVELS: [u32; 4] = [256, 64, 16, 1];
/// Blocks that a stream keeps others out of (8 MiB).
pub(crate) const WINDOW: u32 = 2048;
pub(crate) const STREAMS: usize = 3;

/// What blocks are for. Each stream writes to a place of its own, so that what is written
/// together lies together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Data of small scattered writes.
    Random,
    /// Data of long or sequential writes.
    Sequential,
    /// Map nodes, blobs and table chunks.
    Meta,
}

/// The place of one stream.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Frontier {
    pub zone: Option<u64>,
    /// The window `at..end`; if not `open`, the zone is still to be searched, from `at` on.
    pub at: u32,
    pub end: u32,
    pub open: bool,
    /// Index in [`LEVELS`].
    pub level: usize,
}

impl Frontier {
    pub fn is_in(&self, zone: u64) -> bool {
        self.zone == Some(zone)
    }

    /// Blocks right behind the stream were given back.
    pub fn rewind(&mut self, zone: u64, start: u32, len: u32) {
        if self.open && self.is_in(zone) && self.at == start + len {
            self.at = start;
        }
    }
}
