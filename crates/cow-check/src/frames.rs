//! Reads the frames of the journal one after the other.

use crate::context::Cx;
use cow_format::checkpoint::JournalPos;
use cow_format::frame::Frame;
use cow_format::{BLOCK_SIZE, Buf, Phys};
use cow_journal::{EndReason, Ring, Scanner, Step};

/// Blocks of the ring that are read at once.
const READ_AHEAD: u64 = 256;

/// What comes next in the journal.
pub(crate) enum Next {
    /// A frame, and the position after it.
    Frame(Frame, JournalPos),
    /// The journal ends; what stands there.
    End(EndReason, Vec<u8>),
    /// It cannot be read there.
    Unreadable(String),
}

/// See the module.
pub(crate) struct Frames {
    pub(crate) scanner: Scanner,
    ring: Ring,
    ahead: Option<(Phys, Buf)>,
}

impl Frames {
    pub(crate) fn new(ring: Ring, scanner: Scanner) -> Self {
        Self { scanner, ring, ahead: None }
    }

    pub(crate) fn next(&mut self, cx: &mut Cx<'_>) -> Next {
        loop {
            let (at, want) = self.scanner.want();
            let skip = match self.load(cx, at, want) {
                Ok(skip) => skip,
                Err(cause) => return Next::Unreadable(cause),
            };
            let Some((_, buf)) = &self.ahead else {
                return Next::Unreadable("nothing was read".to_owned());
            };
            match self.scanner.accept(&buf[skip..]) {
                Step::Frame(frame, after) => return Next::Frame(frame, after),
                Step::Pad => {}
                Step::End(reason) => {
                    let end = (skip + want as usize * BLOCK_SIZE).min(buf.len());
                    return Next::End(reason, buf[skip..end].to_vec());
                }
            }
        }
    }

    /// Makes sure that `want` blocks from `at` are in memory; where they begin there, in bytes.
    fn load(&mut self, cx: &mut Cx<'_>, at: Phys, want: u64) -> Result<usize, String> {
        if let Some((start, buf)) = &self.ahead {
            let end = start.0 + buf.block_count() as u64;
            if start.0 <= at.0 && at.0 + want <= end {
                return Ok((at.0 - start.0) as usize * BLOCK_SIZE);
            }
        }
        let ring_end = self.ring.start.0 + self.ring.blocks;
        let blocks = READ_AHEAD.max(want).min(ring_end - at.0);
        let buf = cx.read(at, blocks as usize)?;
        self.ahead = Some((at, buf));
        Ok(0)
    }
}
