//! What has changed between two states: an iterator over pages of the engine's answer.

use crate::core::Core;
use crate::error::{Error, unexpected};
use crate::pool::Pool;
use crate::types::DiffPage;
use crate::volume::Export;
use cow_engine::{DiffQuery, DiffSide, Op, Reply};
use std::sync::Arc;

/// Extents of one page.
const PAGE: usize = 4096;

/// Bytes that differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// How two states are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiffOptions {
    /// Compare bytes: a block that was written again with equal bytes is no change. Without it one
    /// is, and no data is read at all.
    pub exact: bool,
}

/// See [`Pool::diff`]. After an error it ends.
pub struct Changes {
    core: Arc<Core>,
    from: Export,
    to: Export,
    exact: bool,
    page: std::vec::IntoIter<(u64, u64)>,
    next: Option<u64>,
    /// Grows as long as what follows touches it.
    held: Option<Change>,
}

impl Pool {
    /// What differs between two states of one family, each `VOL` or `VOL@SNAP`, in order; neighbours
    /// are one. A discard is a change, and beyond its end a state reads as zeros. It costs time that
    /// follows the change, not the size. What cannot be read counts as changed.
    ///
    /// Both are open until it is dropped, so neither can be deleted meanwhile. A volume that is
    /// written meanwhile is compared as of some moment between the beginning and the end, block by
    /// block: whoever wants one state of it takes a snapshot first.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` when the two have no common origin. Of an item: `Stale` when a volume
    /// was rolled back meanwhile.
    pub fn diff(&self, from: &str, to: &str, options: DiffOptions) -> Result<Changes, Error> {
        let from = self.open_export(from, false)?;
        let to = self.open_export(to, false)?;
        let DiffOptions { exact } = options;
        let mut changes = Changes {
            core: Arc::clone(&self.core),
            from,
            to,
            exact,
            page: Vec::new().into_iter(),
            next: Some(0),
            held: None,
        };
        changes.turn_page()?;
        Ok(changes)
    }

    /// One page of it, by any two sides.
    pub(crate) fn diff_page(&self, query: DiffQuery) -> Result<DiffPage, Error> {
        page(&self.core, query)
    }
}

fn page(core: &Core, query: DiffQuery) -> Result<DiffPage, Error> {
    match core.queue.call(Op::Diff(query))? {
        Reply::Diff { extents, next } => Ok(DiffPage { extents, next }),
        other => Err(unexpected(&other)),
    }
}

impl Export {
    /// This export as a side of a [`DiffQuery`].
    pub fn as_side(&self) -> DiffSide {
        DiffSide::Export(self.handle.id)
    }
}

impl Changes {
    fn turn_page(&mut self) -> Result<(), Error> {
        let Some(offset) = self.next.take() else { return Ok(()) };
        let (from, to) = (self.from.as_side(), self.to.as_side());
        let exact = self.exact;
        let query = DiffQuery { from, to, offset, len: u64::MAX, limit: PAGE, exact };
        let DiffPage { extents, next } = page(&self.core, query)?;
        if next.is_some_and(|next| next <= offset) {
            return Err(unexpected(&Reply::Diff { extents, next }));
        }
        (self.page, self.next) = (extents.into_iter(), next);
        Ok(())
    }
}

impl Iterator for Changes {
    type Item = Result<Change, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some((offset, len)) = self.page.next() else {
                if self.next.is_none() {
                    return self.held.take().map(Ok);
                }
                if let Err(error) = self.turn_page() {
                    self.held = None;
                    return Some(Err(error));
                }
                continue;
            };
            match &mut self.held {
                Some(held) if held.offset + held.len == offset => held.len += len,
                held => {
                    if let Some(done) = held.replace(Change { offset, len }) {
                        return Some(Ok(done));
                    }
                }
            }
        }
    }
}
